"""The form that a request requires of an answer: JSON, JSON that satisfies a schema, calls of its tools."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from itertools import islice
from typing import Any, Literal, Self

from pydantic_core import SchemaError as PatternError
from pydantic_core import SchemaValidator, core_schema, from_json

from llm_blender.conversations import tool_calls_text
from llm_blender.errors import InputError, LLMError
from llm_blender.types import Candidate

MAX_CHARS = 300_000
"""Maximum characters of `response_format` and `tools` together, as JSON."""
MAX_STEPS = 200_000
"""Maximum steps, each a keyword for a value or an entry of them, to check one JSON value against a schema."""

_FENCED = re.compile(r"^[ \t]*(```|~~~)[^\n`{\[]*\n?(.*?)(?:\1[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
_BROKEN: Mapping[str | None, str] = {
    "length": "the answer was cut off before its end: raise max_tokens",
    "content_filter": "the answer was cut off by the content filter of its server",
}
_MOST_LACKS, _LONGEST_LACK = 3, 200


class _LackError(Exception):
    """An answer without the required form; the message says what it lacks."""


@dataclass(frozen=True)
class Form:
    """The form that an answer must have.

    Attributes:
        json: whether a text must be JSON.
        schema: the schema of that JSON; None for any JSON object.
        tools: schemas of the arguments by the names of the tools that may be called; None for a tool without one.
        calls: whether calls of tools are required, possible, or excluded; None if the request has no tools.
    """

    json: bool = False
    schema: Schema | None = None
    tools: Mapping[str, Schema | None] = field(default_factory=dict)
    calls: Literal["required", "auto", "none"] | None = None

    @classmethod
    def of(
        cls,
        *,
        response_format: Mapping[str, Any] | None = None,
        tools: Iterable[Mapping[str, Any]] = (),
        tool_choice: str | Mapping[str, Any] | None = None,
    ) -> Self | None:
        """Read the form from keys of OpenAI's API; None if they require none.

        Raises:
            InputError: a value is wrong or too long, or a schema is invalid or refers to another document; the message
                begins with the key and a colon.
        """
        tools = list(tools)
        if (length := len(json.dumps([response_format, tools]))) > MAX_CHARS:
            raise InputError(f"tools: with response_format they have {length} characters; the maximum is {MAX_CHARS}.")
        wants_json, schema = (False, None) if response_format is None else _json_of(response_format)
        known = dict(_tool(f"tools.{place}", tool) for place, tool in enumerate(tools))
        calls, names = _choice_of(tool_choice, known)
        if not wants_json and not known:
            return None
        return cls(wants_json, schema, {name: known[name] for name in names}, calls if known else None)

    def check(self, candidate: Candidate) -> Candidate:
        """Return an answer of this form, without the fence or the white space around its JSON.

        Raises:
            LLMError: the answer has another form; the message has what it lacks.
        """
        try:
            if candidate.refusal is not None and (self.json or self.calls == "required"):
                raise _LackError(f"it refuses: {candidate.refusal}")
            if candidate.tool_calls is not None and self.calls is not None:
                return self._check_calls(candidate)
            if self.calls == "required":
                raise _LackError(f"a call of {_names(self.tools)} is required")
            return self._check_json(candidate) if self.json else candidate
        except _LackError as lack:
            words = f"{lack}"
            raise LLMError(
                candidate.model or "", "wrong_form", f"the answer has the wrong form: {words}",
                text=candidate.text, own=False,
            ) from None  # fmt: skip

    def _check_json(self, candidate: Candidate) -> Candidate:
        text = candidate.text.strip("\ufeff \t\r\n")
        try:
            text, value = _read_json(text)
        except ValueError as error:
            raise _LackError(_BROKEN.get(candidate.finish_reason, f"it is not JSON: {error}")) from None
        if (self.schema is None or self.schema.describes_objects) and not isinstance(value, dict):
            raise _LackError(f"a JSON object is required, not {_kind(value)}")
        if self.schema is not None:
            self.schema.check(value)
        return replace(candidate, text=text)

    def _check_calls(self, candidate: Candidate) -> Candidate:
        calls = tuple(self._check_call(call, candidate.finish_reason) for call in candidate.tool_calls or ())
        if calls == candidate.tool_calls:
            return candidate
        before = candidate.text.removesuffix(tool_calls_text(candidate.tool_calls or ()))
        return replace(candidate, text=before + tool_calls_text(calls), tool_calls=calls)

    def _check_call(self, call: Mapping[str, Any], finish_reason: str | None) -> Mapping[str, Any]:
        if self.calls == "none":
            raise _LackError("it calls a tool, and tool_choice excludes calls")
        function = call.get("function") or {}
        name = function.get("name") or (call.get("custom") or {}).get("name")
        if not isinstance(name, str) or name not in self.tools:
            raise _LackError(f"it calls `{name}`, which is not one of {_names(self.tools)}")
        if "function" not in call:
            return call
        arguments = function.get("arguments") or "{}"  # some LLMs write nothing where there are no parameters
        try:
            value = from_json(arguments, allow_inf_nan=False)
            _refuse_infinity(arguments)
        except ValueError as error:
            broken = f"the arguments of `{name}` are not JSON: {error}"
            raise _LackError(_BROKEN.get(finish_reason, broken)) from None
        if not isinstance(value, dict):
            raise _LackError(f"the arguments of `{name}` must be a JSON object, not {_kind(value)}")
        if (schema := self.tools[name]) is not None:
            try:
                schema.check(value)
            except _LackError as lack:
                raise _LackError(f"the arguments of `{name}`: {lack}") from None
        return {**call, "function": {**function, "arguments": arguments}}


def _json_of(given: Mapping[str, Any]) -> tuple[bool, Schema | None]:
    """Read `response_format`: whether JSON is required, and its schema."""
    match given.get("type"):
        case "text":
            return False, None
        case "json_object":  # with a `schema` for some servers
            return True, _schema("response_format.schema", given.get("schema"))
        case "json_schema":
            described = given.get("json_schema")
            if not isinstance(described, Mapping):
                raise InputError("response_format.json_schema: must be an object with a `name` and a `schema`.")
            return True, _schema("response_format.json_schema.schema", described.get("schema"))
    raise InputError("response_format.type: must be `text`, `json_object` or `json_schema`.")


def _tool(place: str, tool: Mapping[str, Any]) -> tuple[str, Schema | None]:
    """Read the name of a tool and the schema of its arguments."""
    kind = tool.get("type", "function")
    if kind not in ("function", "custom"):
        raise InputError(f"{place}.type: tools of the type {kind!r} are not supported: only `function` and `custom`.")
    described = tool.get(kind)
    if not isinstance(described, Mapping) or not isinstance(described.get("name"), str) or not described["name"]:
        raise InputError(f"{place}.{kind}: must be an object with a `name`.")
    parameters = described.get("parameters") if kind == "function" else None
    return described["name"], _schema(f"{place}.function.parameters", parameters)


def _choice_of(
    choice: str | Mapping[str, Any] | None, tools: Mapping[str, Any]
) -> tuple[Literal["required", "auto", "none"], Iterable[str]]:
    """Read `tool_choice`: whether calls are required, and the names of the tools that may be called."""
    match choice:
        case None | "auto":
            return "auto", tools
        case "none":
            return "none", tools
        case "required" | "any" if tools:
            return "required", tools
        case {"type": "allowed_tools", "allowed_tools": {"mode": "auto" | "required" as mode, "tools": list(allowed)}}:
            return mode, [_known(_chosen(tool), tools) for tool in allowed]
        case Mapping() if (name := _chosen(choice)) is not None:
            return "required", [_known(name, tools)]
        case str() if choice in ("required", "any"):
            raise InputError("tool_choice: a call is required, and the request has no `tools`.")
    raise InputError("tool_choice: must be `none`, `auto`, `required`, or name a function of `tools`.")


def _chosen(choice: Any) -> Any:
    """Return the name of a tool in a choice such as ``{"type": "function", "function": {"name": …}}``."""
    kind = choice.get("type", "function") if isinstance(choice, Mapping) else None
    named = choice.get(kind) if kind in ("function", "custom") else None
    return named.get("name") if isinstance(named, Mapping) else None


def _known(name: Any, tools: Mapping[str, Any]) -> str:
    if not isinstance(name, str) or name not in tools:
        raise InputError(f"tool_choice: `{name}` is not one of the request's tools: {_names(tools) or 'it has none'}.")
    return name


def _names(tools: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in tools)


def _read_json(text: str) -> tuple[str, Any]:
    """Read a text as JSON, or the only fenced block in it; return the text of the JSON, and its value.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        value = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        blocks = _FENCED.findall(text)
        if len(blocks) != 1:
            raise error from None
        text = blocks[0][1].strip()
        value = from_json(text, allow_inf_nan=False)
    _refuse_infinity(text)
    return text, value


# Numbers that no float holds: `from_json` reads them as infinite.
_HUGE = re.compile(r"[eE]\+?\d{3}|\d{200}")


def _refuse_infinity(text: str) -> None:
    """Raise a `ValueError` if a JSON text has a number that is too large for a float."""
    if _HUGE.search(text):
        json.loads(text, parse_float=_finite)


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"the number {digits[:20]} is too large")
    return number


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list():
            return "a list"
    return "an object"


# Keywords that say what a value must be, so that it need not be an object.
_KINDS = frozenset({"type", "enum", "const", "anyOf", "oneOf", "allOf", "not", "if", "$ref", "$dynamicRef"})
_REFERENCES = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})
_LONGEST_KEPT = 20_000  # characters of a schema
_MAX_DEPTH = 64  # levels of a schema, and of keywords within each other; `jsonschema` is recursive
_steps: ContextVar[list[int]] = ContextVar("llm_blender_schema_steps")


class Schema:
    """A JSON schema, Draft 2020-12 unless its ``$schema`` names an earlier draft.

    Documents on the network are never read. `format` is not checked. A `pattern` runs on an engine whose time is linear
    in the length of the text; one with look-around or back-references, which that engine lacks, is not checked.

    Args:
        schema: the schema.

    Attributes:
        describes_objects: whether a value must be an object, as where the schema does not name another type.

    Raises:
        InputError: the schema is invalid, or refers to another document.
    """

    def __init__(self, schema: Mapping[str, Any] | bool) -> None:
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import validator_for
        from referencing import Registry
        from referencing.exceptions import Unresolvable
        from referencing.jsonschema import DRAFT202012

        named = schema.get("$schema") if isinstance(schema, Mapping) else None
        if not isinstance(named, str | None):
            raise InputError("the schema is invalid: its `$schema` must be a text.")
        try:
            draft: Any = validator_for({"$schema": named} if named else {}, default=Draft202012Validator)
        except ValueError:
            raise InputError("the schema is invalid: its `$schema` is no URI.") from None
        keys, references = set[str](), set[str]()
        local = _local(schema, keys, references)
        if {"patternProperties", "unevaluatedProperties"} <= keys:
            raise InputError("`patternProperties` and `unevaluatedProperties` in one schema are not supported.")
        resolver = Registry().with_resource("", DRAFT202012.create_resource(local)).resolver()
        try:
            draft.check_schema(local, format_checker=None)
            for reference in sorted(references):
                part = resolver.lookup(reference).contents
                if not reference.startswith(("#/$defs/", "#/definitions/")) and reference != "#":
                    draft.check_schema(part, format_checker=None)
        except SchemaError as error:
            path = ".".join(map(str, error.absolute_path))
            raise InputError(f"the schema is invalid{path and f' at `{path}`'}: {_short(error.message)}.") from None
        except Unresolvable:
            raise InputError(f"the schema refers to {reference!r}, and has nothing there.") from None
        self._validator = _bounded(draft)(local, registry=Registry())
        self.describes_objects = isinstance(local, bool) or not _KINDS & local.keys()

    def check(self, value: Any) -> None:
        """Raise a `_LackError` if a value does not satisfy the schema."""
        token = _steps.set([MAX_STEPS, _MAX_DEPTH])
        try:
            lacks = list(dict.fromkeys(map(_lack, islice(self._validator.iter_errors(value), _MOST_LACKS))))
        except ArithmeticError:
            raise _LackError("it has a number that is too large for the schema") from None
        finally:
            _steps.reset(token)
        if lacks:
            raise _LackError("; ".join(lacks))


def _schema(place: str, given: Any) -> Schema | None:
    """Read a schema in the key `place` of a request; None stays None."""
    if given is None:
        return None
    if not isinstance(given, Mapping | bool):
        raise InputError(f"{place}: must be a JSON schema, which is an object.")
    text = json.dumps(given)
    try:
        return _kept(text) if len(text) <= _LONGEST_KEPT else Schema(given)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None


@lru_cache(maxsize=256)
def _kept(text: str) -> Schema:
    return Schema(json.loads(text))


def _local(schema: Any, keys: set[str], references: set[str], depth: int = _MAX_DEPTH) -> Any:
    """Copy a schema without the names of itself and its parts; collect its keys and references.

    Raises:
        InputError: it refers to another document, or is nested too deeply.
    """
    if not depth:
        raise InputError("the schema is nested too deeply.")
    if isinstance(schema, list):
        return [_local(each, keys, references, depth - 1) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    keys.update(schema)
    for key in _REFERENCES & schema.keys():
        if isinstance(reference := schema[key], str):
            if not reference.startswith("#"):
                raise InputError(f"`{key}` to another document is not supported: {reference[:100]!r}.")
            references.add(reference)
    named = [key for key in ("$schema", "$id") if isinstance(schema.get(key), str)]
    # `unevaluated…` follow references without counting: after all others, which refuse references without an end.
    ordered = sorted(schema.items(), key=lambda item: item[0].startswith("unevaluated"))
    return {key: _local(value, keys, references, depth - 1) for key, value in ordered if key not in named}


def _count(steps: int) -> None:
    left = _steps.get()
    left[0] -= steps
    if left[0] < 0:
        raise _LackError("it is too long to be checked against the schema")


@cache
def _bounded(draft: Any) -> Any:
    """Make the validator of a draft count its steps, and use a regular expression engine of linear time."""
    from jsonschema.exceptions import ValidationError
    from jsonschema.validators import extend

    def bounded(keyword: str, check: Callable[..., Iterable[Any] | None]) -> Callable[..., Iterator[Any]]:
        def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
            size = len(instance) if isinstance(instance, list | dict) else 1
            length = len(value) if isinstance(value, list | dict) else 1
            _count(20 if keyword == "$ref" else size + length)
            left = _steps.get()
            left[1] -= 1
            if left[1] < 0:
                raise _LackError("its JSON is nested too deeply for the schema, or the schema contains itself")
            try:
                yield from check(validator, value, instance, schema) or ()
            finally:
                left[1] += 1

        return counted

    def pattern(validator: Any, value: str, instance: Any, schema: Any) -> Iterator[Any]:
        if isinstance(instance, str) and not _matches(value, instance):
            yield ValidationError(f"does not match {value}")

    def properties_by_pattern(validator: Any, value: Mapping[str, Any], instance: Any, schema: Any) -> Iterator[Any]:
        for expression, part in value.items() if isinstance(instance, dict) else ():
            for key in (key for key in instance if _matches(expression, key)):
                yield from validator.descend(instance[key], part, path=key, schema_path=expression)

    def others(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        known, expressions = schema.get("properties", {}), schema.get("patternProperties", {})
        for key in instance if isinstance(instance, dict) else ():
            if key not in known and not any(_matches(expression, key) for expression in expressions):
                if value is False:
                    yield ValidationError(f"`{key}` is not allowed")
                else:
                    yield from validator.descend(instance[key], value, path=key)

    def unique(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        items = instance if value is True and isinstance(instance, list) else []
        if len({json.dumps(item, sort_keys=True) for item in items}) < len(items):
            yield ValidationError("must not hold an item twice")

    own = {
        "uniqueItems": unique,
        "pattern": pattern,
        "patternProperties": properties_by_pattern,
        "additionalProperties": others,
    }
    checks = {**draft.VALIDATORS, **{key: check for key, check in own.items() if key in draft.VALIDATORS}}
    counted = {keyword: bounded(keyword, check) for keyword, check in checks.items()}
    return extend(draft, counted)  # type: ignore[no-untyped-call]


def _matches(pattern: str, text: str) -> bool:
    _count(1 + len(text) // 10)
    expression = _expression(pattern)
    return expression is None or expression.isinstance_python(text)


@lru_cache(maxsize=64)
def _expression(pattern: str) -> SchemaValidator | None:
    """Compile a regular expression; None if the engine does not support it."""
    try:
        return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
    except PatternError:
        return None


def _lack(error: Any) -> str:
    """Describe an error of `jsonschema` in plain words."""
    from jsonschema.exceptions import best_match

    error = best_match([error]) or error  # of the alternatives of an `anyOf`
    path, value = ".".join(map(str, error.absolute_path)), error.validator_value
    match error.validator:
        case "required":
            names = value if isinstance(value, list) else []
            missing = [f"`{path}.{name}`" if path else f"`{name}`" for name in names if name not in error.instance]
            return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
        case "type" if not path and value == "object":
            return f"a JSON object is required, not {_kind(error.instance)}"
        case "type":
            kinds = value if isinstance(value, str) else " or ".join(map(str, value))
            words = f"must be of the type {kinds}, not {_kind(error.instance)}"
        case "enum":
            words = f"must be one of {json.dumps(value, ensure_ascii=False)}"
        case "const":
            words = f"must be {json.dumps(value, ensure_ascii=False)}"
        case _:
            words = error.message
    return f"`{path}`: {_short(words)}" if path else _short(words)


def _short(words: str) -> str:
    return words if len(words) <= _LONGEST_LACK else words[:_LONGEST_LACK] + "…"
