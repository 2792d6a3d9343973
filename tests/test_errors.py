"""The words of failures: one group for each LLM and reason."""

from __future__ import annotations

import pytest

from llm_blender.errors import Failure, LLMError, describe_failures, grouped_failures, sentence

TOO_LONG = "{name}: the prompt is too long: {n} tokens, and the context holds 4096; shorten it."


def too_long(name: str, *counts: int) -> list[Failure]:
    return [Failure(name, "bad_request", TOO_LONG.format(name=name, n=count)) for count in counts]


@pytest.mark.parametrize(
    ("failures", "words"),
    [
        ([], ""),
        ([Failure("a", "empty", "a: the answer is empty.")], "a: the answer is empty"),
        (
            too_long("small", 5075, 5072, 5075, 5073, 5071),
            "small (5 times): the prompt is too long: 5075 tokens, and the context holds 4096; shorten it",
        ),
        (
            [*too_long("a", 1), *too_long("b", 1, 2)],
            "a: the prompt is too long: 1 tokens, and the context holds 4096; shorten it; "
            "b (2 times): the prompt is too long: 1 tokens, and the context holds 4096; shorten it",
        ),
        (
            [
                Failure("a", "server", "a: failed, request req-1f"),
                Failure("b", "auth", "b: no key"),
                Failure("a", "server", "a: failed, request req-2e"),
                Failure("a", "timeout", "a: late"),
            ],
            "a (2 times): failed, request req-1f; b: no key; a: late",
        ),
        ([Failure("a", "server", "a: one"), Failure("a", "server", "a: another")], "a: one; a: another"),
        ([Failure("a", "auth", "without its name")], "a: without its name"),
    ],
)
def test_failures_of_one_kind_are_described_once(failures: list[Failure], words: str) -> None:
    assert describe_failures(failures) == words


def test_strangers_read_public_words() -> None:
    errors = [
        LLMError(
            "a", "connection", f"no connection to http://10.0.0.{n}; is the server running?", public="no connection"
        )
        for n in (1, 2)
    ]
    failures = [*map(Failure.of, errors), Failure("b", "empty", "b: the answer is empty")]
    assert describe_failures(failures, public=True) == "a (2 times): no connection; b: the answer is empty"
    assert "10.0.0.1" in describe_failures(failures)
    assert [len(alike) for alike in grouped_failures(failures)] == [2, 1]


@pytest.mark.parametrize(
    ("text", "ended"), [("is it running?", "is it running?"), ("it is", "it is."), ("it is.", "it is."), ("", "")]
)
def test_a_sentence_ends_once(text: str, ended: str) -> None:
    assert sentence(text) == ended
