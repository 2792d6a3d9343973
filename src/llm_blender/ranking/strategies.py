"""Strategies: which pairs to compare next.

A strategy is a generator: it yields ordered pairs to compare, receives their logits, and returns a `Ranking`. It is
independent of models; `engine.rank_many` runs many at a time. One runs by hand like this::

    strategy = bubble(4, seed=0)
    pairs = next(strategy)                  # [(2, 0), (0, 2)]
    pairs = strategy.send(logits_of(pairs)) # until StopIteration, whose value is the ranking

A logit l(i, j) above zero means that candidate i, read first, is better than j. Most rankers have a position bias, so
all strategies but `single` read each pair in both orders and use (l(i,j) − l(j,i)) / 2. A ranker without one, whose
l(j, i) is −l(i, j) by construction, computes each pair once: the engine fills in the other order, and a comparison is
one unordered pair.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from itertools import combinations, permutations

import numpy as np
from numpy.typing import NDArray

from llm_blender.errors import InputError, unknown_name
from llm_blender.ranking.aggregation import Posterior, find_aggregation, ranking_from_elimination, ranking_from_scores
from llm_blender.types import Ranking

Pairs = list[tuple[int, int]]
"""Ordered pairs of 0-based candidates, the one read first as the first item."""
Strategy = Generator[Pairs, NDArray[np.float64], Ranking]
"""Yields pairs, receives their logits in the same order, returns the ranking."""

DEFAULT_BUDGET = 40
"""Comparisons that `auto` and `active` may spend on one instruction: ordered pairs, or unordered ones without position
bias."""
DEFAULT_TOP_K = 3
"""Number of candidates that `top_k` puts in order: as many as the paper gives to the fuser."""
_KNOCKOUT_FROM = 4
"""Number of candidates from which `auto` runs a knockout where only the best is wanted, see ``docs/speed.md``."""


def full(n: int, *, aggregation: str = "max_logits") -> Strategy:
    """Compare both orders of every pair: N(N − 1) comparisons (arXiv 2306.02561, section 4.2).

    Args:
        n: number of candidates.
        aggregation: one of `AGGREGATIONS`.
    """
    logits, scores_of = _nothing_compared(n), find_aggregation(aggregation)
    yield from _compare(logits, list(permutations(range(n), 2)))
    return ranking_from_scores("full", scores_of(logits), logits)


def single(n: int, *, seed: int = 0, aggregation: str = "max_logits") -> Strategy:
    """Compare every pair once, N(N − 1)/2 comparisons: half the cost of `full`, but exposed to position bias.

    Reading orders are drawn so that all candidates are read first equally often, as nearly as N allows: on a
    circle in random order, each is read before the half of the others that follows it. A constant preference
    for the first position then cancels out of MaxLogits if N is odd.

    Args:
        n: number of candidates.
        seed: of the reading orders.
        aggregation: one of `AGGREGATIONS`.
    """
    logits, scores_of = _nothing_compared(n), find_aggregation(aggregation)
    seats = _permutation(n, seed)
    pairs = [(a, b) if 2 * (b - a) <= n else (b, a) for a, b in combinations(range(n), 2)]
    yield from _compare(logits, [(seats[a], seats[b]) for a, b in pairs])
    return ranking_from_scores("single", scores_of(logits), logits)


def bubble(n: int, *, seed: int = 0) -> Strategy:
    """Compare the best so far with one challenger after the other: 2(N − 1) comparisons in N − 1 rounds.

    Finds the best only (arXiv 2306.02561, section 4.2); `knockout` costs the same and takes ⌈log₂ N⌉ rounds.

    Args:
        n: number of candidates.
        seed: of the order of the challengers.
    """
    logits, (best, *challengers) = _nothing_compared(n), _permutation(n, seed)
    out = []
    for challenger in challengers:
        ((best, beaten),) = yield from _play(logits, [(best, challenger)])
        out.append([beaten])
    return ranking_from_elimination("bubble", [*out, [best]], logits)


def knockout(n: int, *, seed: int = 0) -> Strategy:
    """Run a knockout tournament: 2(N − 1) comparisons in ⌈log₂ N⌉ rounds. Finds the best only.

    Args:
        n: number of candidates.
        seed: of the draw.
    """
    logits, standing = _nothing_compared(n), _permutation(n, seed)
    out = []
    while len(standing) > 1:
        matches, bye = _matches(standing)
        results = yield from _play(logits, matches)
        standing = bye + [winner for winner, _ in results]
        out.append([loser for _, loser in results])
    return ranking_from_elimination("knockout", [*out, standing], logits)


def top_k(n: int, *, k: int = DEFAULT_TOP_K, seed: int = 0) -> Strategy:
    """Put the k best in order, in at most 2((N − 1) + (k − 1)(⌈log₂ N⌉ − 1)) comparisons.

    A knockout finds the first. The next one is among those that lost to the last one found: they climb a ladder
    in the order of their losses, which replays the winner's path through the tournament (tournament sort; Knuth,
    The Art of Computer Programming 3, section 5.2.3). No pair is compared twice.

    Args:
        n: number of candidates.
        k: number of candidates to put in order; the rest rank by elimination.
        seed: of the draw.

    Raises:
        InputError: k is below 1.
    """
    _check_k(k)
    logits, standing = _nothing_compared(n), _permutation(n, seed)
    beaten_by: list[list[int]] = [[] for _ in range(n)]
    out = []
    while len(standing) > 1:
        matches, bye = _matches(standing)
        results = yield from _play(logits, matches)
        for winner, loser in results:
            beaten_by[winner].append(loser)
        standing = bye + [winner for winner, _ in results]
        out.append([loser for _, loser in results])
    podium = standing
    while len(podium) < min(k, n):
        climber, *ladder = beaten_by[podium[-1]]
        for challenger in ladder:
            ((climber, loser),) = yield from _play(logits, [(climber, challenger)])
            beaten_by[climber].append(loser)
            out.append([loser])
        podium.append(climber)
    return ranking_from_elimination("top_k", [*out, *([place] for place in reversed(podium))], logits)


def active(n: int, *, budget: int = DEFAULT_BUDGET, seed: int = 0) -> Strategy:
    """Spend a budget on the pairs whose order is least certain.

    A first round gives each candidate one opponent. Then, pair by pair, it compares two candidates that may both
    be the best and whose difference is least certain, by a Gaussian model of the strengths. Scores are twice the
    model's means, on the scale of MaxLogits. With a budget of N(N − 1) or more it is `full`.

    Args:
        n: number of candidates.
        budget: comparisons to spend; an odd one is not used, since a pair takes two.
        seed: of the first round.

    Raises:
        InputError: the budget is below 2.
    """
    _check_budget(budget)
    logits = _nothing_compared(n)
    if budget >= n * (n - 1):
        return (yield from _renamed("active", full(n)))
    opening = _matches(_permutation(n, seed))[0][: budget // 2]
    yield from _play(logits, opening)
    for _ in range(budget // 2 - len(opening)):
        yield from _play(logits, [Posterior.of(logits).most_doubtful_pair()])
    scores = (2 * Posterior.of(logits).mean).round(9) + 0.0  # further digits are noise of matrix inversion
    return ranking_from_scores("active", scores, logits)


def duel(n: int) -> Strategy:
    """Compare the first two candidates in both orders; the others count only in the evidence, such as the consensus.

    Args:
        n: number of candidates, two or more.
    """
    logits = _nothing_compared(n)
    ((winner, loser),) = yield from _play(logits, [(0, 1)])
    return ranking_from_elimination(DUEL, [list(range(2, n)), [loser], [winner]], logits)


DUEL = "duel"
"""Name of `duel`, which `make_strategy` accepts; it is none of `STRATEGIES`, since it does not rank the others."""
STRATEGIES = ("auto", "full", "single", "bubble", "knockout", "top_k", "active")
"""Names of the strategies that rank all candidates."""


def make_strategy(
    name: str,
    n: int,
    *,
    seed: int = 0,
    budget: int = DEFAULT_BUDGET,
    k: int | None = None,
    aggregation: str = "max_logits",
    position_bias: bool = True,
) -> Strategy:
    """Make a strategy by name for n candidates; it uses the options it needs.

    Args:
        name: one of `STRATEGIES`, or `DUEL`. ``auto`` is `full` where that fits the budget; beyond, `top_k`, or
            `knockout` if `k` is 1. Without position bias and with `k` = 1 it is `knockout` from four candidates on.
        n: number of candidates.
        seed: of all draws.
        budget: comparisons that ``auto`` and ``active`` may spend.
        k: number of candidates wanted in order: 1 for only the best; None for an order of all, where ``top_k`` makes
            the first `DEFAULT_TOP_K` sure.
        aggregation: of ``full`` and ``single``.
        position_bias: whether the ranker has one; without it a comparison is one unordered pair, and ``single`` is
            `full`.

    Raises:
        InputError: the name is unknown, there are no candidates, or an option is out of range.
    """
    find_aggregation(aggregation)
    # Raise errors now, not when the generator starts.
    comparison_count(name, n, budget=budget, k=k, position_bias=position_bias)
    podium = DEFAULT_TOP_K if k is None else k
    makers: dict[str, Callable[[], Strategy]] = {
        "full": lambda: full(n, aggregation=aggregation),
        "single": lambda: (
            single(n, seed=seed, aggregation=aggregation)
            if position_bias
            else _renamed("single", full(n, aggregation=aggregation))
        ),
        "bubble": lambda: bubble(n, seed=seed),
        "knockout": lambda: knockout(n, seed=seed),
        "top_k": lambda: top_k(n, k=podium, seed=seed),
        "active": lambda: active(n, budget=budget if position_bias else 2 * budget, seed=seed),
        DUEL: lambda: duel(n),
    }
    return makers[_resolve(name, n, budget, k, position_bias)]()


def comparison_count(
    name: str, n: int, *, budget: int = DEFAULT_BUDGET, k: int | None = None, position_bias: bool = True
) -> int:
    """Return the number of comparisons of a strategy for n different texts; for ``top_k`` an upper bound.

    A comparison is an ordered pair if the ranker has a position bias, else an unordered one; for the arguments see
    `make_strategy`.

    Raises:
        InputError: the name is unknown, there are no candidates, or an option is out of range.
    """
    if name not in (*STRATEGIES, DUEL):
        raise unknown_name("strategy", name, STRATEGIES)
    _check_candidates(n)
    every_pair, orders = n * (n - 1) // 2, 2 if position_bias else 1
    match _resolve(name, n, budget, k, position_bias):
        case "full":
            return orders * every_pair
        case "single":
            return every_pair
        case "top_k":
            podium = DEFAULT_TOP_K if k is None else k
            _check_k(podium)
            rounds = (n - 1).bit_length()  # ⌈log₂ n⌉
            return orders * min(n - 1 + (min(podium, n) - 1) * max(rounds - 1, 0), every_pair)
        case "active":
            _check_budget(budget if position_bias else 2 * budget)
            return orders * min(budget // orders, every_pair)
        case "duel":
            if n < 2:
                raise InputError("A duel is between two candidates: give at least two.")
            return orders
        case _:
            return orders * (n - 1)


def _resolve(name: str, n: int, budget: int, k: int | None, position_bias: bool) -> str:
    if name != "auto":
        return name
    if k == 1 and not position_bias and n >= _KNOCKOUT_FROM:
        return "knockout"
    if n * (n - 1) // (1 if position_bias else 2) <= budget:
        return "full"
    return "knockout" if k == 1 else "top_k"


def _renamed(name: str, strategy: Strategy) -> Strategy:
    """Run a strategy under the name of another one that it is equal to."""
    return replace((yield from strategy), strategy=name)


def _check_candidates(n: int) -> None:
    if n < 1:
        raise InputError("There are no candidates to rank: give at least one.")


def _check_k(k: int) -> None:
    if k < 1:
        raise InputError(f"top_k must put at least 1 candidate in order, not {k}.")


def _check_budget(budget: int) -> None:
    if budget < 2:
        raise InputError(f"The budget must be at least 2 comparisons, one pair in both orders, not {budget}.")


def _nothing_compared(n: int) -> NDArray[np.float64]:
    _check_candidates(n)
    return np.full((n, n), np.nan)


def _permutation(n: int, seed: int) -> list[int]:
    if seed < 0:
        raise InputError(f"A seed must not be negative: {seed}.")
    order: list[int] = np.random.default_rng(seed).permutation(n).tolist()
    return order


def _matches(standing: Sequence[int]) -> tuple[Pairs, list[int]]:
    """Pair up the remaining candidates for a round; return the matches, and the candidate without an opponent."""
    matches = list(zip(standing[::2], standing[1::2], strict=False))
    return matches, list(standing[2 * len(matches) :])


def _compare(logits: NDArray[np.float64], pairs: Pairs) -> Generator[Pairs, NDArray[np.float64], NDArray[np.float64]]:
    """Request the pairs, write their logits into the matrix, and return them."""
    if not pairs:
        return np.empty(0)
    answers = np.asarray((yield pairs), dtype=np.float64)
    first, second = np.array(pairs).T
    logits[first, second] = answers
    return answers


def _play(logits: NDArray[np.float64], matches: Pairs) -> Generator[Pairs, NDArray[np.float64], Pairs]:
    """Compare each match in both orders; return (winner, loser) of each. In a tie the second wins."""
    answers = yield from _compare(logits, [pair for i, j in matches for pair in ((i, j), (j, i))])
    forward, backward = answers[::2], answers[1::2]
    return [
        (i, j) if first_wins else (j, i)
        for (i, j), first_wins in zip(matches, (forward - backward > 0).tolist(), strict=True)
    ]
