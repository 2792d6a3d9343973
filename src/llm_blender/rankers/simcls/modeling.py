"""SimCLS as a torch module (arXiv 2106.01890; as a baseline of arXiv 2306.02561, section 5)."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from llm_blender.rankers._torch import first_states
from llm_blender.rankers.encoders import make_encoder
from llm_blender.rankers.pointwise_config import PointwiseConfig

__all__ = ["SimCLSModel", "one_encoder"]

_SOURCE, _CANDIDATE = "source_encoder.", "candidate_encoder."


class SimCLSModel(nn.Module):
    """One encoder for instructions and for candidates: texts are points on a sphere, and near is good.

    Args:
        config: names the encoder.
        backbone: an encoder to train; None makes the config's, with random weights.
    """

    def __init__(self, config: PointwiseConfig, backbone: nn.Module | None = None) -> None:
        super().__init__()
        self.source_encoder = make_encoder(config.backbone) if backbone is None else backbone
        if getattr(self.source_encoder, "pooler", None) is not None:
            cast(Any, self.source_encoder).pooler = None  # its output is not read

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Vectors ``[B, H]`` of length 1, of ids and mask ``[B, T]``: the state of ``[CLS]``.

        The score of a candidate is the product of its vector with the instruction's, their cosine.
        """
        first = first_states(self.source_encoder, input_ids, attention_mask)
        return functional.normalize(first.float(), dim=-1)


def one_encoder(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a checkpoint of llm-blender 0.0.2, which holds the encoder under one name, the other or both.

    Raises:
        ValueError: it holds two different ones.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        new = _SOURCE + name.removeprefix(_CANDIDATE) if name.startswith(_CANDIDATE) else name
        if new in renamed and not torch.equal(renamed[new], tensor):
            raise ValueError(f"source_encoder and candidate_encoder differ in {new.removeprefix(_SOURCE)}")
        renamed[new] = tensor
    return renamed
