"""Devices and precisions by name."""

from __future__ import annotations

from typing import Any

import torch

from llm_blender._names import unknown_name
from llm_blender.errors import InputError

__all__ = ["parse_devices", "parse_dtype"]


def parse_devices(device: Any) -> list[torch.device]:
    """One or several devices by name.

    Raises:
        InputError: a name is unknown, or there is none.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    several = list(device) if isinstance(device, list | tuple) else [device]
    try:
        places = [torch.device(place) for place in several]
    except (RuntimeError, TypeError, ValueError):
        places = []
    if not places:
        raise InputError(f"Unknown device {device!r}: cpu, cuda, cuda:1, mps, …, or a list of them.")
    return places


def parse_dtype(name: Any) -> torch.dtype:
    """A precision by name.

    Raises:
        InputError: it is unknown.
    """
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    found = known.get(str(name).removeprefix("torch."))
    if found is None:
        raise unknown_name("dtype", str(name), known)
    return found
