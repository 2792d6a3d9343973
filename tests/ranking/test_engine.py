import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_blender.errors import InputError, WorkError
from llm_blender.ranking import (
    STRATEGIES,
    bubble,
    comparison_count,
    full,
    knockout,
    make_strategy,
    rank_many,
    rank_with,
    ranking_from_scores,
)
from llm_blender.testing import FakeRanker

SETTINGS = settings(max_examples=10, deadline=None)
words = st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=8)
names = st.sampled_from(STRATEGIES)
noisy = FakeRanker(noise=3.0, order_bias=1.0)


class Spy:
    """A compare function that remembers its pools."""

    def __init__(self, candidates, logit=lambda left, right: noisy.logit("say", left, right)):
        self.candidates, self.logit, self.pools = candidates, logit, []

    def __call__(self, pool, advance):
        self.pools.append(pool)
        return [self.logit(self.candidates[i][left], self.candidates[i][right]) for i, left, right in pool]

    @property
    def pairs(self):
        """(prompt, text, text) of all pools."""
        return [
            (i, self.candidates[i][left], self.candidates[i][right]) for pool in self.pools for i, left, right in pool
        ]


def texts(n):
    return [f"candidate {i}" for i in range(n)]


@SETTINGS
@given(st.lists(words, min_size=1, max_size=4), names, st.integers(0, 9))
def test_a_ranking_does_not_depend_on_the_other_prompts(candidates, name, seed):
    together = rank_with(candidates, Spy(candidates), strategy=name, seed=seed, budget=20)
    for own, ranking in zip(candidates, together, strict=True):
        (alone,) = rank_with([own], Spy([own]), strategy=name, seed=seed, budget=20)
        assert ranking.to_dict() == alone.to_dict()


@SETTINGS
@given(st.lists(words, min_size=1, max_size=4), names)
def test_no_ordered_pair_of_texts_is_compared_twice_and_none_with_itself(candidates, name):
    spy = Spy(candidates)
    rankings = rank_with(candidates, spy, strategy=name, budget=20)
    assert len(set(spy.pairs)) == len(spy.pairs)
    assert all(left != right for _, left, right in spy.pairs)
    counted = [sum(prompt == i for prompt, _, _ in spy.pairs) for i in range(len(candidates))]
    assert [ranking.comparisons for ranking in rankings] == counted


@SETTINGS
@given(words)
def test_equal_texts_tie_in_full(candidates):
    (ranking,) = rank_with([candidates], Spy([candidates]), strategy="full")
    for i, text in enumerate(candidates):
        assert ranking.ranks[i] == ranking.ranks[candidates.index(text)]
        assert ranking.scores[i] == ranking.scores[candidates.index(text)]


def test_without_position_bias_one_order_is_asked_and_counted():
    candidates = [["b", "a", "b", "cc"], texts(3)]
    spy = Spy(candidates, lambda a, b: float(len(a) - len(b)))
    calls = []
    rankings = rank_with(
        candidates, spy, strategy="full", position_bias=False, progress=lambda *call: calls.append(call)
    )
    assert spy.pools == [[(0, 0, 1), (0, 0, 3), (0, 1, 3), (1, 0, 1), (1, 0, 2), (1, 1, 2)]]
    assert [ranking.comparisons for ranking in rankings] == [3, 3]
    assert calls[-1] == (6, 6)
    assert rankings[0].logits[3, 0] == rankings[0].logits[3, 2] == 1
    assert rankings[0].logits[0, 3] == -1
    assert not np.signbit(rankings[0].logits[1, 0])  # no -0.0


def test_all_texts_equal_need_no_ranker():
    candidates = [["same"] * 4, ["alone"]]
    first, second = rank_with(candidates, lambda pool, advance: pytest.fail("compared"), strategy="full")
    assert (first.ranks, first.comparisons, first.logits[0, 1]) == ((1, 1, 1, 1), 0, 0)
    assert (second.ranks, second.comparisons) == ((1,), 0)


def test_one_call_per_round_pools_all_prompts():
    candidates = [texts(8), texts(2), texts(5)]
    spy = Spy(candidates)
    rank_many(candidates, [knockout(8), bubble(2), full(5)], spy)
    assert [len(pool) for pool in spy.pools] == [8 + 2 + 20, 4, 2]


def test_a_pair_known_already_is_not_asked_again():
    def twice(n):
        once = yield [(0, 1), (1, 0), (0, 1)]
        again = yield [(1, 0), (0, 1), (1, 2)]
        nothing = yield []
        assert again[:2].tolist() == once[1::-1].tolist()
        assert nothing.shape == (0,)
        return ranking_from_scores("twice", np.zeros(n), np.zeros((n, n)))

    candidates = [texts(3)]
    spy = Spy(candidates)
    (ranking,) = rank_many(candidates, [twice(3)], spy)
    assert spy.pools == [[(0, 0, 1), (0, 1, 0)], [(0, 1, 2)]]
    assert ranking.comparisons == 3


@SETTINGS
@given(st.lists(st.integers(-50, 50), min_size=2, max_size=6), st.integers(0, 100), names)
def test_float_noise_cannot_turn_a_rank(strengths, seed, name):
    candidates = [[f"{i}" for i in range(len(strengths))]]
    noise = np.random.default_rng(seed).uniform(-4e-5, 4e-5, size=(len(strengths), len(strengths)))

    def exact(left, right):
        return (strengths[int(left)] - strengths[int(right)]) / 1000

    (clean,) = rank_with(candidates, Spy(candidates, exact), strategy=name)
    (shaken,) = rank_with(candidates, Spy(candidates, lambda a, b: exact(a, b) + noise[int(a), int(b)]), strategy=name)
    assert shaken.to_dict() == clean.to_dict()


def test_logits_of_a_ranking_are_those_of_the_ranker():
    candidates = [["a", "bb", "a"]]
    (ranking,) = rank_with(candidates, Spy(candidates, lambda a, b: len(a) - len(b) + 0.12345), strategy="full")
    expected = [[np.nan, -0.8766, 0], [1.1234, np.nan, 1.1234], [0, -0.8766, np.nan]]
    np.testing.assert_allclose(ranking.logits, expected, atol=1e-12)


def test_the_temperature_reaches_the_rankings():
    candidates = [["a", "bbb"]]
    (ranking,) = rank_with(candidates, Spy(candidates, lambda a, b: len(a) - len(b)), temperature=4)
    assert ranking.probability(1, 0) == pytest.approx(1 / (1 + np.exp(-2 / 4)))


@SETTINGS
@given(st.lists(words, min_size=1, max_size=3), names, st.integers(0, 3))
def test_progress_grows_and_reaches_its_total(candidates, name, batch):
    calls = []
    spy = Spy(candidates)

    def compare(pool, advance):
        for _ in range(0, len(pool), batch) if batch else []:
            advance(batch)
        return spy(pool, advance)

    rank_with(candidates, compare, strategy=name, budget=20, progress=lambda *call: calls.append(call))
    done = [call[0] for call in calls]
    assert done == sorted(done)
    assert all(now <= total for now, total in calls)
    if spy.pairs:
        assert calls[-1] == (len(spy.pairs), len(spy.pairs))


def test_progress_knows_the_total_from_the_start():
    calls = []
    candidates = [texts(9)] * 3
    rank_with(candidates, Spy(candidates), strategy="knockout", progress=lambda *call: calls.append(call))
    assert {total for _, total in calls} == {3 * comparison_count("knockout", 9)}
    assert [done for done, _ in calls] == [24, 36, 42, 48]


@pytest.mark.parametrize("given", [[1.0], [1.0, 2.0, 3.0], [[1.0], [2.0]], 1.0])
def test_the_wrong_number_of_logits_is_the_rankers_fault(given):
    with pytest.raises(WorkError, match="for 2 comparisons"):
        rank_with([["a", "b"]], lambda pool, advance: given)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_logit_that_is_not_finite_names_its_pair(bad):
    with pytest.raises(WorkError, match="prompt 1, candidates 1, 0"):
        rank_with([["a", "b"], ["c", "d"]], lambda pool, advance: [0, 0, 0, bad])


def test_a_prompt_without_candidates_is_named():
    with pytest.raises(InputError, match="Prompt 1 has no candidates"):
        rank_with([["a"], []], lambda pool, advance: [])


def test_each_prompt_needs_its_strategy():
    with pytest.raises(InputError, match="2 lists of candidates"):
        rank_many([["a"], ["b"]], [make_strategy("full", 1)], lambda pool, advance: [])


def test_the_temperature_is_above_zero():
    with pytest.raises(InputError, match="temperature"):
        rank_with([["a"]], lambda pool, advance: [], temperature=0)


def test_nothing_to_rank_is_fine():
    assert rank_with([], lambda pool, advance: []) == []
