"""Score candidates against references, and write the rows of a build."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_blender._hub import file_sha256
from llm_blender.data import RowWriter, normalized_key
from llm_blender.datasets.candidates import AnsweredRows
from llm_blender.datasets.importing import WrittenFile, split_of
from llm_blender.datasets.judging import labelled_pair, outcomes, row_replies
from llm_blender.datasets.plan import SPLIT, BuildPlan, Participant
from llm_blender.jobs.engine import Item, OnRows, Result, work_through_batches
from llm_blender.jobs.journal import Journal
from llm_blender.metrics import evaluate
from llm_blender.types import Candidate, Example

_ROWS_AT_ONCE = 32  # an interrupt loses seconds of work, and batches are well filled
_UNAVAILABLE = "unavailable: "


@dataclass(frozen=True)
class Measured:
    """Metrics of a build.

    Attributes:
        settings: settings of each measured metric, by name.
        unavailable: reason of each unavailable metric, by name.
    """

    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)


class _NotAvailable(Exception):  # noqa: N818 - internal to this module
    pass


def measure(
    rows: AnsweredRows,
    metrics: Sequence[str],
    journal: Journal,
    *,
    on_rows: Callable[[str], OnRows | None] = lambda metric: None,
) -> Measured:
    """Compute the scores that the journal lacks, of the rows with a reference.

    A metric whose model or library is unavailable is skipped, with the reason. `on_rows` returns the callback for the
    progress of a metric.
    """
    settings: dict[str, dict[str, Any]] = {}
    unavailable: dict[str, str] = {}
    measurable = [
        (row, [candidate.text for candidate in candidates])
        for row, candidates in rows
        if candidates and (row.reference or "").strip()
    ]
    for metric in metrics if measurable else ():
        items = [Item(_key(metric, row, texts), (texts, row.reference or "")) for row, texts in measurable]

        def score(batch: Sequence[tuple[list[str], str]], metric: str = metric) -> list[Result]:
            predictions = [text for texts, _ in batch for text in texts]
            references = [reference for texts, reference in batch for _ in texts]
            row = evaluate(predictions, references, [metric])[metric]
            if row.scores is None:
                raise _NotAvailable(row.status.removeprefix(_UNAVAILABLE))
            values = iter(row.scores.values.tolist())
            about = {
                name: value
                for name, value in row.scores.settings.items()
                if value is None or isinstance(value, str | int | float | bool)
            }
            return [Result({"scores": [next(values) for _ in texts], "settings": about}) for texts, _ in batch]

        try:
            work_through_batches(journal, items, score, size=_ROWS_AT_ONCE, on_rows=on_rows(metric))
        except _NotAvailable as error:
            unavailable[metric] = str(error)
        else:
            settings[metric] = journal.value(items[0].key)["settings"]
    return Measured(settings, unavailable)


def row_scores(
    row: Example, candidates: Sequence[Candidate], metrics: Sequence[str], journal: Journal
) -> list[dict[str, float]]:
    """Return the finite scores of each candidate, by metric."""
    scores: list[dict[str, float]] = [{} for _ in candidates]
    for metric in metrics:
        found = journal.value(_key(metric, row, [candidate.text for candidate in candidates]))
        if found is not None:
            for of_candidate, value in zip(scores, found["scores"], strict=True):
                if value is not None and math.isfinite(value):
                    of_candidate[metric] = round(value, 6)
    return scores


def _key(metric: str, row: Example, texts: Sequence[str]) -> str:
    """Make the journal key of a row; it depends on the texts, so a new candidate is measured."""
    digest = hashlib.sha256("\0".join(texts).encode("utf-8", "replace")).hexdigest()[:16]
    return f"{metric}\t{row.id}\t{digest}"


@dataclass(frozen=True)
class WrittenRows(WrittenFile):
    """File that a build wrote.

    Attributes:
        judged: number of outcomes.
        sha256: hash of the file.
        card: path of the card.
    """

    judged: int
    sha256: str
    card: str


def write_rows(
    plan: BuildPlan,
    rows: AnsweredRows,
    pool: Sequence[Participant],
    metrics: Sequence[str],
    scores: Journal,
    judgements: Journal,
) -> list[WrittenRows]:
    """Write each row to the file of its split; each file appears whole or not at all."""
    paths = {split: plan.out.replace(SPLIT, split) for split in plan.split} or {"": plan.out}
    counts = {split: Counter(rows=0, candidates=0, judged=0) for split in paths}
    judged = _judged(rows, plan, judgements)
    parquet = plan.out.endswith(".parquet")
    decoding = {name: participant.decoding for participant in pool for name in participant.candidate_names()}
    with contextlib.ExitStack() as stack:
        writers = {split: stack.enter_context(RowWriter(path)) for split, path in paths.items()}
        for row, candidates in rows:
            split = split_of(normalized_key(row), plan.split, plan.seed) if plan.split else ""
            results, pairs = judged.get(row.id or "", ({}, []))
            of_each = row_scores(row, candidates, metrics, scores)
            writers[split].write(
                {
                    "id": row.id,
                    "instruction": row.instruction if isinstance(row.instruction, str) else list(row.instruction),
                    "input": row.input,
                    "output": row.reference or "",
                    "candidates": [
                        _candidate(candidate, decoding[candidate.model or ""], own, parquet=parquet)
                        for candidate, own in zip(candidates, of_each, strict=True)
                    ],
                    # In a Parquet column of objects, each row would have every pair of the file.
                    "cmp_results": json.dumps(results) if parquet else results,
                    "pairs": pairs,
                    **row.extra,
                }
            )
            counts[split].update(rows=1, candidates=len(candidates), judged=len(results))
    return [
        WrittenRows(path, split, **counts[split], sha256=file_sha256(Path(path)), card=f"{path}.md")
        for split, path in paths.items()
    ]


def _candidate(candidate: Candidate, decoding: str, scores: Mapping[str, float], *, parquet: bool) -> dict[str, Any]:
    """Make the record of a candidate, with its cost and time."""
    without_keys: dict[str, float] | None = None if parquet else {}  # Parquet has no empty objects
    return {
        "decoding_method": decoding,
        "model": candidate.model,
        "text": candidate.text,
        "scores": dict(scores) or without_keys,
        "usage": None if candidate.usage is None else candidate.usage.to_dict(),
        "seconds": None if candidate.seconds is None else round(candidate.seconds, 3),
        "cost": candidate.cost,
    }


def _judged(
    rows: AnsweredRows, plan: BuildPlan, journal: Journal
) -> dict[str, tuple[dict[str, str], list[dict[str, Any]]]]:
    """Collect the ``cmp_results`` and ``pairs`` of each row, by id."""
    found: dict[str, tuple[dict[str, str], list[dict[str, Any]]]] = {}
    if plan.judge is None:
        return found
    for pair, candidates, replies in row_replies(rows, plan, journal):
        results, pairs = found.setdefault(pair.row.id or "", ({}, []))
        for first, second, outcome in outcomes(pair, replies):
            results[f"{candidates[first].model},{candidates[second].model}"] = outcome
        if (label := labelled_pair(pair, replies, plan.judge)) is not None:
            pairs.append(label.to_dict())
    return found
