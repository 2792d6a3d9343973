"""Tests are collected without the libraries that take seconds to import."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
HEAVY = {
    "torch",
    "transformers",
    "datasets",
    "peft",
    "trl",
    "accelerate",
    "safetensors",
    "scipy",
    "nltk",
    "rouge_score",
}
MODULES = sorted(path for pattern in ("test_*.py", "conftest.py") for path in TESTS.rglob(pattern))


def imported(tree: ast.AST) -> Iterator[str]:
    """The packages that a module imports when it is imported itself, `pytest.importorskip` included."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                continue
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                continue
            case ast.Import():
                yield from (name.name.split(".")[0] for name in node.names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module.split(".")[0]
            case ast.Call(func=ast.Attribute(attr="importorskip"), args=[ast.Constant(value=str(module)), *_]):
                yield module.split(".")[0]
        yield from imported(node)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(TESTS)))
def test_no_module_imports_a_heavy_library(path):
    assert not HEAVY & set(imported(ast.parse(path.read_text(encoding="utf-8"))))


def test_none_does_so_through_a_module_of_the_package(collected_modules):
    assert not HEAVY & collected_modules
