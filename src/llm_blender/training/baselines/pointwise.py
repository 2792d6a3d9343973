"""Checkpoints of the baselines that have a `PointwiseConfig`: SummaReranker and SimCLS."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
from torch import nn

from llm_blender.rankers.encoder_ranker import PointwiseConfig
from llm_blender.training.recipe import Recipe

__all__ = ["pointwise_config", "write_pointwise", "write_reader"]


def pointwise_config(
    kind: Literal["summareranker", "simcls"], recipe: Recipe, encoder: Any, *, room: int, tasks: tuple[str, ...]
) -> PointwiseConfig:
    """The configuration of a ranker on an encoder.

    Args:
        kind: of ranker.
        recipe: for the lengths: a candidate gets what a whole instruction leaves.
        encoder: of transformers.
        room: tokens of `recipe.max_length` that belong to neither text.
        tasks: outputs of the ranker.
    """
    return PointwiseConfig(
        kind,
        backbone=encoder.config.to_diff_dict() | {"model_type": encoder.config.model_type},
        source_max_length=recipe.source_max_length,
        candidate_max_length=recipe.max_length - recipe.source_max_length - room,
        tasks=tasks,
    )


def write_reader(config: PointwiseConfig, tokenizer: Any, folder: Path) -> None:
    """Write ``config.json`` and ``tokenizer.json``: what reading texts needs."""
    folder.mkdir(parents=True, exist_ok=True)
    config.save(folder)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))


def write_pointwise(
    model: nn.Module, config: PointwiseConfig, tokenizer: Any, folder: Path, temperature: float
) -> None:
    """Write a whole checkpoint."""
    write_reader(dataclasses.replace(config, temperature=temperature), tokenizer, folder)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    safetensors.torch.save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
