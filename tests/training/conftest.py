"""Small models and rows to train on, and what tests of training share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llm_blender.training.recipes import FuserRecipe

if TYPE_CHECKING:
    import torch

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


@pytest.fixture(autouse=True, scope="package")
def _one_thread() -> Iterator[None]:
    """Train in one thread: with models this small, several threads wait for each other most of the time."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def calm(folder: Path, target: Path, **changes: Any) -> Path:
    """Make the same model with first weights as small as those of models to be trained."""
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
    return calm(tiny_t5, tmp_path_factory.mktemp("calm_t5"), initializer_factor=0.5)


@pytest.fixture(scope="session")
def tiny_llama(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return calm(tiny_llama, tmp_path_factory.mktemp("calm_llama"), initializer_range=0.05)


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    """Compare the weights of two models, bit for bit."""
    import torch

    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def make_recipe(**changes: Any) -> FuserRecipe:
    """Make a fuser's recipe."""
    return FuserRecipe.model_validate(BASE | changes)


def make_row(number: int, **changes: Any) -> dict[str, Any]:
    """Make a row whose reference equals its best candidate."""
    one, other = WORDS[number % 8], WORDS[number // 8 % 8]
    candidates = [
        {"model": model, "text": f"the {word} is {model}", "scores": {"judge": score}}
        for model, word, score in (("bad", other, 0.1), ("good", one, 0.9), ("fair", one, 0.5))
    ]
    return {"instruction": f"Why {one} {other}?", "output": f"the {one} is good", "candidates": candidates, **changes}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows to a file; return its path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes rows to ``train.jsonl`` and ``dev.jsonl`` and returns their folder."""

    def write(train: list[dict[str, Any]], dev: list[dict[str, Any]] | None = None) -> Path:
        write_rows(tmp_path / "train.jsonl", train)
        if dev is not None:
            write_rows(tmp_path / "dev.jsonl", dev)
        return tmp_path

    return write
