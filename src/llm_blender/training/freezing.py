"""What of a model stays as it is while the rest is trained."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

__all__ = ["freeze", "lower_layers"]


def freeze(backbone: nn.Module, layers: int) -> None:
    """Freeze the embeddings and the `layers` lowest layers; -1 freezes nothing."""
    if layers < 0:
        return
    _, stack = _layers(backbone)
    whole: Any = backbone
    embeddings = getattr(backbone, "embeddings", None) or whole.get_input_embeddings()
    for module in (embeddings, *stack[:layers]):
        module.requires_grad_(False)


def lower_layers(backbone: nn.Module, layers: int) -> str | None:
    """A regular expression for the names of all modules in the `layers` lowest layers; None for none."""
    name, _ = _layers(backbone)
    return rf"{re.escape(name)}\.({'|'.join(map(str, range(layers)))})\..*" if layers > 0 else None


def _layers(backbone: nn.Module) -> tuple[str, nn.ModuleList]:
    """A model's stack of layers, and its name; of an encoder and a decoder, the encoder's."""
    return next((name, module) for name, module in backbone.named_modules() if isinstance(module, nn.ModuleList))
