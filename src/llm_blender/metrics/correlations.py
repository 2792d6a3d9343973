"""Correlation of two judges of the same candidates: the four measures of LLM-Blender (arXiv 2306.02561).

All take two tables ``[n, c]``: a row per example, a column per candidate (one LLM per column).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llm_blender.errors import InputError

Floats = NDArray[np.float64]


def pearson(a: ArrayLike, b: ArrayLike) -> float:
    """Compute Pearson's correlation of each column over the examples, averaged over the columns.

    A column in which `a` or `b` is constant has no correlation and is left out of the average.

    Args:
        a: ``[n, c]`` scores or ranks.
        b: ``[n, c]`` scores or ranks of the same candidates by another judge.

    Returns:
        From −1 to 1; NaN if all columns are constant, as they are with a single example.

    Raises:
        InputError: the tables differ in shape, are empty, or hold NaN or infinity.
    """
    return _mean(column_correlations(a, b))


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Compute Spearman's rank correlation of each column over the examples, averaged over the columns.

    Equal values share the mean of their ranks; constant columns are left out as in `pearson`.

    Args:
        a: ``[n, c]`` scores or ranks.
        b: ``[n, c]`` scores or ranks of the same candidates by another judge.

    Returns:
        From −1 to 1; NaN if all columns are constant.

    Raises:
        InputError: as for `pearson`.
    """
    one, other = _tables(a, b)
    ranked = (np.stack([_average_ranks(column) for column in table.T], axis=1) for table in (one, other))
    return _mean(column_correlations(*ranked))


def spearman_footrule(a: ArrayLike, b: ArrayLike) -> float:
    """Compute Spearman's footrule, Σ_j |a_j − b_j| over the candidates of a row, averaged over the examples; 0 is best.

    Args:
        a: ``[n, c]`` ranks.
        b: ``[n, c]`` ranks of the same candidates by another judge.

    Raises:
        InputError: as for `pearson`.
    """
    one, other = _tables(a, b)
    return float(np.abs(one - other).sum(axis=1).mean())


def set_based(a: ArrayLike, b: ArrayLike) -> float:
    """Compute the overlap of the best k, |A ∩ B| / |A ∪ B|, averaged over k = 1 … c and over the examples; 1 is best.

    Args:
        a: ``[n, c]`` ranks, 1 is best; of equal ones the earlier column comes first, as in LLM-Blender 0.0.2.
        b: ``[n, c]`` ranks of the same candidates by another judge.

    Raises:
        InputError: as for `pearson`.
    """
    one, other = (_places(table) for table in _tables(a, b))
    k = np.arange(1, one.shape[1] + 1)
    within_both = np.maximum(one, other)[:, :, None] < k  # [n, c, k]: the candidate is among the first k of both
    shared = within_both.sum(axis=1)
    return float((shared / (2 * k - shared)).mean())


CORRELATIONS: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {
    "pearson": pearson,
    "spearman": spearman,
    "spearman_footrule": spearman_footrule,
    "set_based": set_based,
}
"""The measures by name. Lower is better for `spearman_footrule`, higher for the others."""


def column_correlations(a: ArrayLike, b: ArrayLike) -> Floats:
    """Compute Pearson's correlation of each column over the examples.

    Args:
        a: ``[n, c]``.
        b: ``[n, c]``.

    Returns:
        ``[c]``; NaN for a column that is constant in `a` or in `b`.

    Raises:
        InputError: as for `pearson`.
    """
    one, other = (_standardised(table) for table in _tables(a, b))
    return np.asarray(np.clip((one * other).sum(axis=0), -1, 1))


def _standardised(table: Floats) -> Floats:
    """Scale columns to mean 0 and length 1; constant columns become NaN."""
    # First scale by a power of two, which is exact: then neither squares nor sums overflow or underflow.
    _, exponents = np.frexp(np.abs(table).max(axis=0))
    scaled = np.ldexp(table, -exponents)
    centred = scaled - scaled.mean(axis=0)
    lengths = np.sqrt((centred**2).sum(axis=0))
    varies = table.max(axis=0) > table.min(axis=0)  # lengths would not do: the mean of a constant may be rounded
    return np.asarray(centred / np.where(varies, lengths, np.nan))


def _average_ranks(values: Floats) -> Floats:
    """Rank values ``[n]`` from 1, the smallest first; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse])


def _places(ranks: Floats) -> NDArray[np.intp]:
    """Return the position of each candidate in its row ``[n, c]``, from 0."""
    return np.argsort(np.argsort(ranks, axis=1, kind="stable"), axis=1)


def _mean(columns: Floats) -> float:
    known = columns[~np.isnan(columns)]
    return float(known.mean()) if len(known) else float("nan")


def _tables(a: ArrayLike, b: ArrayLike) -> tuple[Floats, Floats]:
    one, other = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if one.ndim != 2 or one.shape != other.shape or not one.size:
        raise InputError(
            f"Two tables of the same shape [examples, candidates] are wanted, not {list(one.shape)} and "
            f"{list(other.shape)}."
        )
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise InputError("A table holds NaN or infinity: leave out the rows that were not judged.")
    return one, other
