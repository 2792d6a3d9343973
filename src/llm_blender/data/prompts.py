"""Read prompts and answers of records: texts, messages, or Human/Assistant transcripts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_blender.conversations import PROMPT_KEYS, message_text, prompt_key
from llm_blender.data.records import SkipRecord, optional_text, text
from llm_blender.errors import InputError
from llm_blender.types import Instruction, Message, instruction_text, to_messages

_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}


@dataclass(frozen=True)
class Prompt:
    """Prompt of a record.

    Attributes:
        instruction: text, or messages.
        input: second text, as in Alpaca's data; often empty.
    """

    instruction: Instruction
    input: str = ""


def read_prompt(record: Mapping[str, Any]) -> Prompt | None:
    """Read the prompt of one of `PROMPT_KEYS`, with `input` and `system` if present; None without a prompt.

    Raises:
        ValueError: it is neither a text nor messages.
        SkipRecord: it is blank.
    """
    key = prompt_key(record)
    if key is None:
        return None
    if not isinstance(record[key], str):
        return Prompt(_instruction(read_conversation(record[key], key)), optional_text(record, "input"))
    instruction, input = record[key], optional_text(record, "input")
    if not (instruction.strip() or input.strip()):
        raise SkipRecord("the prompt is empty")
    if transcript := _transcript(instruction):
        while len(transcript) > 1 and not transcript[-1]["content"]:
            transcript.pop()  # an empty "Assistant:" that prompts for the answer
        return Prompt(_instruction(transcript), input)
    if system := optional_text(record, "system").strip():
        turns: list[Message] = [{"role": "system", "content": system}, {"role": "user", "content": instruction}]
        return Prompt(turns, input)
    return Prompt(instruction, input)


def read_conversation(value: Any, key: str) -> list[Message]:
    """Read the messages of a record's key.

    Raises:
        ValueError: they are malformed, or empty.
    """
    if not isinstance(value, list) or not value:
        kind = "an empty list" if isinstance(value, list) else type(value).__name__
        raise ValueError(f"`{key}` must be a text or a list of messages, not {kind}")
    try:
        return to_messages(value)
    except InputError as error:
        raise ValueError(f"`{key}`: {error}") from None


def answered_prompt(record: Mapping[str, Any], one: str, other: str) -> tuple[Prompt, str, str]:
    """Read the prompt and the two answers of the keys `one` and `other`.

    Of two whole conversations, the shared turns are the prompt and the last turns are the answers.

    Raises:
        ValueError: a key is missing or malformed.
        SkipRecord: the prompt is blank, or the conversations differ before their last answer.
    """
    prompt = read_prompt(record)
    first, second = (_conversation(record, key) for key in (one, other))
    if first is None and second is None:
        if prompt is None:
            wanted = ", ".join(f"`{key}`" for key in PROMPT_KEYS)
            raise ValueError(f"there is no prompt: one of {wanted}, or {one} and {other} as conversations")
        return prompt, text(record, one), text(record, other)
    if first is None or second is None:
        raise ValueError(f"`{one}` and `{other}` must both be conversations or both be texts")
    if prompt is not None and first[0]["role"] == second[0]["role"] == "assistant":
        start = to_messages(prompt.instruction)
        first, second, input = [*start, *first], [*start, *second], prompt.input
    else:
        input = ""
    shared, a, b = _part(first, second)
    return Prompt(_instruction(shared), input), a, b


def _part(one: Sequence[Message], other: Sequence[Message]) -> tuple[list[Message], str, str]:
    if list(one) == list(other):
        raise SkipRecord("both answers read the same")
    last = len(one) - 1
    if len(one) != len(other) or one[:last] != other[:last]:
        raise SkipRecord("the conversations part before their last answer")
    if not one[last]["role"] == other[last]["role"] == "assistant":
        raise SkipRecord("the conversations do not end with an answer")
    if not any(message["role"] == "user" and message_text(message).strip() for message in one[:last]):
        raise SkipRecord("the prompt is empty")
    return list(one[:last]), message_text(one[last]), message_text(other[last])


def _conversation(record: Mapping[str, Any], key: str) -> list[Message] | None:
    if key not in record:
        raise ValueError(f"`{key}` is missing; the keys are {', '.join(record) or 'none at all'}")
    value = record[key]
    return _transcript(value) if isinstance(value, str) else read_conversation(value, key)


def _transcript(value: str) -> list[Message] | None:
    """Split a text in HH-RLHF's form, ``Human: … Assistant: …``, into turns; None if it has another form."""
    start, *parts = _TURN.split(value)
    speakers = parts[::2]
    if start.strip() or not speakers or speakers[0] != "Human" or "Assistant" not in speakers:
        return None
    return [
        {"role": _SPEAKERS[speaker], "content": turn.strip()}
        for speaker, turn in zip(speakers, parts[1::2], strict=True)
    ]


def _instruction(messages: list[Message]) -> Instruction:
    """Reduce a conversation of one user turn to its text, so that it equals the same prompt given as text."""
    alone = len(messages) == 1 and messages[0]["role"] == "user"
    return instruction_text(messages) if alone else messages
