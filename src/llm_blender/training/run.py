"""One training run, from a recipe to a checkpoint folder with its model card."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llm_blender.rankers import load_ranker
from llm_blender.rankers.pair_ranker import PairRanker
from llm_blender.ranking import brier_score, expected_calibration_error, fit_temperature, probability
from llm_blender.training.baselines import MLMHeadLearner, RewardModelLearner, SimCLSLearner, SummaRerankerLearner
from llm_blender.training.card import Run, Trained, model_card
from llm_blender.training.checkpoints import new_pair_ranker, write_checkpoint
from llm_blender.training.groups import Judgements, ScoredGroup, TrainingGroup, excluded_keys, find_tasks, load_groups
from llm_blender.training.learner import Learner, train_learner
from llm_blender.training.loop import claim
from llm_blender.training.ranker import train_pair_ranker
from llm_blender.training.recipes import Recipe
from llm_blender.types import OnProgress

__all__ = ["train_baseline", "train_ranker"]


def train_ranker(
    recipe: Recipe,
    data: Path,
    dev_data: Path,
    output: Path,
    *,
    exclude: Sequence[Path] = (),
    backbone: str | None = None,
    progress: OnProgress | None = None,
    note: Callable[[str], None] | None = None,
) -> Run:
    """Train a PairRanker, or the baseline that `recipe.ranker` names, and write its checkpoint with its model card.

    Goes on from the last checkpoint in ``output/trainer``, if an earlier run of the same recipe was cut short; one of
    another recipe, or on other pairs, is refused.

    Args:
        recipe: what to do.
        data: folder of the recipe's sources.
        dev_data: folder of its dev sources.
        output: folder of the checkpoint.
        exclude: files of rows whose prompts must not stand in the training rows.
        backbone: where the recipe's encoder is found, if not under its own name.
        progress: called with steps done and known of.
        note: called with a line for each evaluation.

    Raises:
        NotFoundError: a file or the encoder is not there.
        RowError: a row cannot be used.
        InputError: there are no pairs, or `output` holds another run.
        MissingExtraError: ``onnx`` is not installed.
    """
    keys = excluded_keys(exclude)
    train, counts = load_groups(recipe.sources, data, keys, recipe.seed)
    dev, dev_counts = load_groups(recipe.dev_sources, dev_data, keys, recipe.seed)
    claim(output / "trainer", recipe, backbone, train)
    if recipe.ranker == "pair_ranker":
        made = _train_pair_ranker(recipe, backbone or recipe.backbone, train, dev, output, progress, note)
    else:
        made = train_baseline(
            recipe,
            train,
            dev,
            data,
            dev_data,
            output,
            backbone=backbone or recipe.backbone,
            progress=progress,
            note=note,
        )
    run = Run(
        recipe,
        tuple(counts),
        tuple(dev_counts),
        tuple(exclude),
        log=made.log,
        temperature=made.temperature,
        dev=made.dev,
        int8=made.int8,
    )
    (output / "README.md").write_text(model_card(run, output), encoding="utf-8")
    return run


def _train_pair_ranker(
    recipe: Recipe,
    backbone: str,
    train: Sequence[TrainingGroup],
    dev: Sequence[TrainingGroup],
    output: Path,
    progress: OnProgress | None,
    note: Callable[[str], None] | None,
) -> Trained:
    model, input_format, tokenizer = new_pair_ranker(recipe, backbone)
    log = train_pair_ranker(recipe, model, input_format, train, dev, output / "trainer", progress=progress, note=note)
    write_checkpoint(model, input_format.config, tokenizer, output)
    results, int8, temperature = _measure(output, dev)
    dataclasses.replace(input_format.config, temperature=temperature).save(output)
    return Trained(tuple(log), results, temperature, int8)


def _measure(folder: Path, dev: Sequence[TrainingGroup]) -> tuple[dict[str, float], dict[str, float], float]:
    """The checkpoint on the development pairs: its quality, what int8 costs, and the temperature."""
    if not dev:
        return {}, {}, 1.0
    pairs = [
        (group.prompt, *(group.texts[i] for i in ((a, b) if probability > 0.5 else (b, a))))
        for group in dev
        for a, b, probability in group.preferences
    ]
    prompts = [prompt for prompt, _, _ in pairs]
    # The better candidate stands first and second by turns, so that no label is constant.
    labels = np.arange(len(pairs)) % 2 == 0
    candidates = [
        [better, worse] if label else [worse, better] for (_, better, worse), label in zip(pairs, labels, strict=True)
    ]
    forward, backward = {}, {}
    for precision in ("int8", "fp32"):
        ranker = PairRanker.from_pretrained(folder, precision=precision)
        rankings = ranker.rank_many(prompts, candidates, strategy="full")
        forward[precision] = np.array([ranking.logits[0, 1] for ranking in rankings])
        backward[precision] = np.array([ranking.logits[1, 0] for ranking in rankings])
    logits = {key: (forward[key] - backward[key]) / 2 for key in forward}
    temperature = fit_temperature(logits["int8"], labels)
    probabilities = probability(logits["int8"], temperature)
    agreement = {key: float(np.mean((value > 0) == labels)) for key, value in logits.items()}
    longest = [float(len(better) > len(worse)) + 0.5 * (len(better) == len(worse)) for _, better, worse in pairs]
    return (
        {
            "pairs": float(len(pairs)),
            "agreement": agreement["int8"],
            "longest": float(np.mean(longest)),
            "flip_rate": float(np.mean((forward["int8"] > 0) == (backward["int8"] > 0))),
            "ece": expected_calibration_error(probabilities, labels),
            "brier": brier_score(probabilities, labels),
        },
        {
            "agreement_fp32": agreement["fp32"],
            "same_decision": float(np.mean((logits["int8"] > 0) == (logits["fp32"] > 0))),
            "largest_difference": float(np.abs(logits["int8"] - logits["fp32"]).max()),
        },
        temperature,
    )


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
