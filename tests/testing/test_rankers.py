import doctest
import random

import pytest

import llm_blender.testing.rankers
from llm_blender.errors import InputError
from llm_blender.testing import FakeRanker
from llm_blender.types import Ranker


def test_it_is_a_ranker():
    assert isinstance(FakeRanker(), Ranker)


def test_its_example_runs():
    assert doctest.testmod(llm_blender.testing.rankers).failed == 0


def test_the_longer_is_the_better_unless_told_otherwise():
    texts = ["aa", "b", "ccc"]
    assert FakeRanker().rank("say", texts).order == (2, 0, 1)
    assert FakeRanker({"aa": 1, "b": 3, "ccc": 2}).rank("say", texts).order == (1, 2, 0)
    assert FakeRanker(lambda text: -len(text)).rank("say", texts).order == (1, 0, 2)


def test_order_bias_is_added_to_what_is_read_first():
    ranker = FakeRanker(order_bias=2.5)
    assert ranker.logit("say", "a", "bb") == 1.5
    assert ranker.logit("say", "bb", "a") == 3.5
    comparison = ranker.compare("say", "bb", "a")
    assert (comparison.logit, comparison.winner) == (1, "A")


def test_noise_depends_on_seed_instruction_and_ordered_pair_only():
    ranker = FakeRanker(noise=1.0)
    logit = ranker.logit("say", "a", "b")
    assert FakeRanker(noise=1.0).logit([{"role": "user", "content": "say"}], "a", "b") == logit
    others = [
        ranker.logit("tell", "a", "b"),
        ranker.logit("say", "b", "a"),
        ranker.logit("say", "a", "c"),
        FakeRanker(noise=1.0, seed=1).logit("say", "a", "b"),
    ]
    assert len({logit, *others}) == 5


def test_noise_has_the_deviation_asked_for():
    ranker = FakeRanker(lambda text: 0.0, noise=2.0)
    errors = [ranker.logit(str(i), "a", "b") for i in range(2000)]
    assert (sum(error**2 for error in errors) / 2000) ** 0.5 == pytest.approx(2.0, rel=0.1)


def test_it_remembers_what_it_was_asked():
    ranker = FakeRanker()
    rankings = ranker.rank_many(["say", "tell"], [["a", "bb"], ["a", "bb", "ccc", "dddd"]], strategy="knockout")
    assert [len(batch) for batch in ranker.batches] == [2 + 4, 2]
    assert set(ranker.batches[0][:2]) == {("say", "a", "bb"), ("say", "bb", "a")}
    assert ranker.comparisons == sum(ranking.comparisons for ranking in rankings) == 8
    ranker.compare("say", "a", "bb")
    assert ranker.comparisons == 10


def test_strategy_seed_budget_and_temperature_are_heard():
    ranker = FakeRanker(temperature=3.0)
    texts = ["x" * i for i in range(1, 9)]
    (ranking,) = ranker.rank_many(["say"], [texts], budget=56)
    assert (ranking.strategy, ranking.comparisons, ranking.temperature) == ("full", 56, 3.0)
    (ranking,) = ranker.rank_many(["say"], [texts], strategy="top_k", k=2)
    assert ranking.order[:2] == (7, 6)
    first = [FakeRanker() for _ in range(2)]
    for seed, fake in enumerate(first):
        fake.rank("say", texts, strategy="bubble", seed=seed)
    assert first[0].batches != first[1].batches


def test_progress_is_passed_on():
    calls = []
    FakeRanker().rank_many(["say"], [["a", "bb"]], progress=lambda *call: calls.append(call))
    assert calls == [(2, 2)]


def test_lists_of_different_length_are_refused():
    with pytest.raises(InputError, match="2 instructions"):
        FakeRanker().rank_many(["say", "tell"], [["a"]])


@pytest.mark.parametrize(
    ("instructions", "candidates", "message"),
    [
        ("ab", [["a"], ["b"]], "The instructions must be a list"),
        (["say"], ["text"], "must be a list of texts, not str"),
        (["say"], [["a", None]], "Candidate 1 of instruction 0 must be a text, not NoneType"),
    ],
)
def test_it_refuses_what_the_real_ones_refuse(instructions, candidates, message):
    with pytest.raises(InputError, match=message):
        FakeRanker().rank_many(instructions, candidates)


def test_lone_surrogates_have_noise_too():
    ranker = FakeRanker(lambda text: 0.0, noise=1.0)
    assert ranker.logit("say", "\ud800", "b") != ranker.logit("say", "\ud801", "b")
    assert ranker.logit("say", "a", "b") == pytest.approx(random.Random("0\0say\0a\0b").gauss(0, 1))
