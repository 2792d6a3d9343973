"""Devices, dtypes and quiet loading for torch and transformers."""

from __future__ import annotations

import threading
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
    """Parse devices and check that this machine has them; None takes CUDA if available, else the CPU.

    Args:
        device: a name, e.g. ``cpu``, ``cuda:1`` or ``mps``; several of them separated by commas, or in a list.

    Raises:
        InputError: a name is unknown, the machine has no such device, or the list is empty.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    names = device.split(",") if isinstance(device, str) else device
    several = list(names) if isinstance(names, list | tuple) else [names]
    try:
        places = [torch.device(place.strip() if isinstance(place, str) else place) for place in several]
    except (RuntimeError, TypeError, ValueError):
        places = []
    known = available_devices()
    if not places or any(place.type == "meta" for place in places):  # "meta" computes nothing
        raise InputError(f"Unknown device {device!r}: this machine has {_listed(known)}.")
    for place in places:
        if str(place) not in known and f"{place}:0" not in known and not _allocates(place):
            raise InputError(f"There is no device {place} on this machine: it has {_listed(known)}.")
    return places


def available_devices() -> list[str]:
    """Return the names of this machine's devices, the CPU first."""
    return [
        "cpu",
        *(f"cuda:{number}" for number in range(torch.cuda.device_count())),
        *(f"xpu:{number}" for number in range(torch.xpu.device_count())),
        *(["mps"] if torch.backends.mps.is_available() else []),
    ]


def _listed(names: list[str]) -> str:
    return "the CPU only" if names == ["cpu"] else ", ".join(names)


def _allocates(place: torch.device) -> bool:
    """Return whether a device of a further kind, such as one of a plug-in of torch, can be used."""
    if place.type in ("cuda", "xpu"):
        return False
    try:
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError, NotImplementedError):  # torch raises either for a missing device
        return False
    return True


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
        device: see `parse_devices`.
        dtype: of the weights; None keeps the model's.
        placed: whether the model is on its only device already.

    Attributes:
        devices: the devices.
        parallel: number of batches that run at the same time, each called from its own thread.

    Raises:
        InputError: there is no such device, or the model does not fit into its memory.
    """

    def __init__(self, model: Any, device: Any, *, dtype: torch.dtype | None = None, placed: bool = False) -> None:
        self.devices = parse_devices(device)[:1] if placed else parse_devices(device)
        self.parallel = len(self.devices)
        self._models = []
        for number, place in enumerate(self.devices):
            copy = model if number == 0 else deepcopy(model)
            try:
                self._models.append(copy if placed else copy.to(place, dtype))
            except (RuntimeError, AssertionError) as error:  # torch raises either for a missing device
                raise InputError(f"The device {place} cannot be used: {str(error).splitlines()[0]}") from error
        self._idle = list(range(self.parallel))
        self._given_back = threading.Condition()

    @contextmanager
    def free(self, number: int | None = None) -> Iterator[Any]:
        """Wait for a free device, or for the one with this number, and lend its copy of the model."""
        with self._given_back:
            self._given_back.wait_for(lambda: self._idle if number is None else number in self._idle)
            taken = self._idle[0] if number is None else number
            self._idle.remove(taken)
        try:
            yield self._models[taken]
        finally:
            with self._given_back:
                self._idle.append(taken)
                self._given_back.notify_all()
