"""A masked language model as a torch module that gives the log-probability of the token behind each mask."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM

from llm_blender._torch import quiet_loading
from llm_blender.errors import CheckpointError

__all__ = ["MaskedTokens", "load_masked_lm", "longest_input"]

_DEFAULT_LENGTH = 512  # where positions are relative and nobody set a limit


class MaskedTokens(nn.Module):
    """log P(token behind the mask | all others).

    Args:
        model: any masked language model of transformers.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._positions: Tensor | None = None
        # Vocabularies are large: only the state at the mask goes through the language-model head.
        encoder = cast(Any, model).base_model
        if encoder is not model:
            encoder.register_forward_hook(self._keep_masks)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, positions: Tensor, targets: Tensor) -> Tensor:
        """From ids and mask ``[B, T]``, places of the masks and tokens behind them ``[B]``, to ``[B]``."""
        self._positions = positions
        try:
            logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        finally:
            self._positions = None
        at_mask = logits[:, 0] if logits.shape[1] == 1 else _at(logits, positions)[:, 0]
        return at_mask.float().log_softmax(dim=-1).gather(1, targets[:, None])[:, 0]

    def _keep_masks(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        if self._positions is not None:
            output["last_hidden_state"] = _at(output["last_hidden_state"], self._positions)
        return output


def _at(states: Tensor, positions: Tensor) -> Tensor:
    """Of ``[B, T, H]`` those at one position each, ``[B, 1, H]``."""
    return states.gather(1, positions[:, None, None].expand(-1, 1, states.shape[-1]))


def load_masked_lm(folder: Path, vocabulary: int) -> nn.Module:
    """The masked language model of a checkpoint, in float32 on the CPU.

    Args:
        folder: the checkpoint.
        vocabulary: tokens that its tokenizer knows.

    Raises:
        CheckpointError: the weights are missing, damaged, or without a language-model head.
    """
    try:
        with quiet_loading():
            model, info = cast(Any, AutoModelForMaskedLM).from_pretrained(
                str(folder), dtype=torch.float32, output_loading_info=True, local_files_only=True
            )
    except Exception as error:  # of every layer below: JSON, safetensors, pickle, torch, transformers
        raise CheckpointError(f"{folder} is no masked language model: {shorten(str(error), 300)}") from error
    if missing := sorted(info["missing_keys"]):
        raise CheckpointError(
            f"{folder} is an encoder without its language-model head ({', '.join(missing[:3])} is missing): name the "
            "masked language model that it was made from."
        )
    rows = model.get_input_embeddings().num_embeddings
    if vocabulary > rows:
        raise CheckpointError(
            f"The tokenizer in {folder} has {vocabulary:,} tokens and the model knows {rows:,}: it is not this model's."
        )
    return cast(nn.Module, model.eval())


def longest_input(model: nn.Module) -> int:
    """Tokens that a model can read: as many as it has places for, special ones included."""
    places = [
        # Where places count from the padding token's, as in RoBERTa, the first ones are not used.
        module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and name.endswith("position_embeddings")
    ]
    if places:
        return min(places)
    if cast(Any, model).config.model_type == "deberta-v2":  # distances in buckets: any length can be read
        return _DEFAULT_LENGTH
    return int(getattr(cast(Any, model).config, "max_position_embeddings", _DEFAULT_LENGTH))
