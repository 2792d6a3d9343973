"""Fused answers against references, beside the answers that they were made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_blender.bench.fused.rows import FusedRow
from llm_blender.bench.scored import group_ids
from llm_blender.fusers import DEFAULT_RULE, FusionRule
from llm_blender.metrics import evaluate
from llm_blender.ranking import Interval, bootstrap_interval
from llm_blender.types import OnProgress

__all__ = ["FusionMeasure", "FusionMeasures", "MeasureDifference", "measure_fusions"]

_Floats = NDArray[np.float64]

_ANSWER, _FUSED, _AUTO, _LET_THROUGH = "answer", "fused", "auto", "let through"
_BEST, _RANDOM, _LONGEST, _ORACLE = "best candidate", "random", "longest", "oracle"


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
        method: ``answer``, ``fused``, ``best candidate``, …, or an LLM; see `measure_fusions`.
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


def measure_fusions(
    rows: Sequence[FusedRow],
    metrics: Mapping[str, Mapping[str, Any]],
    *,
    candidates: bool = False,
    rule: FusionRule = DEFAULT_RULE,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> FusionMeasures:
    """Measure the answers, and what there was to choose from.

    ``answer`` is what was given back, under guard if there was one; ``let through`` the same on those rows alone in
    which that is a fused text; ``fused`` what the fuser wrote, whether it was given back or not (the answer where it
    wrote none); ``auto`` what the mode ``auto`` would have given back; ``best candidate`` what the ranker put first.
    Each is there where the rows say what it needs. With `candidates` also ``random``, which is what is expected of a
    draw, ``longest`` by characters, each LLM that has an answer in every row, and ``oracle``, the best candidate of
    each row by that very metric.

    Args:
        rows: at least one.
        metrics: settings by name, as for `llm_blender.metrics.evaluate`.
        candidates: measure all of them, which takes as many times longer.
        rule: of ``auto``.
        seed: of the bootstrap.
        progress: called with texts times metrics done and to do.

    Raises:
        InputError: as for `evaluate`.
    """
    chosen = _chosen(rows, rule, candidates)
    texts = [
        list(dict.fromkeys([*given.values(), *(candidate.text for candidate in row.candidates if candidates)]))
        for row, given in zip(rows, chosen, strict=True)
    ]
    table = evaluate(
        [text for of_row in texts for text in of_row],
        [row.reference for row, of_row in zip(rows, texts, strict=True) for _ in of_row],
        metrics,
        seed=seed,
        progress=progress,
    )
    groups = np.array(group_ids(row.prompt for row in rows))
    measures: list[FusionMeasure] = []
    unavailable: dict[str, str] = {}
    for line in table:
        if line.scores is None:
            unavailable[line.metric] = line.status.removeprefix("unavailable: ")
            continue
        values = iter(line.scores.values.tolist())
        scores = [{text: next(values) for text in of_row} for of_row in texts]
        measures += _measured(line.metric, rows, _by_method(rows, chosen, scores, candidates), groups, seed)
    return FusionMeasures(tuple(measures), unavailable)


def _chosen(rows: Sequence[FusedRow], rule: FusionRule, candidates: bool) -> list[dict[str, str]]:
    """Each row's text by the methods that choose one, those alone that choose one in every row."""
    chosen: list[dict[str, str]] = []
    for row in rows:
        texts: dict[str, str | None] = {
            _ANSWER: row.answer,
            _FUSED: row.written,
            _AUTO: row.automatic(rule),
            _BEST: row.chosen,
        }
        if candidates:
            texts[_LONGEST] = max((candidate.text for candidate in row.candidates), key=len)
            for candidate in row.candidates:
                if candidate.model not in (None, _RANDOM, _ORACLE):
                    texts.setdefault(candidate.model, candidate.text)
        chosen.append({method: text for method, text in texts.items() if text is not None})
    common = [method for method in chosen[0] if all(method in of_row for of_row in chosen)] if chosen else []
    unguarded = any(of_row.get(_FUSED) != of_row[_ANSWER] for of_row in chosen)
    doubted = any(of_row.get(_AUTO) != of_row[_ANSWER] for of_row in chosen)
    left_out = {*(() if unguarded else (_FUSED,)), *(() if doubted else (_AUTO,))}
    return [{method: of_row[method] for method in common if method not in left_out} for of_row in chosen]


def _by_method(
    rows: Sequence[FusedRow],
    chosen: Sequence[Mapping[str, str]],
    scores: Sequence[Mapping[str, float]],
    candidates: bool,
) -> dict[str, _Floats]:
    """``[rows]`` of each method, from the scores of each row's texts."""
    methods = {
        method: np.array([of_row[text[method]] for of_row, text in zip(scores, chosen, strict=True)])
        for method in chosen[0]
    }
    if not candidates:
        return methods
    all_scores = [
        np.array([of_row[candidate.text] for candidate in row.candidates])
        for row, of_row in zip(rows, scores, strict=True)
    ]
    ours = {method: methods.pop(method) for method in (_ANSWER, _FUSED, _AUTO, _BEST) if method in methods}
    drawn = np.array([of_row.mean() for of_row in all_scores])
    return {**ours, _RANDOM: drawn, **methods, _ORACLE: np.array([of_row.max() for of_row in all_scores])}


def _measured(
    metric: str, rows: Sequence[FusedRow], by_method: Mapping[str, _Floats], groups: NDArray[np.intp], seed: int
) -> list[FusionMeasure]:
    """The methods by one metric."""
    other = next((name for name in (_BEST, _RANDOM) if name in by_method), None)

    def measure(method: str, values: _Floats, against: _Floats | None, of: NDArray[np.intp]) -> FusionMeasure:
        versus = None
        if other is not None and against is not None:
            ci95 = bootstrap_interval(values - against, of, seed=seed)
            versus = MeasureDifference(other, float((values - against).mean()), ci95)
        ci95 = bootstrap_interval(values, of, seed=seed)
        return FusionMeasure(metric, method, len(values), float(values.mean()), ci95, versus)

    through = np.array([row.let_through for row in rows])
    measures = []
    for method, values in by_method.items():
        against = None if other is None or method == other else by_method[other]
        measures.append(measure(method, values, against, groups))
        if method == _ANSWER and other == _BEST and through.any() and not through.all() and against is not None:
            measures.append(measure(_LET_THROUGH, values[through], against[through], groups[through]))
    return measures
