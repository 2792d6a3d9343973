"""One training run of a baseline, from groups to a checkpoint that is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llm_blender.rankers import load_ranker
from llm_blender.ranking import brier_score, expected_calibration_error, fit_temperature, probability
from llm_blender.training.baselines.learner import Learner, train_learner
from llm_blender.training.baselines.mlm_head import MLMHeadLearner
from llm_blender.training.baselines.reward_model import RewardModelLearner
from llm_blender.training.baselines.scored import Judgements, ScoredGroup, find_tasks
from llm_blender.training.baselines.simcls import SimCLSLearner
from llm_blender.training.baselines.summa_reranker import SummaRerankerLearner
from llm_blender.training.card import Trained
from llm_blender.training.groups import TrainingGroup
from llm_blender.training.recipe import Recipe
from llm_blender.types import OnProgress

__all__ = ["train_baseline"]

_MLM_PAIRS = 100
"""Pairs on which MLM-scoring is measured: it reads each text as often as that has tokens."""


def train_baseline(
    recipe: Recipe,
    train: Sequence[TrainingGroup],
    dev: Sequence[TrainingGroup],
    data: Path,
    dev_data: Path,
    output: Path,
    *,
    backbone: str,
    progress: OnProgress | None = None,
    note: Callable[[str], None] | None = None,
) -> Trained:
    """Train the ranker that `recipe.ranker` names and write its checkpoint.

    Goes on from the last checkpoint in ``output/trainer``, if there is one.

    Args:
        recipe: what to do.
        train: groups of its sources.
        dev: groups of its dev sources.
        data: folder of the sources, whose rows tell scores and references.
        dev_data: folder of the dev sources.
        output: folder of the checkpoint.
        backbone: Hub name or folder of the encoder.
        progress: called with steps done and to do.
        note: called with a line for each evaluation.

    Raises:
        NotFoundError: there is no such encoder.
        CheckpointError: its tokenizer has no fast form, or lacks a token that the ranker needs.
        InputError: there are no groups, or the encoder reads fewer tokens than `recipe.max_length`.
    """
    scored = _KINDS[recipe.ranker].scored
    train_groups = (Judgements.read(recipe.sources, data) if scored else Judgements([])).of(train)
    dev_groups = (Judgements.read(recipe.dev_sources, dev_data) if scored else Judgements([])).of(dev)
    learner = _make(recipe, backbone, output / "trainer" / "reader", train_groups)
    log = train_learner(
        learner, recipe, train_groups, dev_groups, output / "trainer" / learner.name, progress=progress, note=note
    )
    learner.save(output)
    results, temperature = measure(output, recipe.ranker, dev)
    if temperature != 1:
        learner.save(output, temperature)
    return Trained(tuple(log), results, temperature)


_KINDS: dict[str, type[Learner]] = {
    kind.name: kind for kind in (SummaRerankerLearner, SimCLSLearner, RewardModelLearner, MLMHeadLearner)
}


def _make(recipe: Recipe, backbone: str, workspace: Path, train: Sequence[ScoredGroup]) -> Learner:
    kind: Any = _KINDS[recipe.ranker]
    if kind is SummaRerankerLearner:
        return SummaRerankerLearner(recipe, backbone, workspace, find_tasks(train))
    learner: Learner = kind(recipe, backbone, workspace)
    return learner


def measure(folder: Path, ranker: str, dev: Sequence[TrainingGroup]) -> tuple[dict[str, float], float]:
    """A checkpoint on the development pairs, as it will be used: its quality, and the temperature fitted on them."""
    pairs = [(group.prompt, group.texts[a], group.texts[b], p) for group in dev for a, b, p in group.preferences]
    mlm = ranker == MLMHeadLearner.name
    pairs = pairs[:_MLM_PAIRS] if mlm else pairs
    if not pairs:
        return {}, 1.0
    prompts, texts = [prompt for prompt, *_ in pairs], [[a, b] for _, a, b, _ in pairs]
    # The better one stands first and second by turns, so that no label is constant.
    labels = np.arange(len(pairs)) % 2 == 0
    texts = [
        [one, other] if (p > 0.5) == label else [other, one]
        for (one, other), (*_, p), label in zip(texts, pairs, labels, strict=True)
    ]
    loaded: Any = load_ranker(f"mlm:{folder}" if mlm else folder)
    logits = np.array([ranking.logits[0, 1] for ranking in loaded.rank_many(prompts, texts)])
    temperature = fit_temperature(logits, labels)
    probabilities = probability(logits, temperature)
    lengths = np.array([[len(text) for text in pair] for pair in texts])
    longer = np.where(labels, lengths[:, 0] - lengths[:, 1], lengths[:, 1] - lengths[:, 0])
    right = np.where(labels, logits, -logits)
    results = {
        "pairs": float(len(pairs)),
        "agreement": _share(right),
        "longest": _share(longer),
        "ece": expected_calibration_error(probabilities, labels),
        "brier": brier_score(probabilities, labels),
    }
    return results, temperature


def _share(values: Any) -> float:
    """Of those above zero; 0 counts half."""
    return float(np.mean((np.sign(values) + 1) / 2))
