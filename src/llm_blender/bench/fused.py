"""Fused answers against references, beside the answers that they were made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_blender.bench.scored import group_ids
from llm_blender.errors import InputError
from llm_blender.metrics import evaluate
from llm_blender.ranking import Interval, bootstrap_interval
from llm_blender.types import Candidate, Example, OnProgress

__all__ = ["FusedRow", "FusionMeasure", "FusionMeasures", "MeasureDifference", "fused_rows", "measure_fusions"]

_Floats = NDArray[np.float64]

_ANSWER, _BEST, _RANDOM = "answer", "best candidate", "random"


@dataclass(frozen=True)
class FusedRow:
    """One instruction that was answered by fusing.

    Attributes:
        prompt: instruction and input as one text.
        reference: a known good answer.
        answer: what was given back.
        candidates: what it was made of; at least one.
        best: which of them the ranker put first; None where the row does not say.
    """

    prompt: str
    reference: str
    answer: str
    candidates: tuple[Candidate, ...]
    best: int | None


@dataclass(frozen=True)
class MeasureDifference:
    """One method against another by the same metric on the same rows.

    Attributes:
        method: the other one.
        mean: by how much the mean is higher than the other's.
        ci95: interval of that, both drawn together, resampled by instruction.
    """

    method: str
    mean: float
    ci95: Interval


@dataclass(frozen=True)
class FusionMeasure:
    """How good one method's answers are by one metric.

    Attributes:
        metric: its name.
        method: ``answer``, ``best candidate``, ``random``, …, or an LLM.
        rows: instructions.
        mean: on the metric's own scale, higher is better.
        ci95: interval of `mean`, resampled by instruction.
        versus: against the best candidate, or against ``random`` where that is not known; None for that one itself.
    """

    metric: str
    method: str
    rows: int
    mean: float
    ci95: Interval
    versus: MeasureDifference | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class FusionMeasures:
    """All methods by all metrics.

    Attributes:
        measures: metric by metric.
        unavailable: metrics that could not be computed, and why.
    """

    measures: tuple[FusionMeasure, ...]
    unavailable: Mapping[str, str] = field(default_factory=dict)


def fused_rows(file: str, rows: Iterable[Example]) -> tuple[list[FusedRow], int]:
    """The rows with a fused answer and a reference, and how many have not both.

    Args:
        file: where they come from.
        rows: with `fusion` as ``blend fuse`` writes it, and `ranking` as ``blend rank`` does.

    Raises:
        InputError: no row has both, or a `fusion` has no text.
    """
    found, left_out = [], 0
    for number, row in enumerate(rows, 1):
        fusion = row.extra.get("fusion")
        if fusion is None or not (row.reference or "").strip() or not row.candidates:
            left_out += 1
            continue
        answer = fusion.get("answer", fusion.get("text")) if isinstance(fusion, Mapping) else None
        if not isinstance(answer, str):
            raise InputError(f"{file}, row {number}: `fusion` has no `text`: make it by `blend fuse`.")
        found.append(FusedRow(row.prompt, row.reference or "", answer, row.candidates, _best(row, fusion)))
    if not found:
        raise InputError(
            f"{file} holds no row with both a fused answer (`fusion`, from `blend fuse`) and a reference (`output`)."
        )
    return found, left_out


def _best(row: Example, fusion: Mapping[str, Any]) -> int | None:
    """By the ranking; without one, by the order in which the fuser read the candidates, which is best first."""
    ranking, used = row.extra.get("ranking"), fusion.get("used")
    place = ranking.get("best") if isinstance(ranking, Mapping) else None
    if place is None and isinstance(used, Sequence) and used:
        place = used[0]
    return place if isinstance(place, int) and 0 <= place < len(row.candidates) else None


def measure_fusions(
    rows: Sequence[FusedRow],
    metrics: Mapping[str, Mapping[str, Any]],
    *,
    candidates: bool = False,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> FusionMeasures:
    """Measure the answers, and what there was to choose from.

    ``answer`` is what was given back, ``best candidate`` what the ranker put first (where all rows say). With
    `candidates` also ``random``, which is what is expected of a draw, ``longest`` by characters, each LLM that has an
    answer in every row, and ``oracle``, the best candidate of each row by that very metric.

    Args:
        rows: at least one.
        metrics: settings by name, as for `llm_blender.metrics.evaluate`.
        candidates: measure all of them, which takes as many times longer.
        seed: of the bootstrap.
        progress: called with texts times metrics done and to do.

    Raises:
        InputError: as for `evaluate`.
    """
    texts, references, places = _texts(rows, candidates)
    table = evaluate(texts, references, metrics, seed=seed, progress=progress)
    groups = group_ids(row.prompt for row in rows)
    measures: list[FusionMeasure] = []
    unavailable: dict[str, str] = {}
    for row in table:
        if row.scores is None:
            unavailable[row.metric] = row.status.removeprefix("unavailable: ")
            continue
        by_method = _by_method(rows, [row.scores.values[of_row] for of_row in places], candidates)
        other = next((name for name in (_BEST, _RANDOM) if name in by_method), None)
        for method, values in by_method.items():
            versus = None
            if other is not None and method != other:
                difference = values - by_method[other]
                ci95 = bootstrap_interval(difference, groups, seed=seed)
                versus = MeasureDifference(other, float(difference.mean()), ci95)
            ci95 = bootstrap_interval(values, groups, seed=seed)
            measures.append(FusionMeasure(row.metric, method, len(rows), float(values.mean()), ci95, versus))
    return FusionMeasures(tuple(measures), unavailable)


def _texts(rows: Sequence[FusedRow], candidates: bool) -> tuple[list[str], list[str], list[NDArray[np.intp]]]:
    """What is measured, each row's reference beside it, and where the texts of each row stand: its answer first."""
    texts: list[str] = []
    references: list[str] = []
    places: list[NDArray[np.intp]] = []
    for row in rows:
        kept = row.candidates if candidates else [] if row.best is None else [row.candidates[row.best]]
        of_row = [row.answer, *(candidate.text for candidate in kept)]
        places.append(np.arange(len(texts), len(texts) + len(of_row)))
        texts += of_row
        references += [row.reference] * len(of_row)
    return texts, references, places


def _by_method(rows: Sequence[FusedRow], scores: Sequence[_Floats], candidates: bool) -> dict[str, _Floats]:
    """``[rows]`` of each method, from the scores of each row's texts."""
    methods = {_ANSWER: np.array([of_row[0] for of_row in scores])}
    if all(row.best is not None for row in rows):
        chosen = [0 if row.best is None or not candidates else row.best for row in rows]
        methods[_BEST] = np.array([of_row[1 + place] for of_row, place in zip(scores, chosen, strict=True)])
    if not candidates:
        return methods
    methods[_RANDOM] = np.array([of_row[1:].mean() for of_row in scores])
    lengths = [[len(candidate.text) for candidate in row.candidates] for row in rows]
    methods["longest"] = np.array(
        [of_row[1 + int(np.argmax(of_texts))] for of_row, of_texts in zip(scores, lengths, strict=True)]
    )
    wrote = [[candidate.model for candidate in row.candidates] for row in rows]
    for model in wrote[0]:
        if model is not None and model not in methods and all(model in names for names in wrote):
            own = [of_row[1 + names.index(model)] for of_row, names in zip(scores, wrote, strict=True)]
            methods[model] = np.array(own)
    methods["oracle"] = np.array([of_row[1:].max() for of_row in scores])
    return methods
