"""Correlations between two tables of ranks, by the names of 0.0.2."""

from __future__ import annotations

from collections.abc import Callable

from numpy.typing import ArrayLike

from llm_blender.metrics import pearson as cor_pearson
from llm_blender.metrics import set_based as cor_set_based
from llm_blender.metrics import spearman as cor_spearman
from llm_blender.metrics import spearman_footrule as cor_spearman_footrule

__all__ = ["COR_MAPS", "cor_pearson", "cor_set_based", "cor_spearman", "cor_spearman_footrule"]

COR_MAPS: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {
    "pearson": cor_pearson,
    "spearman": cor_spearman,
    "spearman_footrule": cor_spearman_footrule,
    "set_based": cor_set_based,
}
"""Functions of two tables ``[n, c]``; for ``spearman_footrule`` lower is better, for the others higher."""
