import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_blender.llms.chat_response import ReasoningSplitter, split_reasoning

CASES = {
    "plain": ("An answer.", "An answer.", None),
    "think": ("<think>\nHm.\n</think>\n\nAn answer.\n", "An answer.", "Hm."),
    "thinking": (" <thinking>Hm.</thinking>An answer.", "An answer.", "Hm."),
    "gemini": ("<thought>Hm.</thought>\n\nAn answer.", "An answer.", "Hm."),
    "kimi": ("◁think▷Hm.◁/think▷An answer.", "An answer.", "Hm."),
    "command a": ("<|START_THINKING|>Hm.<|END_THINKING|>An answer.", "An answer.", "Hm."),
    "seed": ("<seed:think>Hm.</seed:think>An answer.", "An answer.", "Hm."),
    "mistral": ("[THINK]Hm.[/THINK]An answer.", "An answer.", "Hm."),
    "twice": ("<think>Hm. </think>\n<think>So.</think>An answer.", "An answer.", "Hm. So."),
    "nothing thought": ("<think>\n\n</think>\n\nAn answer.", "An answer.", None),
    "unclosed": ("<think>Hm. I was cut o", "", "Hm. I was cut o"),
    "half a closing tag": ("<think>Hm.</thi", "", "Hm.</thi"),
    "half an opening tag": ("<thi", "<thi", None),
    "unopened": ("Hm.\n</think>\n\nAn answer.", "An answer.", "Hm."),
    "about the tag": (
        "Write `<think>` first and `</think>` last.",
        "Write `<think>` first and `</think>` last.",
        None,
    ),
    "inside the answer": ("First.\n<think>x</think>", "First.\n<think>x</think>", None),
    "gpt-oss": (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>An answer.",
        "An answer.",
        "Hm.",
    ),
    "empty": ("", "", None),
    "white space": (" \n ", "", None),
}


@pytest.mark.parametrize(("written", "text", "reasoning"), CASES.values(), ids=CASES)
def test_split(written: str, text: str, reasoning: str | None) -> None:
    assert split_reasoning(written) == (text, reasoning)


@pytest.mark.parametrize("name", sorted(CASES.keys() - {"unopened"}))
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_stream_never_shows_thoughts(name: str, size: int) -> None:
    written, text, reasoning = CASES[name]
    splitter = ReasoningSplitter()
    shown = [splitter.feed(written[i : i + size]) for i in range(0, len(written), size)]
    shown.append(splitter.close())
    assert "".join(shown) == splitter.text == text
    assert splitter.reasoning == reasoning


def test_thoughts_that_the_api_names() -> None:
    splitter = ReasoningSplitter()
    splitter.think("Hm. ")
    splitter.think("So.")
    splitter.feed("An answer.")
    splitter.close()
    assert (splitter.text, splitter.reasoning) == ("An answer.", "Hm. So.")


@given(st.lists(st.sampled_from(["<think>", "</think>", "<thin", "a", " ", "\n", ">", "[THINK]"]), max_size=12))
def test_pieces_make_no_difference(pieces: list[str]) -> None:
    splitter = ReasoningSplitter()
    for piece in pieces:
        splitter.feed(piece)
    splitter.close()
    assert (splitter.text, splitter.reasoning) == split_reasoning("".join(pieces))
