"""BARTScore: probability of one text given the other, by a sequence-to-sequence model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args

from llm_blender.errors import unknown_name
from llm_blender.metrics.scores import References, Scores, check_texts, metrics_extra, no_progress
from llm_blender.types import OnProgress

if TYPE_CHECKING:
    from llm_blender.metrics._models import BARTScorer

Direction = Literal["recall", "precision", "f1"]
"""The text whose probability is computed: the reference, the prediction, or each in turn."""


def bartscore(
    predictions: Sequence[str],
    references: References,
    *,
    model: str | os.PathLike[str] = "facebook/bart-large-cnn",
    direction: Direction = "recall",
    max_length: int | None = None,
    revision: str | None = None,
    device: str | None = None,
    dtype: str = "float32",
    max_tokens: int = 1_024,
    progress: OnProgress | None = None,
) -> Scores:
    """Compute the BARTScore of each prediction (Yuan et al., arXiv 2106.11520): mean log-probability per token, ≤ 0.

    ``recall`` is log P(reference | prediction), which arXiv 2306.02561 reports; ``precision`` is
    log P(prediction | reference), and ``f1`` the mean of both. Special tokens that the model writes count as tokens. An
    empty prediction has a score, too: the log-probability of the reference given an empty text.

    Args:
        predictions: texts.
        references: one per prediction, or several: the one with the best score counts.
        model: any sequence-to-sequence model of transformers, as a folder or a Hub name.
        direction: of `Scores.values`; ``f1`` takes twice as long as the others.
        max_length: most tokens read of a text; None takes the model's limit.
        revision: on the Hub.
        device: ``cpu``, ``cuda``, ``mps``, …; None takes CUDA if there is one, else the CPU.
        dtype: ``float32``, ``bfloat16``, ``float16``.
        max_tokens: most tokens of a batch, padding included; raise it on an accelerator.
        progress: called with the number of scored texts and of all.

    Returns:
        `Scores.parts` holds ``recall`` and ``precision`` if the direction is ``f1``. The model stays loaded for the
        next call.

    Raises:
        InputError: as for `check_texts`, or there is no such direction or device.
        NotFoundError: there is no such model; the message lists where it was looked for.
        CheckpointError: it is not a sequence-to-sequence model, or a file of it is missing or damaged.
        MissingExtraError: ``metrics`` is not installed.
    """
    pairs = check_texts(predictions, references)
    if direction not in get_args(Direction):
        raise unknown_name("direction", direction, get_args(Direction))
    model = os.fspath(model)
    scorer = load_bart_scorer(model, max_length=max_length, revision=revision, device=device, dtype=dtype)
    texts, flat = pairs.flat
    ways = {"recall": (texts, flat), "precision": (flat, texts)}
    wanted = {name: ways[name] for name in (ways if direction == "f1" else (direction,))}
    settings = {"model": model, "direction": direction}
    written, report = 0, progress or no_progress

    def count(done: int, total: int) -> None:
        report(written + done, total * len(wanted))

    found = {}
    for name, (sources, targets) in wanted.items():
        found[name], cut = scorer.score(sources, targets, max_tokens=max_tokens, progress=count)
        written += len(sources)
    truncated = pairs.examples(cut)
    if direction != "f1":
        return Scores("bartscore", pairs.best(found[direction]), settings=settings, truncated=truncated)
    parts = {name: pairs.best(values) for name, values in found.items()}
    both = pairs.best((found["recall"] + found["precision"]) / 2)
    return Scores("bartscore", both, parts, settings, truncated=truncated)


@lru_cache(maxsize=1)
def load_bart_scorer(model: str, **options: Any) -> BARTScorer:
    """Load the scorer of a model, and keep it until another one is loaded."""
    with metrics_extra("BARTScore"):
        from llm_blender.metrics._models import BARTScorer
    return BARTScorer(model, **options)
