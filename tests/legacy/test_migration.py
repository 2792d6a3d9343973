"""MIGRATION.md is true: its code runs, and its import paths hold what it says."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from llm_blender import Blender, BlenderConfig

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "MIGRATION.md").read_text(encoding="utf-8")


def test_its_code_runs():
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    names: dict[str, object] = {}
    exec(compile(code, "MIGRATION.md", "exec"), names)
    assert names["best_two"].shape == (2, 2)
    assert names["is_better"].shape == (1,)


def test_its_imports_are_there():
    pytest.importorskip("transformers")
    (code, _) = re.findall(r"^```text\n(.*?)^```", PAGE, re.M | re.S)
    exec(compile(code, "MIGRATION.md", "exec"), {})


def test_its_fusing_runs(tiny_t5, monkeypatch):
    (_, code) = re.findall(r"^```text\n(.*?)^```", PAGE, re.M | re.S)
    blender, original = Blender(BlenderConfig(device="cpu")), Blender.loadfuser
    blender.loadranker("bundled", device=None)
    monkeypatch.setattr(Blender, "loadfuser", lambda self, name: original(self, tiny_t5, candidate_maxlength=8))
    names = {"blender": blender, "inputs": ["Why?"], "candidates": [["a", "b", "c", "d"]], "instructions": ["Say why."]}
    exec(compile(code, "MIGRATION.md", "exec"), names)
    assert len(names["fused"]) == 1
    assert names["ranks"].shape == (1, 4)


def test_its_import_paths():
    table = PAGE.split("## Import paths")[1].split("##")[0]
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|$", table, re.M)
    assert len(rows) == 6
    for paths, contents in rows:
        for path in re.findall(r"`(.*?)`", paths):
            if path.endswith("pairrm"):
                pytest.importorskip("transformers")
            module = importlib.import_module(path if path.startswith("llm_blender") else f"llm_blender{path}")
            for name in re.findall(r"`(\w+)`", contents):
                assert hasattr(module, name), f"{module.__name__}.{name}"


def test_every_row_of_the_table_is_whole():
    rows = [line for line in PAGE.split("## What changed")[1].splitlines() if line.startswith("|")]
    assert len(rows) > 30
    assert {len(re.split(r"(?<!\\)\|", row)) for row in rows} == {6}
