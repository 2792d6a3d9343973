"""Dictionaries and JSON for the old configurations, with the method names of ``dataclasses_json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, Self

from llm_blender.errors import InputError

__all__ = ["ConfigRecord"]


class ConfigRecord:
    """Base of dataclasses that go to and from plain values; keys they do not know are left out."""

    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; a missing field gets its default."""
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        return cls(**{name: value for name, value in values.items() if name in known})

    def to_json(self, **options: Any) -> str:
        """`to_dict` as JSON; options are those of `json.dumps`."""
        return json.dumps(self.to_dict(), **options)

    @classmethod
    def from_json(cls, text: str, **options: Any) -> Self:
        """The inverse of `to_json`; options are those of `json.loads`.

        Raises:
            InputError: the text is not a JSON object.
        """
        try:
            values = json.loads(text, **options)
        except json.JSONDecodeError as error:
            raise InputError(f"A {cls.__name__} cannot be read, the text is not JSON: {error}.") from None
        if not isinstance(values, Mapping):
            raise InputError(f"A {cls.__name__} is read from a JSON object, not from {type(values).__name__}.")
        return cls.from_dict(values)
