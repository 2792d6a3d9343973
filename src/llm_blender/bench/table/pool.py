"""A file's rows as the table needs them: one candidate per LLM, the judge's word on them, and the fused answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from llm_blender._cmp_results import resolve_pair
from llm_blender.bench.rows import group_ids
from llm_blender.errors import InputError, unknown_name
from llm_blender.metrics import GPTRanking, gpt_ranking, read_cmp_results
from llm_blender.types import Candidate, Example

__all__ = [
    "FUSED",
    "Census",
    "FusedAnswer",
    "TablePool",
    "TableRow",
    "outcomes_of",
    "ranking_by_outcomes",
    "ranking_by_score",
    "read_pool",
]

FUSED = "fusion"
"""Name of the fused answer among the candidates, in the outcomes that stand in a row's ``fusion``."""


def outcomes_of(holder: Mapping[str, Any]) -> dict[str, str]:
    """The ``cmp_results`` of a row or of its ``fusion``; without those that are null, as Parquet fills them in."""
    return {
        pair: outcome for pair, outcome in read_cmp_results(holder.get("cmp_results")).items() if outcome is not None
    }


def ranking_by_outcomes(outcomes: Mapping[str, str], models: Sequence[str]) -> tuple[GPTRanking, int]:
    """GPT-Rank of one row, and how many outcomes were left out, since they do not name two of its LLMs.

    Raises:
        InputError: an outcome is unknown.
    """
    known = {pair: outcome for pair, outcome in outcomes.items() if _names_two(pair, models)}
    return gpt_ranking(known, models), len(outcomes) - len(known)


def ranking_by_score(scores: Sequence[float | None], models: Sequence[str]) -> GPTRanking:
    """GPT-Rank by the pairs that a score implies: the higher one wins, equal ones tie, one without it is not judged.

    Args:
        scores: per candidate.
        models: their LLMs, all different.
    """
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


_REMARKS = {
    "repeated_rows": "{n:,} rows repeat an earlier one, prompt and candidates, and are left out",
    "unnamed_candidates": "{n:,} candidates do not say their LLM and are left out",
    "repeated_candidates": "{n:,} candidates are a second one of their LLM in their row and are left out",
    "unknown_outcomes": "{n:,} outcomes of `cmp_results` name an LLM without a candidate in their row and are left out",
    "uncompared_candidates": "{n:,} candidates stand in judged rows but were not judged and are left out",
    "few_candidates": "{n:,} rows have fewer than two candidates and are left out",
    "incomplete_rows_left_out": "{n:,} rows lack a judged candidate of an LLM and are left out, as was asked for",
    "useless_rows": "{n:,} rows are neither judged nor have scores and are left out",
    "unjudged_rows": "{n:,} rows are not judged: they count for the metrics alone",
    "partly_judged_rows": "in {n:,} rows not all pairs are judged: ranks follow from those that are",
    "ragged_rows": "in {n:,} rows not every LLM has a candidate",
    "same_prompt_rows": "{n:,} rows have the prompt of an earlier one: intervals draw them together",
    "fused_rows": "{n:,} rows hold a fused answer: its line rests on them",
    "fused_unjudged_rows": "in {n:,} of them it was not judged and is no candidate's text",
}


@dataclass(frozen=True)
class Census:
    """What was found in a file, and what of it counts.

    Attributes:
        file: where the rows come from.
        found: rows in it.
        rows: rows that count.
        counts: what was left out or is special, by the names that `to_dict` gives them too; zeros are missing.
        unjudged_models: LLMs that were judged in no row and are left out, by the number of their candidates.
        missing_models: rows without a candidate of an LLM, by LLM; zeros are missing.
        missing_scores: rows that do not count for a metric, since a candidate lacks it, by metric; zeros are missing.
        unavailable: metrics that could not be computed, and why.
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
        """One line for everything that a reader of the table has to know."""
        said = [text.format(n=self.counts[name]) for name, text in _REMARKS.items() if self.counts.get(name)]
        if self.unjudged_models:
            said.append(f"judged in no row and left out: {_listed(self.unjudged_models)} candidates")
        if self.missing_models:
            said.append(f"rows without a candidate, by LLM: {_listed(self.missing_models)}")
        if self.missing_scores:
            said.append(
                f"rows that do not count, since a candidate lacks it, by metric: {_listed(self.missing_scores)}"
            )
        said += [f"{metric} is unavailable: {reason}" for metric, reason in self.unavailable.items()]
        return [f"{self.file}: {remark}" for remark in said]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


@dataclass(frozen=True, eq=False)
class FusedAnswer:
    """What was given back for a row that was fused.

    Attributes:
        text: fused, or the best candidate's where the guard preferred it.
        scores: of it, by metric.
        fuser: who wrote it; None where the row does not say.
        used: how many candidates the fuser read.
        judged: the judge's word on it (`FUSED`) and the candidates together; None where it was not judged.
        copy_of: the LLM whose candidate says the same, word for word.
    """

    text: str
    scores: Mapping[str, float]
    fuser: str | None
    used: int
    judged: GPTRanking | None
    copy_of: str | None


@dataclass(frozen=True, eq=False)
class TableRow:
    """One instruction.

    Attributes:
        prompt: instruction and input as one text.
        reference: a known good answer.
        candidates: by LLM, in the order of the row; at least two.
        judged: the judge's word on them.
        fused: None where the row was not fused.
    """

    prompt: str
    reference: str | None
    candidates: Mapping[str, Candidate]
    judged: GPTRanking
    fused: FusedAnswer | None = None

    @property
    def texts(self) -> list[str]:
        """Of the candidates."""
        return [candidate.text for candidate in self.candidates.values()]

    @property
    def is_judged(self) -> bool:
        """Whether the judge compared any."""
        return bool(self.judged.judged.any())


@dataclass(frozen=True, eq=False)
class TablePool:
    """The instructions of a file and the LLMs that answered them.

    Attributes:
        rows: n of them.
        models: c LLMs; in a row some may be missing.
        score: whose implied pairs are the judge's; None where pairs were judged (``cmp_results``).
        census: what else the file held.
    """

    rows: tuple[TableRow, ...]
    models: tuple[str, ...]
    score: str | None
    census: Census

    @property
    def groups(self) -> list[int]:
        """Per row a number of its prompt: what a bootstrap draws together."""
        return group_ids(row.prompt for row in self.rows)


def read_pool(
    file: str,
    examples: Iterable[Example],
    models: Sequence[str] = (),
    *,
    score: str | None = None,
    complete: bool = False,
    measuring: bool = False,
) -> TablePool:
    """Rows that a judge compared, or that have scores.

    A row's ``cmp_results`` are the judge's word, or with `score` the pairs that it implies. In a judged row, only
    judged candidates count. A fused answer was judged where its ``fusion`` holds ``cmp_results`` of pairs such as
    ``"fusion,MODEL"``, or has the score among its ``scores``.

    Args:
        file: where they come from.
        examples: as `llm_blender.data.read_rows` gives them.
        models: only these LLMs; none named: all that were judged in any row.
        score: its name among the candidates' scores.
        complete: only rows in which each LLM has a judged candidate.
        measuring: metrics will be computed, so that rows with a reference count without any score.

    Raises:
        InputError: a model or the score stands in no row (the nearest name is given), nothing was judged, or no row is
            left.
    """
    reader = _Reader(file, score, Counter())
    found = list(examples)
    _check_names(found, models, score)
    rows = [reader.row(number, example) for number, example in reader.different(found)]
    names = list(models or dict.fromkeys(name for row in rows for name in row.candidates))
    rows = [_only(row, names) for row in rows]
    kept = tuple(name for name in names if any(_compared(row, name) for row in rows))
    if not kept:
        raise InputError(_nothing_judged(file, found, score))
    unjudged = Counter(name for row in rows for name in row.candidates if name not in kept)
    rows = [row for row in map(reader.judged_part, [_only(row, kept) for row in rows]) if reader.counts_for(row)]
    rows = [row for row in rows if reader.is_useful(row, measuring) and reader.is_complete(row, kept, complete)]
    if not rows:
        raise InputError(f"{file} holds no row in which two candidates of {', '.join(kept)} are judged or have scores.")
    return TablePool(tuple(rows), kept, score, reader.census(len(found), rows, kept, unjudged))


def _check_names(examples: Sequence[Example], models: Sequence[str], score: str | None) -> None:
    candidates = [candidate for example in examples for candidate in example.candidates]
    scores = {name for candidate in candidates for name in candidate.scores}
    if score is not None and score not in scores:
        raise unknown_name("score", score, sorted(scores))
    names = {candidate.model for candidate in candidates if candidate.model is not None}
    for model in models:
        if model not in names:
            raise unknown_name("model", model, sorted(names))


def _nothing_judged(file: str, examples: Sequence[Example], score: str | None) -> str:
    if score is not None:
        return f"{file} holds no row in which two candidates have the score {score!r}."
    scores = sorted({name for example in examples for candidate in example.candidates for name in candidate.scores})
    known = f": {', '.join(scores)}" if scores else ", of which there is none"
    return f"{file} holds no judged pairs of these LLMs (`cmp_results`): name a score to compare by{known}."


def _compared(row: TableRow, model: str) -> bool:
    place = row.judged.index(model)
    return place is not None and bool(row.judged.judged[place])


def _only(row: TableRow, models: Sequence[str]) -> TableRow:
    """The row with these LLMs alone, ranked among themselves."""
    fused = row.fused
    if fused is not None and fused.judged is not None:
        fused = replace(fused, judged=fused.judged.keep([*models, FUSED]))
    if fused is not None and fused.copy_of not in models:
        fused = replace(fused, copy_of=None)
    candidates = {name: candidate for name, candidate in row.candidates.items() if name in models}
    return replace(row, candidates=candidates, judged=row.judged.keep(models), fused=fused)


@dataclass(frozen=True)
class _Reader:
    """Makes rows, and counts what it leaves out."""

    file: str
    score: str | None
    counts: Counter[str]

    def different(self, examples: Sequence[Example]) -> list[tuple[int, Example]]:
        """Without those that repeat an earlier one, each with its number in the file."""
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
            judged = self._judged(example.extra, candidates)
            return TableRow(example.prompt, example.reference, candidates, judged, self._fused(example, candidates))
        except InputError as error:
            raise InputError(f"{self.file}, row {number}: {error}") from None

    def _judged(self, extra: Mapping[str, Any], candidates: Mapping[str, Candidate]) -> GPTRanking:
        if self.score is not None:
            return ranking_by_score([c.scores.get(self.score) for c in candidates.values()], list(candidates))
        ranking, unknown = ranking_by_outcomes(outcomes_of(extra), list(candidates))
        self.counts["unknown_outcomes"] += unknown
        return ranking

    def _fused(self, example: Example, candidates: Mapping[str, Candidate]) -> FusedAnswer | None:
        fusion = example.extra.get("fusion")
        if fusion is None:
            return None
        text = fusion.get("answer", fusion.get("text")) if isinstance(fusion, Mapping) else None
        if not isinstance(text, str):
            raise InputError("`fusion` has no `text`: make it by `blend fuse`.")
        scores = {name: float(value) for name, value in (fusion.get("scores") or {}).items() if value is not None}
        copy_of = next((name for name, c in candidates.items() if c.text.strip() == text.strip()), None)
        judged = self._fused_judged(example, candidates, fusion, scores)
        return FusedAnswer(text, scores, fusion.get("fuser"), len(fusion.get("used") or ()), judged, copy_of)

    def _fused_judged(
        self,
        example: Example,
        candidates: Mapping[str, Candidate],
        fusion: Mapping[str, Any],
        scores: Mapping[str, float],
    ) -> GPTRanking | None:
        names = [*candidates, FUSED]
        if self.score is not None:
            values = [candidate.scores.get(self.score) for candidate in candidates.values()]
            return ranking_by_score([*values, scores[self.score]], names) if self.score in scores else None
        outcomes = outcomes_of(fusion)
        if not outcomes:
            return None
        ranking, unknown = ranking_by_outcomes(outcomes_of(example.extra) | outcomes, names)
        self.counts["unknown_outcomes"] += unknown - ranking_by_outcomes(outcomes_of(example.extra), names)[1]
        return ranking if ranking.judged[-1] else None

    def judged_part(self, row: TableRow) -> TableRow:
        """In a judged row the judged candidates; an unjudged one as it is."""
        if not row.is_judged:
            return row
        judged = [name for name in row.candidates if _compared(row, name)]
        self.counts["uncompared_candidates"] += len(row.candidates) - len(judged)
        return _only(row, judged)

    def counts_for(self, row: TableRow) -> bool:
        few = len(row.candidates) < 2
        self.counts["few_candidates"] += few
        return not few

    def is_useful(self, row: TableRow, measuring: bool) -> bool:
        scored = any(candidate.scores for candidate in row.candidates.values())
        useful = row.is_judged or scored or (measuring and bool((row.reference or "").strip()))
        self.counts["useless_rows"] += not useful
        return useful

    def is_complete(self, row: TableRow, models: Sequence[str], wanted: bool) -> bool:
        whole = row.is_judged and len(row.candidates) == len(models)
        self.counts["incomplete_rows_left_out"] += wanted and not whole
        return whole or not wanted

    def census(
        self, found: int, rows: Sequence[TableRow], models: Sequence[str], unjudged: Mapping[str, int]
    ) -> Census:
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
        missing = {name: sum(name not in row.candidates for row in rows) for name in models}
        return Census(
            self.file,
            found,
            len(rows),
            counts={name: count for name, count in counts.items() if count},
            unjudged_models=dict(unjudged),
            missing_models={name: count for name, count in missing.items() if count},
        )
