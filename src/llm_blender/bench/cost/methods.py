"""Quality, dollars, seconds and calls of each method, row by row."""

from __future__ import annotations

import math
import re
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from llm_blender.bench.cost.rows import PricedRows, RankerPrice
from llm_blender.bench.methods import Method, best_shares, equal_shares, rank_rows
from llm_blender.bench.resampling import Floats
from llm_blender.bench.rows import BenchRow
from llm_blender.ranking import Priors
from llm_blender.types import OnProgress, Ranker, Ranking

_WORDS = re.compile(r"\w+")


class NearestRouter:
    """Chooses the LLM that did best on the k most similar known instructions.

    A nearest-neighbour router over TF-IDF, the plain one that learned routers are measured against. Written here, as
    scikit-learn and SciPy would be 150 MB for these lines; only postings are kept, so that 100,000 rows are no trouble.

    The weight of a word is its count times 1 + ln((1 + n) / (1 + n_word)); similarity is the cosine. The worth of an
    LLM is its mean score on the neighbours that it answered; among ties, the LLM that did better on all known rows
    comes first. Neighbours of equal similarity are in the order of their rows, so the choice is deterministic.

    Args:
        known: n rows, at least one.
        order: the LLMs to choose from, best on the known rows first.
        nearest: k.
    """

    def __init__(self, known: Sequence[BenchRow], order: Sequence[str], nearest: int = 20) -> None:
        self._known, self._order, self._nearest = known, order, nearest
        counts = [_count(row.prompt) for row in known]
        rows_with = Counter(word for row in counts for word in row)
        self._idf = {word: 1 + float(np.log((1 + len(known)) / (1 + rows))) for word, rows in rows_with.items()}
        postings: dict[str, dict[int, float]] = defaultdict(dict)
        for place, row in enumerate(counts):
            for word, weight in self._weighed(row).items():
                postings[word][place] = weight
        self._postings = {
            word: (np.array(list(found)), np.array(list(found.values()))) for word, found in postings.items()
        }

    def neighbours(self, prompt: str) -> list[int]:
        """Return the places of up to k known rows that share a word with the prompt, nearest first."""
        similarity: Floats = np.zeros(len(self._known))
        for word, weight in self._weighed(_count(prompt)).items():
            places, weights = self._postings[word]
            similarity[places] += weight * weights
        nearest = np.argsort(-similarity.round(9), kind="stable")[: self._nearest]
        return [int(place) for place in nearest if similarity[place] > 0]

    def route(self, prompt: str, among: Collection[str | None]) -> str | None:
        """Choose one of some LLMs to call; None if none of them has a known row."""
        eligible = [model for model in self._order if model in among]
        scores: dict[str, list[float]] = {model: [] for model in eligible}
        for place in self.neighbours(prompt):
            row = self._known[place]
            for model, quality in zip(row.models, row.qualities, strict=True):
                if model in scores:
                    scores[model].append(quality)
        worth = {model: round(float(np.mean(found)), 9) for model, found in scores.items() if found}
        return max(worth, key=worth.__getitem__, default=eligible[0] if eligible else None)

    def _weighed(self, counts: Counter[str]) -> dict[str, float]:
        """Return a vector of length 1, without words that no known row has."""
        weights = {word: count * self._idf[word] for word, count in counts.items() if word in self._idf}
        length = float(np.sqrt(sum(weight * weight for weight in weights.values()))) or 1.0
        return {word: weight / length for word, weight in weights.items()}


def _count(text: str) -> Counter[str]:
    return Counter(_WORDS.findall(text.lower()))


@dataclass(frozen=True)
class MethodCosts:
    """Quality and costs of one method on n rows.

    Attributes:
        method: its name.
        kind: ``single``, ``best-of-n``, ``routing``, ``pick``, ``fused``, ``random`` or ``oracle``.
        quality: ``[n]`` score of the answer returned, or its expectation for a draw; NaN where a row does not count.
        dollars: ``[n]`` of all calls; NaN where unknown.
        seconds: ``[n]`` until the answer is there; NaN where unknown.
        calls: ``[n]`` of LLMs.
        comparisons: ``[n]`` ordered pairs that the ranker compared.
    """

    method: str
    kind: str
    quality: Floats
    dollars: Floats
    seconds: Floats
    calls: Floats
    comparisons: Floats


@dataclass(frozen=True)
class Picker:
    """A ranker that picks an answer, with its price.

    Attributes:
        price: price of a comparison. If its seconds are unknown and it is `timed`, they are measured; unknown dollars
            are zero, unless it is `paid`.
        priors: learned from other rows; None adds none.
        timed: its comparisons are made now, not read from a cache.
        paid: an LLM judge, whose calls cost money.
    """

    ranker: Ranker
    name: str
    price: RankerPrice
    strategy: str = "auto"
    seed: int = 0
    priors: Priors | None = None
    timed: bool = False
    paid: bool = False


def singles(priced: PricedRows, order: Sequence[str]) -> list[MethodCosts]:
    """Return each LLM called alone, ``best single`` first; of several samples of it, one."""
    names = [f"{'single' if place else 'best single'}: {model}" for place, model in enumerate(order)]
    return [
        _one_call(priced, "single", priced.grid.model(name, model)) for name, model in zip(names, order, strict=True)
    ]


def best_of_n(priced: PricedRows, picker: Picker, best: str, progress: OnProgress | None = None) -> list[MethodCosts]:
    """Return the ranker's pick among all samples of the best single LLM; empty if rows hold one each."""
    samples = [row.models.count(best) for row in priced.rows]
    if max(samples) < 2:
        return []
    number = f"{samples[0]}" if len(set(samples)) == 1 else f"up to {max(samples)}"
    return _pick(priced, picker, [best], f"best of {number}: {best}", "best-of-n", progress)


def picks(
    priced: PricedRows, picker: Picker, order: Sequence[str], progress: OnProgress | None = None
) -> list[MethodCosts]:
    """Return the ranker's picks among the answers of the best 2, 3, … LLMs, and of all.

    `order` is that of `order_models`; the progress begins anew for each number of LLMs.
    """
    models = {model for row in priced.rows for model in row.models}
    found: list[MethodCosts] = []
    for number in range(2, min(len(models), len(order) + 1)):
        found += _pick(priced, picker, order[:number], f"best {number}", "pick", progress)
    if len(models) > 1:
        found += _pick(priced, picker, models, f"all {len(models)}", "pick", progress)
    step = 1 if picker.priors is None else 2
    return [line for start in range(step) for line in found[start::step]]  # first without priors, then with


def routed(priced: PricedRows, known: Sequence[BenchRow], order: Sequence[str], nearest: int) -> MethodCosts:
    """Return the LLM that did best on the `nearest` most similar known instructions, called alone.

    The time to find it is negligible and not counted. `order` is that of `order_models`.
    """
    router = NearestRouter(known, order, nearest)
    chosen = priced.grid.by_models([router.route(row.prompt, row.models)] for row in priced.rows)
    return _one_call(priced, "routing", Method(f"routing, {nearest} nearest", "routing", equal_shares(chosen)))


def fused_answers(priced: PricedRows, picked: MethodCosts | None) -> list[MethodCosts]:
    """Return the fused answers that have the score; empty if rows hold none.

    A fused answer needs the comparisons and the time of `picked`, the ranker's pick among all answers.
    """
    places = [(place, fusion) for place, fusion in enumerate(priced.fusions) if fusion is not None]
    if not places:
        return []
    names = sorted({fusion.fuser for _, fusion in places if fusion.fuser})
    rows = len(priced.rows)
    costs = MethodCosts(
        f"fused: {', '.join(names) or 'nothing'}", "fused", *(np.full(rows, math.nan) for _ in range(5))
    )
    dollars = seconds = comparisons = np.zeros(rows)  # those of ranking
    if picked is not None:
        all_dollars, all_seconds = _all_calls(priced, priced.grid.present)
        dollars, seconds, comparisons = picked.dollars - all_dollars, picked.seconds - all_seconds, picked.comparisons
    for place, fusion in places:
        costs.quality[place] = fusion.quality
        costs.dollars[place] = fusion.candidates_dollars + fusion.dollars + dollars[place]
        costs.seconds[place] = fusion.candidates_seconds + fusion.seconds + seconds[place]
        costs.calls[place], costs.comparisons[place] = fusion.calls, comparisons[place]
    return [costs]


def bounds(priced: PricedRows) -> list[MethodCosts]:
    """Return ``random``, one answer drawn and paid, and ``oracle``, the best answer of each row.

    An oracle that routes pays for the best answer alone (for a draw among ties), one that picks for all answers.
    """
    best, zeros = best_shares(priced.qualities), np.zeros(len(priced.rows))
    dollars, seconds = _all_calls(priced, priced.grid.present)
    quality, calls = np.nanmax(priced.qualities, axis=1), priced.grid.present.sum(axis=1).astype(np.float64)
    return [
        _one_call(priced, "random", priced.grid.random()),
        _one_call(priced, "oracle", Method("oracle, routing", "oracle", best)),
        MethodCosts("oracle, picking", "oracle", quality, dollars, seconds, calls, zeros),
    ]


def _one_call(priced: PricedRows, kind: str, method: Method) -> MethodCosts:
    """Return the expectations of a method that calls one LLM a row."""
    quality, dollars, seconds = map(method.expect, (priced.qualities, priced.dollars, priced.seconds))
    return MethodCosts(method.name, kind, quality, dollars, seconds, np.ones(len(quality)), np.zeros(len(quality)))


def _all_calls(priced: PricedRows, called: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return ``[n]`` dollars and ``[n]`` seconds of calls that run side by side: dollars add up, the slowest counts."""
    return np.where(called, priced.dollars, 0).sum(axis=1), np.where(called, priced.seconds, -math.inf).max(axis=1)


def _pick(
    priced: PricedRows,
    picker: Picker,
    models: Collection[str | None],
    method: str,
    kind: str,
    progress: OnProgress | None,
) -> list[MethodCosts]:
    """Return the ranker's pick among the answers of some LLMs, and with priors also theirs by the same comparisons."""
    rows = priced.rows
    called = priced.grid.by_models([models] * len(rows))
    places = [np.flatnonzero(of_row).tolist() for of_row in called]
    answered = [
        replace(row, candidates=tuple(row.candidates[place] for place in of_row))
        for row, of_row in zip(rows, places, strict=True)
    ]
    begun = time.perf_counter()
    k = 1 if picker.priors is None else None  # priors can lift any candidate
    rankings = rank_rows(answered, picker.ranker, k=k, strategy=picker.strategy, seed=picker.seed, progress=progress)
    clock = (time.perf_counter() - begun) / len(rows) if picker.timed else math.nan
    comparisons = np.array([ranking.comparisons for ranking in rankings], np.float64)
    price = picker.price
    free = math.nan if picker.paid else 0.0
    dollars, seconds = _all_calls(priced, called)
    dollars = dollars + (free if price.dollars is None else comparisons * price.dollars)
    seconds = seconds + (clock if price.seconds is None else comparisons * price.seconds)
    calls = called.sum(axis=1).astype(np.float64)

    def costs(name: str, chosen: Sequence[Ranking]) -> MethodCosts:
        best = [of_row[ranking.best] for of_row, ranking in zip(places, chosen, strict=True)]
        quality = priced.qualities[np.arange(len(rows)), best]
        return MethodCosts(f"{name}, {method}", kind, quality, dollars, seconds, calls, comparisons)

    found = [costs(picker.name, rankings)]
    if picker.priors is not None:
        informed = [picker.priors.apply(ranking, row.models) for ranking, row in zip(rankings, answered, strict=True)]
        found.append(costs(f"{picker.name} with priors", informed))
    return found
