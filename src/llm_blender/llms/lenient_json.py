"""Read JSON as servers really send it: what is odd in one place costs nothing in another."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pydantic_core

_DECODER = json.JSONDecoder(strict=False)  # with control characters in strings
_ANY_NUMBER = json.JSONDecoder(strict=False, parse_int=float)  # `int` refuses numbers with thousands of digits
_DEEPEST = 50  # levels of nesting that `clean` keeps
_JOINED = ("text", "summary", "data", "thinking")  # keys of items whose text comes in pieces


def decode(data: bytes | bytearray) -> str:
    """Decode UTF-8; a byte that is none becomes U+FFFD."""
    return data.decode("utf-8", errors="replace")


def parse_json(text: str) -> Any:
    """Parse JSON; NaN, infinities, control characters and lone surrogates are let through.

    Raises:
        ValueError: the text is no JSON, or is nested too deeply.
    """
    try:
        return pydantic_core.from_json(text)  # twice as fast, and strict
    except ValueError:
        value, end = parse_first(text)
        if text[end:].strip():
            raise ValueError("more than one value") from None
        return value


def parse_first(text: str, start: int = 0) -> tuple[Any, int]:
    """Parse the first value of several; return it and the place after it.

    Raises:
        ValueError: there is none.
    """
    while text[start : start + 1].isspace():
        start += 1
    try:
        try:
            return _DECODER.raw_decode(text, start)
        except json.JSONDecodeError:
            raise
        except ValueError:
            return _ANY_NUMBER.raw_decode(text, start)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def whole(text: str) -> str:
    """Join surrogates to pairs; a lone one becomes U+FFFD, because no UTF-8 can hold it."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def clean(value: Any, depth: int = 0) -> Any:
    """Copy a JSON value so that any writer of JSON takes it: without lone surrogates, NaN, infinities, or an abyss."""
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if depth == _DEEPEST:
        return None
    if isinstance(value, dict):
        return {whole(key): clean(each, depth + 1) for key, each in value.items()}
    return [clean(each, depth + 1) for each in value] if isinstance(value, list) else value


class _Pieces(list[str]):
    """Pieces of one text; a text that grows by `+` is copied with every piece."""


def merge(old: dict[str, Any], new: Mapping[str, Any]) -> None:
    """Add the keys of a later piece to those of earlier ones; `joined` makes plain JSON of the result.

    Null is absent. Objects are merged, lists extended; of other values the last one counts. Items of lists that have
    the same ``index`` and ``type`` are pieces of one item, whose text is joined.
    """
    for key, value in new.items():
        before = old.get(key)
        if value is None:
            continue
        if isinstance(before, dict) and isinstance(value, dict):
            merge(before, value)
        elif isinstance(before, list) and isinstance(value, list):
            for item in value:
                _extend(before, item)
        else:
            old[key] = value


def _extend(items: list[Any], item: Any) -> None:
    last = items[-1] if items else None
    if not (isinstance(last, dict) and isinstance(item, dict) and "index" in item) or any(
        last.get(key) != item.get(key) for key in ("index", "type")
    ):
        items.append(item)
        return
    texts = {key: item[key] for key in _JOINED if isinstance(item.get(key), str)}
    merge(last, {key: value for key, value in item.items() if key not in texts})
    for key, text in texts.items():
        if isinstance(last.get(key), str):
            last[key] = _Pieces([last[key]])
        if isinstance(last.get(key), _Pieces):
            last[key].append(text)
        else:
            last[key] = text


def joined(value: Any) -> Any:
    """Return what `merge` made, as plain JSON values."""
    if isinstance(value, _Pieces):
        return whole("".join(value))
    if isinstance(value, dict):
        return {key: joined(each) for key, each in value.items()}
    return [joined(each) for each in value] if isinstance(value, list) else value


def size(value: Any) -> int:
    """Count the characters of the texts in a JSON value, and its items."""
    total, rest = 0, [value]
    while rest:
        each = rest.pop()
        total += len(each) if isinstance(each, str) else 1
        if isinstance(each, dict):
            rest += [*each, *each.values()]
        elif isinstance(each, list):
            rest += each
    return total


def count(value: Any) -> int | None:
    """Read a number of tokens, which may be a float or a text; None if it is none."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(number) if 0 <= number < 1e15 else None
