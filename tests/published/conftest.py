"""Checkpoints and golden numbers that `make_fixtures.py` made with llm-blender 0.0.2."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    """Read the results of 0.0.2; `README.md` describes the keys."""
    return json.loads((FIXTURES / "golden.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Put together a read-only folder of checkpoints in the layouts of 0.0.2 and the Hub.

    ``PairRM``, ``pair-ranker``, ``PairRM-hf``, ``SummaReranker``, ``SimCLS`` and
    ``OpenAssistant/reward-model-deberta-v3-large-v2``; and ``backbone``, the configuration (without weights) of the
    encoder in their ``model_name``.
    """
    root = tmp_path_factory.mktemp("published")
    shutil.copytree(FIXTURES, root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("golden.json", "tokenizer"))
    tokenizer = json.loads((FIXTURES / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))
    for added in root.rglob("added_tokens.json"):
        whole = tokenizer_with(tokenizer, json.loads(added.read_text(encoding="utf-8")))
        (added.parent / "tokenizer.json").write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")
        shutil.copy(FIXTURES / "tokenizer" / "spm.model", added.parent)
    return root


def tokenizer_with(tokenizer: dict[str, Any], added: dict[str, int]) -> dict[str, Any]:
    """Return a ``tokenizer.json`` with a ranker's own tokens; `make_fixtures.py` checks that it equals the original."""
    known = {token["content"] for token in tokenizer["added_tokens"]}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    new = [
        {"id": number, "content": text, **plain}
        for text, number in sorted(added.items(), key=lambda item: item[1])
        if text not in known
    ]
    return {**tokenizer, "added_tokens": [*tokenizer["added_tokens"], *new]}
