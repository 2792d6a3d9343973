"""The base of the frozen dataclasses in `llm_blender.types`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np

__all__ = ["Record", "Usage"]


class Record:
    """Plain-dict conversion shared by the dataclasses below."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; fields that are None are left out."""
        pairs = ((f.name, _plain(getattr(self, f.name))) for f in fields(self))  # type: ignore[arg-type]
        return {name: value for name, value in pairs if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; unknown keys are ignored, nested records are rebuilt by subclasses."""
        known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        return cls(**{name: value for name, value in values.items() if name in known})


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no NaN
    return value


@dataclass(frozen=True)
class Usage(Record):
    """Tokens of one or several calls."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.prompt_tokens + other.prompt_tokens, self.completion_tokens + other.completion_tokens)
