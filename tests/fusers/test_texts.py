from __future__ import annotations

import time

import pytest

from llm_blender.fusers.texts import find_flaw, without_torn_end

INSTRUCTION = "Why is the sky blue, and why is the sea blue?"
GIVEN = ["Air scatters blue light most.", "The sea mirrors the sky."]


def test_cut_off() -> None:
    assert find_flaw("Air scatters blue light", INSTRUCTION, GIVEN, cut_off=True) == "cut_off"
    assert find_flaw("Air scatters blue light", INSTRUCTION, GIVEN) is None
    torn = "Air scatters blue light. It does so because the"
    assert find_flaw(torn, INSTRUCTION, GIVEN) == "cut_off"
    assert find_flaw(torn, INSTRUCTION, [*GIVEN, torn]) is None  # a candidate breaks off likewise
    assert find_flaw("on and on " * 40, INSTRUCTION, GIVEN, cut_off=True) == "repeats"  # which says more


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_nothing(text: str) -> None:
    assert find_flaw(text, INSTRUCTION, GIVEN) == "empty"


@pytest.mark.parametrize(
    "text",
    [
        "Blue light is scattered most. " * 8,
        "It begins well and then goes on and on " + "and on " * 20,
        "x" * 80,
        "空が青いのは、" * 10,
        "It is ))" + ")" * 100,
        "| --- " * 40,
        "\n".join(f"{i}. Go to bed early every day." for i in range(1, 7)),
        "1. **Coffee:** It can make it harder to fall asleep at night. Drink less of it.\n2. Go to bed early.\n"
        "3. **Tea:** It can make it harder to fall asleep at night. That is bad.",
    ],
)
def test_loops(text: str) -> None:
    assert find_flaw(text, INSTRUCTION, GIVEN) == "repeats"
    assert find_flaw(text, INSTRUCTION, [*GIVEN, text]) is None  # a candidate has it, too


@pytest.mark.parametrize(
    "text",
    [
        "Air scatters blue light most, and the sea mirrors the sky.",
        "No. Because the air scatters blue light most. No. The sea mirrors the sky. No.",
        "It is in one sentence. Code has it twice:\n```\nprint(all the words of a sentence once again)\n"
        "print(all the words of a sentence once again)\n```",
        "very very very good",
        ", ".join(map(str, range(200))),
        "| a | b |\n| --- | --- |\n" + "\n".join(f"| {i} | {i * i} |" for i in range(30)),
        "A heading of some length, and text below it:\n"
        + "=" * 80
        + "\n"
        + "Air scatters blue light most, as it is. The sea mirrors the sky. ",
        "The chorus comes twice.\n\nLa la la, says the sea.\n\nSomething else is here.\n\nLa la la, says the sea.",
        "for i in range(3):\n    print(i)\n" * 2,
    ],
)
def test_what_repeats_by_right(text: str) -> None:
    assert find_flaw(text, INSTRUCTION, GIVEN) is None


@pytest.mark.parametrize(
    "text",
    [INSTRUCTION, f" {INSTRUCTION.upper()}\n", "Why is the sky blue, and why is the", "A line with [ab12] in it."],
)
def test_the_prompt_again(text: str) -> None:
    assert find_flaw(text, INSTRUCTION, GIVEN, marks=["[ab12]"]) == "echo"


@pytest.mark.parametrize("text", [f"{INSTRUCTION} Air scatters blue light most.", "Why", "The sea is blue."])
def test_an_answer_may_begin_with_the_question(text: str) -> None:
    assert find_flaw(text, INSTRUCTION, GIVEN, marks=["[ab12]"]) is None


def test_an_echo_that_a_candidate_gives_too_is_asked_for() -> None:
    assert find_flaw("Say hello.", "Say hello.", ["Say hello.", "Hello."]) is None
    assert find_flaw("[ab12]", "Print a tag.", ["[ab12]", "b"], marks=["[ab12]"]) is None


def test_long_texts_take_no_time() -> None:
    text = " ".join(str(i * i) for i in range(40_000))
    started = time.perf_counter()
    assert find_flaw(text, INSTRUCTION, GIVEN) is None
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("It is whole. It ends well.", "It is whole. It ends well."),
        ("It is whole. It breaks off in the", "It is whole."),
        ("1. Go to bed early.\n2. Drink less of the", "1. Go to bed early."),
        ("It has no other sentence than this one that breaks off in the", None),
        ("", ""),
    ],
)
def test_a_torn_end_is_left_out(text: str, rest: str | None) -> None:
    assert without_torn_end(text) == (text if rest is None else rest)
