"""Who compares: rankers of one interface."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from llm_blender.errors import InputError

if TYPE_CHECKING:
    from llm_blender.rankers.pair_ranker import PairRanker

__all__ = ["load_ranker"]


def load_ranker(
    name: str | os.PathLike[str] = "bundled",
    *,
    backend: Literal["onnx", "torch"] | None = None,
    device: str | None = None,
    precision: Literal["int8", "fp32"] = "int8",
) -> PairRanker:
    """The ranker of that name; the one door from names to rankers.

    Args:
        name: ``bundled``, a folder, or a Hub repository.
        backend: None is ``torch`` where a device is given or there is no ONNX model, else ``onnx``.
        device: of the ``torch`` backend: ``cpu``, ``cuda``, ``mps``, …
        precision: of the ``onnx`` backend.

    Raises:
        InputError: a device for ``onnx``; and see `PairRanker.from_pretrained`.
    """
    if device is not None and backend == "onnx":
        raise InputError(f"The device {device!r} is for the torch backend: leave it out, or take that.")
    from llm_blender.rankers.pair_ranker import PairRanker

    return PairRanker.from_pretrained(name, backend=backend, precision=precision, device=device)
