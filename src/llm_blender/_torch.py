"""Devices, dtypes and quiet loading for torch and transformers."""

from __future__ import annotations

import queue
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from llm_blender.errors import InputError, unknown_name


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


_log: Any = logging  # has no types


@contextmanager
def without_bars() -> Iterator[None]:
    """Hide transformers' progress bars for loading and writing weights."""
    shown = _log.is_progress_bar_enabled()
    _log.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            _log.enable_progress_bar()


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Silence the progress bars, log messages and warnings of loading; callers check the result themselves."""
    verbosity = _log.get_verbosity()
    _log.set_verbosity_error()
    try:
        with without_bars(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        _log.set_verbosity(verbosity)


def load_model(kind: Any, folder: Path, **options: Any) -> tuple[Any, list[str]]:
    """Load a model from a folder by a class of transformers, without running code from there.

    Returns:
        The model, and the names of the weights that the folder lacks.
    """
    with quiet_loading():
        model, info = kind.from_pretrained(
            str(folder), output_loading_info=True, local_files_only=True, trust_remote_code=False, **options
        )
    return model, sorted(info["missing_keys"])


class DevicePool:
    """A model on one or several devices, each running one batch at a time.

    Args:
        model: of torch.
        device: e.g. ``cpu``, ``cuda:1``, ``mps``, or a list of them; None takes CUDA if available, else the CPU.
        dtype: of the weights; None keeps the model's.
        placed: whether the model is on its only device already.

    Attributes:
        parallel: number of batches that run at the same time, each called from its own thread.

    Raises:
        InputError: there is no such device.
    """

    def __init__(self, model: Any, device: Any, *, dtype: torch.dtype | None = None, placed: bool = False) -> None:
        places = parse_devices(device)[:1] if placed else parse_devices(device)
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for number, place in enumerate(places):
            copy = model if number == 0 else deepcopy(model)
            try:
                self._idle.put(copy if placed else copy.to(place, dtype))
            except (RuntimeError, AssertionError) as error:  # torch raises either for a missing device
                raise InputError(f"The device {place} cannot be used: {str(error).splitlines()[0]}") from error
        self.parallel = len(places)

    @contextmanager
    def free(self) -> Iterator[Any]:
        """Wait for a free device, and lend its copy of the model."""
        model = self._idle.get()
        try:
            yield model
        finally:
            self._idle.put(model)
