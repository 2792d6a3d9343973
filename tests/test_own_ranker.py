"""The guide to a ranker of one's own: its rows can be read, and its program trains."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from llm_blender.data import parse_judged_row

PAGE = (Path(__file__).parents[1] / "docs" / "own-ranker.md").read_text(encoding="utf-8")
(ROWS,) = re.findall(r"^```jsonl pairs.jsonl\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
(CODE,) = re.findall(r"^```python fit\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_all_three_forms_hold_a_judgement() -> None:
    rows = [parse_judged_row(json.loads(line)) for line in ROWS.splitlines()]
    assert [len(row.candidates) for row in rows] == [2, 2, 2]
    assert [bool(row.pairs or row.candidates[0].scores) for row in rows] == [True] * 3


@pytest.mark.slow
def test_the_program_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    row = json.loads(ROWS.splitlines()[0])
    rows = [{**row, "prompt": f"{row['prompt']} ({number})"} for number in range(30)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    exec(compile(CODE, "page", "exec"), {})
    assert float(capsys.readouterr().out.splitlines()[1]) >= 0.5
    assert "MIT" in (tmp_path / "my-ranker" / "README.md").read_text(encoding="utf-8")
