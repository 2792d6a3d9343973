"""What the modules of this package share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(−x)) without overflow; NaN stays NaN."""
    return (1 + np.tanh(x / 2)) / 2
