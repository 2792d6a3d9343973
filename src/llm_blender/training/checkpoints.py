"""A fresh PairRanker on an encoder, and a trained one on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel, AutoTokenizer

from llm_blender.errors import CheckpointError, InputError, NotFoundError
from llm_blender.rankers.pair_ranker import PairRankerConfig
from llm_blender.rankers.pair_ranker.export import export_onnx
from llm_blender.rankers.pair_ranker.input_format import InputFormat
from llm_blender.rankers.pair_ranker.modeling import PairRankerModel
from llm_blender.training.recipe import Recipe

__all__ = ["new_pair_ranker", "write_checkpoint"]


def new_pair_ranker(recipe: Recipe, backbone: str) -> tuple[PairRankerModel, InputFormat, Tokenizer]:
    """A fresh PairRanker on an encoder from the Hub or a folder.

    Raises:
        NotFoundError: there is no such encoder.
        CheckpointError: its tokenizer has no fast form (``tokenizer.json``).
        InputError: it reads fewer tokens than `recipe.max_length`.
    """
    torch.manual_seed(recipe.seed)
    try:
        config = AutoConfig.from_pretrained(backbone)
        # Attention dropout would rule out the fused kernel: three times the step on a CPU.
        config.attention_probs_dropout_prob = 0.0
        encoder: Any = AutoModel.from_pretrained(backbone, config=config, dtype=torch.float32)
        fast = AutoTokenizer.from_pretrained(backbone)
    except (OSError, ValueError) as error:  # ValueError: files, but of no known model
        raise NotFoundError(f"No encoder {backbone!r}, neither as a folder nor on the Hub: {error}") from error
    positions = getattr(config, "max_position_embeddings", None)
    if positions and positions < recipe.max_length:
        raise InputError(f"{backbone!r} reads {positions} tokens: max_length cannot be {recipe.max_length}.")
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


def write_checkpoint(model: PairRankerModel, config: PairRankerConfig, tokenizer: Tokenizer, folder: Path) -> None:
    """Write config, tokenizer, float16 weights, and the float32 and int8 ONNX made from just these weights."""
    folder.mkdir(parents=True, exist_ok=True)
    model.to(torch.float16).to(torch.float32)  # what is saved is what is exported
    state = {name: tensor.to(torch.float16).contiguous() for name, tensor in model.state_dict().items()}
    safetensors.torch.save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config.save(folder)
    tokenizer.encode_special_tokens = False  # the file's own meaning; readers of texts switch it on
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    export_onnx(model, folder)
