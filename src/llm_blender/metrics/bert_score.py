"""BERTScore: similarity of two texts by the contextual embeddings of their tokens."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_blender.metrics.scores import References, Scores, check_texts, metrics_extra, no_progress
from llm_blender.types import OnProgress

if TYPE_CHECKING:
    from llm_blender.metrics._models import BERTScorer


def bertscore(
    predictions: Sequence[str],
    references: References,
    *,
    model: str | os.PathLike[str] = "google-bert/bert-base-multilingual-cased",
    layer: int | None = None,
    idf: bool = False,
    baseline: str | None = None,
    max_length: int | None = None,
    revision: str | None = None,
    device: str | None = None,
    dtype: str = "float32",
    max_tokens: int = 2_048,
    progress: OnProgress | None = None,
) -> Scores:
    """Compute the BERTScore F1 of each prediction (Zhang et al., arXiv 1904.09675).

    Every token is matched with the token of the other text whose contextual embedding is nearest by cosine. Precision
    is the mean over the prediction's tokens, recall the mean over the reference's. The numbers equal those of the
    package ``bert-score``: special tokens have no weight but can be matched, and an empty text scores 0. The default
    model is that of arXiv 2306.02561.

    Args:
        predictions: texts.
        references: one per prediction, or several: the best precision, recall and F1 among them count.
        model: any encoder of transformers, as a folder or a Hub name.
        layer: the layer to compare, counted from 1 (0 is the embeddings); None takes the one that ``bert-score``
            lists for a model of that name, else the last.
        idf: weigh tokens by how rare they are among the references.
        baseline: a file of ``bert-score``'s baselines (``LAYER,P,R,F``) to rescale by, so that unrelated texts score
            about 0; None does not rescale.
        max_length: most tokens read of a text; None takes the model's limit.
        revision: on the Hub.
        device: ``cpu``, ``cuda``, ``mps``, …; None takes CUDA if there is one, else the CPU.
        dtype: ``float32``, ``bfloat16``, ``float16``.
        max_tokens: most tokens of a batch, padding included; raise it on an accelerator.
        progress: called with the number of scored pairs of texts and of all.

    Returns:
        `Scores.parts` holds ``precision`` and ``recall``. The model stays loaded for the next call.

    Raises:
        InputError: as for `check_texts`, or there is no such layer, device or line in the baseline.
        NotFoundError: there is no such model or baseline; the message says where it was looked for.
        CheckpointError: the model is not an encoder, or a file of it is missing or damaged.
        MissingExtraError: ``metrics`` is not installed.
    """
    pairs = check_texts(predictions, references)
    model = os.fspath(model)
    scorer = load_bert_scorer(model, layer=layer, max_length=max_length, revision=revision, device=device, dtype=dtype)
    rescale = None if baseline is None else scorer.read_baseline(baseline)
    texts, flat = pairs.flat
    found, cut = scorer.score(texts, flat, idf=idf, max_tokens=max_tokens, progress=progress or no_progress)
    best = np.stack([pairs.best(column) for column in found.T])
    if rescale is not None:
        best = (best - rescale[:, None]) / (1 - rescale[:, None])
    precision, recall, f1 = best
    settings = {"model": model, "layer": scorer.layer, "idf": idf} | ({"baseline": baseline} if baseline else {})
    parts = {"precision": precision, "recall": recall}
    return Scores("bertscore", f1, parts, settings, truncated=pairs.examples(cut))


@lru_cache(maxsize=1)
def load_bert_scorer(model: str, **options: Any) -> BERTScorer:
    """Load the scorer of a model, and keep it until another one is loaded."""
    with metrics_extra("BERTScore"):
        from llm_blender.metrics._models import BERTScorer
    return BERTScorer(model, **options)
