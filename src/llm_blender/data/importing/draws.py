"""Draws that depend on a seed and on texts alone, not on what was drawn before or which rows stand beside."""

from __future__ import annotations

import hashlib

__all__ = ["coin", "fraction"]


def fraction(seed: int, *texts: str) -> float:
    """A number from 0 up to 1, the same for the same seed and texts on every machine."""
    digest = hashlib.sha256("\0".join([str(seed), *texts]).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def coin(seed: int, *texts: str) -> bool:
    """Heads or tails, likewise."""
    return fraction(seed, *texts) < 0.5
