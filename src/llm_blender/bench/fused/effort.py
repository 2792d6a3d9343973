"""What fusing took, and what a judge says of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from llm_blender.bench.fused.rows import FusedRow
from llm_blender.bench.scored import group_ids
from llm_blender.ranking import Interval, bootstrap_interval
from llm_blender.types import OnProgress, Ranker

__all__ = ["FusionEffort", "FusionWins", "fusion_effort", "judge_fusions"]


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
