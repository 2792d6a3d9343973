"""What each method gives back, row by row: quality, dollars, seconds, calls.

Routing: one LLM an instruction, the one that did best on the most similar instructions known.

A nearest-neighbour router over TF-IDF, the plain one that learned routers are measured against. Written here, as
scikit-learn and SciPy would be 150 MB for these lines; only postings are kept, so that 100,000 rows are no trouble.
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llm_blender.bench.cost.rows import PaidRow, RankerPrice
from llm_blender.bench.rows import ScoredRow
from llm_blender.errors import InputError
from llm_blender.ranking import Priors
from llm_blender.types import OnProgress, Ranker, Ranking

__all__ = [
    "NearestRouter",
    "Picker",
    "Played",
    "best_of_n",
    "bounds",
    "fused_answers",
    "picks",
    "routed",
    "singles",
    "training_order",
]

_Floats = NDArray[np.float64]

_WORDS = re.compile(r"\w+")


class NearestRouter:
    """Chooses by what is known of the k nearest instructions.

    A word weighs as often as it occurs, times 1 + ln((1 + n) / (1 + n_word)); similarity is the cosine. An LLM's worth
    is its mean score on the neighbours that it answered; where LLMs tie, the one that did better on all known rows
    comes first. Neighbours that are equally similar come in the order of their rows, so nothing is left to chance.

    Args:
        known: n rows, at least one.
        order: the LLMs to choose from, best on the known rows first.
        nearest: k.
    """

    def __init__(self, known: Sequence[ScoredRow], order: Sequence[str], nearest: int = 20) -> None:
        self._known, self._order, self._nearest = known, order, nearest
        counts = [_count(row.prompt) for row in known]
        rows_with = Counter(word for row in counts for word in row)
        self._idf = {word: 1 + float(np.log((1 + len(known)) / (1 + rows))) for word, rows in rows_with.items()}
        postings: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for place, row in enumerate(counts):
            for word, weight in self._weighed(row).items():
                postings[word].append((place, weight))
        self._postings = {
            word: (np.array([place for place, _ in found]), np.array([weight for _, weight in found]))
            for word, found in postings.items()
        }

    def neighbours(self, prompt: str) -> list[int]:
        """Places of up to k known rows that share a word with the prompt, nearest first."""
        similarity: _Floats = np.zeros(len(self._known))
        for word, weight in self._weighed(_count(prompt)).items():
            places, weights = self._postings[word]
            similarity[places] += weight * weights
        nearest = np.argsort(-similarity.round(9), kind="stable")[: self._nearest]
        return [int(place) for place in nearest if similarity[place] > 0]

    def route(self, prompt: str, among: Collection[str | None]) -> str | None:
        """The LLM to ask.

        Args:
            prompt: any.
            among: who can be asked.

        Returns:
            One of them; None where nothing is known of any.
        """
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
        """Length 1; words that no known row has say nothing."""
        weights = {word: count * self._idf[word] for word, count in counts.items() if word in self._idf}
        length = float(np.sqrt(sum(weight * weight for weight in weights.values()))) or 1.0
        return {word: weight / length for word, weight in weights.items()}


def _count(text: str) -> Counter[str]:
    return Counter(_WORDS.findall(text.lower()))


_Pick = Callable[[PaidRow], Sequence[int]]


@dataclass(frozen=True)
class Played:
    """One method on n rows.

    Attributes:
        method: its name.
        kind: ``single``, ``best-of-n``, ``routing``, ``pick``, ``fused``, ``random`` or ``oracle``.
        quality: ``[n]`` score of the answer given back, or what a draw is expected to give; NaN where a row does not
            count.
        dollars: ``[n]`` of all calls; NaN where unknown.
        seconds: ``[n]`` until the answer is there; NaN where unknown.
        calls: ``[n]`` of LLMs.
        comparisons: ``[n]`` ordered pairs that the ranker compared.
    """

    method: str
    kind: str
    quality: _Floats
    dollars: _Floats
    seconds: _Floats
    calls: _Floats
    comparisons: _Floats


@dataclass(frozen=True)
class Picker:
    """A ranker that picks.

    Attributes:
        ranker: any.
        name: for the table.
        price: of a comparison. Where its seconds are unknown and `timed`, the clock decides; dollars that are unknown
            are zero, unless it is `paid`.
        strategy: one of `llm_blender.ranking.STRATEGIES`.
        seed: of the strategy.
        priors: learned from other rows; None adds none.
        timed: its comparisons are made while it is asked, not read from a record.
        paid: an LLM that judges for money.
    """

    ranker: Ranker
    name: str
    price: RankerPrice
    strategy: str = "auto"
    seed: int = 0
    priors: Priors | None = None
    timed: bool = False
    paid: bool = False


def training_order(rows: Sequence[PaidRow], known: Sequence[PaidRow]) -> list[str]:
    """The LLMs of `rows`, the one first that did best on `known`, as `llm_blender.bench.baseline_selections` chooses.

    Raises:
        InputError: `known` names none of them.
    """
    here, there = ({model for row in part for model in row.models if model} for part in (rows, known))
    if not here & there:
        raise InputError("The rows to choose the best single LLM on name none of the LLMs of these rows.")
    worth = {model: float(_drawn(known, "", "", _by(model)).quality.mean()) for model in here & there}
    return sorted(worth, key=lambda model: (-worth[model], model))


def singles(rows: Sequence[PaidRow], order: Sequence[str]) -> list[Played]:
    """Always the same LLM, ``best single`` first; of several samples of it, one."""
    return [
        _drawn(rows, f"{'single' if place else 'best single'}: {model}", "single", _by(model))
        for place, model in enumerate(order)
    ]


def best_of_n(rows: Sequence[PaidRow], picker: Picker, best: str, progress: OnProgress | None = None) -> list[Played]:
    """All samples of the best single LLM, from which the ranker picks; empty where rows hold one each."""
    samples = [row.models.count(best) for row in rows]
    if max(samples) < 2:
        return []
    number = f"{samples[0]}" if len(set(samples)) == 1 else f"up to {max(samples)}"
    called = [row.by([best]) for row in rows]
    return _picked(rows, picker, called, f"best of {number}: {best}", "best-of-n", progress)


def picks(
    rows: Sequence[PaidRow], picker: Picker, order: Sequence[str], progress: OnProgress | None = None
) -> list[Played]:
    """The ranker picks among the answers of the best 2, 3, … LLMs, and of all.

    Args:
        rows: at least one.
        picker: who picks.
        order: by `training_order`.
        progress: called with comparisons done and expected, anew for each number of LLMs.
    """
    models = {model for row in rows for model in row.models}
    found: list[Played] = []
    for number in range(2, len(models)):
        if number <= len(order):
            called = [row.by(order[:number]) for row in rows]
            found += _picked(rows, picker, called, f"best {number}", "pick", progress)
    if len(models) > 1:
        everyone = [list(range(len(row.models))) for row in rows]
        found += _picked(rows, picker, everyone, f"all {len(models)}", "pick", progress)
    step = 1 if picker.priors is None else 2
    return [line for start in range(step) for line in found[start::step]]  # first without priors, then with


def routed(rows: Sequence[PaidRow], known: Sequence[PaidRow], order: Sequence[str], nearest: int) -> Played:
    """The LLM that did best on the most similar known instructions, and no other; finding it takes no time to speak of.

    Args:
        rows: at least one.
        known: other rows, to learn from.
        order: by `training_order`.
        nearest: how many known instructions are looked at.
    """
    router = NearestRouter([row.scored for row in known], order, nearest)
    return _drawn(
        rows,
        f"routing, {nearest} nearest",
        "routing",
        lambda row: row.by([router.route(row.scored.prompt, row.models)]),
    )


def fused_answers(rows: Sequence[PaidRow], picked: Played | None) -> list[Played]:
    """Fused answers with a score, where rows hold them.

    Args:
        rows: at least one.
        picked: the ranker's choice among all answers, whose comparisons and time a fused answer needs as well.
    """
    places = [place for place, row in enumerate(rows) if row.fusion is not None]
    if not places:
        return []
    names = sorted({row.fusion.fuser for row in rows if row.fusion and row.fusion.fuser})
    played = Played(
        f"fused: {', '.join(names) or 'nothing'}", "fused", *(np.full(len(rows), math.nan) for _ in range(5))
    )
    for place in places:
        if (fusion := rows[place].fusion) is None:
            continue
        ranking_dollars = ranking_seconds = comparisons = 0.0
        if picked is not None:
            ranking_dollars = picked.dollars[place] - rows[place].dollars.sum()
            ranking_seconds = picked.seconds[place] - rows[place].seconds.max()
            comparisons = picked.comparisons[place]
        played.quality[place] = fusion.quality
        played.dollars[place] = fusion.candidates_dollars + fusion.dollars + ranking_dollars
        played.seconds[place] = fusion.candidates_seconds + fusion.seconds + ranking_seconds
        played.calls[place], played.comparisons[place] = fusion.calls, comparisons
    return [played]


def bounds(rows: Sequence[PaidRow]) -> list[Played]:
    """``random``: an answer drawn, and only that one paid. ``oracle``: the best answer of each row.

    An oracle that routes pays for that answer alone (of several that are equally good, for a drawn one), and one that
    picks for all.
    """
    everyone = [list(range(len(row.models))) for row in rows]
    best = [int(np.argmax(row.scored.qualities)) for row in rows]
    nothing = np.zeros(len(rows))
    return [
        _drawn(rows, "random", "random", lambda row: range(len(row.models))),
        _drawn(rows, "oracle, routing", "oracle", _best),
        _paid(rows, "oracle, picking", "oracle", everyone, best, nothing, nothing, nothing),
    ]


def _by(model: str) -> _Pick:
    return lambda row: row.by([model])


def _best(row: PaidRow) -> Sequence[int]:
    most = max(row.scored.qualities)
    return [place for place, quality in enumerate(row.scored.qualities) if quality == most]


def _drawn(rows: Sequence[PaidRow], method: str, kind: str, pick: _Pick) -> Played:
    """One call a row: what is expected of a draw among the answers that `pick` finds equally good."""
    drawn = [list(pick(row)) for row in rows]

    def mean(values: Callable[[PaidRow], _Floats]) -> _Floats:
        return np.array([values(row)[places].mean() for row, places in zip(rows, drawn, strict=True)])

    return Played(
        method,
        kind,
        mean(lambda row: np.array(row.scored.qualities)),
        mean(lambda row: row.dollars),
        mean(lambda row: row.seconds),
        np.ones(len(rows)),
        np.zeros(len(rows)),
    )


def _picked(
    rows: Sequence[PaidRow],
    picker: Picker,
    called: Sequence[list[int]],
    method: str,
    kind: str,
    progress: OnProgress | None,
) -> list[Played]:
    """What the ranker picks, and beside it, by the same comparisons, what it picks with priors."""
    texts = [[row.scored.texts[place] for place in places] for row, places in zip(rows, called, strict=True)]
    models = [[row.models[place] for place in places] for row, places in zip(rows, called, strict=True)]
    begun = time.perf_counter()
    rankings = picker.ranker.rank_many(
        [row.scored.prompt for row in rows], texts, strategy=picker.strategy, seed=picker.seed, progress=progress
    )
    clock = (time.perf_counter() - begun) / len(rows) if picker.timed else math.nan
    comparisons = np.array([ranking.comparisons for ranking in rankings], np.float64)
    price = picker.price
    seconds = np.full(len(rows), clock) if price.seconds is None else comparisons * price.seconds
    free = math.nan if picker.paid else 0.0
    dollars = np.full(len(rows), free) if price.dollars is None else comparisons * price.dollars

    def line(name: str, chosen: Sequence[Ranking]) -> Played:
        best = [places[ranking.best] for places, ranking in zip(called, chosen, strict=True)]
        return _paid(rows, f"{name}, {method}", kind, called, best, comparisons, dollars, seconds)

    found = [line(picker.name, rankings)]
    if picker.priors is not None:
        informed = [picker.priors.apply(ranking, names) for ranking, names in zip(rankings, models, strict=True)]
        found.append(line(f"{picker.name} with priors", informed))
    return found


def _paid(
    rows: Sequence[PaidRow],
    method: str,
    kind: str,
    called: Sequence[list[int]],
    best: Sequence[int],
    comparisons: _Floats,
    dollars: _Floats,
    seconds: _Floats,
) -> Played:
    """All of `called` are asked at once: their dollars add up, the slowest is waited for, and then for the ranker."""
    return Played(
        method,
        kind,
        np.array([row.scored.qualities[place] for row, place in zip(rows, best, strict=True)]),
        np.array([row.dollars[places].sum() for row, places in zip(rows, called, strict=True)]) + dollars,
        np.array([row.seconds[places].max() for row, places in zip(rows, called, strict=True)]) + seconds,
        np.array([len(places) for places in called], np.float64),
        comparisons,
    )
