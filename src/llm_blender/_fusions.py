"""What a fuser wrote, and what became of it; handed on by `llm_blender.types`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from llm_blender._records import Record, Usage

__all__ = ["Fusion", "FusionFlaw", "FusionReason", "FusionReport", "Mode"]

Mode = Literal["pick", "fuse"]
"""What an answer is: the best candidate as it is, or a fused text."""
FusionFlaw = Literal["empty", "repeats", "echo", "failed", "too_small"]
"""What makes a fused text no answer: nothing in it, a loop, the prompt again; or why there is none."""
FusionReason = Literal[
    "better",
    "unguarded",
    "worse",
    "copy",
    "clear",
    "one_candidate",
    "same_candidates",
    "no_candidates",
    "empty",
    "repeats",
    "echo",
    "failed",
    "too_small",
]
"""Why the fused text was given back (the first two), or the best candidate."""


@dataclass(frozen=True)
class Fusion(Record):
    """What a fuser made of the candidates of one instruction.

    Attributes:
        text: what it wrote, without white space around it.
        fuser: its name.
        used: 0-based indices of the candidates that it read, in the order in which it read them; one that did not fit
            beside the others is missing.
        truncated: share of the text of instruction and candidates that it could not read: of their tokens, or of
            their characters where an LLM behind an API does not say what its tokens are.
        flaw: what makes the text no answer; None where nothing does.
        error: for ``failed`` and ``too_small``, what happened, in one line.
        usage: tokens read and written.
        seconds: of the call; for rows that were written together, their mean.
        cost: dollars; None where the price is unknown.
        stored: it comes from the store, nobody was asked or paid.
    """

    text: str
    fuser: str
    used: tuple[int, ...] = ()
    truncated: float = 0.0
    flaw: FusionFlaw | None = None
    error: str | None = None
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0
    cost: float | None = 0.0
    stored: bool = False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        nested = {"used": tuple(values.get("used", ())), "usage": Usage.from_dict(values.get("usage", {}))}
        return super().from_dict({"cost": None, **values, **nested})


_REASONS: dict[FusionReason, str] = {
    "better": "the ranker prefers the fused answer to the best candidate",
    "unguarded": "the fused answer is given back unseen by the ranker, as the guard is off",
    "worse": "the ranker does not prefer the fused answer to the best candidate",
    "copy": "the fuser copied the best candidate",
    "clear": "the best candidate is clearly the best, and the others add little to it",
    "one_candidate": "there is only one candidate",
    "same_candidates": "all candidates say the same",
    "no_candidates": "all candidates are empty",
    "empty": "the fuser wrote nothing",
    "repeats": "the fuser repeated itself",
    "echo": "the fuser repeated its prompt",
    "failed": "the fuser failed",
    "too_small": "two candidates do not fit into what the fuser can read",
}


@dataclass(frozen=True)
class FusionReport(Record):
    """Whether a fused text or the best candidate is the answer, and why.

    Attributes:
        asked: the mode that was asked for, ``fuse`` or ``auto``.
        returned: ``fuse`` where the answer is the fused text, ``pick`` where it is the best candidate.
        reason: why.
        answer: the text that is given back.
        probability: by the ranker, from both orders, that the fused text is better than the best candidate; None
            where they were not compared.
        lead: the probability that the best candidate is better than the next one; None where unknown. With `overlap`,
            what ``auto`` decides by.
        overlap: how much of the other candidates' content the best one holds, 0 to 1; None where nothing could be
            fused.
        comparisons: ordered pairs that the guard compared.
        seconds: of fusing and guarding.
        fusion: what the fuser wrote, given back or not; None where it was not asked.
    """

    asked: Literal["fuse", "auto"]
    returned: Mode
    reason: FusionReason
    answer: str
    probability: float | None = None
    lead: float | None = None
    overlap: float | None = None
    comparisons: int = 0
    seconds: float = 0.0
    fusion: Fusion | None = None

    @property
    def message(self) -> str:
        """`reason` in words, with what belongs to it."""
        words = _REASONS[self.reason]
        if self.fusion is not None and self.fusion.error is not None:
            return f"{words}: {self.fusion.error}"
        return words if self.probability is None else f"{words} (probability {self.probability:.2f})"

    def to_dict(self) -> dict[str, Any]:
        """The JSON of rows and answers; what the fuser wrote stands flat beside the rest, as `text`."""
        values = super().to_dict()
        fusion = values.pop("fusion", {})
        return {**values, **fusion, "seconds": self.seconds}
