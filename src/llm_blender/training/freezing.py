"""What of a model stays as it is while the rest is trained."""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["freeze"]


def freeze(backbone: nn.Module, layers: int) -> None:
    """Freeze the embeddings and the `layers` lowest layers; -1 freezes nothing."""
    if layers < 0:
        return
    stack = next(module for module in backbone.modules() if isinstance(module, nn.ModuleList))  # of its layers
    whole: Any = backbone
    embeddings = getattr(backbone, "embeddings", None) or whole.get_input_embeddings()
    for module in (embeddings, *stack[:layers]):
        module.requires_grad_(False)
