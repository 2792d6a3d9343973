"""The reader of messages in every form, and the writer of them as texts."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime

import pytest

from llm_blender.conversations import (
    instruction_text,
    message_text,
    prompt_key,
    read_messages,
    text_messages,
    to_messages,
    tool_calls_text,
)
from llm_blender.errors import InputError, MessageError

USER = {"role": "user", "content": "Q"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}


def read(*messages):
    """Read messages after a question of the user, and return them without it."""
    given = copy.deepcopy([USER, *messages])
    first, *others = to_messages(given)
    assert first == USER
    assert given == [USER, *messages]
    assert to_messages([first, *others]) == [first, *others]
    return others


def said(content):
    (message,) = read({"role": "assistant", "content": content})
    return message["content"]


@pytest.mark.parametrize(
    ("role", "known"),
    [
        ("system", "system"),
        ("developer", "system"),
        ("user", "user"),
        ("human", "user"),
        (" Human ", "user"),
        ("assistant", "assistant"),
        ("gpt", "assistant"),
        ("model", "assistant"),
        ("AI", "assistant"),
        ("Assistant\n", "assistant"),
        ("tool", "tool"),
        ("function", "tool"),
        ("ipython", "tool"),
        ("CHATBOT", "assistant"),
        ("tool_response", "tool"),
    ],
)
def test_roles(role, known):
    assert read({"role": role, "content": "x"}) == [{"role": known, "content": "x"}]


def test_turns_of_sharegpt():
    turns = [
        {"from": "system", "value": "S"},
        {"from": "human", "value": "Q"},
        {"from": "gpt", "value": "A", "weight": 1},
    ]
    assert to_messages(turns) == [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "A", "weight": 1},
    ]


@pytest.mark.parametrize(
    ("content", "text"), [({"t": "4 °C"}, '{"t": "4 °C"}'), (4, "4"), (0.5, "0.5"), (True, "true")]
)
def test_a_value_of_a_tool_is_its_json(content, text):
    call, result = read({"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "content": content})
    assert (result["content"], result["tool_call_id"]) == (text, call["tool_calls"][0]["id"])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("x", "x"),
        ("", ""),
        (None, ""),
        ([], ""),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
        ([{"type": "input_text", "text": "a"}, {"type": "output_text", "text": "b", "annotations": []}], "ab"),
        (["a", {"text": "b"}], "ab"),
        ([{"type": "text", "text": "a", "image": None, "cache_control": {"type": "ephemeral"}}], "a"),
        ([{"type": "refusal", "refusal": "No."}], "No."),
        ([{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "a"}], "a"),
    ],
)
def test_contents(content, text):
    assert said(content) == text


def test_keys_that_are_not_known_are_kept_and_nulls_are_not():
    given = {
        "role": "assistant",
        "content": "x",
        "name": "me",
        "reasoning_content": "Hm.",
        "extra_content": {"google": {"thought_signature": "s"}},
        "refusal": None,
        "audio": None,
        "annotations": [],
        "tool_calls": [],
        "function_call": None,
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    kept = {key: given[key] for key in ("role", "content", "name", "reasoning_content", "extra_content")}
    assert read(given) == [kept]


def test_calls_and_their_results_stay_as_they_are():
    call = {**CALL, "extra_content": {"signature": "s"}, "index": 0}
    turns = [
        {"role": "assistant", "content": None, "tool_calls": [call, {**CALL, "id": "c2"}], "reasoning_content": "Hm."},
        {"role": "tool", "tool_call_id": "c2", "content": "42"},
        {"role": "tool", "tool_call_id": "c1", "name": "f", "content": ""},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "assistant", "content": "I look.", "tool_calls": [CALL]},
    ]
    assert read(*turns) == turns


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ({"id": "c1", "function": {"name": "f", "arguments": "{}"}}, {"id": "c1"}),
        ({"function": {"name": "f", "arguments": {}}}, {}),
        ({"function": {"name": "f"}}, {}),
        ({"name": "f"}, {}),
        ({"name": "f", "arguments": None, "id": None, "type": None}, {}),
        (
            {"type": "function", "function": {"name": "f", "arguments": ""}},
            {"function": {"name": "f", "arguments": ""}},
        ),
        (
            {"name": "f", "arguments": {"city": "Zürich"}},
            {"function": {"name": "f", "arguments": '{"city": "Zürich"}'}},
        ),
    ],
)
def test_calls_are_completed(call, expected):
    (turn,) = read({"role": "assistant", "content": None, "tool_calls": [call]})
    function = {"name": "f", "arguments": "{}"}
    assert turn["tool_calls"] == [{"id": "call_1_0", "type": "function", "function": function, **expected}]


def test_calls_of_custom_tools_stay_as_they_are():
    call = {"id": "c", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}
    turn = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert read(turn) == [turn]
    assert message_text(read(turn)[0]) == '[{"name": "sql", "arguments": "SELECT 1"}]'


def test_the_former_function_calls_become_calls_of_tools():
    turns = read(
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"x": 1}'}},
        {"role": "function", "name": "f", "content": "42"},
        {"role": "assistant", "content": "It is 42.", "function_call": None},
    )
    assert turns == [
        {"role": "assistant", "content": None, "tool_calls": [{**CALL, "id": "call_1_0"}]},
        {"role": "tool", "name": "f", "content": "42", "tool_call_id": "call_1_0"},
        {"role": "assistant", "content": "It is 42."},
    ]


def test_results_without_an_id_belong_to_the_open_calls():
    calls = [{"name": "f"}, {"name": "g"}, {"name": "f"}]
    results = [{"role": "tool", "name": name, "content": name} for name in ("g", "f", "f", "f")]
    turns = read({"role": "assistant", "content": None, "tool_calls": calls}, *results)
    assert [turn.get("tool_call_id") for turn in turns[1:]] == ["call_1_1", "call_1_0", "call_1_2", None]
    turns = read({"role": "assistant", "content": None, "tool_calls": calls}, {"role": "tool", "content": "x"})
    assert turns[1]["tool_call_id"] == "call_1_0"


@pytest.mark.parametrize(
    ("turn", "content"),
    [
        ({"content": None, "refusal": "No."}, "No."),
        ({"refusal": "No."}, "No."),
        ({"content": "I will not.", "refusal": "No."}, "I will not."),
    ],
)
def test_a_refusal_is_what_the_turn_says(turn, content):
    (message,) = read({"role": "assistant", **turn})
    assert message == {"role": "assistant", "content": content, "refusal": "No."}
    assert message_text(message) == ("No." if content == "No." else "I will not.\nNo.")


NOTHING = "it needs a text `role` and a text `content`"


@pytest.mark.parametrize(
    ("message", "key", "reason"),
    [
        ("hello", "", NOTHING),
        ({"content": "x"}, "role", NOTHING),
        ({"role": 5, "content": "x"}, "role", NOTHING),
        ({"role": "wizard", "content": "x"}, "role", "unknown role 'wizard'; known: system, developer, user"),
        ({"role": "user"}, "", NOTHING),
        ({"role": "user", "content": None}, "", NOTHING),
        ({"role": "assistant"}, "", NOTHING),
        ({"role": "user", "content": 5}, "content", "a text or a list of parts is wanted, not int"),
        ({"role": "user", "content": {"text": "x"}}, "content", "a text or a list of parts is wanted, not dict"),
        ({"role": "user", "content": [5]}, "content", "a part is neither a text nor an object with a `type`"),
        ({"role": "user", "content": [{"type": 5}]}, "content", "a part is neither a text nor an object"),
        ({"role": "user", "content": [{"type": "text"}]}, "content", "a part of the type 'text' has no text"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "content", "images are not read: send text"),
        ({"role": "user", "content": [{"type": "input_image"}]}, "content", "images are not read: send text"),
        ({"role": "user", "content": [{"type": "image"}]}, "content", "images are not read: send text"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "content", "audio is not read: send text"),
        ({"role": "user", "content": [{"type": "file"}]}, "content", "files are not read: send text"),
        ({"role": "user", "content": [{"type": "document"}]}, "content", "files are not read: send text"),
        ({"role": "user", "content": [{"type": "video_url"}]}, "content", "videos are not read: send text"),
        ({"role": "user", "content": [{"type": "hologram"}]}, "content", "parts of the type 'hologram' are not read"),
        ({"role": "user", "content": "x", "name": 5}, "name", "a text is wanted, not int"),
        ({"role": "tool", "content": "x", "tool_call_id": 5}, "tool_call_id", "a text is wanted, not int"),
        ({"role": "assistant", "refusal": 5}, "refusal", "a text is wanted, not int"),
        ({"role": "assistant", "tool_calls": {}}, "tool_calls", "a list of calls is wanted, not dict"),
        ({"role": "assistant", "tool_calls": ["f"]}, "tool_calls.0", "a call is an object, not str"),
        ({"role": "assistant", "tool_calls": [CALL, {}]}, "tool_calls.1", "a call needs the `name` of its function"),
        ({"role": "assistant", "tool_calls": [{**CALL, "id": ["c"]}]}, "tool_calls.0.id", "a text is wanted, not list"),
        ({"role": "assistant", "function_call": "f"}, "tool_calls.0", "a call needs the `name` of its function"),
    ],
)
def test_what_is_wrong_is_named(message, key, reason):
    with pytest.raises(MessageError) as caught:
        to_messages([USER, message])
    error = caught.value
    assert (error.position, error.key) == (1, key)
    assert error.reason.startswith(reason)
    assert str(error) == f"Message 1 of the instruction: {error.reason}."


@pytest.mark.parametrize("instruction", ["", " \n", [], [{"role": "user", "content": " "}], [{**USER, "content": []}]])
def test_an_instruction_without_a_text_is_refused(instruction):
    with pytest.raises(InputError, match="The instruction is empty"):
        to_messages(instruction)


@pytest.mark.parametrize("instruction", [None, 5, {"role": "user", "content": "x"}])
@pytest.mark.parametrize("reader", [to_messages, text_messages, instruction_text])
def test_what_is_no_instruction_is_refused(reader, instruction):
    with pytest.raises(InputError, match=f"a text or a list of messages, not {type(instruction).__name__}"):
        reader(instruction)


def test_completions_may_be_empty():
    assert read_messages([]) == []
    assert read_messages([{"role": "assistant", "content": ""}]) == [{"role": "assistant", "content": ""}]


def test_plain_conversations_as_one_text():
    assert instruction_text("Q") == "Q"
    assert instruction_text("Q", "input") == "Q\ninput"
    assert instruction_text([USER]) == "Q"
    turns = [{"role": "developer", "content": "Be brief."}, USER, {"role": "model", "content": "A"}, USER]
    assert instruction_text(turns) == "System: Be brief.\n\nUser: Q\n\nAssistant: A\n\nUser: Q"


def test_turns_of_tools_as_texts():
    turns = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "42"}]},
        {"role": "assistant", "content": "Again.", "tool_calls": [CALL]},
    ]
    called = '[{"name": "f", "arguments": {"x": 1}}]'
    assert text_messages(turns) == [
        USER,
        {"role": "assistant", "content": called},
        {"role": "user", "content": "Result of a tool: 42"},
        {"role": "assistant", "content": f"Again.\n{called}"},
    ]
    assert text_messages(text_messages(turns)) == text_messages(turns)


def test_arguments_that_are_no_json_are_shown_as_they_are():
    call = {"id": "c", "function": {"name": "f", "arguments": '{"x": '}}
    assert json.loads(tool_calls_text([call])) == [{"name": "f", "arguments": '{"x": '}]


def test_the_key_of_a_prompt():
    assert prompt_key({"prompt": None, "question": "Q", "messages": []}) == "question"
    assert prompt_key({"prompt": "P", "instruction": "I"}) == "prompt"
    assert prompt_key({"prompt": "P", "instruction": "I"}, "instruction") == "instruction"
    assert prompt_key({"prompt": "P"}, "instruction") == "prompt"
    assert prompt_key({"x": 1}) is None


def test_calls_with_half_a_character_can_be_written():
    call = {"function": {"name": "f", "arguments": '{"a": "\\udc00"}'}}
    assert tool_calls_text([call]).encode() == b'[{"name": "f", "arguments": {"a": "?"}}]'


def test_arguments_that_are_an_abyss_are_text():
    arguments = "[" * 99_999
    assert arguments in tool_calls_text([{**CALL, "function": {"name": "f", "arguments": arguments}}])
