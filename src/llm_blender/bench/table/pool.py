"""Rows of a file as the paper's table needs them: one candidate per LLM, the judge's ranking, and the fused answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from llm_blender._cmp_results import resolve_pair
from llm_blender.bench.methods import CandidateGrid
from llm_blender.bench.report import Result
from llm_blender.bench.rows import BenchRow, check_names, fused_answer, group_ids
from llm_blender.errors import InputError
from llm_blender.metrics import GPTRanking, gpt_ranking, read_cmp_results
from llm_blender.types import Candidate, Example

FUSED = "fusion"
"""Name of the fused answer among the candidates, in the outcomes of a row's ``fusion``."""

_REMARKS = {
    "repeated_rows": "{n:,} rows repeat the prompt and candidates of an earlier one and are left out",
    "unnamed_candidates": "{n:,} candidates do not name their LLM and are left out",
    "repeated_candidates": "{n:,} candidates are the second one of their LLM in their row and are left out",
    "unknown_outcomes": "{n:,} outcomes of `cmp_results` name an LLM without a candidate in their row and are left out",
    "uncompared_candidates": "{n:,} candidates in judged rows were not judged and are left out",
    "few_candidates": "{n:,} rows have fewer than two candidates and are left out",
    "incomplete_rows_left_out": "{n:,} rows lack a judged candidate of an LLM and are left out (--complete)",
    "useless_rows": "{n:,} rows are neither judged nor have scores and are left out",
    "unjudged_rows": "{n:,} rows are not judged: they count for the metrics alone",
    "partly_judged_rows": "in {n:,} rows not all pairs are judged: ranks follow from those that are",
    "ragged_rows": "in {n:,} rows not every LLM has a candidate",
    "same_prompt_rows": "{n:,} rows have the prompt of an earlier one: intervals draw them together",
    "fused_rows": "{n:,} rows hold a fused answer: its line rests on them",
    "fused_unjudged_rows": "in {n:,} of them it was not judged and is not the text of a candidate",
}


@dataclass(frozen=True)
class Coverage(Result):
    """Rows, candidates and scores of a file that count, and those that are left out.

    Attributes:
        file: source of the rows.
        found: number of rows in it.
        rows: number of rows that count.
        counts: rows and candidates that are left out or special, by the names of the JSON; zeros are missing.
        unjudged_models: candidates of LLMs that were judged in no row and are left out, by LLM.
        missing_models: rows without a candidate of an LLM, by LLM; zeros are missing.
        missing_scores: rows that do not count for a metric because a candidate lacks it, by metric; zeros are missing.
        unavailable: metrics that could not be computed, with the reason.
    """

    file: str
    found: int
    rows: int
    counts: Mapping[str, int] = field(default_factory=dict)
    unjudged_models: Mapping[str, int] = field(default_factory=dict)
    missing_models: Mapping[str, int] = field(default_factory=dict)
    missing_scores: Mapping[str, int] = field(default_factory=dict)
    unavailable: Mapping[str, str] = field(default_factory=dict)

    def remarks(self) -> list[str]:
        """Return one line for each fact that a reader of the table needs."""
        lines = [text.format(n=self.counts[name]) for name, text in _REMARKS.items() if self.counts.get(name)]
        for text, counts in (
            ("judged in no row and left out: {} candidates", self.unjudged_models),
            ("rows without a candidate, by LLM: {}", self.missing_models),
            ("rows that do not count, since a candidate lacks it, by metric: {}", self.missing_scores),
        ):
            if counts:
                lines.append(text.format(", ".join(f"{name} {count:,}" for name, count in counts.items())))
        lines += [f"{metric} is unavailable: {reason}" for metric, reason in self.unavailable.items()]
        return [f"{self.file}: {line}" for line in lines]


@dataclass(frozen=True, eq=False)
class FusedAnswer:
    """Answer returned for a row that was fused.

    Attributes:
        text: fused, or the best candidate's where the guard preferred it.
        fuser: None where the row does not name it.
        used: number of candidates that the fuser read.
        judged: the judge's ranking of it (`FUSED`) and the candidates together; None where it was not judged.
        copy_of: LLM whose candidate is the same text.
    """

    text: str
    scores: Mapping[str, float]
    fuser: str | None
    used: int
    judged: GPTRanking | None
    copy_of: str | None


@dataclass(frozen=True, eq=False, kw_only=True)
class TableRow(BenchRow):
    """One instruction, with at most one candidate of each LLM.

    Attributes:
        judged: the judge's ranking of the candidates, in their order.
        fused: None where the row was not fused.
    """

    judged: GPTRanking
    fused: FusedAnswer | None = None

    @property
    def named(self) -> dict[str, Candidate]:
        """Candidates by LLM."""
        return dict(zip(self.judged.models, self.candidates, strict=True))

    @property
    def is_judged(self) -> bool:
        """Whether the judge compared any."""
        return bool(self.judged.judged.any())

    def keep(self, models: Sequence[str]) -> TableRow:
        """Return the row with the candidates of these LLMs alone, ranked among themselves."""
        fused = self.fused
        if fused is not None and fused.judged is not None:
            fused = replace(fused, judged=fused.judged.keep([*models, FUSED]))
        if fused is not None and fused.copy_of not in models:
            fused = replace(fused, copy_of=None)
        candidates = tuple(candidate for candidate in self.candidates if candidate.model in models)
        return replace(self, candidates=candidates, judged=self.judged.keep(models), fused=fused)

    def judged_models(self) -> list[str]:
        """Return the LLMs whose candidate was compared with another."""
        return [model for model, judged in zip(self.judged.models, self.judged.judged, strict=True) if judged]


@dataclass(frozen=True, eq=False)
class TablePool:
    """The n instructions of a file and the c LLMs that answered them; a row may lack some LLMs.

    Attributes:
        score: score whose implied pairs are the judge's; None where pairs were judged (``cmp_results``).
        coverage: what else the file held.
    """

    rows: tuple[TableRow, ...]
    models: tuple[str, ...]
    score: str | None
    coverage: Coverage

    @property
    def groups(self) -> list[int]:
        """Number of each row's prompt, for a bootstrap over instructions."""
        return group_ids(row.prompt for row in self.rows)

    @cached_property
    def grid(self) -> CandidateGrid:
        """Layout of ``[n, c]`` arrays."""
        return CandidateGrid(self.rows, self.models)


def read_pool(
    file: str,
    examples: Iterable[Example],
    models: Sequence[str] = (),
    *,
    score: str | None = None,
    complete: bool = False,
    measuring: bool = False,
) -> TablePool:
    """Read rows that a judge compared, or that have scores.

    The judge's outcomes are a row's ``cmp_results``, or with `score` the pairs that it implies. In a judged row, only
    judged candidates count. A fused answer is judged if its ``fusion`` holds ``cmp_results`` of pairs such as
    ``"fusion,MODEL"``, or has the score among its ``scores``.

    Args:
        file: source of the rows.
        examples: rows of the file.
        models: LLMs that are kept; empty keeps all that were judged in any row.
        score: name of a score of the candidates.
        complete: keep only rows in which each LLM has a judged candidate.
        measuring: metrics will be computed, so that rows with a reference count without any score.

    Raises:
        InputError: no row has a model or the score (the message gives the nearest name), nothing was judged, or no row
            is left.
    """
    reader = _Reader(file, score, Counter())
    found = list(examples)
    check_names(found, models, score)
    rows = [reader.row(number, example) for number, example in reader.different(found)]
    names = list(models or dict.fromkeys(name for row in rows for name in row.judged.models))
    rows = [row.keep(names) for row in rows]
    judged = {name for row in rows for name in row.judged_models()}
    kept = tuple(name for name in names if name in judged)
    if not kept:
        raise InputError(_nothing_judged(file, found, score))
    unjudged = Counter(name for row in rows for name in row.judged.models if name not in kept)
    rows = [reader.judged_part(row.keep(kept)) for row in rows]
    rows = [row for row in rows if reader.counts_for(row, kept, complete=complete, measuring=measuring)]
    if not rows:
        raise InputError(f"{file} holds no row in which two candidates of {', '.join(kept)} are judged or have scores.")
    return TablePool(tuple(rows), kept, score, reader.coverage(len(found), rows, kept, unjudged))


def _nothing_judged(file: str, examples: Sequence[Example], score: str | None) -> str:
    if score is not None:
        return f"{file} holds no row in which two candidates have the score {score!r}."
    scores = sorted({name for example in examples for candidate in example.candidates for name in candidate.scores})
    known = f": {', '.join(scores)}" if scores else "; the rows have none"
    return f"{file} holds no judged pairs of these LLMs (`cmp_results`): name a score to compare by{known}."


@dataclass(frozen=True)
class _Reader:
    """Makes rows, and counts those that are left out."""

    file: str
    score: str | None
    counts: Counter[str]

    def different(self, examples: Sequence[Example]) -> list[tuple[int, Example]]:
        """Return the examples that repeat no earlier one, each with its number in the file."""
        first: dict[Any, tuple[int, Example]] = {}
        for number, example in enumerate(examples, 1):
            key = example.prompt, tuple((candidate.model, candidate.text) for candidate in example.candidates)
            first.setdefault(key, (number, example))
        self.counts["repeated_rows"] += len(examples) - len(first)
        return list(first.values())

    def row(self, number: int, example: Example) -> TableRow:
        candidates: dict[str, Candidate] = {}
        for candidate in example.candidates:
            if candidate.model is None:
                self.counts["unnamed_candidates"] += 1
            elif candidate.model in candidates:
                self.counts["repeated_candidates"] += 1
            else:
                candidates[candidate.model] = candidate
        try:
            return TableRow(
                example.prompt,
                tuple(candidates.values()),
                reference=example.reference,
                judged=self._judged(example.extra, candidates),
                fused=self._fused(example, candidates),
            )
        except InputError as error:
            raise InputError(f"{self.file}, row {number}: {error}") from None

    def _judged(self, extra: Mapping[str, Any], candidates: Mapping[str, Candidate]) -> GPTRanking:
        if self.score is not None:
            return _ranking_by_score([c.scores.get(self.score) for c in candidates.values()], list(candidates))
        ranking, unknown = _ranking_by_outcomes(_outcomes(extra), list(candidates))
        self.counts["unknown_outcomes"] += unknown
        return ranking

    def _fused(self, example: Example, candidates: Mapping[str, Candidate]) -> FusedAnswer | None:
        fusion = example.extra.get("fusion")
        if fusion is None:
            return None
        text = fused_answer(fusion)
        scores = {name: float(value) for name, value in (fusion.get("scores") or {}).items() if value is not None}
        copy_of = next((name for name, c in candidates.items() if c.text.strip() == text.strip()), None)
        names, judged, outcomes = [*candidates, FUSED], None, _outcomes(fusion)
        if self.score is not None:
            if self.score in scores:
                values = [candidate.scores.get(self.score) for candidate in candidates.values()]
                judged = _ranking_by_score([*values, scores[self.score]], names)
        elif outcomes:
            of_row = _outcomes(example.extra)
            ranking, unknown = _ranking_by_outcomes(of_row | outcomes, names)
            self.counts["unknown_outcomes"] += unknown - _ranking_by_outcomes(of_row, names)[1]
            judged = ranking if ranking.judged[-1] else None
        return FusedAnswer(text, scores, fusion.get("fuser"), len(fusion.get("used") or ()), judged, copy_of)

    def judged_part(self, row: TableRow) -> TableRow:
        """Return a judged row with its judged candidates alone; an unjudged one as it is."""
        if not row.is_judged:
            return row
        judged = row.judged_models()
        self.counts["uncompared_candidates"] += len(row.candidates) - len(judged)
        return row.keep(judged)

    def counts_for(self, row: TableRow, models: Sequence[str], *, complete: bool, measuring: bool) -> bool:
        useful = row.is_judged or any(candidate.scores for candidate in row.candidates)
        if len(row.candidates) < 2:
            reason = "few_candidates"
        elif not (useful or (measuring and (row.reference or "").strip())):
            reason = "useless_rows"
        elif complete and not (row.is_judged and len(row.candidates) == len(models)):
            reason = "incomplete_rows_left_out"
        else:
            return True
        self.counts[reason] += 1
        return False

    def coverage(
        self, found: int, rows: Sequence[TableRow], models: Sequence[str], unjudged: Mapping[str, int]
    ) -> Coverage:
        counts = self.counts + Counter(
            unjudged_rows=sum(not row.is_judged for row in rows),
            partly_judged_rows=sum(row.is_judged and bool(np.isnan(row.judged.matrix).any()) for row in rows),
            ragged_rows=sum(len(row.candidates) < len(models) for row in rows),
            same_prompt_rows=len(rows) - len(set(group_ids(row.prompt for row in rows))),
            fused_rows=sum(row.fused is not None for row in rows),
            fused_unjudged_rows=sum(
                row.fused is not None and row.fused.judged is None and (row.fused.copy_of is None or not row.is_judged)
                for row in rows
            ),
        )
        missing = {name: sum(name not in row.judged.models for row in rows) for name in models}
        return Coverage(
            self.file,
            found,
            len(rows),
            counts={name: count for name, count in counts.items() if count},
            unjudged_models=dict(unjudged),
            missing_models={name: count for name, count in missing.items() if count},
        )


def _outcomes(holder: Mapping[str, Any]) -> dict[str, str]:
    """Return the ``cmp_results`` of a row or of its ``fusion``, without the nulls that Parquet fills in."""
    return {
        pair: outcome for pair, outcome in read_cmp_results(holder.get("cmp_results")).items() if outcome is not None
    }


def _ranking_by_outcomes(outcomes: Mapping[str, str], models: Sequence[str]) -> tuple[GPTRanking, int]:
    """Rank a row, and count the outcomes that do not name two of its LLMs and are left out.

    Raises:
        InputError: an outcome is unknown.
    """
    known = {pair: outcome for pair, outcome in outcomes.items() if _names_two(pair, models)}
    return gpt_ranking(known, models), len(outcomes) - len(known)


def _ranking_by_score(scores: Sequence[float | None], models: Sequence[str]) -> GPTRanking:
    """Rank a row by a score: the higher one wins, equal ones tie, a candidate without it is not judged."""
    values = np.array([np.nan if score is None else score for score in scores])
    matrix = np.sign(np.subtract.outer(values, values))
    np.fill_diagonal(matrix, 0)
    return GPTRanking(tuple(models), matrix)


def _names_two(pair: str, models: Sequence[str]) -> bool:
    try:
        resolve_pair(pair, models)
    except InputError:
        return False
    return True
