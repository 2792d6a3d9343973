"""The model that a baseline is trained from."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import processors
from transformers import AutoConfig, AutoTokenizer

from llm_blender._torch import quiet_loading
from llm_blender.errors import CheckpointError, InputError, NotFoundError
from llm_blender.rankers.mlm_scoring import longest_input
from llm_blender.training.recipe import Recipe

__all__ = ["load_backbone"]


def load_backbone(name: str, kind: Any, recipe: Recipe, **settings: Any) -> tuple[Any, Any]:
    """A model in float32 and its fast tokenizer, from the Hub or a folder; what the weights lack is random.

    Args:
        name: Hub name or folder.
        kind: the class of transformers that loads it, e.g. ``AutoModel``.
        recipe: for its seed and lengths.
        settings: of the model's configuration.

    Raises:
        NotFoundError: there is no such model.
        CheckpointError: its tokenizer has no fast form (``tokenizer.json``).
        InputError: it reads fewer tokens than `recipe.max_length`.
    """
    torch.manual_seed(recipe.seed)
    try:
        with quiet_loading():
            config = AutoConfig.from_pretrained(name, **settings)
            # Attention dropout would rule out the fused kernel: three times the step on a CPU.
            config.attention_probs_dropout_prob = 0.0
            model = kind.from_pretrained(name, config=config, dtype=torch.float32)
            fast = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:  # ValueError: files, but of no known model
        raise NotFoundError(f"No encoder {name!r}, neither as a folder nor on the Hub: {error}") from error
    tokenizer = getattr(fast, "backend_tokenizer", None)
    if tokenizer is None:
        raise CheckpointError(f"The tokenizer of {name!r} has no fast form (tokenizer.json).")
    around = len(tokenizer.encode("a", "a")) - len(tokenizer.encode("a", "a", add_special_tokens=False))
    sep, cls = ((token, tokenizer.token_to_id(token)) for token in ("[SEP]", "[CLS]"))
    if not around and sep[1] is not None and cls[1] is not None:
        tokenizer.post_processor = processors.BertProcessing(sep, cls)  # it has them and puts none around a pair
    if (places := longest_input(model)) < recipe.max_length:
        raise InputError(f"{name!r} reads {places} tokens: max_length cannot be {recipe.max_length}.")
    return model, fast
