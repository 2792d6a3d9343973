"""When fusing is worth a try: the rule of the mode ``auto``, a function of nothing but ranking and texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from llm_blender.errors import InputError
from llm_blender.types import Ranking

__all__ = ["DEFAULT_RULE", "DEFAULT_TOP_K", "Decision", "FusionRule", "content_overlap", "decide"]

DEFAULT_TOP_K = 3
"""Candidates that are fused, as in the paper (arXiv 2306.02561)."""

# Words of four letters or more, numbers, and the signs of scripts that put no spaces between words.
_CONTENT = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\d_]{4,}|\d+")


@dataclass(frozen=True)
class FusionRule:
    """The thresholds of fusing, all of them.

    Attributes:
        close: ``auto`` fuses where the best candidate is better than the next one with less than this probability.
        overlap: ``auto`` fuses where the best candidate holds less than this share of the others' content.
        prefer: the guard gives back a fused text only where it is better than the best candidate with more than this
            probability.

    Raises:
        InputError: one is not between 0 and 1.
    """

    close: float = 0.55
    overlap: float = 0.3
    prefer: float = 0.5

    def __post_init__(self) -> None:
        for name in ("close", "overlap", "prefer"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"The threshold {name} is a number from 0 to 1, not {getattr(self, name)}.")

    def reason(self, lead: float | None, overlap: float) -> Literal["close", "complementary", "clear"]:
        """Why ``auto`` fuses, or, where the best candidate is ``clear``, does not: see `Decision`."""
        if lead is not None and lead < self.close:
            return "close"
        return "complementary" if overlap < self.overlap else "clear"


DEFAULT_RULE = FusionRule()


@dataclass(frozen=True)
class Decision:
    """Whether to fuse, and why.

    Attributes:
        fuse: what is decided.
        reason: the first two candidates are ``close``, the others have what the best lacks (``complementary``), or
            the best is ``clear``.
        lead: the probability that the best is better than the next one; None where it was compared with nobody.
        overlap: see `content_overlap`.
    """

    fuse: bool
    reason: Literal["close", "complementary", "clear"]
    lead: float | None
    overlap: float


def decide(
    ranking: Ranking, texts: Sequence[str], rule: FusionRule = DEFAULT_RULE, top_k: int = DEFAULT_TOP_K
) -> Decision:
    """Whether the best `top_k` candidates of a ranking should be fused.

    Args:
        ranking: of the candidates.
        texts: theirs, in the order in which they were ranked.
        rule: the thresholds.
        top_k: how many would be fused.
    """
    lead = ranking.lead
    best, *others = [texts[i] for i in ranking.order[:top_k]]
    overlap = content_overlap(best, others)
    reason = rule.reason(lead, overlap)
    return Decision(reason != "clear", reason, lead, overlap)


def content_overlap(best: str, others: Sequence[str]) -> float:
    """How much of the others' content the best one holds: the share of each one's content words, their mean.

    1 where there are no others, or none says anything.
    """
    own = _content(best)
    shares = [len(words & own) / len(words) for words in map(_content, others) if words]
    return sum(shares) / len(shares) if shares else 1.0


def _content(text: str) -> set[str]:
    return set(_CONTENT.findall(text.casefold()))
