"""Engine that advances the strategies of many prompts in step, so that even adaptive ones fill a ranker's batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llm_blender.errors import InputError, WorkError
from llm_blender.ranking.evidence import EvidenceWeights, Features, offsets_of
from llm_blender.ranking.strategies import (
    DEFAULT_BUDGET,
    Pairs,
    Strategy,
    comparison_count,
    make_strategy,
)
from llm_blender.types import Evidence, OnProgress, Ranking

Pool = list[tuple[int, int, int]]
"""(prompt, left, right): 0-based prompt and its two candidates in reading order."""


class Advance(Protocol):
    """Callback of a ranker for the progress bar."""

    def __call__(self, count: float, reading: float = 0.0, /) -> None:
        """Report what has been done since the last call.

        Args:
            count: in comparisons: the work of all of a pool's comparisons counts as their number, also where some
                of them take longer, or where the texts are read first.
            reading: share of the pool's work that reads texts, below 1: later comparisons cost so much less.
        """
        ...


Compare = Callable[[Pool, Advance], ArrayLike]
"""A ranker: returns one logit for each entry of the pool. Calling `Advance` is optional."""

_DECIMALS = 4


class _Counted(TypedDict):
    """Options on which the number of comparisons depends."""

    budget: int
    k: int | None
    position_bias: bool


def rank_with(
    candidates: Sequence[Sequence[str]],
    compare: Compare,
    *,
    strategy: str = "auto",
    seed: int = 0,
    budget: int = DEFAULT_BUDGET,
    k: int | None = None,
    aggregation: str = "max_logits",
    position_bias: bool = True,
    temperature: float = 1.0,
    evidence_weights: EvidenceWeights | None = None,
    instructions: Sequence[str] | None = None,
    progress: OnProgress | None = None,
) -> list[Ranking]:
    """Rank with the same strategy, by name, for every prompt; see `rank_many`.

    Args:
        candidates: texts of each prompt; lists may differ in length.
        compare: the ranker.
        strategy: one of `STRATEGIES`, or `DUEL`.
        seed: of the strategies; the same for every prompt, so that no ranking depends on other prompts.
        budget: comparisons per prompt for ``auto`` and ``active``.
        k: number of candidates wanted in order, for ``auto`` and ``top_k``; see `make_strategy`.
        aggregation: of ``full`` and ``single``.
        position_bias: whether the ranker has one; see `rank_many`.
        temperature: of the rankings' probabilities.
        evidence_weights: of the ranker's logits and of the features of the texts (`llm_blender.ranking.evidence`);
            None uses the logits only.
        instructions: the prompts as texts, which say what a final answer and the right form are.
        progress: called with (done, expected) in comparisons; see `rank_many`.

    Raises:
        InputError: a prompt has no candidates, a name is unknown or an option out of range.
        WorkError: see `rank_many`.
    """
    sizes, counted = _sizes(candidates), _Counted(budget=budget, k=k, position_bias=position_bias)
    found: list[Evidence] = []
    if evidence_weights is not None and evidence_weights != EvidenceWeights():
        prompts = instructions or [""] * len(candidates)
        found = [Features.read(*texts).weigh(evidence_weights) for texts in zip(candidates, prompts, strict=True)]
    rankings = rank_many(
        candidates,
        [make_strategy(strategy, n, seed=seed, aggregation=aggregation, **counted) for n in sizes],
        _with_evidence(compare, found, sizes) if found else compare,
        position_bias=position_bias,
        temperature=temperature,
        progress=progress,
        expected=sum(comparison_count(strategy, n, **counted) for n in sizes),
    )
    if found:
        rankings = [replace(ranking, evidence=of_prompt) for ranking, of_prompt in zip(rankings, found, strict=True)]
    return rankings


def _with_evidence(compare: Compare, found: Sequence[Evidence], sizes: Sequence[int]) -> Compare:
    """Add to a ranker's weighted logits the offsets of the evidence."""
    offsets = [offsets_of(of_prompt, n) for of_prompt, n in zip(found, sizes, strict=True)]

    def weighed(pool: Pool, advance: Advance) -> NDArray[np.float64]:
        weights = np.array([found[prompt].model for prompt, _, _ in pool])
        gains = np.array([offsets[prompt][left] - offsets[prompt][right] for prompt, left, right in pool])
        logits = np.asarray(compare(pool, advance), np.float64)
        return np.asarray(weights * logits + gains)

    return weighed


def rank_many(
    candidates: Sequence[Sequence[str]],
    strategies: Sequence[Strategy],
    compare: Compare,
    *,
    position_bias: bool = True,
    temperature: float = 1.0,
    progress: OnProgress | None = None,
    expected: int = 0,
) -> list[Ranking]:
    """Rank every prompt; call `compare` once per round with the pairs that all strategies request.

    Within a prompt equal texts are one candidate: they are never compared (their logit is 0), and no ordered
    pair of texts is compared twice. Without position bias only the order (i, j) with i < j is compared, and l(j, i)
    is −l(i, j); `Ranking.comparisons` counts what `compare` got. Logits are rounded to 4 decimals before a strategy
    receives them, so that float noise, which depends on the batch, cannot turn a rank.

    Args:
        candidates: texts of each prompt; lists may differ in length.
        strategies: one per prompt, not started.
        compare: the ranker.
        position_bias: whether a logit depends on which candidate is read first.
        temperature: of the rankings' probabilities.
        progress: called with (done, expected) in comparisons; `done` never falls, and at the end the two are equal.
            Before, done / expected is the share of the work, reading included (`Advance`).
        expected: estimate of all comparisons, if known.

    Raises:
        InputError: a prompt has no candidates, the lists differ in length, or the temperature is not above 0.
        WorkError: `compare` returned the wrong number of logits, or one that is not finite.
    """
    if len(candidates) != len(strategies):
        raise InputError(f"{len(candidates)} lists of candidates need as many strategies, not {len(strategies)}.")
    if not temperature > 0:
        raise InputError(f"The temperature must be above zero, not {temperature}.")
    _sizes(candidates)
    given = zip(candidates, strategies, strict=True)
    waiting = {i: _Prompt(*of_prompt, position_bias) for i, of_prompt in enumerate(given)}
    rankings: dict[int, Ranking] = {}
    meter = Meter(progress, expected)
    while True:
        for i, prompt in list(waiting.items()):
            ranking = prompt.resume()
            if ranking is not None:
                rankings[i] = replace(ranking, temperature=temperature)
                del waiting[i]
        if not waiting:
            break
        pool = [(i, *pair) for i, prompt in waiting.items() for pair in prompt.unknown]
        if pool:
            meter.start(len(pool))
            logits = _checked(compare(pool, meter.advance), pool)
            meter.finish()
            sizes = [len(prompt.unknown) for prompt in waiting.values()]
            for prompt, part in zip(waiting.values(), np.split(logits, np.cumsum(sizes[:-1])), strict=True):
                prompt.learn(part)
    meter.end()
    return [rankings[i] for i in range(len(candidates))]


class _Prompt:
    """A running strategy with its known logits.

    Attributes:
        unknown: pairs of different texts, each as its first index, to compare in this round.
    """

    def __init__(self, texts: Sequence[str], strategy: Strategy, position_bias: bool) -> None:
        first: dict[str, int] = {}
        self._canonical = np.array([first.setdefault(text, i) for i, text in enumerate(texts)])
        self._known = np.full((len(texts), len(texts)), np.nan)
        np.fill_diagonal(self._known, 0)
        self._strategy, self._position_bias = strategy, position_bias
        self._requested: tuple[NDArray[np.intp], NDArray[np.intp]] | None = None
        self._comparisons = 0
        self.unknown: Pairs = []

    def resume(self) -> Ranking | None:
        """Send the strategy the logits of its last request; return its ranking, or None after another request."""
        try:
            pairs = self._strategy.send(self._known[self._requested]) if self._requested else next(self._strategy)
        except StopIteration as stop:
            ranking: Ranking = stop.value
            return replace(ranking, comparisons=self._comparisons)
        first, second = self._requested = tuple(self._canonical[np.array(pairs, dtype=np.intp).reshape(-1, 2).T])
        missing = np.isnan(self._known[self._requested])
        first, second = first[missing], second[missing]
        if not self._position_bias:
            first, second = np.minimum(first, second), np.maximum(first, second)
        codes = set((first * len(self._known) + second).tolist())  # np.unique imports numpy.ma
        self.unknown = [divmod(code, len(self._known)) for code in sorted(codes)]
        return None

    def learn(self, logits: NDArray[np.float64]) -> None:
        """Store the logits of `unknown`."""
        if self.unknown:
            first, second = np.array(self.unknown).T
            self._known[first, second] = logits
            if not self._position_bias:
                self._known[second, first] = 0.0 - logits  # no -0.0
            self._comparisons += len(logits)


class Meter:
    """Progress in comparisons, by the share of the work that is done.

    A pool's work is its number of comparisons, divided by 1 minus the share of reading: so a unit is a comparison of
    texts that are read, and what is still expected is as many units as comparisons. Without reports of the ranker, a
    pool is done at once.

    Args:
        progress: called with (done, total) in comparisons, where `done` never falls.
        expected: estimate of all comparisons.
    """

    def __init__(self, progress: OnProgress | None, expected: int) -> None:
        self._progress, self._expected = progress, expected
        self._due = self._reported = self._total = 0  # comparisons
        self._worked = 0.0  # in units, of the pools that are done
        self._in_pool = self._of_pool = 0.0  # in comparisons
        self._reading = 0.0

    def start(self, count: int) -> None:
        """Begin a pool of comparisons."""
        self._due += count
        self._in_pool, self._of_pool, self._reading = 0.0, float(count), 0.0

    def advance(self, count: float, reading: float = 0.0) -> None:
        """Report work of the pool; see `Advance`."""
        self._in_pool, self._reading = min(self._in_pool + count, self._of_pool), reading
        total = max(self._due, self._expected)
        worked = self._worked + self._in_pool / (1 - reading)
        left = (self._of_pool - self._in_pool) / (1 - reading) + total - self._due
        # The tolerance is for sums of shares that end just below a whole number.
        self._report(min(int(total * worked / (worked + left) + 1e-6), total), total)

    def finish(self) -> None:
        """End the pool."""
        if self._in_pool < self._of_pool:
            self.advance(self._of_pool, self._reading)
        self._worked += self._of_pool / (1 - self._reading)

    def end(self) -> None:
        """Report that all is done, also where fewer comparisons were made than expected."""
        done = max(self._due, self._reported)
        if (done, done) != (self._reported, self._total):
            self._report(done, done)

    def _report(self, done: int, total: int) -> None:
        self._reported, self._total = max(done, self._reported), total
        if self._progress is not None:
            self._progress(self._reported, total)


def _sizes(candidates: Sequence[Sequence[str]]) -> list[int]:
    for i, texts in enumerate(candidates):
        if not len(texts):
            raise InputError(f"Prompt {i} has no candidates: give at least one.")
    return [len(texts) for texts in candidates]


def _checked(values: ArrayLike, pool: Pool) -> NDArray[np.float64]:
    """Check number and finiteness of the logits of a pool, and round them."""
    logits = np.asarray(values, dtype=np.float64)
    if logits.shape != (len(pool),):
        raise WorkError(f"The ranker returned logits of shape {list(logits.shape)} for {len(pool)} comparisons.")
    finite = np.isfinite(logits)
    if not finite.all():
        prompt, left, right = pool[int(finite.argmin())]
        raise WorkError(f"The ranker returned a logit that is not finite: prompt {prompt}, candidates {left}, {right}.")
    return logits.round(_DECIMALS) + 0.0  # no -0.0
