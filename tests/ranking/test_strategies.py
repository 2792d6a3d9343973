from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_blender.errors import InputError
from llm_blender.ranking import (
    DUEL,
    STRATEGIES,
    active,
    bubble,
    comparison_count,
    duel,
    find_aggregation,
    full,
    knockout,
    make_strategy,
    rank_many,
    rank_with,
    single,
    top_k,
)

NAMES = [name for name in STRATEGIES if name != "auto"]
BOTH_ORDERS = [name for name in NAMES if name != "single"]
SETTINGS = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**32)


def rank(strategy, logits):
    """Run a strategy by hand; return the ranking, and the requested pairs of each round."""
    rounds, answers = [], None
    try:
        while True:
            rounds.append(strategy.send(answers))
            answers = np.array([logits[i, j] for i, j in rounds[-1]])
    except StopIteration as stop:
        return stop.value, rounds


def random_logits(n, seed):
    """Draw logits of an inconsistent ranker, in quarters, so that sums are exact."""
    return np.random.default_rng(seed).integers(-40, 40, size=(n, n)) / 4


def consistent_logits(n, seed):
    """Return logits of a ranker that is always right, and its order, best first."""
    order = np.random.default_rng(seed).permutation(n)
    strengths = np.empty(n)
    strengths[order] = np.arange(n, 0, -1)
    return np.tanh((strengths[:, None] - strengths[None, :]) / 4), order.tolist()


@SETTINGS
@given(st.integers(1, 12), seeds, st.sampled_from(NAMES), st.integers(0, 3))
def test_with_a_consistent_ranker_every_strategy_finds_the_best(n, world, name, seed):
    logits, order = consistent_logits(n, world)
    ranking, _ = rank(make_strategy(name, n, seed=seed, budget=132), logits)
    assert ranking.best == ranking.order[0] == order[0]
    assert ranking.ranks[order[0]] == 1
    assert ranking.strategy == name
    assert sorted(ranking.order) == list(range(n))


@SETTINGS
@given(st.integers(1, 30), seeds, st.integers(1, 8), st.integers(0, 3))
def test_top_k_puts_the_k_best_in_order(n, world, k, seed):
    logits, order = consistent_logits(n, world)
    ranking, _ = rank(top_k(n, k=k, seed=seed), logits)
    assert list(ranking.order[:k]) == order[:k]
    assert ranking.ranks[order[min(k, n) - 1]] == min(k, n)


@SETTINGS
@given(st.integers(2, 8), seeds, seeds, st.sampled_from(["max_logits", "max_wins"]))
def test_full_does_not_care_where_a_candidate_stands(n, world, shuffle, aggregation):
    logits = random_logits(n, world)
    permutation = np.random.default_rng(shuffle).permutation(n)
    ranking, _ = rank(full(n, aggregation=aggregation), logits)
    permuted, _ = rank(full(n, aggregation=aggregation), logits[np.ix_(permutation, permutation)])
    assert permuted.ranks == tuple(ranking.ranks[i] for i in permutation)
    assert permuted.scores == tuple(ranking.scores[i] for i in permutation)


@SETTINGS
@given(st.integers(1, 24), seeds, st.sampled_from(NAMES), st.integers(2, 100), st.integers(1, 5))
def test_comparisons_are_as_many_as_promised(n, world, name, budget, k):
    ranking, rounds = rank(make_strategy(name, n, budget=budget, k=k), random_logits(n, world))
    requested = [pair for pairs in rounds for pair in pairs]
    promised = comparison_count(name, n, budget=budget, k=k)
    assert len(requested) <= promised if name == "top_k" else len(requested) == promised
    assert len(set(requested)) == len(requested) == ranking.comparisons
    assert all(i != j for i, j in requested)
    assert {(int(i), int(j)) for i, j in np.argwhere(~np.isnan(ranking.logits))} == set(requested)


def test_the_formulas():
    ordered = {name: comparison_count(name, 11, budget=41, k=3) for name in STRATEGIES}
    assert ordered == {
        "auto": 32,
        "full": 110,
        "single": 55,
        "bubble": 20,
        "knockout": 20,
        "top_k": 32,
        "active": 40,
    }
    unordered = {name: comparison_count(name, 11, budget=41, k=3, position_bias=False) for name in STRATEGIES}
    assert unordered == {
        "auto": 16,
        "full": 55,
        "single": 55,
        "bubble": 10,
        "knockout": 10,
        "top_k": 16,
        "active": 41,
    }
    assert comparison_count(DUEL, 3) == 2 * comparison_count(DUEL, 3, position_bias=False) == 2


@SETTINGS
@given(st.integers(2, 12), seeds, st.sampled_from(BOTH_ORDERS), st.integers(-20, 20))
def test_a_preference_for_a_place_cancels_where_both_orders_are_read(n, world, name, bias):
    logits = random_logits(n, world)
    honest, _ = rank(make_strategy(name, n, budget=30), logits)
    biased, _ = rank(make_strategy(name, n, budget=30), logits + bias)
    assert biased.ranks == honest.ranks
    assert biased.scores == honest.scores


@SETTINGS
@given(st.integers(1, 6).map(lambda half: 2 * half + 1), seeds, st.integers(-20, 20), seeds)
def test_a_preference_for_a_place_cancels_in_single_if_n_is_odd(n, world, bias, seed):
    logits = random_logits(n, world)
    honest, _ = rank(single(n, seed=seed), logits)
    biased, _ = rank(single(n, seed=seed), logits + bias)
    assert biased.scores == honest.scores


@pytest.mark.parametrize("n", [2, 3, 10, 11])
def test_single_reads_everybody_first_equally_often(n):
    _, [pairs] = rank(single(n, seed=5), np.zeros((n, n)))
    first = Counter(i for i, _ in pairs)
    assert max(first[i] for i in range(n)) - min(first[i] for i in range(n)) == (n + 1) % 2
    assert len({frozenset(pair) for pair in pairs}) == n * (n - 1) // 2


@SETTINGS
@given(st.integers(1, 6), seeds, st.integers(0, 20))
def test_active_with_budget_enough_is_full(n, world, more):
    logits = random_logits(n, world)
    spent, _ = rank(active(n, budget=max(n * (n - 1), 2) + more), logits)
    everything, _ = rank(full(n), logits)
    assert (spent.ranks, spent.scores) == (everything.ranks, everything.scores)
    np.testing.assert_array_equal(spent.logits, everything.logits)
    assert spent.strategy == "active"


@SETTINGS
@given(st.integers(3, 9), seeds, st.sampled_from([0.25, 4, 64]))
def test_active_chooses_the_same_pairs_whatever_the_unit_of_the_logits(n, world, unit):
    logits = random_logits(n, world) + 0.01 * np.random.default_rng(world).normal(size=(n, n))
    _, rounds = rank(active(n, budget=2 * n), logits)
    _, rescaled = rank(active(n, budget=2 * n), logits * unit)
    assert rescaled == rounds


def test_active_spends_its_budget_better_than_a_knockout():
    rng, n, worlds = np.random.default_rng(0), 11, 60
    strengths = rng.normal(size=(worlds, n))
    logits = strengths[:, :, None] - strengths[:, None, :] + rng.normal(size=(worlds, n, n))
    texts = [[str(i) for i in range(n)]] * worlds

    def hits(make):
        rankings = rank_many(texts, [make(n) for _ in texts], lambda pool, _: [logits[entry] for entry in pool])
        return np.mean([ranking.best == s.argmax() for ranking, s in zip(rankings, strengths, strict=True)])

    assert hits(active) > hits(knockout) + 0.08


def test_active_leaves_the_hopeless_alone():
    opponents = np.zeros(11)
    for world in range(20):
        logits, order = consistent_logits(11, world)
        ranking, _ = rank(active(11), logits)
        opponents += (~np.isnan(ranking.logits)).sum(axis=1)[order]
    assert opponents[:3].sum() > 1.5 * opponents[-3:].sum()


@pytest.mark.parametrize("n", [2, 3, 7])
def test_a_duel_reads_the_first_two_in_both_orders_and_nothing_else(n):
    logits = random_logits(n, 1)
    logits[0, 1], logits[1, 0] = 1.0, 2.0
    ranking, rounds = rank(duel(n), logits)
    assert rounds == [[(0, 1), (1, 0)]]
    assert (ranking.best, ranking.order[:2], ranking.strategy) == (1, (1, 0), DUEL)
    assert ranking.ranks == (2, 1, *[3] * (n - 2))
    assert ranking.logit(1, 0) == 0.5
    assert np.isfinite(ranking.logits).sum() == 2


def test_a_duel_is_made_by_name_and_is_no_way_to_rank_all():
    assert DUEL not in STRATEGIES
    assert comparison_count(DUEL, 5) == 2
    (ranking,) = rank_with([["a", "bbb", "cc"]], lambda pool, advance: [len(pool) * 1.0] * len(pool), strategy=DUEL)
    assert (ranking.comparisons, ranking.probability(0, 1)) == (2, 0.5)
    with pytest.raises(InputError, match="at least two"):
        make_strategy(DUEL, 1)


@pytest.mark.parametrize("strategy", [bubble, knockout])
def test_in_a_tie_the_challenger_wins(strategy):
    ranking, [[(first, challenger), backward]] = rank(strategy(2, seed=1), np.ones((2, 2)))
    assert backward == (challenger, first)
    assert ranking.order == (challenger, first)


def test_bubble_ranks_by_the_order_in_which_they_went_out():
    logits, _ = consistent_logits(5, 2)
    ranking, rounds = rank(bubble(5), logits)
    losers = [max(pairs[0], key=lambda i: ranking.ranks[i]) for pairs in rounds]
    assert [ranking.ranks[loser] for loser in losers] == [5, 4, 3, 2]


def test_knockout_plays_a_round_at_once_and_ties_its_losers():
    logits, order = consistent_logits(8, 0)
    ranking, rounds = rank(knockout(8), logits)
    assert [len(pairs) for pairs in rounds] == [8, 4, 2]
    assert sorted(ranking.ranks) == [1, 2, 3, 3, 5, 5, 5, 5]
    assert ranking.best == order[0]


def test_a_bye_is_not_given_twice():
    _, rounds = rank(knockout(5), np.zeros((5, 5)))
    players = [{i for pair in pairs for i in pair} for pairs in rounds]
    (bye,) = set(range(5)) - players[0]
    assert bye in players[1]
    assert [len(pairs) for pairs in rounds] == [4, 2, 2]


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"full"}))
def test_the_seed_draws_and_nothing_else(name):
    logits = np.zeros((9, 9))
    runs = [rank(make_strategy(name, 9, seed=seed), logits)[1] for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("name", STRATEGIES)
def test_one_candidate_wins_without_a_comparison(name):
    ranking, rounds = rank(make_strategy(name, 1), np.zeros((1, 1)))
    assert (ranking.best, ranking.order, ranking.ranks, ranking.comparisons) == (0, (0,), (1,), 0)
    assert rounds == []
    assert comparison_count(name, 1) == 0


@pytest.mark.parametrize("name", STRATEGIES)
def test_no_candidates_is_an_error(name):
    with pytest.raises(InputError, match="no candidates"):
        make_strategy(name, 0)


@pytest.mark.parametrize("strategy", [full, single, bubble, knockout, top_k, active])
def test_no_candidates_is_an_error_by_hand_too(strategy):
    with pytest.raises(InputError, match="no candidates"):
        next(strategy(0))


@pytest.mark.parametrize(
    ("n", "budget", "k", "position_bias", "chosen"),
    [
        (6, 40, None, True, "full"),
        (7, 40, None, True, "top_k"),
        (7, 42, None, True, "full"),
        (6, 40, 1, True, "full"),
        (7, 40, 1, True, "knockout"),
        (7, 40, 2, True, "top_k"),
        (9, 40, None, False, "full"),
        (10, 40, None, False, "top_k"),
        (10, 45, None, False, "full"),
        (3, 40, 1, False, "full"),
        (4, 40, 1, False, "knockout"),
        (3, 2, 1, False, "knockout"),
        (10, 40, 5, False, "top_k"),
    ],
)
def test_auto_chooses_by_what_is_wanted_and_by_the_budget(n, budget, k, position_bias, chosen):
    options = {"budget": budget, "k": k, "position_bias": position_bias}
    ranking, _ = rank(make_strategy("auto", n, **options), random_logits(n, 0))
    assert ranking.strategy == chosen
    assert comparison_count("auto", n, **options) == comparison_count(chosen, n, **options)


def test_auto_puts_as_many_in_order_as_are_wanted():
    logits, order = consistent_logits(30, 1)
    for k in (2, 6):
        ranking, _ = rank(make_strategy("auto", 30, k=k, position_bias=False), logits)
        assert list(ranking.order[:k]) == order[:k]


@SETTINGS
@given(st.integers(1, 16), seeds, st.sampled_from([*NAMES, "auto"]), st.integers(2, 100), st.integers(1, 5))
def test_without_position_bias_comparisons_are_unordered_pairs(n, world, name, budget, k):
    logits = random_logits(n, world)
    logits -= logits.T
    asked = []

    def compare(pool, advance):
        asked.extend((left, right) for _, left, right in pool)
        return [logits[left, right] for _, left, right in pool]

    options = {"strategy": name, "budget": budget, "k": k, "seed": 2}
    texts = [[str(i) for i in range(n)]]
    (ranking,) = rank_with(texts, compare, position_bias=False, **options)
    assert all(i < j for i, j in asked)
    assert len(set(asked)) == len(asked) == ranking.comparisons
    promised = comparison_count(name, n, budget=budget, k=k, position_bias=False)
    assert len(asked) <= promised if ranking.strategy == "top_k" else len(asked) == promised
    np.testing.assert_array_equal(ranking.logits, -ranking.logits.T)
    if name not in ("auto", "active", "single"):  # which compare other pairs where each costs two
        (ordered,) = rank_with(texts, compare_any(logits), **options)
        assert ordered.to_dict() | {"comparisons": 0} == ranking.to_dict() | {"comparisons": 0}
        assert ordered.comparisons == 2 * ranking.comparisons


def compare_any(logits):
    return lambda pool, advance: [logits[left, right] for _, left, right in pool]


def test_single_without_position_bias_is_full():
    logits = random_logits(6, 4)
    logits -= logits.T
    one, whole = (
        rank_with([list("abcdef")], compare_any(logits), strategy=name, position_bias=False)[0]
        for name in ("single", "full")
    )
    assert one.to_dict() == whole.to_dict() | {"strategy": "single"}


@pytest.mark.parametrize("aggregation", ["max_logits", "max_wins", "bradley_terry"])
@pytest.mark.parametrize("name", ["full", "single"])
def test_the_aggregation_can_be_chosen(name, aggregation):
    ranking, _ = rank(make_strategy(name, 5, aggregation=aggregation), random_logits(5, 3))
    assert ranking.scores == tuple(find_aggregation(aggregation)(ranking.logits))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "buble"}, "did you mean 'bubble'"),
        ({"name": "full", "aggregation": "wins"}, "did you mean 'max_wins'"),
        ({"name": "top_k", "k": 0}, "at least 1"),
        ({"name": "active", "budget": 1}, "at least 2"),
    ],
)
def test_wrong_options_are_refused_at_once(wrong, message):
    with pytest.raises(InputError, match=message):
        make_strategy(n=3, **wrong)


def test_a_seed_is_not_negative():
    with pytest.raises(InputError, match="seed"):
        next(bubble(3, seed=-1))
