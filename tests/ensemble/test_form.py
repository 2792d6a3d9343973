"""The form of an answer: JSON, JSON of a schema, calls of tools, and what an answer of another form lacks."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from llm_blender.calls import WrappedLLM
from llm_blender.conversations import tool_calls_text
from llm_blender.ensemble import Ensemble, Form, Limits, Member, Observer
from llm_blender.ensemble.form import MAX_CHARS, Schema
from llm_blender.errors import InputError, LLMError, NoAnswerError
from llm_blender.store import Store
from llm_blender.testing import FakeLLM, FakeRanker
from llm_blender.types import Answer, Candidate, Failure

COLOR = {
    "type": "object",
    "properties": {"color": {"type": "string"}, "shade": {"enum": ["dark", "light"]}},
    "required": ["color"],
    "additionalProperties": False,
}
OBJECT = Form.of(response_format={"type": "json_object"})


def of_schema(schema: Any) -> Form:
    form = Form.of(response_format={"type": "json_schema", "json_schema": {"name": "it", "schema": schema}})
    assert form is not None
    return form


def of_tools(choice: Any = None, parameters: Any = COLOR) -> Form:
    tools = [
        {"type": "function", "function": {"name": "paint", "parameters": parameters}},
        {"type": "function", "function": {"name": "wait"}},
    ]
    form = Form.of(tools=tools, tool_choice=choice)
    assert form is not None
    return form


def call(name: str = "paint", arguments: str = '{"color": "blue"}', **keys: Any) -> dict[str, Any]:
    return {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}, **keys}


def calling(*calls: dict[str, Any], said: str = "", **fields: Any) -> Candidate:
    return Candidate(f"{said}\n{tool_calls_text(calls)}".strip(), model="a", tool_calls=calls, **fields)


def lack(form: Form | None, candidate: Candidate | str) -> str:
    """What an answer lacks; empty if it has the form."""
    assert form is not None
    answer = Candidate(candidate, model="a") if isinstance(candidate, str) else candidate
    try:
        form.check(answer)
    except LLMError as caught:
        failure = Failure.of(caught)
    else:
        return ""
    assert (failure.model, failure.reason, failure.own, failure.text) == ("a", "wrong_form", False, answer.text)
    return failure.message.removeprefix("a: the answer has the wrong form: ")


JSON = '{"color": "blue"}'


@pytest.mark.parametrize(
    "text",
    [
        JSON,
        f" \n{JSON}\n",
        f"\ufeff{JSON}",
        f"```json\n{JSON}\n```",
        f"```\n{JSON}\n```\n",
        f"```JSON\r\n{JSON}\r\n```",
        f"~~~json\n{JSON}\n~~~",
        f"```json {JSON} ```",
        f"```{JSON}```",
        f"```json\n{JSON}",  # a stop sequence took the end of the fence
        f"Here it is:\n\n```json\n{JSON}\n```\nI hope that this helps!",
    ],
)
def test_white_space_and_fences_are_taken_off(text: str) -> None:
    for form in (OBJECT, of_schema(COLOR)):
        assert form is not None
        checked = form.check(Candidate(text, model="a", reasoning="Hm.", cost=1.0))
        assert checked == Candidate(JSON, model="a", reasoning="Hm.", cost=1.0)


def test_a_fence_inside_of_a_text_stays() -> None:
    text = json.dumps({"code": "```py\nprint()\n```"})
    assert OBJECT is not None
    assert OBJECT.check(Candidate(text)).text == text


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', '{"a": 1e30}', "{}", '{"a": "NaN 1e999"}'])
def test_json_objects(text: str) -> None:
    assert lack(OBJECT, text) == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("42", "a JSON object is required, not a number"),
        ("[{}]", "a JSON object is required, not a list"),
        ('"{}"', "a JSON object is required, not a text"),
        ("true", "a JSON object is required, not true or false"),
        ("null", "a JSON object is required, not null"),
        ('{"color": NaN}', "it is not JSON: "),
        ('{"color": -Infinity}', "it is not JSON: "),
        ('{"color": 1e999}', "it is not JSON: the number 1e999 is too large"),
        ("Certainly! It is blue.", "it is not JSON: "),
        (f"Certainly! {JSON}", "it is not JSON: "),
        (f"{JSON} I hope that this helps!", "it is not JSON: "),
        (f"{JSON}{JSON}", "it is not JSON: "),
        (f"```json\n{JSON}\n```\nor\n```json\n{JSON}\n```", "it is not JSON: "),
        ("{'color': 'blue'}", "it is not JSON: "),
        ('{"color": "blue",}', "it is not JSON: "),
        ("```json\n```", "it is not JSON: "),
        ('{"a":' * 5000 + "1" + "}" * 5000, "it is not JSON: "),
    ],
)
def test_what_is_no_json_object(text: str, words: str) -> None:
    assert lack(OBJECT, text).startswith(words)


@pytest.mark.parametrize(
    ("schema", "text", "words"),
    [
        (COLOR, '{"colour": "blue", "why": "x"}', "`color` is missing; `colour` is not allowed; `why` is not allowed"),
        (COLOR, '{"color": 1}', "`color`: must be of the type string, not a number"),
        (COLOR, '{"color": "x", "shade": "red"}', '`shade`: must be one of ["dark", "light"]'),
        (COLOR, "42", "a JSON object is required, not a number"),
        ({"required": ["city"]}, "42", "a JSON object is required, not a number"),
        ({"required": ["city", "zip"]}, "{}", "`city` and `zip` are missing"),
        ({"properties": {"a": {"required": ["b"]}}}, '{"a": {}}', "`a.b` is missing"),
        ({}, "42", "a JSON object is required, not a number"),
        (True, "[]", "a JSON object is required, not a list"),
        ({"type": "array", "items": {"type": "integer"}}, '[1, "2"]', "`1`: must be of the type integer, not a text"),
        ({"type": "array", "uniqueItems": True}, "[1, 2, 1]", "must not hold an item twice"),
        ({"anyOf": [{"type": "object", "required": ["a"]}, {"type": "null"}]}, "{}", "`a` is missing"),
        ({"const": 1}, "2", "must be 1"),
        ({"properties": {"a": {"pattern": "^[a-z]+$"}}}, '{"a": "B"}', "`a`: does not match ^[a-z]+$"),
        (
            {"patternProperties": {"^x": {"type": "string"}}, "additionalProperties": False},
            '{"x": 1, "y": 2}',
            "`x`: must be of the type string, not a number; `y` is not allowed",
        ),
        ({"$ref": "#/$defs/it", "$defs": {"it": COLOR}}, "{}", "`color` is missing"),
        (
            {"$schema": "http://json-schema.org/draft-07/schema#", "type": "array", "items": [{"type": "string"}]},
            "[1]",
            "`0`: must be of the type string, not a number",
        ),
        (
            {"type": "object", "properties": {"n": {"multipleOf": 0.1}}},
            f'{{"n": {10**400}}}',
            "it has a number that is",
        ),
    ],
)
def test_what_a_schema_requires(schema: Any, text: str, words: str) -> None:
    assert lack(of_schema(schema), text).startswith(words)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "array", "items": {"type": "integer"}}, "[1, 2.0]"),
        ({"type": ["string", "null"]}, "null"),
        ({"enum": [1, 2]}, "2"),
        (None, "{}"),
        ({"properties": {"$id": {"type": "string"}, "$ref": {"type": "string"}}, "type": "object"}, '{"$ref": "x"}'),
        ({"type": "object", "properties": {"when": {"format": "date"}}}, '{"when": "soon"}'),
        ({"type": "object", "properties": {"n": {"pattern": r"^(?!0)\d+$"}}}, '{"n": "0"}'),  # look-around: unchecked
    ],
)
def test_what_satisfies_a_schema(schema: Any, text: str) -> None:
    assert lack(of_schema(schema), text) == ""


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "strin"}, "the schema is invalid at `type`: 'strin'"),
        ({"properties": {"a": {"required": True}}}, "the schema is invalid at `properties.a.required`"),
        ({"$ref": "http://127.0.0.1:9/schema.json"}, "`$ref` to another document is not supported"),
        ({"properties": {"a": {"items": {"$ref": "other.json#/a"}}}}, "`$ref` to another document is not supported"),
        ({"$ref": "file:///etc/passwd"}, "`$ref` to another document is not supported"),
        ({"$ref": "#/$defs/it"}, "the schema refers to '#/$defs/it', and has nothing there"),
        ({"$ref": "#/x", "x": {"type": 3}}, "the schema is invalid at `type`"),
        ("object", "must be a JSON schema"),
        ({"$schema": {}}, "its `$schema` must be a text"),
        ({"$schema": "http://["}, "its `$schema` is no URI"),
        (json.loads('{"not":' * 400 + "{}" + "}" * 400), "the schema is nested too deeply"),
        ({"description": "x" * MAX_CHARS}, "with response_format they have"),
    ],
)
def test_schemas_that_are_refused(schema: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*args: object) -> None:
        raise AssertionError("a schema is fetched")

    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(InputError) as caught:
        of_schema(schema)
    assert words in str(caught.value)
    with pytest.raises(InputError) as caught:
        of_tools(parameters=schema)
    assert words in str(caught.value)
    assert str(caught.value).startswith("tools")


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"pattern": "^(a+)+$", "type": "string"}, "a" * 60 + "!"),
        ({"patternProperties": {"^(a+)+$": True}, "additionalProperties": False}, {"a" * 60 + "!": 1}),
        ({"properties": {"a": {"$schema": "http://json-schema.org/draft-07/schema#", "pattern": "^(a+)+$"}}},
         {"a": "a" * 60 + "!"}),
        ({"$ref": "#"}, {}),
        ({"unevaluatedProperties": False, "$ref": "#"}, {"a": 1}),
        ({"type": "array", "items": {"$ref": "#"}}, json.loads("[" * 190 + "]" * 190)),
        ({"$ref": "#/$defs/d0",
          "$defs": {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{min(i + 1, 40)}"}] * 2} for i in range(40)} | {"d40": {}}},
         {}),
        ({"items": {"enum": [*range(1000)]}}, [-1] * 100_000),
    ],
)  # fmt: skip
def test_no_schema_takes_long(schema: Any, value: Any) -> None:
    started = time.process_time()
    with pytest.raises(Exception, match=r"match|allowed|contains itself|too long|must be one of"):
        Schema(schema).check(value)
    assert time.process_time() - started < 2


def test_a_list_of_many_distinct_items() -> None:
    schema, items = Schema({"uniqueItems": True}), [{"a": number} for number in range(5000)]
    started = time.process_time()
    schema.check(items)
    assert time.process_time() - started < 2
    with pytest.raises(Exception, match="twice"):
        schema.check([*items, {"a": 0}])


def test_an_answer_that_was_cut_off() -> None:
    broken = Candidate('{"color": "bl', model="a", finish_reason="length")
    assert lack(OBJECT, broken) == "the answer was cut off before its end: raise max_tokens"
    assert "content filter" in lack(OBJECT, replace(broken, finish_reason="content_filter"))
    assert lack(OBJECT, Candidate(JSON, model="a", finish_reason="length")) == ""
    cut = calling(call(arguments='{"color": "bl'), finish_reason="length")
    assert lack(of_tools(), cut) == "the answer was cut off before its end: raise max_tokens"


@pytest.mark.parametrize(
    ("choice", "answer", "words"),
    [
        ("auto", Candidate("No need.", model="a"), ""),
        (None, calling(call()), ""),
        ("none", Candidate("Blue.", model="a"), ""),
        ("none", calling(call()), "it calls a tool, and tool_choice excludes calls"),
        ("required", calling(call(), call("wait", "{}")), ""),
        ("required", Candidate("Blue.", model="a"), "a call of `paint`, `wait` is required"),
        ("required", Candidate("No.", model="a", refusal="No."), "it refuses: No."),
        ("auto", Candidate("No.", model="a", refusal="No."), ""),
        ({"type": "function", "function": {"name": "wait"}}, calling(call("wait", "{}")), ""),
        ({"type": "function", "function": {"name": "wait"}}, calling(call()), "it calls `paint`, which is not one of"),
        ({"type": "function", "function": {"name": "wait"}}, Candidate("Blue.", model="a"), "a call of `wait` is"),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [
                {"type": "function", "function": {"name": "wait"}}]}},
            calling(call()),
            "it calls `paint`, which is not one of `wait`",
        ),
        ("auto", calling(call("pain")), "it calls `pain`, which is not one of `paint`, `wait`"),
        ("auto", calling(call(arguments="blue")), "the arguments of `paint` are not JSON"),
        ("auto", calling(call(arguments='{"color": NaN}')), "the arguments of `paint` are not JSON"),
        ("auto", calling(call(arguments='"blue"')), "the arguments of `paint` must be a JSON object, not a text"),
        ("auto", calling(call(arguments='{"colour": "x"}')), "the arguments of `paint`: `color` is missing"),
        ("auto", calling(call(), call(arguments="{}")), "the arguments of `paint`: `color` is missing"),
        ("auto", calling(call("wait", '{"any": 1}')), ""),
    ],
)  # fmt: skip
def test_calls_of_tools(choice: Any, answer: Candidate, words: str) -> None:
    found = lack(of_tools(choice), answer)
    assert found.startswith(words) if words else found == ""


def test_a_call_keeps_its_keys_and_gets_the_arguments_that_it_lacks() -> None:
    answer = calling(call("wait", "", extra_content={"google": 1}), said="I wait.")
    checked = of_tools().check(answer)
    assert checked.tool_calls == (call("wait", "{}", extra_content={"google": 1}),)
    assert checked.text == 'I wait.\n[{"name": "wait", "arguments": {}}]'
    kept = calling(call())
    assert of_tools().check(kept) is kept


def test_custom_tools_are_known_by_their_names() -> None:
    form = Form.of(tools=[{"type": "custom", "custom": {"name": "code"}}], tool_choice="required")
    custom = {"id": "1", "type": "custom", "custom": {"name": "code", "input": "print()"}}
    assert lack(form, Candidate("code", model="a", tool_calls=(custom,))) == ""


def test_json_or_calls_where_both_are_possible() -> None:
    tools = [{"type": "function", "function": {"name": "paint"}}]
    form = Form.of(response_format={"type": "json_object"}, tools=tools)
    assert lack(form, calling(call())) == lack(form, JSON) == ""
    assert lack(form, "Blue.").startswith("it is not JSON")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"response_format": {"type": "regex"}}, "response_format.type: must be `text`"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema: must be an object"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type: tools of the type 'web_search' are not supported"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools.0.function: must be an object with a `name`"),
        ({"tool_choice": "required"}, "tool_choice: a call is required, and the request has no `tools`"),
        ({"tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice: `x` is not one of"),
        ({"tool_choice": "sometimes"}, "tool_choice: must be `none`, `auto`, `required`"),
        ({"tool_choice": {"type": "function"}}, "tool_choice: must be `none`, `auto`, `required`"),
    ],
)
def test_wrong_requests(options: Mapping[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        Form.of(**options)
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"response_format": None},
        {"response_format": {"type": "text"}},
        {"tools": [], "tool_choice": "auto"},
        {"tool_choice": "none"},
    ],
)
def test_requests_without_a_form(options: Mapping[str, Any]) -> None:
    assert Form.of(**options) is None


class Refusing(WrappedLLM):
    """An LLM that refuses."""

    async def generate(self, *args: Any, **options: Any) -> Candidate:
        answer = await super().generate(*args, **options)
        return replace(answer, refusal=answer.text)


def ask(*llms: Any, form: Form | None = OBJECT, observer: Observer | None = None, **options: Any) -> Answer:
    """The answer of an ensemble whose ranker prefers the longest one."""
    ensemble = Ensemble([Member(llm) for llm in llms], FakeRanker(), **options)
    return ensemble.ask("What color?", form=form, observer=observer)


class Watching(Observer):
    """Keeps what it sees."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, str]] = []

    def wrote(self, call: int, candidate: Candidate, *, stored: bool) -> None:
        self.seen.append((call, candidate.text))

    def failed(self, call: int, failure: Failure) -> None:
        self.seen.append((call, failure.reason))


def test_the_right_form_wins_whatever_the_ranker_prefers() -> None:
    wrong = '{"colour": "blue", "why": "because the ranker likes long answers"}'
    watching = Watching()
    answer = ask(
        FakeLLM("a", wrong, cost=0.5), FakeLLM("b", f"```json\n{JSON}\n```", cost=0.25, delay=0.05),
        form=of_schema(COLOR), observer=watching,
    )  # fmt: skip
    assert (answer.text, answer.degraded, answer.cost, answer.usage.prompt_tokens) == (JSON, True, 0.75, 4)
    (failure,) = answer.failures
    assert (failure.model, failure.reason, failure.text, failure.own) == ("a", "wrong_form", wrong, False)
    assert "`color` is missing" in failure.message
    assert watching.seen == [(0, "wrong_form"), (1, JSON)]


def test_wrong_answers_do_not_fill_the_quorum() -> None:
    llms = [FakeLLM("a", "No JSON."), FakeLLM("b", JSON, delay=0.1), FakeLLM("c", never_ends=True)]
    answer = ask(*llms, limits=Limits(deadline=20, quorum=1, grace=0))
    assert [candidate.model for candidate in answer.candidates] == ["b"]
    assert [failure.reason for failure in answer.failures] == ["wrong_form", "timeout"]


def test_where_no_answer_has_the_form_the_error_has_what_each_lacks() -> None:
    with pytest.raises(NoAnswerError) as caught:
        ask(FakeLLM("a", "42"), FakeLLM("b", "Blue."))
    assert [(each.reason, each.text) for each in caught.value.failures] == [
        ("wrong_form", "42"),
        ("wrong_form", "Blue."),
    ]
    assert "a JSON object is required, not a number" in str(caught.value)
    assert "b: the answer has the wrong form: it is not JSON" in str(caught.value)


def test_a_refusal_is_the_answer_only_where_no_other_has_the_form() -> None:
    refusing = Refusing(FakeLLM("a", "I do not answer that."))
    answer = ask(refusing, FakeLLM("b", JSON, delay=0.05))
    assert answer.text == JSON
    assert [(failure.reason, failure.text) for failure in answer.failures] == [("wrong_form", "I do not answer that.")]
    watching = Watching()
    answer = ask(refusing, FakeLLM("b", "Blue."), observer=watching)
    assert (answer.text, answer.candidates[0].refusal) == ("I do not answer that.",) * 2
    assert [(failure.model, failure.reason) for failure in answer.failures] == [("b", "wrong_form")]
    assert watching.seen == [(1, "wrong_form"), (0, "I do not answer that.")]


def test_an_answer_from_the_store_is_checked_too(store: Store) -> None:
    llm = FakeLLM("a", f"```\n{JSON}\n```")
    for _ in range(2):
        assert ask(llm, store=store).text == JSON
    assert len(llm.calls) == 1
    with pytest.raises(NoAnswerError, match="is missing"):
        ask(llm, store=store, form=of_schema({"required": ["city"]}))


def test_samples_are_checked_one_by_one() -> None:
    llm = FakeLLM("a", ["Blue, I would say.", JSON, "[]"])
    answer = asyncio.run(Ensemble([Member(llm, 3)], FakeRanker()).aask("What color?", form=OBJECT))
    assert (answer.text, len(answer.failures)) == (JSON, 2)
