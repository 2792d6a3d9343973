"""Making texts fit: the longest are shortened first, down to one common length."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["even_cap"]


def even_cap(lengths: Sequence[int], room: int) -> int:
    """The greatest length to which all can be cut so that together they take at most `room`.

    It is the longest of them where all fit as they are, and may be 0.

    Args:
        lengths: of the texts, in whatever unit.
        room: in the same unit.

    Example:
        >>> even_cap([10, 200, 40], 120)  # 10 + 70 + 40
        70
    """
    left = max(room, 0)
    ordered = sorted(lengths)
    for place, length in enumerate(ordered):
        share = left // (len(ordered) - place)
        if length > share:
            return share
        left -= length
    return ordered[-1] if ordered else 0
