"""From trained weights to the ONNX files that the core runs."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file

from llm_blender.rankers.checkpoints import copy_checkpoint, find_checkpoint, read_config
from llm_blender.rankers.pair_ranker.backends import TorchBackend
from llm_blender.rankers.pair_ranker.config import PairRankerConfig
from llm_blender.rankers.pair_ranker.modeling import PairRankerModel
from llm_blender.rankers.pair_ranker.quantization import quantize
from llm_blender.rankers.published import Backbone, is_published

__all__ = ["export_checkpoint", "export_onnx"]

_INPUTS = ("input_ids", "attention_mask", "segment_ids")
_OPSET = 17


def export_checkpoint(name: str, target: Path, backbone: Backbone | None = None) -> list[Path]:
    """Copy a checkpoint and make its ONNX models anew from its weights.

    One that llm-blender 0.0.2 published becomes one of this package's: its ``config.json`` says how the encoder is
    built, and its weights are safetensors.

    Args:
        name: ``bundled``, a folder, or a Hub repository.
        target: folder to write to.
        backbone: see `PairRanker.from_pretrained`.

    Returns:
        The ONNX files, float32 and int8.

    Raises:
        NotFoundError: there is no such checkpoint.
        CheckpointError: it lacks the weights.
    """
    folder = find_checkpoint(name)
    config = PairRankerConfig.load(folder, backbone)
    backend = TorchBackend(folder, config, device="cpu")
    copy_checkpoint(folder, target)
    if is_published(read_config(folder)):
        config.save(target)
        save_file(backend.model.state_dict(), target / "model.safetensors")
        (target / "pytorch_model.bin").unlink(missing_ok=True)
    return export_onnx(backend.model, target)


def export_onnx(model: PairRankerModel, folder: Path) -> list[Path]:
    """Write ``onnx/model_fp32.onnx`` and, made from it, ``onnx/model_int8.onnx``."""
    float32, int8 = (folder / "onnx" / f"model_{precision}.onnx" for precision in ("fp32", "int8"))
    _export_fp32(model, float32)
    quantize(float32, int8)
    return [float32, int8]


def _export_fp32(model: PairRankerModel, path: Path) -> None:
    """Write the model as ONNX in float32, for any batch and length.

    Inputs are those of `PairBatch`, int64 ``[batch, tokens]``; the output ``logits`` is ``[batch, tasks]``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = torch.arange(4, 20).repeat(2, 1)
    segments = torch.tensor([[0, 1, 1, 1, 0, 2, 2, 2, 2, 0, 3, 3, 3, 3, 3, 0]]).repeat(2, 1)
    axes = {name: {0: "batch", 1: "tokens"} for name in _INPUTS} | {"logits": {0: "batch"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's, on shapes that are constant here
        torch.onnx.export(
            model.eval().float().cpu(),
            (ids, torch.ones_like(ids), segments),
            str(path),
            input_names=list(_INPUTS),
            output_names=["logits"],
            dynamic_axes=axes,
            opset_version=_OPSET,
            dynamo=False,  # needs no onnxscript, and gives the graph that ONNX Runtime's fusions know
        )
