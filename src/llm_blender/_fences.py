"""Quoting texts so that none of them can end its own quotation."""

from __future__ import annotations

import hashlib
import json

__all__ = ["fence_code"]


def fence_code(*texts: str, digits: int = 16) -> str:
    """Hexadecimal digits that stand in none of the texts, always the same ones for the same texts.

    The same quotation is the same call, and is found in a store.

    Args:
        *texts: what is to be quoted.
        digits: how many; where every code of that length is taken, the next longer one.
    """
    attempt = 0
    while True:
        code = hashlib.sha256(json.dumps([attempt, *texts]).encode("ascii")).hexdigest()[: digits + attempt // 64]
        if not any(code in text.lower() for text in texts):
            return code
        attempt += 1
