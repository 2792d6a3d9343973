"""The rows of a build, as they are written: MixInstruct's format, and the split of each."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_blender.batch.building.judging import cmp_results, labelled_pair, row_outcomes
from llm_blender.batch.building.plan import SPLIT, BuildPlan, Participant
from llm_blender.batch.building.scoring import row_scores
from llm_blender.batch.journal import Journal
from llm_blender.data import RowWriter, normalized_key
from llm_blender.data.importing.records import sha256
from llm_blender.data.importing.splits import split_of
from llm_blender.types import Candidate, Example

__all__ = ["WrittenRows", "write_rows"]


@dataclass(frozen=True)
class WrittenRows:
    """A file of a build.

    Attributes:
        path: of it.
        split: its name; empty where nothing was divided.
        rows: in it.
        candidates: in them.
        judged: outcomes in them.
        sha256: of the file.
        card: path of its card.
    """

    path: str
    split: str
    rows: int
    candidates: int
    judged: int
    sha256: str
    card: str


def write_rows(
    plan: BuildPlan,
    rows: Sequence[tuple[Example, Sequence[Candidate]]],
    pool: Sequence[Participant],
    metrics: Sequence[str],
    scores: Journal,
    judgements: Journal,
) -> list[WrittenRows]:
    """Write each row into the file of its split; each file appears whole or not at all."""
    paths = {split: plan.out.replace(SPLIT, split) for split in plan.split} or {"": plan.out}
    counts: dict[str, Counter[str]] = {split: Counter() for split in paths}
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
                        {
                            "decoding_method": decoding[candidate.model or ""],
                            **_candidate(candidate, own, parquet=parquet),
                        }
                        for candidate, own in zip(candidates, of_each, strict=True)
                    ],
                    # As a column of objects, each row would have every pair of the file.
                    "cmp_results": json.dumps(results) if parquet else results,
                    "pairs": pairs,
                    **row.extra,
                }
            )
            counts[split].update(rows=1, candidates=len(candidates), judged=len(results))
    return [
        WrittenRows(
            path,
            split,
            counts[split]["rows"],
            counts[split]["candidates"],
            counts[split]["judged"],
            sha256(Path(path)),
            f"{path}.md",
        )
        for split, path in paths.items()
    ]


def _candidate(candidate: Candidate, scores: Mapping[str, float], *, parquet: bool) -> dict[str, Any]:
    """What it cost and how long it took stands beside it, for the question whether an LLM is worth its price."""
    without_keys: dict[str, float] | None = None if parquet else {}  # Parquet knows no object without keys
    return {
        "model": candidate.model,
        "text": candidate.text,
        "scores": dict(scores) or without_keys,
        "usage": None if candidate.usage is None else candidate.usage.to_dict(),
        "seconds": None if candidate.seconds is None else round(candidate.seconds, 3),
        "cost": candidate.cost,
    }


def _judged(
    rows: Sequence[tuple[Example, Sequence[Candidate]]], plan: BuildPlan, journal: Journal
) -> dict[str, tuple[dict[str, str], list[dict[str, Any]]]]:
    """Of each row its ``cmp_results`` and its ``pairs``."""
    found: dict[str, tuple[dict[str, str], list[dict[str, Any]]]] = {}
    if plan.judge is None:
        return found
    for pair, candidates, said in row_outcomes(rows, plan, journal):
        results, pairs = found.setdefault(pair.row.id or "", ({}, []))
        results.update(cmp_results(pair, candidates, said))
        if (label := labelled_pair(pair, said, plan.judge)) is not None:
            pairs.append(label.to_dict())
    return found
