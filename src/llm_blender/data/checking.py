"""What a file of rows holds, and what it lacks, before anybody trusts a table made of it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from llm_blender.data.rows import normalized_key
from llm_blender.errors import RowError
from llm_blender.types import Example

__all__ = ["RowsReport", "report_rows"]


@dataclass(frozen=True)
class RowsReport:
    """What rows in MixInstruct's format hold.

    Attributes:
        rows: usable ones.
        bad: rows that cannot be used.
        first_bad: what is wrong with the first of these; empty where there is none.
        duplicates: rows that ask the same as an earlier one.
        models: candidates by LLM.
        incomplete: rows that lack a candidate of an LLM which other rows have.
        without_reference: rows that have none.
        judged: rows with ``cmp_results``.
        pairs: judged ordered pairs.
        outcomes: of these, by name.
        scores: candidates that have a score, by its name.
        candidates: all of them.
    """

    rows: int
    bad: int
    first_bad: str
    duplicates: int
    models: dict[str, int]
    incomplete: int
    without_reference: int
    judged: int
    pairs: int
    outcomes: dict[str, int]
    scores: dict[str, int]
    candidates: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dict(vars(self))


def report_rows(rows: Iterable[Example], bad: list[RowError]) -> RowsReport:
    """Count what rows hold, in one pass; memory holds a hash of each prompt.

    Args:
        rows: as `llm_blender.data.read_mix_instruct` gives them.
        bad: filled by its `on_bad` meanwhile.
    """
    models, outcomes, scores, sizes = Counter[str](), Counter[str](), Counter[str](), Counter[int]()
    seen: set[bytes] = set()
    count = duplicates = without_reference = judged = 0
    for row in rows:
        count += 1
        key = hashlib.blake2b(normalized_key(row).encode("utf-8", "replace"), digest_size=16).digest()
        duplicates += key in seen
        seen.add(key)
        without_reference += not (row.reference or "").strip()
        results = row.extra.get("cmp_results") or {}
        judged += bool(results)
        outcomes.update(results.values())
        sizes[len(row.candidates)] += 1
        for candidate in row.candidates:
            models[candidate.model or ""] += 1
            scores.update(list(candidate.scores))
    return RowsReport(
        rows=count,
        bad=len(bad),
        first_bad=str(bad[0]) if bad else "",
        duplicates=duplicates,
        models=dict(sorted(models.items())),
        incomplete=sum(rows for size, rows in sizes.items() if size < len(models)),
        without_reference=without_reference,
        judged=judged,
        pairs=outcomes.total(),
        outcomes=dict(outcomes.most_common()),
        scores=dict(sorted(scores.items())),
        candidates=models.total(),
    )
