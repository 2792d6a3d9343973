"""What a text metric gives, and what it takes: predictions beside references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_blender.errors import InputError, MissingExtraError

__all__ = ["Pairs", "References", "Scores", "check_texts", "import_models", "nobody"]

Floats = NDArray[np.float64]

References = Sequence[str] | Sequence[Sequence[str]]
"""One reference per prediction, or several."""


def import_models(metric: str) -> Any:
    """Import the module of the models, which need the extra ``metrics``.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return import_module("llm_blender.metrics._models")
    except ModuleNotFoundError as error:
        raise MissingExtraError(metric, "metrics") from error


@dataclass(frozen=True, eq=False)
class Scores:
    """One metric of n predictions.

    Attributes:
        metric: its name.
        values: ``[n]``, higher is better.
        parts: ``[n]`` each: what the metric is made of (precision, recall, …).
        settings: what the values depend on besides the texts.
        corpus: of all predictions taken as one text, where that is not the mean: BLEU as papers report it.
        truncated: how many predictions the model could not read to their end, or not to the end of the reference.
    """

    metric: str
    values: Floats
    parts: Mapping[str, Floats] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    corpus: float | None = None
    truncated: int = 0

    @property
    def mean(self) -> float:
        """Of `values`."""
        return float(self.values.mean())


@dataclass(frozen=True)
class Pairs:
    """Predictions and references that were checked, and each prediction beside each of its references.

    Attributes:
        predictions: n of them.
        references: at least one per prediction.
    """

    predictions: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.predictions)

    @property
    def flat(self) -> tuple[list[str], list[str]]:
        """Prediction and reference of each of the m pairs, those of the first prediction first."""
        pairs = [
            (text, one) for text, several in zip(self.predictions, self.references, strict=True) for one in several
        ]
        return [text for text, _ in pairs], [one for _, one in pairs]

    def best(self, values: NDArray[np.floating]) -> Floats:
        """``[n]`` of ``[m]``: a prediction has the score of that reference which suits it best."""
        starts = np.cumsum([0, *(len(several) for several in self.references[:-1])])
        return np.maximum.reduceat(np.asarray(values, np.float64), starts)

    def examples(self, pairs: NDArray[np.bool_]) -> int:
        """How many predictions have a pair of which something is true, ``[m]``."""
        return int(self.best(pairs.astype(np.float64)).sum())


def check_texts(predictions: Sequence[str], references: References) -> Pairs:
    """Predictions and references as every metric takes them.

    An empty prediction is a bad answer and is scored as one; an empty reference says nothing and is refused.

    Raises:
        InputError: there is no prediction, the lists differ in length, something is no text, a prediction has no
            reference, or a reference is empty.
    """
    if isinstance(predictions, str) or isinstance(references, str):
        raise InputError("Predictions and references are lists of texts: put a single one into a list.")
    if len(predictions) != len(references):
        raise InputError(f"{len(predictions)} predictions need as many references, not {len(references)}.")
    if not len(predictions):
        raise InputError("There are no predictions: give at least one.")
    several: list[tuple[str, ...]] = []
    for number, (text, given) in enumerate(zip(predictions, references, strict=True)):
        if not isinstance(text, str):
            raise InputError(f"Prediction {number} (counted from 0) is no text but {type(text).__name__}.")
        found = (given,) if isinstance(given, str) or not isinstance(given, Sequence) else tuple(given)
        if not found or given is None:
            raise InputError(f"Prediction {number} (counted from 0) has no reference: leave it out.")
        for reference in found:
            if not isinstance(reference, str):
                raise InputError(
                    f"A reference of prediction {number} (counted from 0) is no text but {type(reference).__name__}."
                )
            if not reference.strip():
                raise InputError(f"A reference of prediction {number} (counted from 0) is empty: leave it out.")
        several.append(found)
    return Pairs(tuple(predictions), tuple(several))


def nobody(done: int, total: int) -> None:
    """Progress that nobody watches."""
