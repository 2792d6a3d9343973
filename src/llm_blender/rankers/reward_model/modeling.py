"""Sequence classifiers as torch modules that give one score per sequence."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from llm_blender._torch import quiet_loading
from llm_blender.errors import CheckpointError
from llm_blender.rankers._torch import first_states
from llm_blender.rankers.encoders import DebertaEncoder, make_encoder

__all__ = ["Classifier", "load_classifier"]


class Classifier(nn.Module):
    """One output of a sequence classifier.

    Args:
        model: any of transformers'.
        label: index of the output.
    """

    def __init__(self, model: nn.Module, label: int) -> None:
        super().__init__()
        self.model, self.label = model, label

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Scores ``[B]`` of ids, mask and, where the model knows them, types ``[B, T]``."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask, **types).logits
        return logits[:, self.label]


class _DebertaClassifier(nn.Module):
    """A DeBERTa classifier around the encoder of our own, which is faster."""

    def __init__(self, encoder: DebertaEncoder, model: Any, label: int) -> None:
        super().__init__()
        self.encoder, self.pooler, self.classifier, self.label = encoder, model.pooler, model.classifier, label

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        first = first_states(self.encoder, input_ids, attention_mask)
        logits: Tensor = self.classifier(self.pooler(first.unsqueeze(1)))  # it takes the first of states [B, T, H]
        return logits[:, self.label]


def load_classifier(folder: Path, label: int, dtype: torch.dtype | str) -> nn.Module:
    """The classifier of a checkpoint, on the CPU.

    Args:
        folder: the checkpoint.
        label: index of the output that is the score.
        dtype: of the weights; ``auto`` leaves them as they are stored.

    Raises:
        CheckpointError: the weights are missing, damaged, or not those that ``config.json`` describes.
    """
    try:
        with quiet_loading():
            model, info = cast(Any, AutoModelForSequenceClassification).from_pretrained(
                str(folder), dtype=dtype, output_loading_info=True, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # of every layer below: JSON, safetensors, pickle, torch, transformers
        raise CheckpointError(
            f"The weights in {folder} cannot be read (a .bin only if it holds tensors alone), or are not those that "
            f"its config.json describes: {shorten(str(error), 300)}"
        ) from error
    if missing := sorted(info["missing_keys"]):
        raise CheckpointError(f"The weights in {folder} are not whole: {', '.join(missing[:3])} is missing.")
    return _with_own_encoder(model.eval(), label)


def _with_own_encoder(model: Any, label: int) -> nn.Module:
    if model.config.model_type == "deberta-v2":
        encoder = make_encoder(model.config.to_dict())
        if isinstance(encoder, DebertaEncoder):
            encoder.load_state_dict(model.deberta.state_dict())
            return _DebertaClassifier(encoder.to(model.dtype), model, label).eval()
    return Classifier(model, label)
