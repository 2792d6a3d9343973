"""Methods beside the best single LLM: what more they give, and for how much more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_blender.bench.pays.methods import Played
from llm_blender.bench.pays.rows import PaidRow
from llm_blender.bench.scored import group_ids
from llm_blender.bench.table import Estimate
from llm_blender.bench.table.resampling import Resampling, intervals

__all__ = ["Payoff", "payoffs"]

_Floats = NDArray[np.float64]

_ANSWERS = 1000  # of which a price is told: that of one is too small a number to read


@dataclass(frozen=True)
class Payoff:
    """What one method gives for dollars and seconds; all intervals are resampled by instruction.

    Attributes:
        method: its name.
        kind: as in `Played`.
        rows: instructions that count.
        calls: of LLMs for one answer, mean.
        comparisons: ordered pairs for one answer, mean.
        quality: mean score, on the score's own scale.
        gain: in quality against the best single LLM on the same rows, paired; None for that one itself.
        dollars: of 1,000 answers; None where a price is unknown.
        seconds: of one answer; None where a time is unknown.
        extra_dollars: of 1,000 answers, against the best single LLM, paired; None where a price is unknown.
        gain_per_dollar: `gain` over `extra_dollars`: quality for each dollar more that 1,000 answers cost. None where
            they cost no more, or a price is unknown; without an interval where a resample costs no more.
    """

    method: str
    kind: str
    rows: int
    calls: float
    comparisons: float
    quality: Estimate
    gain: Estimate | None
    dollars: Estimate | None
    seconds: Estimate | None
    extra_dollars: Estimate | None
    gain_per_dollar: Estimate | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; null is unknown, or does not apply."""
        return asdict(self)


def payoffs(rows: Sequence[PaidRow], played: Sequence[Played], *, seed: int = 0) -> list[Payoff]:
    """All methods against the first one.

    Args:
        rows: n, at least one.
        played: the best single LLM first, as of `singles`.
        seed: of the bootstrap.
    """
    weights = Resampling(group_ids(row.scored.prompt for row in rows), seed=seed).weights
    return [_payoff(method, None if method is played[0] else played[0], played[0], weights) for method in played]


def _payoff(method: Played, other: Played | None, base: Played, weights: _Floats) -> Payoff:
    counts = ~np.isnan(method.quality)
    drawn = weights[:, counts]
    gain = (method.quality - base.quality)[counts]
    extra = _ANSWERS * (method.dollars - base.dollars)[counts]
    return Payoff(
        method.method,
        method.kind,
        int(counts.sum()),
        float(method.calls[counts].mean()),
        float(method.comparisons[counts].mean()),
        quality=_estimate(method.quality[counts], drawn),
        gain=None if other is None else _estimate(gain, drawn),
        dollars=_known(_ANSWERS * method.dollars[counts], drawn),
        seconds=_known(method.seconds[counts], drawn),
        extra_dollars=None if other is None else _known(extra, drawn),
        gain_per_dollar=None if other is None else _ratio(gain, extra, drawn),
    )


def _estimate(values: _Floats, drawn: _Floats) -> Estimate:
    return Estimate(float(values.mean()), _interval(_means(values, drawn)))


def _known(values: _Floats, drawn: _Floats) -> Estimate | None:
    return None if np.isnan(values).any() else _estimate(values, drawn)


def _ratio(gain: _Floats, extra: _Floats, drawn: _Floats) -> Estimate | None:
    if np.isnan(extra).any() or extra.mean() <= 0:
        return None
    dollars = _means(extra, drawn)
    dearer = np.isnan(dollars) | (dollars > 0)
    # A ratio over a cost around zero has no ends: where the extra cost is not sure, there is no interval.
    ci95 = _interval(_means(gain, drawn) / dollars) if dearer.all() else None
    return Estimate(float(gain.mean() / extra.mean()), ci95)


def _means(values: _Floats, drawn: _Floats) -> _Floats:
    """``[resamples]``; NaN for a draw without any of these rows."""
    sizes = drawn.sum(axis=1)
    return np.where(sizes > 0, drawn @ values / np.maximum(sizes, 1), np.nan)


def _interval(resampled: _Floats) -> Any:
    return intervals(resampled[:, None])[0]
