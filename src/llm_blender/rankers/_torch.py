"""Weights, devices and precision of rankers that run on torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import shorten
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from llm_blender._torch import DevicePool, parse_dtype
from llm_blender.errors import CheckpointError, LLMBlenderError
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


class Replicas(DevicePool):
    """A model on one or several devices.

    Args:
        model: maps int64 tensors to one tensor.
        device: see `DevicePool`.
        dtype: ``float32``, ``bfloat16``, ``float16``; None keeps the model's.

    Raises:
        InputError: there is no such device or dtype.
    """

    def __init__(self, model: nn.Module, *, device: Any = None, dtype: Any = "float32") -> None:
        super().__init__(model.eval(), device, dtype=None if dtype is None else parse_dtype(dtype))

    def __call__(self, *inputs: NDArray[Any], method: str = "forward") -> NDArray[np.float32]:
        """Run a method of the model on the first free device."""
        with self.free() as model, torch.inference_mode():
            device = next(model.parameters()).device
            output: Tensor = getattr(model, method)(*(torch.from_numpy(array).to(device) for array in inputs))
            return np.asarray(output.float().cpu().numpy(), np.float32)
