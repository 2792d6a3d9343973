"""Put together the calls of tools in an answer, whole or in pieces, however a server counts them."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

from llm_blender.llms.api_errors import CallError
from llm_blender.llms.lenient_json import clean, joined, merge, size, whole

_MOST_CALLS = 1_000
_ARGUMENTS = ("arguments", "parameters", "input")  # Cohere's and Anthropic's names follow
_FUNCTION_TYPES = ("tool_use", "tool_call", "function_call")
_MARKS = re.compile(r'\\.|["{}\[\]]', re.DOTALL)


@dataclass
class _Piece:
    """A call, or a part of it, as one delta or message has it; None and empty texts are absent."""

    index: Hashable | None
    id: str
    name: str
    arguments: str
    keys: dict[str, Any]
    function_keys: dict[str, Any]
    is_custom: bool


@dataclass
class _Call:
    """A call in the making.

    Attributes:
        index: of its first piece.
        id: the first that a piece has.
        names: pieces of its name.
        arguments: pieces of its arguments, as JSON; of its input, if it is custom.
        keys: further keys of the call.
        function_keys: further keys of its function.
        is_custom: whether it calls a custom tool, whose input is any text.
        repeats: name of the call before, which this may be once more; empty if it is surely another one.
    """

    index: Hashable | None
    id: str = ""
    names: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    keys: dict[str, Any] = field(default_factory=dict)
    function_keys: dict[str, Any] = field(default_factory=dict)
    is_custom: bool = False
    repeats: str = ""
    _depth: int = 0
    _quoted: bool = False
    _read: int = 0
    _escape: str = ""

    @property
    def name(self) -> str:
        return "".join(self.names)

    def add(self, piece: _Piece) -> None:
        self.id = self.id or piece.id
        if piece.name and piece.name != self.name:
            self.names.append(piece.name)
        if piece.arguments:
            self.arguments.append(piece.arguments)
        merge(self.keys, piece.keys)
        merge(self.function_keys, piece.function_keys)
        self.is_custom |= piece.is_custom

    def is_complete(self) -> bool:
        """Tell whether its arguments are as long as JSON gets; each piece of them is read once."""
        text = self._escape + "".join(self.arguments[self._read :])
        self._read = len(self.arguments)
        slashes = len(text) - len(text.rstrip("\\"))
        self._escape = "\\" * (slashes % 2)
        for mark in _MARKS.findall(text.removesuffix(self._escape)):
            if mark == '"':
                self._quoted = not self._quoted
            elif not self._quoted and len(mark) == 1:
                self._depth += 1 if mark in "{[" else -1
        return bool(self.arguments) and self._depth <= 0 and not self._quoted

    def is_nothing(self) -> bool:
        """Tell whether it has neither arguments nor a name of its own."""
        return self.name in ("", self.repeats) and not "".join(self.arguments).strip()

    def is_repeated(self, arguments: str) -> bool:
        """Tell whether the arguments of a later piece add nothing to a complete call."""
        return self.is_complete() and (not arguments.strip() or arguments == "".join(self.arguments))

    def result(self, number: int, finish_reason: str | None) -> dict[str, Any]:
        """Return it as the API gives calls.

        Raises:
            CallError: it has no name, or arguments that are no JSON.
        """
        name, arguments = whole(self.name), whole("".join(self.arguments))
        if not name:
            raise CallError("bad_response", "the answer calls a tool without its name")
        cut = finish_reason == "length"
        if self.is_custom and not cut:
            custom = {**joined(self.function_keys), "name": name, "input": arguments}
            return {"id": self.id or f"call_{number}", **joined(self.keys), "type": "custom", "custom": custom}
        # Some servers begin with an empty object, and then write the arguments.
        if self.is_custom or (not _is_valid(arguments) and not _is_valid(arguments := arguments.removeprefix("{}"))):
            why = "is cut off; raise max_tokens" if cut else "has arguments that are no JSON"
            raise CallError("bad_response", f"the answer's call of the tool {name[:80]!r} {why}")
        function = {**joined(self.function_keys), "name": name, "arguments": _object(arguments)}
        keys = joined(self.keys)
        kind = keys.pop("type", None)
        return {
            "id": self.id or f"call_{number}",
            "type": kind if isinstance(kind, str) and kind not in ("", *_FUNCTION_TYPES) else "function",
            "function": function,
            **keys,
        }


class ToolCalls:
    """A collector of calls.

    Servers tell calls apart by an index, by an id, by a name, or by none of them; they give them whole or in pieces,
    and repeat index, id or name in each piece or not at all.
    """

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._by_index: dict[Hashable, _Call] = {}
        self._by_id: dict[str, _Call] = {}

    def add(self, value: Any) -> int:
        """Take the calls of one delta or message; return the number of their characters."""
        added = 0
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict):
                piece = _piece(each)
                self._add(piece)
                added += len(piece.name) + len(piece.arguments) + size(piece.keys) + size(piece.function_keys)
        return added

    def results(self, first: int, finish_reason: str | None) -> list[dict[str, Any]]:
        """Return the calls as the API gives them, in the order in which they began.

        Args:
            first: number of the first call, for the ids of calls without one.
            finish_reason: of the answer.

        Raises:
            CallError: a call has no name, or arguments that are no JSON.
        """
        calls = [call for call in self._calls if not call.is_nothing()]
        return [call.result(number, finish_reason) for number, call in enumerate(calls, first)]

    def _add(self, piece: _Piece) -> None:
        call = self._call_of(piece)
        if call is None or self._begins(call, piece):
            if len(self._calls) == _MOST_CALLS:
                raise CallError("bad_response", f"the answer has more than {_MOST_CALLS} calls of tools")
            call = _Call(piece.index, repeats="" if call is None or (piece.name and piece.id) else call.name)
            self._calls.append(call)
        elif piece.name and piece.name == call.name and piece.id == call.id != "" and call.is_repeated(piece.arguments):
            return
        call.add(piece)
        if piece.index is not None:
            self._by_index[piece.index] = call
        if piece.id:
            self._by_id[piece.id] = call

    def _call_of(self, piece: _Piece) -> _Call | None:
        """Return the call that a piece may go on with."""
        last = self._calls[-1] if self._calls else None
        of_id = self._by_id.get(piece.id)
        of_index = None if piece.index is None else self._by_index.get(piece.index)
        if of_index is not None:
            return of_index if of_id is None or of_index.id == piece.id else of_id
        if piece.index is not None and piece.name:
            return None
        return of_id or last

    def _begins(self, call: _Call, piece: _Piece) -> bool:
        """Tell whether a piece begins another call than the one that it may go on with."""
        if piece.id and piece.id != call.id and piece.name and call.names:
            return True
        if not call.arguments:
            # Pieces of a name have an index or an id.
            return bool(piece.name and call.names and piece.name != call.name) and piece.index is None and not piece.id
        other_id = bool(piece.id and call.id and piece.id != call.id)
        if not (call.names or other_id or piece.arguments):  # its name comes last
            return False
        if call.is_custom and piece.id and piece.id == call.id:
            return False
        if not (other_id or piece.name) or not call.is_complete() or piece.arguments.isspace():
            return False
        return not (piece.id and piece.id == call.id and piece.name == call.name and call.is_repeated(piece.arguments))


def _piece(value: Mapping[str, Any]) -> _Piece:
    function, custom = value.get("function"), value.get("custom")
    if is_custom := isinstance(custom, dict):
        function = {**custom, "arguments": custom.get("input")}
    if not isinstance(function, dict):
        function = {key: value[key] for key in ("name", *_ARGUMENTS) if key in value}
        value = {key: each for key, each in value.items() if key not in function}
    arguments = next((function[key] for key in _ARGUMENTS if function.get(key) is not None), "")
    if not isinstance(arguments, str):
        arguments = json.dumps(clean(arguments))
    return _Piece(
        _index(value.get("index")),
        _text(value.get("id")),
        _text(function.get("name")),
        arguments,
        clean({key: each for key, each in value.items() if key not in ("index", "id", "function", "custom")}),
        clean({key: each for key, each in function.items() if key not in ("name", *_ARGUMENTS)}),
        is_custom,
    )


def _index(value: Any) -> Hashable | None:
    """Return an index such that 1, 1.0 and "1" are the same."""
    if isinstance(value, str):
        value = value.strip()
        return int(value) if re.fullmatch(r"\d{1,9}", value) else value or None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _text(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return whole(value) if isinstance(value, str) else ""


def _is_valid(arguments: str) -> bool:
    """Tell whether arguments are JSON; none at all mean an empty object."""
    try:
        return not arguments.strip() or json.loads(arguments, parse_constant=_refuse) is not ...
    except (ValueError, RecursionError):
        return False


def _object(arguments: str) -> str:
    """Return arguments as the JSON of an object, where a server has none, null, or JSON once more as a text."""
    value = json.loads(arguments) if arguments.strip() else None
    if value is None:
        return "{}"
    if isinstance(value, str):
        with suppress(ValueError, RecursionError):
            if isinstance(json.loads(value, parse_constant=_refuse), dict):
                return value
    return arguments


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)
