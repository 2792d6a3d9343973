"""What `docs/metrics.md` shows of models runs, up to the download."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_models_by_name(monkeypatch):
    monkeypatch.setenv("LLM_BLENDER_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/nowhere")
    blocks = re.findall(r"^```python( models)?\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert [kind for kind, _ in blocks] == ["", " models"]
    names: dict[str, object] = {}
    for _, code in blocks:
        exec(compile(code.replace('"device": "cuda", ', ""), str(PAGE), "exec"), names)
    table = names["table"]
    assert [row.metric for row in table] == ["bertscore", "bartscore", "bleurt"]
    assert all("not in the Hub's cache, and offline mode is on" in row.status for row in table)
