"""What runs the two parts of a `LatePairRankerModel`: ONNX Runtime in the core, torch in the extra."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from llm_blender.rankers.pair_ranker.backends import load_session, load_torch
from llm_blender.rankers.pair_ranker.config import PairRankerConfig
from llm_blender.rankers.pair_ranker.input_format import PairBatch

__all__ = ["LateBackend", "LateOnnxBackend", "LateTorchBackend", "Reading"]

Reading = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""States ``[2 P, T, H]``, mask and segments ``[2 P, T]``, whole lengths ``[2 P]``: P left candidates, P right ones."""


class LateBackend(Protocol):
    """Runs batches of texts, then batches of pairs of what it has read."""

    parallel: int
    """How many batches it runs at the same time, called from as many threads."""

    def read(self, batch: PairBatch) -> NDArray[np.float32]:
        """States ``[B, T, H]`` of sequences with one candidate each."""
        ...

    def compare(self, reading: Reading) -> NDArray[np.float32]:
        """Logits ``[P, tasks]``."""
        ...


class LateOnnxBackend:
    """ONNX Runtime, on the two models of `export_late_onnx`.

    Raises:
        CheckpointError: a file is missing or another model.
    """

    parallel = 1

    def __init__(self, reader: Path, comparer: Path, *, threads: int | None = None) -> None:
        self._reader = load_session(reader, {"input_ids", "attention_mask"}, threads=threads)
        self._comparer = load_session(comparer, {"states", "attention_mask", "segment_ids", "lengths"}, threads=threads)

    def read(self, batch: PairBatch) -> NDArray[np.float32]:
        """States ``[B, T, H]``."""
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        (states,) = self._reader.run(["states"], inputs)
        return np.asarray(states, np.float32)

    def compare(self, reading: Reading) -> NDArray[np.float32]:
        """Logits ``[P, tasks]``."""
        names = ("states", "attention_mask", "segment_ids", "lengths")
        (logits,) = self._comparer.run(["logits"], dict(zip(names, reading, strict=True)))
        return np.asarray(logits, np.float32)


class LateTorchBackend:
    """PyTorch; for arguments and errors see `TorchBackend`."""

    def __init__(self, folder: Path, config: PairRankerConfig, *, device: Any = None, dtype: str = "float32") -> None:
        self.model, self._replicas = load_torch(folder, config, device, dtype)
        self.parallel: int = self._replicas.parallel

    def read(self, batch: PairBatch) -> NDArray[np.float32]:
        """States ``[B, T, H]``, by the first device that is free."""
        return self._run(batch.input_ids, batch.attention_mask, method="encode")

    def compare(self, reading: Reading) -> NDArray[np.float32]:
        """Logits ``[P, tasks]``, by the first device that is free."""
        return self._run(*reading)

    def _run(self, *inputs: NDArray[Any], method: str = "forward") -> NDArray[np.float32]:
        output: NDArray[np.float32] = self._replicas(*inputs, method=method)
        return output
