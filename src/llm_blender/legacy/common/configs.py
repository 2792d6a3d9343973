"""Conversion of the old configurations to dictionaries and JSON, by the method names of ``dataclasses_json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, Self

from llm_blender.errors import InputError

__all__ = ["ConfigRecord"]


class ConfigRecord:
    """Base of dataclasses that convert to and from plain values; unknown keys are ignored."""

    def to_dict(self) -> dict[str, Any]:
        """Return all fields by name."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make a configuration from the result of `to_dict`; missing fields get their defaults."""
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        return cls(**{name: value for name, value in values.items() if name in known})

    def to_json(self, **options: Any) -> str:
        """Dump `to_dict` as JSON, with the options of `json.dumps`."""
        return json.dumps(self.to_dict(), **options)

    @classmethod
    def from_json(cls, text: str, **options: Any) -> Self:
        """Make a configuration from the result of `to_json`, with the options of `json.loads`.

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
