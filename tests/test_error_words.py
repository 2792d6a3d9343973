"""The words of errors about names and about files."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llm_blender.errors import first_problem, nearest, plain_words, unknown_name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bubbel", "Unknown strategy 'bubbel': did you mean 'bubble'? Known: full, bubble, top_k."),
        ("BUBBLE", "Unknown strategy 'BUBBLE': did you mean 'bubble'? Known: full, bubble, top_k."),
        ("top-k", "Unknown strategy 'top-k': did you mean 'top_k'? Known: full, bubble, top_k."),
        ("nosuch", "Unknown strategy 'nosuch'. Known: full, bubble, top_k."),
        ("", "Unknown strategy ''. Known: full, bubble, top_k."),
    ],
)
def test_only_a_similar_name_is_proposed(name, message):
    assert str(unknown_name("strategy", name, ("full", "bubble", "top_k"))) == message


def test_without_names_there_is_nothing_to_propose():
    assert "none at all" in str(unknown_name("LLM", "a", ()))
    assert nearest("a", ()) is None
    assert nearest("gpt-4o", ("gemma-3-1b", "llama-3.2-1b", "mine")) is None


class Source(BaseModel):
    model_config = ConfigDict(extra="forbid")
    file: str
    share: float = Field(default=1, gt=0, le=1)
    kinds: tuple[int, ...] = ()


class Recipe(BaseModel):
    model_config = ConfigDict(extra="forbid")
    sources: tuple[Source, ...] = ()
    dev: Source | None = None
    epochs: int = 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sources": [{"fil": "a"}]}, '[[sources]] #1: unknown key "fil"; did you mean "file"?'),
        ({"sources": [{"file": "a"}, {}]}, '[[sources]] #2: "file" is missing.'),
        ({"dev": {"nothing": 1}}, '[dev]: unknown key "nothing"; known: file, kinds, share.'),
        ({"dev": {"file": "a", "share": 2}}, '[dev]: "share" should be at most 1.'),
        ({"dev": {"file": "a", "kinds": [1, "x"]}}, '[dev]: "kinds" should be a valid integer.'),
        ({"dev": 1}, '"dev" should be a table.'),
        ({"epochs": "many"}, '"epochs" should be a valid integer.'),
        ({"epoch": 2, "sources": 1}, 'unknown key "epoch"; did you mean "epochs"?'),
    ],
)
def test_a_problem_is_named_with_its_place(values, message):
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(values)
    assert first_problem(caught.value, Recipe) == message


def test_no_words_of_pydantic():
    assert plain_words("Value error, the name is empty.") == "the name is empty"
    assert plain_words("Input should be greater than or equal to 1") == "should be at least 1"
