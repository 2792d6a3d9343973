"""Input and result of every text metric: predictions with references, and their scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_blender.errors import InputError, MissingExtraError

Floats = NDArray[np.float64]

References = Sequence[str] | Sequence[Sequence[str]]
"""One reference per prediction, or several."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of n predictions by one metric.

    Attributes:
        metric: name.
        values: ``[n]``, higher is better.
        parts: components of the metric (precision, recall, …), ``[n]`` each.
        settings: everything besides the texts that the values depend on.
        corpus: score of all predictions taken as one text, if that is not the mean: BLEU as papers report it.
        truncated: number of predictions that were cut to the model's limit, or whose reference was.
    """

    metric: str
    values: Floats
    parts: Mapping[str, Floats] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    corpus: float | None = None
    truncated: int = 0

    @property
    def mean(self) -> float:
        """Mean of `values`."""
        return float(self.values.mean())


@dataclass(frozen=True)
class Pairs:
    """Checked predictions with their references.

    Attributes:
        predictions: n texts.
        references: at least one per prediction.
    """

    predictions: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.predictions)

    @property
    def flat(self) -> tuple[list[str], list[str]]:
        """Predictions and references of all m pairs, as two lists; pairs of the first prediction come first."""
        pairs = [
            (text, one) for text, several in zip(self.predictions, self.references, strict=True) for one in several
        ]
        return [text for text, _ in pairs], [one for _, one in pairs]

    def best(self, values: NDArray[np.floating]) -> Floats:
        """Reduce the scores of pairs ``[m]`` to predictions ``[n]``: the score with the best reference counts."""
        starts = np.cumsum([0, *(len(several) for several in self.references[:-1])])
        return np.maximum.reduceat(np.asarray(values, np.float64), starts)

    def examples(self, pairs: NDArray[np.bool_]) -> int:
        """Count the predictions with at least one true pair, from ``[m]``."""
        return int(self.best(pairs.astype(np.float64)).sum())


def check_texts(predictions: Sequence[str], references: References) -> Pairs:
    """Check the predictions and references of a metric.

    An empty prediction is a bad answer and is scored as one; an empty reference is refused.

    Raises:
        InputError: there is no prediction, the lists differ in length, a prediction or reference is not a text, a
            prediction has no reference, or a reference is empty.
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


def no_progress(done: int, total: int) -> None:
    """Ignore progress; for callers that pass no `progress`."""


@contextmanager
def metrics_extra(what: str) -> Iterator[None]:
    """Import libraries of the extra ``metrics`` in the ``with`` block.

    Raises:
        MissingExtraError: one is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(what, "metrics") from error
