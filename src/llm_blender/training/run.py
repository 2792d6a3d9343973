"""One training run from a recipe to a checkpoint folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel, AutoTokenizer

from llm_blender.data import normalized_key, read_rows
from llm_blender.errors import CheckpointError, NotFoundError
from llm_blender.rankers.pair_ranker.config import PairRankerConfig
from llm_blender.rankers.pair_ranker.input_format import InputFormat
from llm_blender.rankers.pair_ranker.modeling import PairRankerModel
from llm_blender.training.pairs import TrainingPair, draw_pairs
from llm_blender.training.recipe import Recipe, Source
from llm_blender.types import Example

__all__ = ["SourceCount", "excluded_keys", "load_pairs", "new_pair_ranker"]


@dataclass(frozen=True)
class SourceCount:
    """What one file gave: rows read, rows left out because a test file asks the same, pairs drawn."""

    source: Source
    path: Path
    rows: int
    excluded: int
    pairs: int


def excluded_keys(files: Sequence[Path]) -> frozenset[str]:
    """The normalised prompts of test files, which must not stand in training rows."""
    return frozenset(normalized_key(row) for path in files for row in read_rows(path))


def load_pairs(
    sources: Sequence[Source], folder: Path, excluded: frozenset[str], seed: int
) -> tuple[list[TrainingPair], list[SourceCount]]:
    """Draw the pairs of all sources, mixed.

    Raises:
        NotFoundError: a source's file is not in the folder.
        RowError: a row cannot be used.
    """
    pairs: list[TrainingPair] = []
    counts: list[SourceCount] = []
    for position, source in enumerate(sources):
        path = folder / source.file
        rows: list[Example] = list(read_rows(path))
        kept = [row for row in rows if not excluded or normalized_key(row) not in excluded]
        drawn = draw_pairs(kept, source, seed * 1_000 + position)
        counts.append(SourceCount(source, path, len(rows), len(rows) - len(kept), len(drawn)))
        pairs += drawn
    order = np.random.default_rng(seed).permutation(len(pairs))
    return [pairs[i] for i in order], counts


def new_pair_ranker(recipe: Recipe, backbone: str) -> tuple[PairRankerModel, InputFormat, Tokenizer]:
    """A fresh PairRanker on an encoder from the Hub or a folder.

    Raises:
        NotFoundError: there is no such encoder.
        CheckpointError: its tokenizer has no fast form (``tokenizer.json``).
    """
    torch.manual_seed(recipe.seed)
    try:
        config = AutoConfig.from_pretrained(backbone)
        # Attention dropout would rule out the fused kernel: three times the step on a CPU.
        config.attention_probs_dropout_prob = 0.0
        encoder: Any = AutoModel.from_pretrained(backbone, config=config, dtype=torch.float32)
        fast = AutoTokenizer.from_pretrained(backbone)
    except OSError as error:
        raise NotFoundError(f"No encoder {backbone!r}, neither as a folder nor on the Hub: {error}") from error
    tokenizer: Tokenizer | None = getattr(fast, "backend_tokenizer", None)
    if tokenizer is None:
        raise CheckpointError(f"The tokenizer of {backbone!r} has no fast form (tokenizer.json).")
    tokenizer.add_special_tokens(list(PairRankerConfig.markers))
    encoder.resize_token_embeddings(tokenizer.get_vocab_size(), mean_resizing=False)
    own = PairRankerConfig(
        backbone=encoder.config.to_diff_dict() | {"model_type": encoder.config.model_type},
        max_length=recipe.max_length,
        source_max_length=recipe.source_max_length,
        pooling=recipe.pooling,
    )
    return PairRankerModel(own, encoder), InputFormat(tokenizer, own), tokenizer
