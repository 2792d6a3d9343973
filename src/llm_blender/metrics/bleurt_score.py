"""BLEURT: score of a text given its reference, by a model trained on human ratings."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from llm_blender.metrics.scores import References, Scores, check_texts, metrics_extra, no_progress
from llm_blender.types import OnProgress

if TYPE_CHECKING:
    from llm_blender.metrics._models import BLEURTScorer


def bleurt(
    predictions: Sequence[str],
    references: References,
    *,
    model: str | os.PathLike[str] = "Elron/bleurt-base-128",
    max_length: int | None = None,
    revision: str | None = None,
    device: str | None = None,
    dtype: str = "float32",
    max_tokens: int = 2_048,
    progress: OnProgress | None = None,
) -> Scores:
    """Compute the BLEURT of each prediction (Sellam et al., arXiv 2004.04696): about 1 for the reference, often < 0.

    Args:
        predictions: texts.
        references: one per prediction, or several: the one with the best score counts.
        model: a sequence classifier of transformers with one output that reads reference and prediction, as a folder
            or a Hub name.
        max_length: most tokens read of both texts together; the longer text is cut first. None takes the number at the
            end of the model's name (``bleurt-base-128``), else the model's limit.
        revision: on the Hub.
        device: ``cpu``, ``cuda``, ``mps``, …; None takes CUDA if there is one, else the CPU.
        dtype: ``float32``, ``bfloat16``, ``float16``.
        max_tokens: most tokens of a batch, padding included; raise it on an accelerator.
        progress: called with the number of scored pairs of texts and of all.

    Returns:
        No parts. The model stays loaded for the next call.

    Raises:
        InputError: as for `check_texts`, or there is no such device.
        NotFoundError: there is no such model; the message lists where it was looked for.
        CheckpointError: it is not such a classifier, or a file of it is missing or damaged.
        MissingExtraError: ``metrics`` is not installed.
    """
    pairs = check_texts(predictions, references)
    model = os.fspath(model)
    if max_length is None and (named := re.search(r"bleurt-\w+-(\d+)$", model)):
        max_length = int(named.group(1))
    scorer = load_bleurt_scorer(model, max_length=max_length, revision=revision, device=device, dtype=dtype)
    values, cut = scorer.score(*pairs.flat, max_tokens=max_tokens, progress=progress or no_progress)
    settings = {"model": model, "max_length": scorer.max_length}
    return Scores("bleurt", pairs.best(values), settings=settings, truncated=pairs.examples(cut))


@lru_cache(maxsize=1)
def load_bleurt_scorer(model: str, **options: Any) -> BLEURTScorer:
    """Load the scorer of a model, and keep it until another one is loaded."""
    with metrics_extra("BLEURT"):
        from llm_blender.metrics._models import BLEURTScorer
    return BLEURTScorer(model, **options)
