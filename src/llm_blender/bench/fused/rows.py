"""Rows that were answered by fusing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llm_blender.errors import InputError
from llm_blender.fusers import FusionRule
from llm_blender.types import Candidate, Example

__all__ = ["FusedRow", "fused_rows"]


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
