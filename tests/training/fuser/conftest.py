from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from llm_blender.training.fuser import FuserRecipe


WORDS = ["sky", "sea", "sun", "light", "air", "blue", "bed", "book"]
BASE: dict[str, Any] = {
    "sources": [{"file": "train.jsonl", "name": "Copies", "url": "https://example.org/copies", "licence": "CC0-1.0"}],
    "max_length": 320,
    "candidate_max_length": 16,
    "answer_max_length": 12,
    "frozen_layers": -1,
    "learning_rate": 1e-2,
    "batch_tokens": 1_200,
    "weight_decay": 0.0,
    "save_every": 100,
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_thread: None) -> None:
    """Compute in one thread."""


def _calm(folder: Path, target: Path, **changes: Any) -> Path:
    """The same model with first weights as small as those of models that are to be trained."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedTokenizerFast

    config = AutoConfig.from_pretrained(str(folder), **changes)
    kind: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    torch.manual_seed(0)
    kind.from_config(config).save_pretrained(target)
    PreTrainedTokenizerFast.from_pretrained(str(folder)).save_pretrained(target)
    return target


@pytest.fixture(scope="session")
def tiny_t5(tiny_t5: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _calm(tiny_t5, tmp_path_factory.mktemp("calm_t5"), initializer_factor=0.5)


@pytest.fixture(scope="session")
def tiny_llama(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _calm(tiny_llama, tmp_path_factory.mktemp("calm_llama"), initializer_range=0.05)


def make_recipe(**changes: Any) -> FuserRecipe:
    from llm_blender.training.fuser import FuserRecipe

    return FuserRecipe.model_validate(BASE | changes)


def make_row(number: int, **changes: Any) -> dict[str, Any]:
    """Its reference is what the best of its candidates says."""
    one, other = WORDS[number % 8], WORDS[number // 8 % 8]
    candidates = [
        {"model": model, "text": f"the {word} is {model}", "scores": {"judge": score}}
        for model, word, score in (("bad", other, 0.1), ("good", one, 0.9), ("fair", one, 0.5))
    ]
    return {"instruction": f"Why {one} {other}?", "output": f"the {one} is good", "candidates": candidates, **changes}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows to ``train.jsonl`` and others to ``dev.jsonl``; gives their folder."""

    def write(train: list[dict[str, Any]], dev: list[dict[str, Any]] | None = None) -> Path:
        write_rows(tmp_path / "train.jsonl", train)
        if dev is not None:
            write_rows(tmp_path / "dev.jsonl", dev)
        return tmp_path

    return write
