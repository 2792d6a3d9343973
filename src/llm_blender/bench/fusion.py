"""Fused answers against references, beside the answers that they were made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_blender.bench.rows import group_ids
from llm_blender.errors import InputError
from llm_blender.fusers import DEFAULT_RULE, FusionRule
from llm_blender.metrics import evaluate
from llm_blender.ranking import Interval, bootstrap_interval
from llm_blender.types import Candidate, Example, OnProgress, Ranker

__all__ = [
    "FusedRow",
    "FusionEffort",
    "FusionMeasure",
    "FusionMeasures",
    "FusionWins",
    "MeasureDifference",
    "fused_rows",
    "fusion_effort",
    "judge_fusions",
    "measure_fusions",
]


@dataclass(frozen=True)
class FusedRow:
    """One instruction that was answered by fusing.

    Attributes:
        prompt: instruction and input as one text.
        reference: a known good answer.
        answer: what was given back.
        candidates: what it was made of; at least one.
        best: which of them the ranker put first; None where the row does not say.
        fusion: what the row says of the fusing, as `FusionReport.to_dict` writes it.
    """

    prompt: str
    reference: str
    answer: str
    candidates: tuple[Candidate, ...]
    best: int | None
    fusion: Mapping[str, Any] = field(default_factory=dict)

    @property
    def chosen(self) -> str | None:
        """The text of the best candidate."""
        return None if self.best is None else self.candidates[self.best].text

    @property
    def written(self) -> str:
        """What the fuser wrote, given back or not; the answer where it wrote nothing that could be one."""
        text = self.fusion.get("text")
        return self.answer if not isinstance(text, str) or self.fusion.get("flaw") else text

    @property
    def let_through(self) -> bool:
        """Whether a fused text was given back."""
        return self.fusion.get("returned") == "fuse"

    def automatic(self, rule: FusionRule) -> str | None:
        """What the mode ``auto`` would have given back; None where the row does not say what that decides by."""
        overlap, lead = self.fusion.get("overlap"), self.fusion.get("lead")
        if not self.let_through or self.fusion.get("asked") == "auto":
            return self.answer
        if self.chosen is None or not isinstance(overlap, int | float):
            return None
        return self.chosen if rule.reason(lead, overlap) == "clear" else self.answer


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
        best = _best(row, fusion)
        found.append(FusedRow(row.prompt, row.reference or "", answer, row.candidates, best, dict(fusion)))
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


@dataclass(frozen=True)
class FusionEffort:
    """What fusing took.

    Attributes:
        rows: with a reference and a fusion.
        asked: of them, those for which the fuser wrote.
        let_through: of these, those whose fused text was given back.
        reasons: of all rows, why the answer is what it is; see `llm_blender.types.FusionReason`.
        prompt_tokens: read by the fuser, mean of those asked.
        completion_tokens: written by it, likewise.
        seconds: of fusing and guarding, likewise.
        cost: dollars of all; None where a price is unknown.
        truncated: share of the texts that the fuser could not read, mean of those asked.
    """

    rows: int
    asked: int
    let_through: int
    reasons: Mapping[str, int]
    prompt_tokens: float
    completion_tokens: float
    seconds: float
    cost: float | None
    truncated: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class FusionWins:
    """How often a judge prefers the fused text that was given back to the best candidate, both orders together.

    Attributes:
        judge: its name.
        rows: that were judged.
        wins: the fused text is better.
        ties: neither is.
        share: of wins, ties as half.
        ci95: interval of `share`, resampled by instruction.
    """

    judge: str
    rows: int
    wins: int
    ties: int
    share: float
    ci95: Interval

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def fusion_effort(rows: Sequence[FusedRow]) -> FusionEffort:
    """What fusing these rows took, as far as they say."""
    fused = [row.fusion for row in rows if row.fusion.get("fuser")]
    usage = [fusion.get("usage") or {} for fusion in fused]
    costs = [fusion.get("cost") for fusion in fused]

    def mean(values: Iterable[float]) -> float:
        return float(np.mean([*values] or [0.0]))

    return FusionEffort(
        rows=len(rows),
        asked=len(fused),
        let_through=sum(row.let_through for row in rows),
        reasons=dict(Counter(str(row.fusion.get("reason", "unknown")) for row in rows).most_common()),
        prompt_tokens=mean(of_row.get("prompt_tokens", 0) for of_row in usage),
        completion_tokens=mean(of_row.get("completion_tokens", 0) for of_row in usage),
        seconds=mean(fusion.get("seconds", 0.0) for fusion in fused),
        cost=None if any(cost is None for cost in costs) else float(sum(cost for cost in costs if cost is not None)),
        truncated=mean(fusion.get("truncated", 0.0) for fusion in fused),
    )


def judge_fusions(
    rows: Sequence[FusedRow], judge: Ranker, name: str, *, seed: int = 0, progress: OnProgress | None = None
) -> FusionWins | None:
    """Let a judge compare each fused text that was given back with the best candidate; None where there are none.

    Args:
        rows: at least one.
        judge: compares them in both orders.
        name: what it is called.
        seed: of the bootstrap.
        progress: called with the comparisons done and to do.

    Raises:
        WorkError: the judge failed.
    """
    doubtful = [(row, row.chosen) for row in rows if row.let_through and row.chosen not in (None, row.answer)]
    if not doubtful:
        return None
    pairs = [[row.answer, chosen or ""] for row, chosen in doubtful]
    verdicts = judge.rank_many([row.prompt for row, _ in doubtful], pairs, strategy="full", progress=progress)
    values = np.array([0.5 + np.sign(verdict.probability(0, 1) - 0.5) / 2 for verdict in verdicts])
    ci95 = bootstrap_interval(values, group_ids(row.prompt for row, _ in doubtful), seed=seed)
    wins, ties = int((values == 1).sum()), int((values == 0.5).sum())
    return FusionWins(name, len(values), wins, ties, float(values.mean()), ci95)
