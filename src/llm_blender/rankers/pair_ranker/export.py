"""From trained weights to the ONNX files that the core runs."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from llm_blender.rankers.checkpoints import copy_checkpoint, find_checkpoint, read_config
from llm_blender.rankers.pair_ranker.backends import load_torch
from llm_blender.rankers.pair_ranker.config import PairRankerConfig
from llm_blender.rankers.pair_ranker.late.modeling import LatePairRankerModel
from llm_blender.rankers.pair_ranker.models import AnyPairRanker
from llm_blender.rankers.pair_ranker.quantization import quantize
from llm_blender.rankers.published import Backbone, is_published

__all__ = ["export_checkpoint", "export_onnx"]

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
    model, _ = load_torch(folder, config, "cpu", "float32")
    copy_checkpoint(folder, target)
    if is_published(read_config(folder)):
        config.save(target)
        save_file(model.state_dict(), target / "model.safetensors")
        (target / "pytorch_model.bin").unlink(missing_ok=True)
    return export_onnx(model, target)


def export_onnx(model: AnyPairRanker, folder: Path) -> list[Path]:
    """Write the model as ONNX in float32, for any batch and length, and in int8, made from it.

    A model that reads pairs becomes ``onnx/model_*.onnx``, whose inputs are those of `PairBatch`, int64
    ``[batch, tokens]``, and whose output ``logits`` is ``[batch, tasks]``. A `LatePairRankerModel` becomes
    ``onnx/reader_*.onnx``, from ids and mask to ``states`` ``[batch, tokens, width]``, and ``onnx/comparer_*.onnx``,
    from these, mask, segments and ``lengths`` ``[batch]`` of an even batch (`LateBackend`) to ``logits``.
    """
    model.eval().float().cpu()
    ids, mask = torch.arange(4, 20).repeat(2, 1), torch.ones(2, 16, dtype=torch.long)
    if isinstance(model, LatePairRankerModel):
        segments = torch.tensor([[0, 1, 1, 1, 1, 0, 2, 2, 2, 2, 2, 2, 2, 2, 2, 0]] * 4)
        width = model.pretrained_model.config.hidden_size
        read = {"states": torch.randn(4, 16, width), "attention_mask": mask.repeat(2, 1), "segment_ids": segments}
        read["lengths"] = torch.tensor([9, 9, 40, 9])
        reader = _export(_Reader(model), {"input_ids": ids, "attention_mask": mask}, "states", folder, "reader")
        return [*reader, *_export(model, read, "logits", folder, "comparer")]
    segments = torch.tensor([[0, 1, 1, 1, 0, 2, 2, 2, 2, 0, 3, 3, 3, 3, 3, 0]] * 2)
    inputs = {"input_ids": ids, "attention_mask": mask, "segment_ids": segments}
    return _export(model, inputs, "logits", folder, "model")


class _Reader(nn.Module):
    def __init__(self, model: LatePairRankerModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.model.encode(input_ids, attention_mask)


def _export(model: nn.Module, inputs: dict[str, Tensor], output: str, folder: Path, name: str) -> list[Path]:
    float32, int8 = (folder / "onnx" / f"{name}_{precision}.onnx" for precision in ("fp32", "int8"))
    float32.parent.mkdir(parents=True, exist_ok=True)
    axes = {key: dict(enumerate(("batch", "tokens")[: values.dim()])) for key, values in inputs.items()}
    axes[output] = {0: "pairs"} if output == "logits" else {0: "batch", 1: "tokens"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's, on shapes that are constant here
        torch.onnx.export(
            model,
            tuple(inputs.values()),
            str(float32),
            input_names=list(inputs),
            output_names=[output],
            dynamic_axes=axes,
            opset_version=_OPSET,
            dynamo=False,  # needs no onnxscript, and gives the graph that ONNX Runtime's fusions know
        )
    quantize(float32, int8)
    return [float32, int8]
