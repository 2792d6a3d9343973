"""Rows divided into splits, so that what asks the same stands in one of them, in every file."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping

from llm_blender.data.importing.draws import fraction
from llm_blender.errors import InputError

__all__ = ["parse_split", "split_of"]


def parse_split(value: str) -> dict[str, float]:
    """Shares by name, from ``train=0.8,dev=0.1,test=0.1``.

    Raises:
        InputError: it reads otherwise, a name comes twice, or the shares do not add up to 1.
    """
    shares: dict[str, float] = {}
    for part in value.split(","):
        name, _, share = (piece.strip() for piece in part.partition("="))
        if not re.fullmatch(r"[\w-]+", name) or name in shares or not _is_share(share):
            raise InputError(f"{value!r} is no split: write it like train=0.8,dev=0.1,test=0.1, each name once.")
        shares[name] = float(share)
    if not math.isclose(total := sum(shares.values()), 1, abs_tol=1e-6):
        raise InputError(f"The shares of {value!r} add up to {total:g}, not to 1: no row may fall between them.")
    return shares


def _is_share(value: str) -> bool:
    try:
        return 0 < float(value) <= 1
    except ValueError:
        return False


def split_of(key: str, shares: Mapping[str, float], seed: int) -> str:
    """The split of a normalised prompt. It depends on the prompt, the shares and the seed alone.

    The shares are therefore met on average, not to the row, and the same prompt falls into the same split whatever
    file it stands in.
    """
    drawn = fraction(seed, "split", key)
    ends = itertools.accumulate(shares.values())
    return next((name for name, end in zip(shares, ends, strict=True) if drawn < end), next(reversed(list(shares))))
