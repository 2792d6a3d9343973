"""Export of a PairRanker to the ONNX files that the core runs, in float32 and int8.

ONNX Runtime's dynamic quantisation takes one activation scale over the whole batch: a pair's logits would change with
the rest of the batch. Here weights are int8 in blocks, and ``MatMulNBits`` multiplies them with float32 activations.
The embedding table is int8 with one scale per token.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from safetensors.torch import save_file
from torch import Tensor, nn

from llm_blender.rankers.checkpoints import copy_checkpoint, find_checkpoint, read_config
from llm_blender.rankers.pair_ranker.backends import load_torch
from llm_blender.rankers.pair_ranker.config import PairRankerConfig
from llm_blender.rankers.pair_ranker.modeling import AnyPairRanker, LatePairRankerModel
from llm_blender.rankers.published import Backbone, is_published

_BLOCK = 128  # weights per scale; 32 gains nothing here and costs 1 MB more
_LARGE = 100_000  # entries from which a table of embeddings is worth quantising


def quantize(source: Path, target: Path) -> None:
    """Write the int8 version of a float32 ONNX model.

    Matrix products with constant weights and large embedding tables become int8; the rest stays as it is.
    """
    model = onnx.load(str(source))
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[Any] = []
    for node in graph.node:
        weight = constants.get(node.input[1]) if node.op_type == "MatMul" else None
        table = constants.get(node.input[0]) if node.op_type == "Gather" else None
        if weight is not None and len(weight.dims) == 2 and weight.dims[0] % _BLOCK == 0:
            nodes.append(_matmul(graph, node, numpy_helper.to_array(weight)))
        elif table is not None and np.prod(table.dims) >= _LARGE:
            nodes += _gather(graph, node, numpy_helper.to_array(table))
        else:
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, str(target))


def _constant(graph: Any, name: str, values: NDArray[Any]) -> str:
    graph.initializer.append(numpy_helper.from_array(values, name))
    return name


def _matmul(graph: Any, node: Any, weight: NDArray[np.float32]) -> Any:
    """Make a ``MatMulNBits`` node for ``x @ weight``, weight ``[K, N]``: blocks along K, zero at 128."""
    k, n = weight.shape
    blocks = weight.T.reshape(n, k // _BLOCK, _BLOCK)
    scales = np.maximum(np.abs(blocks).max(axis=-1), 1e-12) / 127
    values = np.clip(np.rint(blocks / scales[..., None]) + 128, 1, 255).astype(np.uint8)
    name = node.input[1]
    return helper.make_node(
        "MatMulNBits",
        [
            node.input[0],
            _constant(graph, f"{name}.int8", values),
            _constant(graph, f"{name}.scales", scales.astype(np.float32)),
        ],
        list(node.output),
        name=node.name,
        domain="com.microsoft",
        K=k,
        N=n,
        bits=8,
        block_size=_BLOCK,
        accuracy_level=0,  # activations stay float32: see docs/decisions/0001-int8-weights.md
    )


def _gather(graph: Any, node: Any, table: NDArray[np.float32]) -> list[Any]:
    """Make nodes that read rows of an embedding table: int8 rows, one scale each."""
    name, ids, output = node.input[0], node.input[1], node.output[0]
    scales = np.maximum(np.abs(table).max(axis=-1, keepdims=True), 1e-12) / 127
    rows = _constant(graph, f"{name}.int8", np.rint(table / scales).astype(np.int8))
    factors = _constant(graph, f"{name}.scales", scales.astype(np.float32))
    return [
        helper.make_node("Gather", [rows, ids], [f"{output}.int8"]),
        helper.make_node("Cast", [f"{output}.int8"], [f"{output}.unscaled"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Gather", [factors, ids], [f"{output}.scale"]),
        helper.make_node("Mul", [f"{output}.unscaled", f"{output}.scale"], [output]),
    ]


_OPSET = 17


def export_checkpoint(name: str, target: Path, backbone: Backbone | None = None) -> list[Path]:
    """Copy a checkpoint and export its ONNX models from its weights.

    A checkpoint published by llm-blender 0.0.2 is converted to this package's layout: ``config.json`` contains the
    encoder's configuration, and the weights are safetensors.

    Args:
        name: ``bundled``, a folder, or a Hub repository.
        target: folder to write to.
        backbone: see `PairRanker.from_pretrained`.

    Returns:
        The ONNX files, float32 and int8.

    Raises:
        NotFoundError: there is no such checkpoint.
        CheckpointError: it holds no weights.
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
    """Write the model as ONNX for any batch size and length, in float32 and int8.

    A `PairRankerModel` becomes ``onnx/model_*.onnx``, whose inputs are those of `PairBatch`, int64
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
        warnings.simplefilter("ignore")  # the tracer's warnings about shapes that are constant here
        torch.onnx.export(
            model,
            tuple(inputs.values()),
            str(float32),
            input_names=list(inputs),
            output_names=[output],
            dynamic_axes=axes,
            opset_version=_OPSET,
            dynamo=False,  # needs no onnxscript, and gives a graph that ONNX Runtime can fuse
        )
    quantize(float32, int8)
    return [float32, int8]
