"""The configuration of `Blender`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..common.configs import ConfigRecord

__all__ = ["BlenderConfig"]


@dataclass
class BlenderConfig(ConfigRecord):
    """Where `Blender` works and whether it shows how far it is.

    Attributes:
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``, …; None takes CUDA where there is one, else the CPU.
        use_tqdm: show progress bars on a terminal.
    """

    device: Any = None
    use_tqdm: bool = True
