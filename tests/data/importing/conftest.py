from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_blender.data import read_records
from llm_blender.data.importing import Imported, ImportPlan, import_rows


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, Any], Path]:
    """Writes a JSON list (.json) or JSON Lines, in a folder that is made."""

    def write(name: str, records: list[Any]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(record) + "\n" for record in records)
        path.write_text(json.dumps(records, indent=2) if name.endswith(".json") else lines)
        return path

    return write


@pytest.fixture
def imported(tmp_path: Path) -> Callable[..., tuple[list[dict[str, Any]], Imported]]:
    """Imports, and reads what was written."""

    def run(*inputs: Path, **options: Any) -> tuple[list[dict[str, Any]], Imported]:
        out = tmp_path / "out.jsonl"
        result = import_rows(ImportPlan(inputs, **options), str(out))
        return [record for _, record in read_records(out)], result

    return run
