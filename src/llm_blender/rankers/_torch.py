"""Weights, devices and precision of rankers that run on torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any, Self, TypedDict, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from llm_blender._torch import DevicePool, parse_devices, parse_dtype
from llm_blender.errors import CheckpointError, LLMBlenderError
from llm_blender.rankers.batching import ACCELERATOR_MAX_TOKENS, MAX_TOKENS, check_max_tokens
from llm_blender.rankers.checkpoints import load_weights
from llm_blender.rankers.encoders import DebertaEncoder

_Module = TypeVar("_Module", bound=nn.Module)


def load_module(
    folder: Path, make: Callable[[], _Module], rename: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None
) -> _Module:
    """Load a module with the weights of a checkpoint, in float32.

    Args:
        folder: the checkpoint.
        make: builds the module that the configuration describes.
        rename: maps the names in the file to those of the module.

    Raises:
        CheckpointError: the weights are missing, unreadable, or do not fit the module.
    """
    state = load_weights(folder)
    try:
        module = make()
        if rename is not None:
            state = rename(state)
        known = module.state_dict().keys()
        # No ranker reads an encoder's pooler, but transformers' classes save it.
        state = {name: tensor for name, tensor in state.items() if name in known or ".pooler." not in name}
        module.load_state_dict(state)
    except (LLMBlenderError, ModuleNotFoundError):
        raise
    except Exception as error:  # no such backbone, other names, other shapes
        raise CheckpointError(
            f"The weights in {folder} do not match its config.json and tokenizer.json: {shorten(str(error), 300)}"
        ) from error
    return module


def check_vocabulary(folder: Path, size: int, model: nn.Module) -> None:
    """Refuse a tokenizer whose vocabulary is larger than the model's.

    Raises:
        CheckpointError: the tokenizer has tokens without an embedding.
    """
    rows = max(module.num_embeddings for module in model.modules() if isinstance(module, nn.Embedding))
    if size > rows:
        raise CheckpointError(
            f"The tokenizer in {folder} has {size:,} tokens and the model knows {rows:,}: it is not this model's."
        )


def first_states(encoder: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the states ``[B, H]`` of the first token, ``[CLS]``, of ids and mask ``[B, T]``."""
    if isinstance(encoder, DebertaEncoder):  # its last layer computes no other states
        states: Tensor = encoder(input_ids, attention_mask, torch.zeros_like(input_ids[:, :1])).last_hidden_state
    else:
        states = encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
    return states[:, 0]


class LoadOptions(TypedDict, total=False):
    """Options with which a model is loaded on torch.

    Attributes:
        device: ``cpu``, ``cuda``, ``mps``, …, or several that share the work (``cuda:0,cuda:1``, or a list); None picks
            one.
        dtype: ``float32`` (None), ``bfloat16``, ``float16``.
        revision: branch, tag or commit on the Hub.
        max_tokens: of a batch, padding included; None takes 2,048 on a CPU and 32,768 on another device.
    """

    device: Any
    dtype: Any
    revision: str | None
    max_tokens: int | None


@dataclass(frozen=True)
class Loading:
    """`LoadOptions` that were checked, with their defaults.

    Attributes:
        devices: devices that share the work.
        dtype: ``float32``, another dtype, or ``auto``, which some rankers know.
        revision: branch, tag or commit on the Hub.
        max_tokens: of a batch.
    """

    devices: list[torch.device]
    dtype: Any
    revision: str | None
    max_tokens: int

    @classmethod
    def of(
        cls, *, device: Any = None, dtype: Any = None, revision: str | None = None, max_tokens: int | None = None
    ) -> Self:
        """Check `LoadOptions`, before anything is downloaded or loaded.

        Raises:
            InputError: there is no such device or dtype, or `max_tokens` is below 1.
        """
        devices = parse_devices(device)
        if dtype not in (None, "auto"):
            parse_dtype(dtype)
        check_max_tokens(max_tokens)
        if max_tokens is None:
            max_tokens = MAX_TOKENS if any(place.type == "cpu" for place in devices) else ACCELERATOR_MAX_TOKENS
        return cls(devices, dtype or "float32", revision, max_tokens)


class Replicas(DevicePool):
    """A model on one or several devices.

    Args:
        model: maps int64 tensors to one tensor.
        device: see `DevicePool`.
        dtype: ``float32``, ``bfloat16``, ``float16``; None keeps the model's.

    Attributes:
        ahead: number of batches to begin before the result of an earlier one is awaited, see `side_by_side`.

    Raises:
        InputError: there is no such device or dtype.
    """

    def __init__(self, model: nn.Module, *, device: Any = None, dtype: Any = "float32") -> None:
        super().__init__(model.eval(), device, dtype=None if dtype is None else parse_dtype(dtype))
        self.ahead = 2 if any(place.type == "cuda" for place in self.devices) else 0

    def __call__(self, *inputs: NDArray[Any] | Tensor, method: str = "forward", number: int | None = None) -> ArrayLike:
        """Run a method of the model on the first free device; on CUDA, the result is an array that is being computed.

        Args:
            *inputs: arrays, or tensors on any device.
            method: of the model.
            number: of the device to run on; None takes the first free one.

        Returns:
            The output in float32: an array, or a `PendingArray`, which `numpy.asarray` waits for.
        """
        output = self.run(*inputs, method=method, number=number)
        if output.device.type == "cuda":
            return PendingArray(output)
        return np.asarray(output.float().cpu().numpy(), np.float32)

    def run(self, *inputs: NDArray[Any] | Tensor, method: str = "forward", number: int | None = None) -> Tensor:
        """Do the same, and leave the output on the device, in the precision of the model."""
        with self.free(number) as model, torch.inference_mode():
            device = next(model.parameters()).device
            output: Tensor = getattr(model, method)(*(_moved(each, device) for each in inputs))
            return output


def _moved(values: NDArray[Any] | Tensor, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    if device.type == "cuda" and tensor.device.type == "cpu":  # copied while the device computes the batch before
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class PendingArray:
    """A tensor that CUDA still computes, with its copy in the processor's memory.

    The copy is queued behind the computation, so that the processor prepares the next batch meanwhile.
    `numpy.asarray` waits for it.

    Args:
        output: the tensor.
    """

    def __init__(self, output: Tensor) -> None:
        self._array = torch.empty(output.shape, dtype=torch.float32, pin_memory=True)
        self._array.copy_(output.float(), non_blocking=True)
        self._copied: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._copied.record(torch.cuda.current_stream(output.device))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Wait for the values and return them."""
        self._copied.synchronize()
        return np.asarray(self._array.numpy(), dtype or np.float32)
