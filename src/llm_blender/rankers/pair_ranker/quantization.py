"""Float32 ONNX to int8, so that a pair's logits do not depend on the batch.

ONNX Runtime's dynamic quantisation takes one activation scale over the whole batch: a pair's logits would change
with its neighbours. Here weights are int8 in blocks, and ``MatMulNBits`` multiplies them with float32 activations. The
embedding table is int8 with a scale for each token.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

__all__ = ["quantize"]

_BLOCK = 128  # weights that share a scale; 32 gains nothing here and costs 1 MB more
_LARGE = 100_000  # entries from which a table of embeddings is worth quantising


def quantize(source: Path, target: Path) -> None:
    """Write the int8 twin of a float32 ONNX model.

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
    """``x @ weight`` with weight ``[K, N]`` as ``MatMulNBits``: blocks along K, zero at 128."""
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
    """Rows of an embedding table: int8 rows times a scale each."""
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
