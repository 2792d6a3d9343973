from llm_blender.bench.judged_pairs import TextPair, compare_pairs
from llm_blender.testing import FakeRanker


def test_each_pair_is_compared_in_both_orders_as_it_is_asked():
    ranker = FakeRanker(order_bias=0.5, temperature=2.0)
    (comparison,) = compare_pairs(ranker, [TextPair("say", "bbb", "a")])
    assert (comparison.forward, comparison.backward, comparison.logit) == (2.5, -1.5, 2.0)
    assert comparison.probability == ranker.compare("say", "bbb", "a").probability


def test_a_pair_is_compared_once_whatever_its_order_and_number():
    ranker = FakeRanker(noise=1.0)
    pairs = [
        TextPair("say", "a", "bb"),
        TextPair("say", "bb", "a"),
        TextPair("say", "a", "bb"),
        TextPair("tell", "a", "bb"),
    ]
    first, swapped, again, other = compare_pairs(ranker, pairs)
    assert ranker.comparisons == 4
    assert len(ranker.batches) == 1
    assert (first, first.logit) == (again, -swapped.logit)
    assert other != first


def test_a_text_is_as_good_as_itself():
    (comparison,) = compare_pairs(FakeRanker(order_bias=3.0), [TextPair("say", "a", "a")])
    assert comparison.winner == "tie"
