"""A fresh PairRanker on an encoder, and a trained one on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoTokenizer

from llm_blender.errors import CheckpointError, InputError, NotFoundError
from llm_blender.rankers.checkpoints import find_checkpoint, load_tokenizer, load_weights
from llm_blender.rankers.encoders import make_encoder
from llm_blender.rankers.pair_ranker import PairRankerConfig
from llm_blender.rankers.pair_ranker.export import export_onnx
from llm_blender.rankers.pair_ranker.input_format import InputFormat
from llm_blender.rankers.pair_ranker.modeling import AnyPairRanker, make_model
from llm_blender.training.recipes import Recipe

__all__ = ["new_pair_ranker", "write_checkpoint"]


def new_pair_ranker(recipe: Recipe, backbone: str) -> tuple[AnyPairRanker, InputFormat, Tokenizer]:
    """A PairRanker with a fresh head on an encoder from the Hub or a folder, or with the weights of `recipe.init`.

    Raises:
        NotFoundError: there is no such encoder or checkpoint.
        CheckpointError: its tokenizer has no fast form (``tokenizer.json``), or `recipe.alone_layers` does not suit it.
        InputError: it reads fewer tokens than `recipe.max_length`.
    """
    torch.manual_seed(recipe.seed)
    values, state, tokenizer = _init(recipe.init) if recipe.init else _backbone(backbone)
    positions = values.get("max_position_embeddings")
    if positions and positions < recipe.max_length:
        raise InputError(
            f"{recipe.init or backbone!r} reads {positions} tokens: max_length cannot be {recipe.max_length}."
        )
    config = PairRankerConfig(
        backbone=values,
        max_length=recipe.max_length,
        source_max_length=recipe.source_max_length,
        pooling=recipe.pooling,
        alone_layers=recipe.alone_layers,
    )
    # transformers' own encoders have the dropout that training wants.
    model = make_model(config, None if recipe.alone_layers else make_encoder(values, own=False))
    known = model.state_dict()
    model.load_state_dict({**known, **{name: tensor for name, tensor in state.items() if name in known}})
    return model, InputFormat(tokenizer, config), tokenizer


def _init(name: str) -> tuple[dict[str, Any], dict[str, Tensor], Tokenizer]:
    """A PairRanker's encoder configuration, weights and tokenizer."""
    folder = find_checkpoint(name)
    return dict(PairRankerConfig.load(folder).backbone), load_weights(folder), load_tokenizer(folder)


def _backbone(name: str) -> tuple[dict[str, Any], dict[str, Tensor], Tokenizer]:
    """The same of an encoder, whose vocabulary gets the markers."""
    try:
        config = AutoConfig.from_pretrained(name)
        # Attention dropout would rule out the fused kernel: three times the step on a CPU.
        config.attention_probs_dropout_prob = 0.0
        encoder: Any = AutoModel.from_pretrained(name, config=config, dtype=torch.float32)
        fast = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:  # ValueError: files, but of no known model
        raise NotFoundError(f"No encoder {name!r}, neither as a folder nor on the Hub: {error}") from error
    tokenizer: Tokenizer | None = getattr(fast, "backend_tokenizer", None)
    if tokenizer is None:
        raise CheckpointError(f"The tokenizer of {name!r} has no fast form (tokenizer.json).")
    tokenizer.add_special_tokens(list(PairRankerConfig.markers))
    encoder.resize_token_embeddings(tokenizer.get_vocab_size(), mean_resizing=False)
    values = encoder.config.to_diff_dict() | {"model_type": encoder.config.model_type}
    return values, {f"pretrained_model.{key}": tensor for key, tensor in encoder.state_dict().items()}, tokenizer


def write_checkpoint(model: AnyPairRanker, config: PairRankerConfig, tokenizer: Tokenizer, folder: Path) -> None:
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
