"""Stages as functions of `datasets.map`: columns in, columns out, cached by the stage's settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_blender import FuseRows, RankRows
from llm_blender.integrations.datasets import ByColumns

ROWS: list[dict[str, Any]] = [
    {"instruction": "Why?", "input": "", "candidates": [{"text": "No.", "model": "a"}, {"text": "So.", "model": "b"}]},
    {"instruction": "How?", "input": "x", "candidates": [{"text": "One way.", "model": "a"}]},
    {"instruction": "", "input": "", "candidates": [{"text": "lost", "model": None}]},
]


def columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def test_the_columns_are_those_of_the_rows() -> None:
    stage = RankRows("longest")
    out = ByColumns(stage)(columns(ROWS))
    assert [json.loads(text) for text in out["ranking"]] == [row["ranking"] for row in stage(ROWS)]
    assert {name: out[name] for name in ROWS[0]} == columns(ROWS)
    assert json.loads(out["ranking"][2]) == {"error": "`instruction` is empty"}
    plain = ByColumns(stage, as_json=False)(columns(ROWS[:2]))
    assert [ranking["best"] for ranking in plain["ranking"]] == [0, 0]
    fused = ByColumns(FuseRows("longest", "longest"))(columns(ROWS))
    assert [*fused] == ["instruction", "input", "candidates", "ranking", "fusion"]


def test_arrays_are_read(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    batch = {
        "instruction": numpy.array(["Q", "Q"], object),
        "candidates": numpy.array([["a", "bb"], numpy.array(["ccc", "d"], object)], object),
    }
    out = ByColumns(RankRows("longest"))(batch)
    assert [json.loads(text)["best"] for text in out["ranking"]] == [1, 0]


def test_map_caches_by_the_settings(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def ranked(stage: RankRows, **options: Any) -> Any:
        rows = datasets.load_dataset(
            "json", data_files=str(tmp_path / "rows.jsonl"), split="train", cache_dir=str(tmp_path / "cache")
        )
        return rows.map(ByColumns(stage), batched=True, batch_size=2, **options)

    used = RankRows("longest")
    first = ranked(used)
    assert [json.loads(text).get("best") for text in first["ranking"]] == [0, 0, None]
    assert first["instruction"] == [row["instruction"] for row in ROWS]
    for stage in (used, RankRows("longest")):  # after its use, and in another process
        assert ranked(stage)._fingerprint == first._fingerprint
        assert ranked(stage).cache_files == first.cache_files
    assert ranked(RankRows("longest", seed=1))._fingerprint != first._fingerprint
    assert ranked(RankRows("shortest"), num_proc=2)["ranking"] != first["ranking"]


def test_times_stay_as_they_are() -> None:
    when = np.array(["2026-01-01T00:00:00"], dtype="datetime64[ns]")
    made = ByColumns(RankRows("longest"))({"instruction": ["Q"], "candidates": [["a"]], "when": when})
    assert made["when"] == [when[0]]
    assert made["when"][0].dtype == when.dtype
