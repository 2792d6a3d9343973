"""Backbones to train, fresh PairRankers on them, and trained rankers on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from llm_blender._torch import quiet_loading
from llm_blender.errors import CheckpointError, InputError, NotFoundError
from llm_blender.rankers.checkpoints import find_checkpoint, load_tokenizer, load_weights, read_config
from llm_blender.rankers.encoder_ranker import PointwiseConfig
from llm_blender.rankers.encoders import make_encoder
from llm_blender.rankers.pair_ranker import PairRankerConfig
from llm_blender.rankers.pair_ranker.export import export_onnx
from llm_blender.rankers.pair_ranker.input_format import InputFormat
from llm_blender.rankers.pair_ranker.modeling import AnyPairRanker, make_model
from llm_blender.rankers.published import is_published
from llm_blender.training.recipes import Recipe


def load_backbone(name: str, kind: Any, seed: int, **settings: Any) -> tuple[Any, Any]:
    """Load a model in float32 and its fast tokenizer, from the Hub or a folder; missing weights are random.

    Args:
        name: Hub name or folder.
        kind: class of transformers that loads the model, e.g. ``AutoModel``.
        seed: of missing weights.
        settings: of the model's configuration.

    Raises:
        NotFoundError: there is no such model.
        CheckpointError: its tokenizer has no fast form (``tokenizer.json``).
    """
    torch.manual_seed(seed)
    try:
        with quiet_loading():
            config = AutoConfig.from_pretrained(name, **settings)
            # Attention dropout would rule out the fused kernel: three times the step on a CPU.
            config.attention_probs_dropout_prob = 0.0
            model = kind.from_pretrained(name, config=config, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:  # ValueError: files, but of no known model
        raise NotFoundError(f"No encoder {name!r}, neither as a folder nor on the Hub: {error}") from error
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise CheckpointError(f"The tokenizer of {name!r} has no fast form (tokenizer.json).")
    return model, tokenizer


def backbone_values(encoder: Any) -> dict[str, Any]:
    """Return an encoder's configuration as a checkpoint's ``config.json`` holds it."""
    values: dict[str, Any] = encoder.config.to_diff_dict()
    return values | {"model_type": encoder.config.model_type}


_STRUCTURE = ("alone_layers", "pooling", "max_length", "source_max_length")
"""Fields of a recipe that a checkpoint has too."""


def follow_init(recipe: Recipe) -> Recipe:
    """Take what a recipe leaves open of a PairRanker's structure from its `init`.

    Lengths may differ, and layers that compare late may be added.

    Raises:
        NotFoundError: there is no such checkpoint.
        CheckpointError: it is no PairRanker.
        InputError: the recipe contradicts it.
    """
    if not recipe.init or recipe.ranker != "pair_ranker":
        return recipe
    config = _init_config(recipe.init)
    given = recipe.model_fields_set
    fresh = "leave it out, or train a fresh ranker on an encoder (backbone instead of init)"
    if "alone_layers" in given and config.alone_layers not in (0, recipe.alone_layers):
        raise InputError(
            f"alone_layers = {recipe.alone_layers} contradicts {recipe.init}, which has {config.alone_layers}: the "
            f"layers above them were trained to compare texts that were read alone; {fresh}."
        )
    if "pooling" in given and recipe.pooling != config.pooling:
        raise InputError(
            f'pooling = "{recipe.pooling}" contradicts {recipe.init}, whose head was trained on "{config.pooling}"; '
            f"{fresh}."
        )
    own = {name: getattr(config, name) for name in _STRUCTURE if name not in given}
    return Recipe.model_validate(recipe.model_dump(exclude_unset=True) | own)


def _init_config(name: str) -> PairRankerConfig:
    folder = find_checkpoint(name)
    if is_published(read_config(folder)):
        raise InputError(f"{name} has llm-blender 0.0.2's layout: convert it with `blend export {name} DIR` first.")
    return PairRankerConfig.load(folder)


def new_pair_ranker(recipe: Recipe, backbone: str) -> tuple[AnyPairRanker, InputFormat, Tokenizer]:
    """Make a PairRanker with a fresh head on an encoder, or with weights and configuration of `recipe.init`.

    Args:
        recipe: seed, lengths, layers.
        backbone: Hub name or folder of the encoder.

    Raises:
        NotFoundError: there is no such encoder or checkpoint.
        CheckpointError: its tokenizer has no fast form (``tokenizer.json``), or `recipe.alone_layers` does not suit it.
        InputError: it reads fewer tokens than `recipe.max_length`, and is not a `recipe.init` that compares late, which
            learns more positions; or `recipe` contradicts its `init`.
    """
    recipe = follow_init(recipe)
    if recipe.init:
        torch.manual_seed(recipe.seed)
        folder = find_checkpoint(recipe.init)
        config, state, tokenizer = _init_config(recipe.init), load_weights(folder), load_tokenizer(folder)
        values = dict(config.backbone)
        if recipe.alone_layers:
            _add_positions(values, state, recipe.max_length)
    else:
        values, state, tokenizer = _load_encoder(recipe, backbone)
        config = PairRankerConfig()
    positions = values.get("max_position_embeddings")
    if positions and positions < recipe.max_length:
        raise InputError(
            f"{recipe.init or backbone!r} reads {positions} tokens: max_length cannot be {recipe.max_length}; set "
            f"max_length = {positions} or less (--max-length {positions})."
        )
    config = replace(config, backbone=values, **{name: getattr(recipe, name) for name in _STRUCTURE})
    # Training needs the dropout of transformers' own encoders.
    model = make_model(config, None if recipe.alone_layers else make_encoder(values, own=False))
    known = model.state_dict()
    model.load_state_dict({**known, **{name: tensor for name, tensor in state.items() if name in known}})
    return model, InputFormat(tokenizer, config), tokenizer


def _add_positions(values: dict[str, Any], state: dict[str, Tensor], length: int) -> None:
    """Continue the learned positions of a BERT up to `length`: each new one repeats the one half the table before it.

    So distances between new positions look as they did in pretraining, and training adapts the rest.
    """
    name = "pretrained_model.embeddings.position_embeddings.weight"
    table = state.get(name)
    if table is not None and len(table) < length:
        first, half = len(table), len(table) // 2
        places = [place if place < first else half + (place - first) % (first - half) for place in range(length)]
        state[name] = table[places]
        values["max_position_embeddings"] = length


def _load_encoder(recipe: Recipe, backbone: str) -> tuple[dict[str, Any], dict[str, Tensor], Tokenizer]:
    """Load the same of an encoder, and add the markers to its vocabulary."""
    encoder, fast = load_backbone(backbone, AutoModel, recipe.seed)
    tokenizer: Tokenizer = fast.backend_tokenizer
    tokenizer.add_special_tokens(list(PairRankerConfig.markers))
    encoder.resize_token_embeddings(tokenizer.get_vocab_size(), mean_resizing=False)
    state = {f"pretrained_model.{key}": tensor for key, tensor in encoder.state_dict().items()}
    return backbone_values(encoder), state, tokenizer


def write_checkpoint(model: AnyPairRanker, config: PairRankerConfig, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a PairRanker: config, tokenizer, float16 weights, and float32 and int8 ONNX made from these weights."""
    model.to(torch.float16).to(torch.float32)  # what is saved is what is exported
    tokenizer.encode_special_tokens = False  # the file's own meaning; readers of texts switch it on
    write_tokenizer(config, tokenizer, folder)
    tokenizer.encode_special_tokens = True
    _write_weights({name: tensor.to(torch.float16) for name, tensor in model.state_dict().items()}, folder)
    export_onnx(model, folder)


def write_pointwise(model: nn.Module, config: PointwiseConfig, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a pointwise ranker: config, tokenizer and weights."""
    write_tokenizer(config, tokenizer, folder)
    _write_weights(model.state_dict(), folder)


def write_tokenizer(config: PairRankerConfig | PointwiseConfig, tokenizer: Tokenizer, folder: Path) -> None:
    """Write ``config.json`` and ``tokenizer.json``, which are all that an input format reads."""
    folder.mkdir(parents=True, exist_ok=True)
    config.save(folder)
    tokenizer.save(str(folder / "tokenizer.json"))


def _write_weights(state: Mapping[str, Tensor], folder: Path) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
