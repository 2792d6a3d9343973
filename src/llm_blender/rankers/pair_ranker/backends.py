"""What runs the model: ONNX Runtime in the core, torch in the extra. Both are functions from a batch to logits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from llm_blender.errors import CheckpointError, MissingExtraError
from llm_blender.rankers.pair_ranker.config import PairRankerConfig
from llm_blender.rankers.pair_ranker.input_format import PairBatch

__all__ = ["Backend", "OnnxBackend", "TorchBackend"]


class Backend(Protocol):
    """Runs a batch."""

    def __call__(self, batch: PairBatch) -> NDArray[np.float32]:
        """Logits ``[B, tasks]``."""
        ...


class OnnxBackend:
    """ONNX Runtime.

    Args:
        path: the model.
        threads: None takes the processors that this process may use.
        providers: ONNX Runtime's execution providers, e.g. ``["CUDAExecutionProvider"]``.

    Raises:
        CheckpointError: the file is not a PairRanker in ONNX.
    """

    def __init__(self, path: Path, *, threads: int | None = None, providers: list[str] | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads or available_processors()
        # Batches come in all lengths; a plan per shape would pile up memory for reuse that never happens.
        options.enable_mem_pattern = False
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=providers or ["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime has no error of its own for this
            raise CheckpointError(f"{path} is not an ONNX model that can be loaded: {error}") from error
        names = {value.name for value in self._session.get_inputs()}
        if names != {"input_ids", "attention_mask", "segment_ids"}:
            raise CheckpointError(f"{path} is not a PairRanker: its inputs are {', '.join(sorted(names))}.")

    def __call__(self, batch: PairBatch) -> NDArray[np.float32]:
        """Logits ``[B, tasks]``."""
        inputs = {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "segment_ids": batch.segment_ids,
        }
        (logits,) = self._session.run(["logits"], inputs)
        return np.asarray(logits, np.float32)


class TorchBackend:
    """PyTorch.

    Args:
        folder: the checkpoint, with ``model.safetensors``.
        config: of the checkpoint.
        device: e.g. ``cpu``, ``cuda:1``, ``mps``; None takes CUDA where there is one, else the CPU.
        dtype: ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        MissingExtraError: torch is not installed.
        CheckpointError: the weights are missing or not this model's.
    """

    def __init__(self, folder: Path, config: PairRankerConfig, *, device: Any = None, dtype: str = "float32") -> None:
        try:
            import safetensors.torch
            import torch

            from llm_blender.rankers.pair_ranker.modeling import PairRankerModel
        except ModuleNotFoundError as error:
            raise MissingExtraError("The torch backend", "torch") from error
        path = folder / "model.safetensors"
        if not path.is_file():
            raise CheckpointError(f"{folder} holds no model.safetensors.")
        try:
            model = PairRankerModel(config)
            state = safetensors.torch.load_file(path)
            model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
        except Exception as error:  # no such backbone, a bare safetensors error, other shapes
            raise CheckpointError(f"{path} does not hold the weights that config.json describes: {error}") from error
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = model.to(self.device, getattr(torch, dtype)).eval()

    def __call__(self, batch: PairBatch) -> NDArray[np.float32]:
        """Logits ``[B, tasks]``."""
        import torch

        arrays = (batch.input_ids, batch.attention_mask, batch.segment_ids)
        with torch.inference_mode():
            logits = self.model(*(torch.from_numpy(array).to(self.device) for array in arrays))
        return np.asarray(logits.float().cpu().numpy(), np.float32)


def available_processors() -> int:
    """Processors that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS or Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1
