"""Encoders that turn token ids into hidden states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from llm_blender.rankers.encoders.bert import BertConfig, BertEncoder
from llm_blender.rankers.encoders.deberta import DebertaConfig, DebertaEncoder

__all__ = ["BertConfig", "BertEncoder", "DebertaConfig", "DebertaEncoder", "bare_encoder", "make_encoder"]


def bare_encoder(values: Mapping[str, Any], encoder: nn.Module | None = None) -> nn.Module:
    """Return an encoder without its pooler, whose output no ranker reads.

    Args:
        values: its configuration.
        encoder: the encoder; None builds it with random weights.
    """
    bare = make_encoder(values) if encoder is None else encoder
    if getattr(bare, "pooler", None) is not None:
        cast(Any, bare).pooler = None
    return bare


def make_encoder(values: Mapping[str, Any], *, own: bool = True) -> nn.Module:
    """Build an encoder with random weights, in float32.

    Args:
        values: configuration in transformers' format (``model_type``, ``hidden_size``, …).
        own: build a DeBERTa as `DebertaEncoder`, which has the same parameters and is faster but has no dropout.

    Raises:
        ValueError: transformers has no such model.
    """
    if own and (config := DebertaConfig.read(values)) is not None:
        return DebertaEncoder(config)
    from transformers import AutoConfig, AutoModel

    values = {key: value for key, value in values.items() if key not in ("dtype", "torch_dtype")}
    config_of_transformers = AutoConfig.for_model(values.pop("model_type"), **values)
    # float32 whatever the precision of training: a half-precision module would round the weights.
    return cast(nn.Module, cast(Any, AutoModel).from_config(config_of_transformers, dtype=torch.float32))
