from __future__ import annotations

import importlib
import re

import pytest

from llm_blender.ranking.answers import regex

MODULES = ["agreement", "answers", "consensus", "form", "questions", "requirements"]


def test_an_expression_is_compiled_at_first_use():
    lazy = regex("a(?P<b>.)", re.IGNORECASE)
    assert "search" not in vars(lazy)
    assert lazy.search("xAB")["b"] == "B"
    assert lazy.groupindex == {"b": 1}
    assert vars(lazy)["search"] == lazy.search


@pytest.mark.parametrize("name", MODULES)
def test_every_expression_of_a_module_is_sound(name):
    module = importlib.import_module(f"llm_blender.ranking.{name}")
    found = [value for value in vars(module).values() if type(value) is type(regex("a"))]
    assert found
    for expression in found:
        assert isinstance(expression.pattern, str)
