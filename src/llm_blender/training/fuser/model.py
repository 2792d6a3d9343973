"""What a fuser is made from, and what is kept of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from llm_blender._hub import find_folder
from llm_blender._torch import quiet_loading
from llm_blender.errors import CheckpointError, InputError, MissingExtraError
from llm_blender.fusers.gen_fuser import Lengths
from llm_blender.fusers.gen_fuser.loading import ADAPTER, Loaded, load
from llm_blender.training.freezing import freeze, lower_layers
from llm_blender.training.fuser.recipe import FuserRecipe

__all__ = ["new_fuser", "save_fuser"]


def new_fuser(recipe: FuserRecipe, backbone: str) -> Loaded:
    """A sequence-to-sequence model or a causal LLM, ready to be trained: under a fresh adapter, or partly frozen.

    Raises:
        NotFoundError: there is no such model.
        CheckpointError: it is no model that writes, or its tokenizer has no token that ends an answer.
        InputError: it is an adapter, reads fewer tokens than `recipe.max_length`, or has no layers of
            `recipe.lora_targets`.
        MissingExtraError: ``lora`` is wanted and not installed.
    """
    folder = find_folder("model", backbone)
    if (folder / ADAPTER).is_file():
        raise InputError(f"{backbone!r} is an adapter: train from the model that it names.")
    half = recipe.bf16 and recipe.lora_rank > 0  # what is trained stays float32
    loaded = load(folder, dtype="bfloat16" if half else "float32", device="cpu")
    if loaded.tokenizer.eos_token_id is None:
        raise CheckpointError(f"The tokenizer of {backbone!r} has no `eos_token`, which would end an answer.")
    if loaded.context is not None and loaded.context < recipe.max_length:
        raise InputError(f"{backbone!r} reads {loaded.context} tokens: max_length cannot be {recipe.max_length}.")
    if recipe.lora_rank:
        return replace(loaded, model=_adapted(loaded, recipe, folder))
    freeze(loaded.model, recipe.frozen_layers)
    return loaded


def _adapted(loaded: Loaded, recipe: FuserRecipe, folder: Path) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ModuleNotFoundError as error:
        raise MissingExtraError("Training an adapter", "lora") from error
    config = LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        target_modules=list(recipe.lora_targets) or "all-linear",
        exclude_modules=lower_layers(loaded.model, recipe.frozen_layers),
        task_type="SEQ_2_SEQ_LM" if loaded.seq2seq else "CAUSAL_LM",
    )
    torch.manual_seed(recipe.seed)
    with quiet_loading():
        try:
            model: Any = get_peft_model(loaded.model, config)
        except ValueError as error:
            raise InputError(f"lora_targets {', '.join(recipe.lora_targets)} are no layers of the model.") from error
    model.peft_config["default"].base_model_name_or_path = str(folder)
    return model


def save_fuser(loaded: Loaded, recipe: FuserRecipe, backbone: str, folder: Path) -> None:
    """Write a folder that `GenFuser.from_pretrained` loads: a whole model, or an adapter that names its base.

    With the lengths of its training, which it keeps to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    Lengths(
        max_length=recipe.max_length - recipe.answer_max_length,
        candidate_max_length=recipe.candidate_max_length,
        max_new_tokens=recipe.answer_max_length,
    ).save(folder)
    with quiet_loading():
        if not recipe.lora_rank:
            loaded.model.save_pretrained(folder)
            loaded.tokenizer.save_pretrained(folder)
            return
        place = Path(backbone).expanduser()
        name = str(place.resolve()) if place.is_dir() else backbone
        loaded.model.peft_config["default"].base_model_name_or_path = name
        # Embeddings are not trained, and asking whether they were would ask the Hub.
        loaded.model.save_pretrained(str(folder), save_embedding_layers=False)
