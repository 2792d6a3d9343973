"""A ranker's training run, from a recipe to a checkpoint folder with its model card."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from llm_blender.bench import JudgedPairs, agreements, ranker_predictions
from llm_blender.bench.judged_pairs import PairGain, TextPair
from llm_blender.bench.rows import group_ids
from llm_blender.rankers import load_ranker
from llm_blender.rankers.pair_ranker import PairRanker
from llm_blender.ranking import FEATURES, fit_temperature, probability
from llm_blender.training.baselines import (
    BaselineLearner,
    MLMHeadLearner,
    RewardModelLearner,
    SimCLSLearner,
    SummaRerankerLearner,
)
from llm_blender.training.card import Quality, Run, model_card
from llm_blender.training.checkpoints import new_pair_ranker
from llm_blender.training.groups import Judgements, ScoredGroup, TrainingGroup, excluded_keys, find_tasks, load_groups
from llm_blender.training.loop import Reports, check_fingerprint
from llm_blender.training.processes import check_processes, is_main_process
from llm_blender.training.ranker import PairLearner
from llm_blender.training.recipes import Recipe, Source

_BASELINES: dict[str, type[BaselineLearner]] = {
    kind.name: kind for kind in (SummaRerankerLearner, SimCLSLearner, RewardModelLearner, MLMHeadLearner)
}
_MLM_PAIRS = 100  # pairs on which MLM-scoring is measured: it reads each text once per token


def train_ranker(
    recipe: Recipe,
    data: Path,
    dev_data: Path,
    output: Path,
    *,
    exclude: Sequence[str | Path] = (),
    backbone: str | None = None,
    **reports: Unpack[Reports],
) -> Run:
    """Train the ranker that `recipe.ranker` names, and write its checkpoint with its model card.

    An interrupted run of the same recipe on the same pairs resumes from its last checkpoint in ``output/trainer``;
    checkpoints of another run are refused. Of several processes that share the run, the main one writes and measures;
    the others return at once, without `Run.quality`.

    Args:
        recipe: settings of the run.
        data: folder of the recipe's sources.
        dev_data: folder of its dev sources.
        output: folder of the checkpoint.
        exclude: test files; training rows with their prompts are left out.
        backbone: where to find the recipe's encoder, if not under its own name.
        **reports: see `Reports`.

    Raises:
        NotFoundError: a file or the encoder is missing.
        RowError: a row cannot be used.
        CheckpointError: the encoder's tokenizer has no fast form, or lacks a token that the ranker needs.
        InputError: there are no pairs, the encoder reads fewer tokens than `recipe.max_length`, `output` holds
            another run, or the processes cannot share this one.
        MissingExtraError: ``onnx`` is not installed.
    """
    check_processes(recipe.accumulate)
    keys = excluded_keys(exclude)
    groups, counts = load_groups(recipe.sources, data, keys, recipe.seed)
    dev, dev_counts = load_groups(recipe.dev_sources, dev_data, keys, recipe.seed)
    trainer = output / "trainer"
    check_fingerprint(trainer, recipe, backbone, groups)
    name = backbone or recipe.backbone
    learner: Any
    examples: Sequence[Any]
    dev_examples: Sequence[Any]
    if recipe.ranker == "pair_ranker":
        learner, examples, dev_examples = PairLearner(recipe, *new_pair_ranker(recipe, name)), groups, dev
    else:
        kind: Any = _BASELINES[recipe.ranker]
        examples = _add_scores(groups, recipe.sources, data, kind)
        dev_examples = _add_scores(dev, recipe.dev_sources, dev_data, kind)
        tasks = [find_tasks(examples)] if kind is SummaRerankerLearner else []
        with tempfile.TemporaryDirectory() as workspace:
            learner = kind(recipe, name, Path(workspace), *tasks)
    log = learner.train(examples, dev_examples, trainer, **reports)
    run = Run(recipe, tuple(counts), tuple(dev_counts), tuple(map(Path, exclude)), tuple(log), Quality())
    if not is_main_process():
        return run
    learner.save(output)
    run = replace(run, quality=_measure(output, recipe.ranker, dev))
    if run.quality.temperature != 1:
        learner.save_temperature(output, run.quality.temperature)
    (output / "README.md").write_text(model_card(run, output), encoding="utf-8")
    return run


def _add_scores(
    groups: Sequence[TrainingGroup], sources: Sequence[Source], folder: Path, kind: type[BaselineLearner]
) -> list[ScoredGroup]:
    """Add scores and references to groups, from the rows of their sources, if a baseline learns from them."""
    return (Judgements.read(sources, folder) if kind.scored else Judgements([])).of(groups)


def _measure(folder: Path, kind: str, dev: Sequence[TrainingGroup]) -> Quality:
    """Measure a checkpoint on development pairs in the precision in which it is used, and fit its temperature on them.

    A PairRanker is measured in int8, and compared with float32.
    """
    mlm = kind == MLMHeadLearner.name
    judged = _development_pairs(dev, _MLM_PAIRS if mlm else None)
    if judged is None:
        return Quality()
    if kind == "pair_ranker":
        found, full = (
            ranker_predictions(judged, PairRanker.from_pretrained(folder, precision=precision), kind)
            for precision in ("int8", "fp32")
        )
    else:
        pointwise = ranker_predictions(judged, load_ranker(f"mlm:{folder}" if mlm else folder), kind)
        found = full = replace(pointwise, flips=None)  # it reads no pairs, in no order
    temperature = fit_temperature(found.logits, judged.a_wins)
    fitted = replace(found, probabilities=probability(found.logits, temperature))
    agreement, in_full = agreements(judged, [fitted, full])
    figures = {
        "pairs": float(agreement.pairs),
        "agreement": agreement.accuracy,
        "longest": agreement.longest,
        "flip_rate": agreement.flip_rate,
        "ece": agreement.ece,
        "brier": agreement.brier,
    }
    dev_figures = {name: value for name, value in figures.items() if value is not None}
    if found is full:
        return Quality(dev_figures, temperature)
    int8 = {
        "agreement_fp32": in_full.accuracy,
        "same_decision": float(np.mean((found.logits > 0) == (full.logits > 0))),
        "largest_difference": float(np.abs(found.logits - full.logits).max()),
    }
    return Quality(dev_figures, temperature, int8)


def _development_pairs(dev: Sequence[TrainingGroup], most: int | None) -> JudgedPairs | None:
    """Turn the preferences of groups into judged pairs, at most so many; None if there are none."""
    found = [
        (TextPair(group.prompt, group.texts[a], group.texts[b]), p > 0.5)
        for group in dev
        for a, b, p in group.preferences
    ][:most]
    if not found:
        return None
    pairs, a_wins = zip(*found, strict=True)
    groups, alone = tuple(group_ids(pair.prompt for pair in pairs)), PairGain("two", (0.0,) * len(FEATURES))
    return JudgedPairs("development", pairs, a_wins, groups, (None,) * len(pairs), (alone,) * len(pairs))
