"""The public face: what `import llm_blender` gives."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
from types import ModuleType

import pytest

import llm_blender


def test_all_is_sorted_and_without_duplicates():
    # ruff's order: constants, then classes, then functions.
    public = llm_blender.__all__
    assert public == sorted(set(public), key=lambda name: (not name.isupper(), name.islower(), name))


@pytest.mark.parametrize("package", ["metrics", "ranking"])
def test_all_of_a_package_is_sorted_and_complete(package):
    module = importlib.import_module(f"llm_blender.{package}")
    public = module.__all__
    assert sorted(public, key=lambda name: (not name.isupper(), name.islower(), name)) == public
    names = {name for name, value in vars(module).items() if not isinstance(value, ModuleType)}
    assert {name for name in names if not name.startswith("_")} == set(public)


@pytest.mark.parametrize("name", llm_blender.__all__)
def test_each_name_can_be_imported(name):
    value = getattr(llm_blender, name)
    assert value.__name__ == name
    assert value.__doc__


def test_all_is_exactly_what_is_exported():
    assert dir(llm_blender) == sorted(llm_blender.__all__)
    homes = [name for names in llm_blender._HOMES.values() for name in names]
    assert sorted(homes) == sorted(llm_blender.__all__)


def test_each_error_is_exported():
    from llm_blender import errors

    assert {name for name in errors.__all__ if name.endswith("Error")} <= set(llm_blender.__all__)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="module 'llm_blender' has no attribute 'Blendr'"):
        _ = llm_blender.Blendr
    assert not hasattr(llm_blender, "import_from_nowhere")


def test_importing_loads_none_of_its_modules():
    code = (
        "import sys, llm_blender; print(*[name for name in sys.modules if name.startswith(('llm_blender.', 'numpy'))])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


def test_without_torch_all_lists_what_can_be_imported():
    code = """
import sys
sys.modules["torch"] = None
import pydoc
import llm_blender
from llm_blender import *
pydoc.render_doc(llm_blender)
print("Ensemble" in globals(), "SimCLS" in globals())
try:
    llm_blender.SimCLS
except MissingExtraError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split("\n")[0] == "True False"
    assert "llm-blender[torch]" in result.stdout


def test_an_ensemble_in_a_few_lines():
    from llm_blender import Ensemble, Limits, Member
    from llm_blender.testing import FakeLLM, FakeRanker

    llms = [FakeLLM("a", "Short."), FakeLLM("b", "A longer answer."), FakeLLM("c", errors="timeout")]
    ensemble = Ensemble([Member(llm) for llm in llms], FakeRanker(), limits=Limits(deadline=10))
    answer = ensemble.ask("Why is the sky blue?")
    assert (answer.text, answer.mode, answer.degraded) == ("A longer answer.", "pick", True)
    assert [failure.model for failure in answer.failures] == ["c"]
    assert answer.ranking.probability(1, 0) > 0.5
    assert asyncio.run(ensemble.aask("Why is the sky blue?")).text == answer.text
