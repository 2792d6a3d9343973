"""Fused answers against references, beside the candidates that they were made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llm_blender.bench.methods import CandidateGrid, Method, best_shares
from llm_blender.bench.report import NOTHING, Result, Table, format_interval, format_number
from llm_blender.bench.resampling import Difference, Floats, Resampling
from llm_blender.bench.rows import BenchRow, fused_answer, group_ids
from llm_blender.errors import InputError
from llm_blender.fusers import DEFAULT_RULE, FusionRule
from llm_blender.metrics import evaluate
from llm_blender.ranking import Interval
from llm_blender.types import Example, OnProgress, Ranker


@dataclass(frozen=True, kw_only=True)
class FusedRow(BenchRow):
    """One instruction that was answered by fusing; it has a reference and at least one candidate.

    Attributes:
        answer: the answer returned.
        best: place of the candidate that the ranker put first; None where the row does not give it.
        fusion: report of the fusion, as `FusionReport.to_dict` writes it.
    """

    answer: str
    best: int | None
    fusion: Mapping[str, Any] = field(default_factory=dict)

    @property
    def chosen(self) -> str | None:
        """Text of the best candidate."""
        return None if self.best is None else self.candidates[self.best].text

    @property
    def written(self) -> str:
        """Text that the fuser wrote, returned or not; `answer` where it wrote none or a flawed one."""
        text = self.fusion.get("text")
        return self.answer if not isinstance(text, str) or self.fusion.get("flaw") else text

    @property
    def let_through(self) -> bool:
        """Whether a fused text was returned."""
        return self.fusion.get("returned") == "fuse"

    def automatic(self, rule: FusionRule) -> str | None:
        """Return the answer of the mode ``auto``; None where the row does not hold what it decides by."""
        overlap, lead = self.fusion.get("overlap"), self.fusion.get("lead")
        if not self.let_through or self.fusion.get("asked") == "auto":
            return self.answer
        if self.chosen is None or not isinstance(overlap, int | float):
            return None
        return self.chosen if rule.reason(lead, overlap) == "clear" else self.answer


def fused_rows(file: str, rows: Iterable[Example]) -> tuple[list[FusedRow], int]:
    """Select the rows with a fused answer and a reference, and count the others.

    `fusion` is as ``blend fuse`` writes it, and `ranking` as ``blend rank`` does.

    Raises:
        InputError: no row has both, or a `fusion` has no text.
    """
    found, left_out = [], 0
    for number, row in enumerate(rows, 1):
        fusion = row.extra.get("fusion")
        if fusion is None or not (row.reference or "").strip() or not row.candidates:
            left_out += 1
            continue
        try:
            answer = fused_answer(fusion)
        except InputError as error:
            raise InputError(f"{file}, row {number}: {error}") from None
        best, report = _best(row, fusion), dict(fusion)
        found.append(
            FusedRow(row.prompt, row.candidates, reference=row.reference, answer=answer, best=best, fusion=report)
        )
    if not found:
        raise InputError(
            f"{file} holds no row with both a fused answer (`fusion`, from `blend fuse`) and a reference (`output`)."
        )
    return found, left_out


def _best(row: Example, fusion: Mapping[str, Any]) -> int | None:
    """Find the best candidate by the ranking; without one, by the fuser's reading order, which is best first."""
    ranking, used = row.extra.get("ranking"), fusion.get("used")
    place = ranking.get("best") if isinstance(ranking, Mapping) else None
    if place is None and isinstance(used, Sequence) and used:
        place = used[0]
    return place if isinstance(place, int) and 0 <= place < len(row.candidates) else None


_ANSWER, _FUSED, _AUTO, _LET_THROUGH = "answer", "fused", "auto", "let through"
_BEST, _RANDOM, _LONGEST, _ORACLE = "best candidate", "random", "longest", "oracle"
_RESERVED = (None, _ANSWER, _FUSED, _AUTO, _BEST, _RANDOM, _LONGEST, _ORACLE)


@dataclass(frozen=True)
class FusionMeasure(Result):
    """Quality of one method's answers by one metric.

    Attributes:
        method: ``answer``, ``fused``, ``best candidate``, …, or an LLM; see `measure_fusions`.
        mean: on the metric's own scale, higher is better.
        versus: against the best candidate, or against ``random`` where that is unknown; None for that one itself.
    """

    metric: str
    method: str
    rows: int
    mean: float
    ci95: Interval
    versus: Difference | None


@dataclass(frozen=True)
class FusionMeasures:
    """All methods, metric by metric, and the reason of each metric that could not be computed."""

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
    """Measure the answers and the candidates.

    ``answer`` is the answer returned, under guard if there was one; ``let through`` the same on the rows alone in which
    that is a fused text; ``fused`` the text that the fuser wrote, returned or not (the answer where it wrote none);
    ``auto`` the answer of the mode ``auto``; ``best candidate`` the one that the ranker put first. Each is measured
    where the rows hold what it needs. With `candidates`, which takes as many times longer, also ``random``, the
    expectation of a draw, ``longest`` by characters, each LLM with an answer in every row, and ``oracle``, the best
    candidate of each row by that very metric. `metrics` are settings by name, as for `llm_blender.metrics.evaluate`.
    """
    chosen = _chosen(rows, rule)
    texts = [
        list(dict.fromkeys([*given.values(), *(row.texts if candidates else ())]))
        for row, given in zip(rows, chosen, strict=True)
    ]
    table = evaluate(
        [text for of_row in texts for text in of_row],
        [row.reference or "" for row, of_row in zip(rows, texts, strict=True) for _ in of_row],
        metrics,
        seed=seed,
        progress=progress,
    )
    grid = CandidateGrid(rows)
    candidate_methods = _candidate_methods(grid) if candidates else []
    measures: list[FusionMeasure] = []
    unavailable: dict[str, str] = {}
    for line in table:
        if line.scores is None:
            unavailable[line.metric] = line.status.removeprefix("unavailable: ")
            continue
        values = iter(line.scores.values.tolist())
        scores = [{text: next(values) for text in of_row} for of_row in texts]
        by_method = {
            method: np.array([of_row[given[method]] for of_row, given in zip(scores, chosen, strict=True)])
            for method in chosen[0]
        }
        if candidates:
            of_candidates = grid.fill(
                [of_row[text] for text in row.texts] for row, of_row in zip(rows, scores, strict=True)
            )
            oracle = Method(_ORACLE, "oracle", best_shares(of_candidates))
            by_method |= {method.name: method.expect(of_candidates) for method in (*candidate_methods, oracle)}
        measures += _measure(line.metric, rows, by_method, seed)
    return FusionMeasures(tuple(measures), unavailable)


def _chosen(rows: Sequence[FusedRow], rule: FusionRule) -> list[dict[str, str]]:
    """Return each row's text by method, for the methods that have one in every row and are not all like ``answer``."""
    chosen = [{_ANSWER: row.answer, _FUSED: row.written, _AUTO: row.automatic(rule), _BEST: row.chosen} for row in rows]
    different = [name for name in (_FUSED, _AUTO) if any(row[name] != row[_ANSWER] for row in chosen)]
    known = [name for name in (_ANSWER, *different, _BEST) if all(row[name] is not None for row in chosen)]
    return [{name: row[name] or "" for name in known} for row in chosen]


def _candidate_methods(grid: CandidateGrid) -> list[Method]:
    """Return ``random``, ``longest`` (the first of equal ones), and each LLM with a candidate in every row."""
    longest = [int(np.argmax([len(text) for text in row.texts])) for row in grid.rows]
    models = [model for model in dict.fromkeys(grid.rows[0].models) if model not in _RESERVED]
    everywhere = [model for model in models if model and all(model in row.models for row in grid.rows)]
    return [
        grid.random(),
        Method(_LONGEST, "baseline", grid.one_hot(longest)),
        *(Method(name, "LLM", grid.one_hot([row.models.index(name) for row in grid.rows])) for name in everywhere),
    ]


def _measure(metric: str, rows: Sequence[FusedRow], by_method: Mapping[str, Floats], seed: int) -> list[FusionMeasure]:
    """Measure the methods by one metric, each against the best candidate, or else against ``random``."""
    other = next((name for name in (_BEST, _RANDOM) if name in by_method), None)
    groups = np.array(group_ids(row.prompt for row in rows))
    through = np.array([row.let_through for row in rows])
    all_rows = Resampling(groups, seed=seed)
    measures = []

    def measure(method: str, values: Floats, others: Floats | None, resampling: Resampling) -> None:
        versus = None if other is None or others is None else resampling.difference(other, values, others)
        ci95 = resampling.interval(values)
        measures.append(FusionMeasure(metric, method, len(values), float(values.mean()), ci95, versus))

    for method, values in by_method.items():
        others = None if other is None or method == other else by_method[other]
        measure(method, values, others, all_rows)
        if method == _ANSWER and other == _BEST and others is not None and through.any() and not through.all():
            measure(_LET_THROUGH, values[through], others[through], Resampling(groups[through], seed=seed))
    return measures


@dataclass(frozen=True)
class FusionEffort(Result):
    """Tokens, time and dollars of fusing; tokens, `seconds` and `truncated` are means over the calls of the fuser.

    Attributes:
        asked: rows for which the fuser was called.
        let_through: rows whose fused text was returned.
        reasons: rows by the reason of their answer; see `llm_blender.types.FusionReason`.
        seconds: fusing and guarding; None where the rows have no times, such as those of `blend fuse`.
        cost: dollars of all; None where a price is unknown.
        truncated: share of the texts that the fuser could not read.
    """

    rows: int
    asked: int
    let_through: int
    reasons: Mapping[str, int]
    prompt_tokens: float
    completion_tokens: float
    seconds: float | None
    cost: float | None
    truncated: float


@dataclass(frozen=True)
class FusionWins(Result):
    """The rate at which a judge prefers the returned fused text to the best candidate, over both orders.

    `share` is that of the wins, with ties as half.
    """

    judge: str
    rows: int
    wins: int
    ties: int
    share: float
    ci95: Interval


def fusion_effort(rows: Sequence[FusedRow]) -> FusionEffort:
    """Sum up what fusing these rows took, as far as they record it."""
    fused = [row.fusion for row in rows if row.fusion.get("fuser")]
    usage = [fusion.get("usage") or {} for fusion in fused]
    costs = [fusion.get("cost") for fusion in fused]
    times = [fusion["seconds"] for fusion in fused if "seconds" in fusion]

    def mean(values: Iterable[float]) -> float:
        return float(np.mean([*values] or [0.0]))

    return FusionEffort(
        rows=len(rows),
        asked=len(fused),
        let_through=sum(row.let_through for row in rows),
        reasons=dict(Counter(str(row.fusion.get("reason", "unknown")) for row in rows).most_common()),
        prompt_tokens=mean(of_row.get("prompt_tokens", 0) for of_row in usage),
        completion_tokens=mean(of_row.get("completion_tokens", 0) for of_row in usage),
        seconds=mean(times) if times else None,
        cost=None if any(cost is None for cost in costs) else float(sum(cost for cost in costs if cost is not None)),
        truncated=mean(fusion.get("truncated", 0.0) for fusion in fused),
    )


def judge_fusions(
    rows: Sequence[FusedRow], judge: Ranker, name: str, *, seed: int = 0, progress: OnProgress | None = None
) -> FusionWins | None:
    """Let a judge compare each fused text that was returned with the best candidate, in both orders.

    Returns:
        None if no fused text was returned, or each is its best candidate.

    Raises:
        WorkError: the judge failed.
    """
    pairs = [(row, row.chosen) for row in rows if row.let_through and row.chosen not in (None, row.answer)]
    if not pairs:
        return None
    prompts, texts = [row.prompt for row, _ in pairs], [[row.answer, chosen or ""] for row, chosen in pairs]
    rankings = judge.rank_many(prompts, texts, strategy="full", progress=progress)
    values = np.array([0.5 + np.sign(ranking.probability(0, 1) - 0.5) / 2 for ranking in rankings])
    ci95 = Resampling(group_ids(prompts), seed=seed).interval(values)
    wins, ties = int((values == 1).sum()), int((values == 0.5).sum())
    return FusionWins(name, len(values), wins, ties, float(values.mean()), ci95)


def fusion_table(results: Mapping[str, FusionMeasures]) -> Table:
    """Return means on each metric's own scale, by file; the name of a single file is left out.

    A metric that could not be computed has a line without numbers.
    """
    measures = [measure for of_file in results.values() for measure in of_file.measures]
    other = next((measure.versus.method for measure in measures if measure.versus), "")
    lines = [
        (
            file,
            measure.metric,
            measure.method,
            f"{measure.rows:,}",
            format_number(measure.mean, ".4f"),
            format_interval(measure.ci95, ".4f"),
            format_number(measure.versus.mean if measure.versus else None, "+.4f"),
            format_interval(measure.versus.ci95 if measure.versus else None, "+.4f"),
        )
        for file, of_file in results.items()
        for measure in of_file.measures
    ]
    for file, of_file in results.items():
        lines += [(file, metric, "unavailable", *(NOTHING,) * 5) for metric in of_file.unavailable]
    against = f"against {other}" if other else "difference"
    columns = ("file", "metric", "method", "rows", "mean", "95 %", against, "95 %")
    table = Table(columns, tuple(lines), names=3)
    return table if len(results) > 1 else table.without_first()


def fusion_effort_table(efforts: Mapping[str, FusionEffort], wins: Mapping[str, FusionWins]) -> Table:
    """Return the effort by file, and how often a judge preferred the fused text, if there was one."""
    lines = []
    for file, effort in efforts.items():
        won = wins.get(file)
        lines.append(
            (
                file,
                ", ".join(f"{reason} {count:,}" for reason, count in effort.reasons.items()),
                f"{effort.rows:,}",
                f"{effort.asked:,}",
                f"{effort.let_through:,}",
                f"{effort.prompt_tokens:,.0f}",
                f"{effort.completion_tokens:,.0f}",
                "" if effort.seconds is None else f"{effort.seconds:,.2f}",
                format_number(effort.cost, ".4f"),
                format_number(effort.truncated, ".1f", 100),
                f"{100 * won.share:.1f} ({format_interval(won.ci95, '.1f', 100)}) of {won.rows:,}" if won else NOTHING,
            )
        )
    columns = ("reasons", "rows", "fused", "let through", "tokens in", "out", "s", "$", "cut %", "judge, wins %")
    table = Table(("file", *columns), tuple(lines), names=2)
    return table if len(efforts) > 1 else table.without_first()
