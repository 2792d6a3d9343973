"""Which part of a file a row belongs to, by what the row says of itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llm_blender.errors import InputError, unknown_name

__all__ = ["REST", "subset_names"]

REST = "(none)"
"""The subset of the rows that do not say theirs."""


def subset_names(rows: Iterable[Mapping[str, Any]], key: str) -> list[str]:
    """The subset of each row: its value under a key.

    Args:
        rows: what each row holds besides instruction and candidates, as in `Example.extra`.
        key: such as ``source``; of an object inside the row ``meta.subset``, or ``subset`` alone if only one is
            called so.

    Returns:
        One name a row; `REST` where the row has no such key, or null.

    Raises:
        InputError: no row has the key, several are called so, or a value is neither text nor number.
    """
    flat = [dict(_flat(row)) for row in rows]
    known = sorted({name for row in flat for name in row})
    matching = [key] if key in known else [name for name in known if name.rpartition(".")[2] == key]
    if not matching:
        raise unknown_name("key", key, known)
    if len(matching) > 1:
        raise InputError(f"Several keys of the rows are called {key!r}: say which of {', '.join(matching)}.")
    return [_name(matching[0], row.get(matching[0])) for row in flat]


def _flat(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The keys of a row, those of objects inside it with a dot."""
    for key, value in row.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _name(key: str, value: Any) -> str:
    if value is None:
        return REST
    if not isinstance(value, str | int | float):
        raise InputError(f"{key!r} cannot name a subset: a text or a number is wanted, not {type(value).__name__}.")
    return str(value) or REST
