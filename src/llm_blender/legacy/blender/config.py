"""The configuration of `Blender`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..common.configs import ConfigRecord

__all__ = ["BlenderConfig"]


@dataclass
class BlenderConfig(ConfigRecord):
    """The device of `Blender` and whether it shows progress bars.

    Attributes:
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``, …; None takes CUDA if available, else the CPU.
        use_tqdm: show progress bars on a terminal.
    """

    device: Any = None
    use_tqdm: bool = True
