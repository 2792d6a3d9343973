"""What a build came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llm_blender.batch.building.consistency import Consistency
from llm_blender.batch.building.plan import BuildPlan
from llm_blender.batch.building.scoring import Measured
from llm_blender.batch.building.writing import WrittenRows
from llm_blender.data import Chosen

__all__ = ["Built"]


@dataclass(frozen=True)
class Built:
    """What a build came to.

    Attributes:
        plan: what was asked for.
        settings: what the data depend on; their sha256 is `digest`.
        digest: see there.
        chosen: the instructions.
        missing: answers that LLMs owe, with the reason of the first, by name.
        dropped: rows that were left out for that.
        measured: the metrics.
        consistency: of the judge; None where there is none.
        unjudged: pairs about which the judge could not be asked; the next run asks again.
        written: the files.
        cost: dollars of all runs, as far as prices are known.
        unpriced: calls whose price is not known.
        calls: made now, or found in the store.
    """

    plan: BuildPlan
    settings: dict[str, Any]
    digest: str
    chosen: Chosen
    missing: dict[str, tuple[int, str]]
    dropped: int
    measured: Measured
    consistency: Consistency | None
    unjudged: int
    written: tuple[WrittenRows, ...]
    cost: float
    unpriced: int
    calls: int

    @property
    def complete(self) -> bool:
        """Whether nothing that was asked for is missing."""
        return not (self.missing or self.measured.unavailable or self.unjudged)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "read": self.chosen.read,
            "left_out": self.chosen.left_out,
            "first_bad": self.chosen.first_bad or None,
            "instructions": len(self.chosen.rows),
            "missing": {name: {"answers": count, "reason": reason} for name, (count, reason) in self.missing.items()},
            "dropped": self.dropped,
            "metrics": list(self.measured.settings),
            "unavailable": self.measured.unavailable,
            "judge": None if self.consistency is None else self.consistency.to_dict(),
            "unjudged": self.unjudged,
            "written": [dict(vars(file)) for file in self.written],
            "cost": self.cost,
            "unpriced_calls": self.unpriced,
            "complete": self.complete,
        }
