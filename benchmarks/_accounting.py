"""Floating-point operations of an encoder's batches, the peak of this machine, and the batches' bare matrix products.

Operations are counted from shapes: a product ``[m, k] @ [k, n]`` takes 2 m k n. With H the width, F the width of the
feed-forward network, n the tokens of a sequence and k the tokens that each attends to, a layer takes

    8 n H² (query, key, value, output)  +  4 n H F (feed-forward)  +  4 n k H (scores, mixing)

and a DeBERTa's another 4 n k H (content to position, position to content; arXiv 2006.03654, equation 4).

- ``read``: the reading layers of each text, k = n.
- ``compare``: the comparing layers of each pair, both sides, k = the tokens of both. A projection that a backend keeps
  for all pairs of a text counts in each pair: `least` counts those of the first comparing layer once a text.
- ``pairs``: all layers of a sequence with both candidates, k = n. Where only the states of three markers are used
  (pooling ``marker`` of a DeBERTa), the last layer has three queries, and keys and values of all tokens.

Useful operations are those of the tokens without padding; computed ones have each row padded to its batch's width. Not
counted, since below 1 %: embeddings, norms, activations, softmax, the head. Counted as multiplications of float32,
whatever the precision.
"""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llm_blender.testing import CountedBatch
from llm_blender.testing.work import layers_of

_BERT = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "mpnet")
_DEBERTA = ("deberta", "deberta-v2")


@dataclass(frozen=True)
class Shape:
    """Sizes of an encoder.

    Attributes:
        layers: number of layers of each part (`llm_blender.testing.work.layers_of`).
        width: of a state.
        inner: width of the feed-forward network.
        heads: of attention.
        positions: whether attention has terms of relative positions (DeBERTa).
        last: tokens whose states the last layer computes; None for all.
    """

    layers: dict[str, int]
    width: int
    inner: int
    heads: int
    positions: bool = False
    last: int | None = None

    @classmethod
    def of(cls, config: Any) -> Shape | None:
        """Read the sizes from a `PairRankerConfig`; None for an encoder whose layers are of another kind."""
        backbone = config.backbone
        kind = backbone.get("model_type")
        if kind not in (*_BERT, *_DEBERTA):
            return None
        deberta = kind in _DEBERTA
        return cls(
            dict(layers_of(config)),
            int(backbone["hidden_size"]),
            int(backbone["intermediate_size"]),
            int(backbone["num_attention_heads"]),
            deberta,
            3 if deberta and config.pooling == "marker" else None,
        )

    def useful(self, batches: Iterable[CountedBatch]) -> float:
        """Count the operations of the tokens."""
        return sum(self._part(batch, np.array(batch.lengths)) for batch in batches)

    def computed(self, batches: Iterable[CountedBatch]) -> float:
        """Count the operations of the tokens and the padding."""
        return sum(self._part(batch, np.array(batch.widths)) for batch in batches)

    def least(self, batches: Iterable[CountedBatch]) -> float:
        """Count the useful operations, query, key and value of the first comparing layer once a text."""
        batches = list(batches)
        tokens = {part: sum(sum(b.lengths) for b in batches if b.part == part) for part in ("read", "compare")}
        return self.useful(batches) - 6 * self.width**2 * (tokens["compare"] - tokens["read"])

    def _part(self, batch: CountedBatch, lengths: np.ndarray) -> float:
        keys = lengths
        if batch.part == "compare":
            left, right = np.split(lengths, 2)
            keys = np.tile(left + right, 2)
        whole = self._layer(lengths, lengths, keys)
        if self.last is None or batch.part != "pairs":
            return self.layers[batch.part] * whole
        return (self.layers["pairs"] - 1) * whole + self._layer(np.full_like(lengths, self.last), lengths, keys)

    def _layer(self, queries: np.ndarray, tokens: np.ndarray, keys: np.ndarray) -> float:
        width, pairs = self.width, float((queries * keys).sum())
        linear = 4.0 * width * ((width + self.inner) * queries.sum() + width * tokens.sum())
        return linear + 4.0 * width * pairs * (2 if self.positions else 1)


class Products:
    """Bare float32 matrix products: the peak of this machine, and those of batches, without what lies between them.

    They run in torch where it is installed, else in NumPy, whose threads the environment sets.

    Attributes:
        library: that multiplies.
    """

    def __init__(self, threads: int, clock: Callable[[], float]) -> None:
        self._clock = clock
        try:
            import torch
        except ModuleNotFoundError:
            self.library, self._make = "numpy", lambda *shape: np.ones(shape, np.float32)
            self._multiply: Callable[[Any, Any], Any] = np.matmul
        else:
            torch.set_num_threads(threads)
            self.library, self._make, self._multiply = "torch", torch.ones, torch.matmul

    def peak(self, size: int = 1_536, seconds: float = 0.5) -> float:
        """Return the operations a second of products of square matrices: the best of as many as fit into `seconds`."""
        left, right = self._make(size, size), self._make(size, size)
        best, end = float("inf"), time.perf_counter() + seconds
        while time.perf_counter() < end:
            best = min(best, self._time(left, right))
        return 2 * size**3 / best

    def seconds(self, shape: Shape, batches: Iterable[CountedBatch]) -> float:
        """Return the time that the products of these batches take, padding included.

        Batches of one shape are measured once, in one layer, and multiplied by their number and that of the layers.
        """
        sizes = Counter((batch.part, *_product(batch)) for batch in batches)
        return sum(
            count * shape.layers[part] * self._layer(shape, rows, tokens, keys)
            for (part, rows, tokens, keys), count in sizes.items()
        )

    def _layer(self, shape: Shape, rows: int, tokens: int, keys: int) -> float:
        width, inner, size = shape.width, shape.inner, shape.width // shape.heads
        states, square = self._make(rows * tokens, width), self._make(width, width)
        wide, up, down = self._make(rows * tokens, inner), self._make(width, inner), self._make(inner, width)
        queries, keyed = self._make(rows * shape.heads, tokens, size), self._make(rows * shape.heads, size, keys)
        weights, values = self._make(rows * shape.heads, tokens, keys), self._make(rows * shape.heads, keys, size)
        total = 4 * self._time(states, square) + self._time(states, up) + self._time(wide, down)
        return total + (3 if shape.positions else 1) * self._time(queries, keyed) + self._time(weights, values)

    def _time(self, left: Any, right: Any) -> float:
        started = self._clock()
        self._multiply(left, right)
        return self._clock() - started


def processor() -> str:
    """Return the model of the CPU, and those of its instructions that speed up products."""
    information = Path("/proc/cpuinfo")
    if not information.exists():
        return platform.processor() or platform.machine()
    lines = (line.partition(":") for line in information.read_text().splitlines())
    values = {name.strip(): value.strip() for name, _, value in lines}
    known = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
    flags = [flag for flag in known if flag in values.get("flags", "").split()]
    return f"{values.get('model name', platform.machine())} ({', '.join(flags)})"


def _product(batch: CountedBatch) -> tuple[int, int, int]:
    """Return the rows of a batch, their tokens and their keys; a pair without padding is one row of both texts."""
    if len(set(batch.widths)) > 1:
        return 1, sum(batch.widths), sum(batch.widths)
    width = batch.widths[0]
    return len(batch.widths), width, 2 * width if batch.part == "compare" else width
