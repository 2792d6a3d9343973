"""Devices, dtypes and quiet loading for torch and transformers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.utils import logging

from llm_blender.errors import InputError, unknown_name

__all__ = ["parse_devices", "parse_dtype", "quiet_loading"]


def parse_devices(device: Any) -> list[torch.device]:
    """Parse the name of a device or a list of names; None takes CUDA if available, else the CPU.

    Raises:
        InputError: a name is unknown, or the list is empty.
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
    """Parse the name of a dtype.

    Raises:
        InputError: the name is unknown.
    """
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    found = known.get(str(name).removeprefix("torch."))
    if found is None:
        raise unknown_name("dtype", str(name), known)
    return found


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Silence the progress bars, log messages and warnings of loading; callers check the result themselves."""
    log: Any = logging  # has no types
    bars, verbosity = log.is_progress_bar_enabled(), log.get_verbosity()
    log.disable_progress_bar()
    log.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()
