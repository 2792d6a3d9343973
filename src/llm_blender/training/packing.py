"""Which items share a batch, so that little of it is padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["pack"]

_WINDOW = 64  # batches whose items are put in order of length


def pack(sizes: Sequence[tuple[int, int]], max_tokens: int) -> list[list[int]]:
    """Batches of items: neighbours in order of length together, so that little is padding.

    Args:
        sizes: of each item, its longest sequence and how many it has.
        max_tokens: of a batch, padding included; an item that needs more is a batch of its own.
    """
    if not sizes:
        return []
    mean = float(np.mean([length * count for length, count in sizes]))
    step = max(1, round(_WINDOW * max_tokens / mean))  # windows in the order given: sources stay mixed
    packed: list[list[int]] = []
    for start in range(0, len(sizes), step):
        rows = longest = 0
        for number in sorted(range(start, min(start + step, len(sizes))), key=lambda number: sizes[number]):
            length, count = sizes[number]
            longest, rows = max(longest, length), rows + count
            if rows > count and rows * longest <= max_tokens:
                packed[-1].append(number)
            else:
                packed.append([number])
                longest, rows = length, count
    return packed
