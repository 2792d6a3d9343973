from __future__ import annotations

import pytest

from llm_blender.data import normalized_key, parse_row
from llm_blender.types import Candidate, Example, LabelledPair

ROW = {"instruction": "Q", "candidates": ["a", "b"]}


def test_a_whole_row():
    example = parse_row(
        {
            "id": 7,
            "instruction": "Translate.",
            "input": "Hallo",
            "output": "Hello",
            "candidates": [{"text": "Hi", "model": "m", "scores": {"judge": "0.5", "none": None}}, "Hey"],
            "pairs": [{"a": 1, "b": 0, "label": "tie", "by": "me"}],
            "mine": [1],
        }
    )
    assert example == Example(
        instruction="Translate.",
        input="Hallo",
        reference="Hello",
        candidates=(Candidate("Hi", "m", {"judge": 0.5}), Candidate("Hey")),
        pairs=(LabelledPair(1, 0, "tie", "me"),),
        id="7",
        extra={"mine": [1]},
    )
    assert example.prompt == "Translate.\nHallo"


def test_a_reference_goes_before_an_output():
    assert parse_row({**ROW, "reference": "r", "output": "o"}).reference == "r"
    assert parse_row({**ROW, "reference": None, "output": "o"}).reference == "o"


def test_a_score_that_is_no_finite_number_is_none():
    row = {"instruction": "Q", "candidates": [{"text": "a", "scores": {"x": float("nan"), "y": float("inf"), "z": 0}}]}
    assert parse_row(row).candidates[0].scores == {"z": 0.0}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"instruction": None}, "`instruction` is missing"),
        ({"instruction": 5}, "`instruction` must be a text or a list of messages, not int"),
        ({"instruction": None, "prompt": {}}, "`prompt` must be a text or a list of messages, not dict"),
        ({"instruction": []}, "`instruction` must be a text or a list of messages, not an empty list"),
        ({"instruction": ["hi"]}, "Message 0"),
        ({"candidates": None}, "`candidates` is missing"),
        ({"candidates": "ab"}, "`candidates` must be a list of texts or of {text, model}, not str"),
        ({"candidates": ["a", {"model": "m"}]}, "candidate 1 is neither"),
        ({"candidates": [{"text": "a", "scores": {"x": "high"}}]}, "scores of candidate 0"),
        ({"candidates": [{"text": "a", "scores": [1]}]}, "scores of candidate 0"),
        ({"output": 5}, "reference must be a text, not int"),
        ({"input": ["x"]}, "`input` must be a text"),
        ({"pairs": 5}, "`pairs` must be a list"),
        ({"pairs": [{"a": 0, "b": 1, "label": "A"}]}, "pair 0 must be"),
        ({"pairs": [{"a": 0, "b": 2, "label": "a"}]}, "pair 0 must name two of the 2 candidates"),
        ({"pairs": [{"a": 0, "b": 0, "label": "a"}]}, "pair 0 must name two"),
        ({"pairs": [{"a": 0, "label": "a"}]}, "pair 0 must name two"),
    ],
)
def test_what_is_wrong_is_said(change, reason):
    with pytest.raises(ValueError, match=reason):
        parse_row({**ROW, **change})


def test_the_same_question_has_the_same_key():
    example = Example("  What is\n\tLOVE? ")
    assert normalized_key(example) == normalized_key(Example("what is", input="love?")) == "what is love?"
    assert normalized_key(example) != normalized_key(Example("What is love"))
    assert normalized_key(Example([{"role": "user", "content": "What is love?"}])) == normalized_key(example)
