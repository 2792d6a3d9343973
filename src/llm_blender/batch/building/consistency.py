"""Does the judge agree with itself? When the two answers change places, and when it is asked again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Consistency", "measure_consistency"]

_TURNED = {"A is better": "B is better", "B is better": "A is better"}

Said = Mapping[tuple[bool, bool], Mapping[str, str | None]]
"""What the judge said of a pair, by (turned, again)."""


@dataclass(frozen=True)
class Consistency:
    """How a judge fares against itself.

    Attributes:
        pairs: that were judged.
        replies: of the judge.
        unreadable: of these, without an outcome.
        example: one of these; empty where there is none.
        outcomes: of the first question about each pair.
        both_orders: pairs with an outcome in both orders.
        same: of these, the same answer is better in both orders, or neither is in both.
        contradicted: of these, that which is read first is better in both orders, or that which is read second.
        first_wins: share of the decided outcomes, over both orders of these, in which the answer that was read first
            is better; 0.5 is a judge who does not look at the order. None where nothing was decided.
        reruns: pairs that were asked again, with an outcome both times.
        rerun_same: of these, with the same outcome.
        in_pool: LLMs whose answers are judged that are the judge itself.
    """

    pairs: int
    replies: int
    unreadable: int
    example: str
    outcomes: dict[str, int]
    both_orders: int
    same: int
    contradicted: int
    first_wins: float | None
    reruns: int
    rerun_same: int
    in_pool: tuple[str, ...] = ()

    @property
    def flip_rate(self) -> float | None:
        """Share of the pairs with both orders in which the judgement changes with the order."""
        return 1 - self.same / self.both_orders if self.both_orders else None

    @property
    def rerun_rate(self) -> float | None:
        """Share of the pairs that were asked again in which the outcome changed."""
        return 1 - self.rerun_same / self.reruns if self.reruns else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            **vars(self),
            "in_pool": list(self.in_pool),
            "flip_rate": self.flip_rate,
            "rerun_rate": self.rerun_rate,
        }


def measure_consistency(said: Iterable[Said], in_pool: Iterable[str] = ()) -> Consistency:
    """From what the judge said of each pair.

    Args:
        said: of each pair.
        in_pool: see `Consistency`.
    """
    counts, outcomes = Counter[str](), Counter[str]()
    example = ""
    for of_pair in said:
        counts["pairs"] += bool(of_pair)
        for value in of_pair.values():
            counts["replies"] += 1
            if value["outcome"] is None:
                counts["unreadable"] += 1
                example = example or value.get("reply") or "an empty reply"
        forward, backward, again = (
            of_pair.get(way, {}).get("outcome") for way in ((False, False), (True, False), (False, True))
        )
        if forward is not None:
            outcomes[forward] += 1
        if forward is not None and backward is not None:
            turned_back = _TURNED.get(backward, backward)
            counts["both"] += 1
            # Whether both are good or both are bad is another question than which one is better.
            counts["same"] += _winner(forward) == _winner(turned_back)
            counts["contradicted"] += _winner(forward) is not None and forward == backward
            for outcome in (forward, backward):
                counts["decided"] += _winner(outcome) is not None
                counts["first"] += _winner(outcome) == "A"
        if forward is not None and again is not None:
            counts["reruns"] += 1
            counts["rerun_same"] += forward == again
    return Consistency(
        pairs=counts["pairs"],
        replies=counts["replies"],
        unreadable=counts["unreadable"],
        example=example,
        outcomes=dict(outcomes.most_common()),
        both_orders=counts["both"],
        same=counts["same"],
        contradicted=counts["contradicted"],
        first_wins=counts["first"] / counts["decided"] if counts["decided"] else None,
        reruns=counts["reruns"],
        rerun_same=counts["rerun_same"],
        in_pool=tuple(in_pool),
    )


def _winner(outcome: str) -> str | None:
    return {"A is better": "A", "B is better": "B"}.get(outcome)
