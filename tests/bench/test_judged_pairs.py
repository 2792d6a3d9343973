import pytest

from llm_blender.bench import BenchRow, implied_pairs, labelled_pairs
from llm_blender.bench.judged_pairs import TextPair, compare_pairs
from llm_blender.errors import InputError
from llm_blender.testing import FakeRanker
from llm_blender.types import Candidate

from .conftest import labelled_row

ROWS = [
    labelled_row("one", ["a", "bb", "cc"], (0, 1, "a"), (2, 0, "a"), (1, 2, "tie"), source="x"),
    labelled_row("two", ["long one", "short"], (0, 1, "b"), source="y"),
    labelled_row("one", ["a", "b"], (0, 1, "tie"), source="z"),
]


def texts(pairs):
    return [(pair.prompt, pair.a, pair.b) for pair in pairs]


def test_labelled_pairs_leave_out_ties_and_count_them():
    judged = labelled_pairs("rows.jsonl", ROWS)
    assert texts(judged.pairs) == [("one", "a", "bb"), ("one", "cc", "a"), ("two", "long one", "short")]
    assert judged.a_wins == (True, True, False)
    assert judged.sides.tolist() == [1, 1, -1]
    assert judged.groups[0] == judged.groups[1] != judged.groups[2]
    assert (judged.ties, judged.subset, judged.parts()) == (2, None, [])


def test_implied_pairs_are_those_whose_scores_differ():
    rows = [
        BenchRow("one", tuple(map(Candidate, "abc")), (0.0, 1.0, 1.0)),
        BenchRow("two", tuple(map(Candidate, "de")), (1, 0), extra={"source": "y"}),
    ]
    judged = implied_pairs("rows.jsonl", rows)
    assert texts(judged.pairs) == [("one", "a", "b"), ("one", "a", "c"), ("two", "d", "e")]
    assert judged.a_wins == (False, False, True)
    assert judged.ties == 1
    (rest, _), (part, _) = implied_pairs("rows.jsonl", rows, by="source").parts()
    assert (rest.subset, len(rest.pairs), rest.ties) == ("(none)", 2, 1)
    assert (part.subset, len(part.pairs), part.ties) == ("y", 1, 0)


def test_parts_by_a_key_of_the_rows_leave_out_those_with_ties_alone():
    judged = labelled_pairs("rows.jsonl", ROWS, by="source")
    (x, places), (y, others) = judged.parts()
    assert (x.file, x.subset, texts(x.pairs), x.a_wins, x.ties) == (
        "rows.jsonl", "x", [("one", "a", "bb"), ("one", "cc", "a")], (True, True), 1
    )  # fmt: skip
    assert (y.subset, texts(y.pairs), y.ties) == ("y", [("two", "long one", "short")], 0)
    assert (places.tolist(), others.tolist()) == ([0, 1], [2])
    assert (judged.ties, x.groups, y.groups) == (2, judged.groups[:2], judged.groups[2:])


def test_nothing_to_agree_with_is_refused():
    with pytest.raises(InputError, match=r"x\.jsonl holds no labelled pairs"):
        labelled_pairs("x.jsonl", [labelled_row("one", ["a", "b"])])
    with pytest.raises(InputError, match="only ties: 1"):
        labelled_pairs("x.jsonl", [labelled_row("one", ["a", "b"], (0, 1, "tie"))])
    with pytest.raises(InputError, match="Unknown key 'sauce': did you mean 'source'"):
        labelled_pairs("x.jsonl", ROWS, by="sauce")


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
