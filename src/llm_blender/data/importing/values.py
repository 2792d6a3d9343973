"""What stands under the keys of a record, checked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["number", "optional_text", "short_values", "text"]

_LONGEST = 120  # characters of a value that still says what a row is, rather than being part of it


def text(record: Mapping[str, Any], key: str) -> str:
    """The text under a key.

    Raises:
        ValueError: it is missing, or no text.
    """
    if key not in record:
        raise ValueError(f"`{key}` is missing; the keys are {', '.join(record) or 'none at all'}")
    value = record[key]
    if not isinstance(value, str):
        raise ValueError(f"`{key}` must be a text, not {type(value).__name__}")
    return value


def optional_text(record: Mapping[str, Any], key: str) -> str:
    """The text under a key; empty where there is none, null or NaN, which is how pandas writes an empty cell.

    Raises:
        ValueError: it is something else.
    """
    value = record.get(key)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return text(record, key)


def number(value: object) -> float | None:
    """A finite number, or a text that is one; else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def short_values(record: Mapping[str, Any], used: Iterable[str]) -> dict[str, Any]:
    """The numbers, truth values and short texts under the other keys: what a row keeps as `meta`."""
    left = {key: value for key, value in record.items() if key not in set(used)}
    return {key: value for key, value in left.items() if _is_short(value)}


def _is_short(value: object) -> bool:
    if isinstance(value, str):
        return 0 < len(value) <= _LONGEST and "\n" not in value
    return isinstance(value, int | float) and math.isfinite(value)
