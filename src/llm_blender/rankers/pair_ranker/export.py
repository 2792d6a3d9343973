"""Export of a PairRanker to the ONNX files that the core runs, in float32 and int8.

ONNX Runtime's dynamic quantisation takes one activation scale over the whole batch: a pair's logits would change with
the rest of the batch. Here each row of activations has its own scale, and two int8 numbers for each activation: one
for its value, one for what that rounds away (docs/decisions/0001-int8-weights.md). Weights are int8 with one scale per
output. The embedding table is int8 with one scale per token.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
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
from llm_blender.rankers.pair_ranker.late import COMPARER_INPUTS, READINGS
from llm_blender.rankers.pair_ranker.late_onnx import Comparer, Reader, example
from llm_blender.rankers.pair_ranker.modeling import AnyPairRanker, LatePairRankerModel
from llm_blender.rankers.published import Backbone, is_published

_LARGE = 100_000  # entries from which a table of embeddings is worth quantising
_WEIGHT = 127  # weights are integers from -127 to 127
_ACTIVATION = 63
"""Activations are integers from -63 to 63, stored as 1 to 127.

Processors with AVX2 and without VNNI add two products in 16 bits, which must not overflow: 2 * 127 * 127 < 2**15.
"""
_ZERO = 64
_FINER = 2 * _ACTIVATION  # how much finer the second integer of an activation is: the first is at most half a step off


def quantize(source: Path, target: Path) -> None:
    """Write the int8 version of a float32 ONNX model.

    Matrix products with constant weights and large embedding tables become int8; the rest stays as it is.
    """
    model = onnx.load(str(source))
    graph = _Quantized(model.graph)
    for node in model.graph.node:
        weight = graph.constants.get(node.input[1]) if node.op_type == "MatMul" else None
        table = graph.constants.get(node.input[0]) if node.op_type == "Gather" else None
        if weight is not None and len(weight.dims) == 2:
            graph.matmul(node, numpy_helper.to_array(weight))
        elif table is not None and np.prod(table.dims) >= _LARGE:
            graph.gather(node, numpy_helper.to_array(table))
        else:
            graph.nodes.append(node)
    used = {name for node in graph.nodes for name in node.input}
    kept = [tensor for tensor in graph.constants.values() if tensor.name in used]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(graph.nodes)
    model.graph.initializer.extend(kept)
    if all(opset.domain != "com.microsoft" for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, str(target))


class _Quantized:
    """Nodes and constants of the int8 version of a graph.

    Attributes:
        constants: by name.
        nodes: in order.
    """

    def __init__(self, graph: Any) -> None:
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.nodes: list[Any] = []
        self._rows: dict[str, tuple[str, str, str, str]] = {}

    def matmul(self, node: Any, weight: NDArray[np.float32]) -> None:
        """Add nodes for ``x @ weight``, x ``[..., K]`` and weight ``[K, N]``."""
        x, name = node.input[0], node.input[1]
        if x not in self._rows:
            self._rows[x] = self._quantize(x)
        value, rest, scale, shape = self._rows[x]
        steps = np.maximum(np.abs(weight).max(axis=0), 1e-12) / _WEIGHT
        integers = self._constant(f"{name}.int8", np.rint(weight / steps).astype(np.int8))
        products = [
            self._node(
                "MatMulIntegerToFloat",
                [
                    rows,
                    integers,
                    self._constant("one", np.float32(1)),
                    self._constant(f"{name}.scales{finer}", (steps / finer).astype(np.float32)),
                    self._constant("zero.activation", np.uint8(_ZERO)),
                    self._constant("zero.weight", np.int8(0)),
                ],
                domain="com.microsoft",
            )
            for rows, finer in ((value, 1), (rest, _FINER))
        ]
        whole = self._node("Mul", [self._node("Add", products), scale])
        size = self._constant(f"size.{weight.shape[1]}", np.array([weight.shape[1]]))
        shape = self._node("Concat", [shape, size], axis=0)
        self._node("Reshape", [whole, shape], output=node.output[0])

    def gather(self, node: Any, table: NDArray[np.float32]) -> None:
        """Add nodes that read rows of an embedding table: int8 rows, one scale each."""
        name, ids = node.input[0], node.input[1]
        steps = np.maximum(np.abs(table).max(axis=-1, keepdims=True), 1e-12) / _WEIGHT
        rows = self._constant(f"{name}.int8", np.rint(table / steps).astype(np.int8))
        scales = self._constant(f"{name}.scales", steps.astype(np.float32))
        integers = self._node("Cast", [self._node("Gather", [rows, ids])], to=onnx.TensorProto.FLOAT)
        self._node("Mul", [integers, self._node("Gather", [scales, ids])], output=node.output[0])

    def _quantize(self, x: str) -> tuple[str, str, str, str]:
        """Add nodes for activations ``[..., K]``; return the names of two integers each, of scales, and of the shape.

        The integers are ``[R, K]``, the scales ``[R, 1]``, one for each row; the shape is that of the leading axes.
        """
        width = self._node("Shape", [x], start=-1)
        rows = self._node("Reshape", [x, self._node("Concat", [self._constant("any", np.array([-1])), width], axis=0)])
        largest = self._node("ReduceMax", [self._node("Abs", [rows])], axes=[1], keepdims=1)
        scale = self._node("Mul", [largest, self._constant("step", np.float32(1 / _ACTIVATION))])
        scale = self._node("Max", [scale, self._constant("tiny", np.float32(1e-12))])
        steps = self._node("Reshape", [scale, self._constant("any", np.array([-1]))])
        zero = self._constant("zero.activation", np.uint8(_ZERO))
        zeros = self._node("Expand", [zero, self._node("Shape", [steps])])
        value = self._node("QuantizeLinear", [rows, steps, zeros], axis=0)
        rest = self._node("Sub", [rows, self._node("DequantizeLinear", [value, steps, zeros], axis=0)])
        finer = self._node("Mul", [steps, self._constant("finer", np.float32(1 / _FINER))])
        rest = self._node("QuantizeLinear", [rest, finer, zeros], axis=0)
        return value, rest, scale, self._node("Shape", [x], end=-1)

    def _constant(self, name: str, values: Any) -> str:
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.asarray(values), name)
        return name

    def _node(self, kind: str, inputs: list[str], *, output: str | None = None, **attributes: Any) -> str:
        output = output or f"int8.{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output


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
    ``onnx/reader_*.onnx`` and ``onnx/comparer_*.onnx`` (`llm_blender.rankers.pair_ranker.late_onnx`).
    """
    model.eval().float().cpu()
    if isinstance(model, LatePairRankerModel):
        ids, readings = example(model)
        axes = {name: {1: "tokens"} for name in ("input_ids", *READINGS)}
        reader = _export(Reader(model), {"input_ids": ids}, READINGS, axes, folder, "reader")
        inputs = dict(zip(COMPARER_INPUTS, readings, strict=True))
        axes = {name: {1: name.partition("_")[0]} for name in inputs if name != "lengths"}
        return [*reader, *_export(Comparer(model), inputs, ["logits"], axes, folder, "comparer")]
    ids, mask = torch.arange(4, 20).repeat(2, 1), torch.ones(2, 16, dtype=torch.long)
    segments = torch.tensor([[0, 1, 1, 1, 0, 2, 2, 2, 2, 0, 3, 3, 3, 3, 3, 0]] * 2)
    inputs = {"input_ids": ids, "attention_mask": mask, "segment_ids": segments}
    axes = {name: {0: "batch", 1: "tokens"} for name in inputs} | {"logits": {0: "batch"}}
    return _export(model, inputs, ["logits"], axes, folder, "model")


def _export(
    model: nn.Module,
    inputs: dict[str, Tensor],
    outputs: Sequence[str],
    axes: dict[str, dict[int, str]],
    folder: Path,
    name: str,
) -> list[Path]:
    float32, int8 = (folder / "onnx" / f"{name}_{precision}.onnx" for precision in ("fp32", "int8"))
    float32.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's warnings about shapes that are constant here
        torch.onnx.export(
            model,
            tuple(inputs.values()),
            str(float32),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=axes,
            opset_version=_OPSET,
            custom_opsets={"com.microsoft": 1},
            dynamo=False,  # needs no onnxscript, and gives a graph that ONNX Runtime can fuse
        )
    quantize(float32, int8)
    return [float32, int8]
