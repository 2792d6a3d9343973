"""A ranker's training run, from a recipe to a checkpoint folder with its model card."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from llm_blender.bench import JudgedPairs, agreements, ranker_predictions
from llm_blender.bench.agreement import PairPredictions
from llm_blender.bench.judged_pairs import PairGain, TextPair
from llm_blender.bench.resampling import Floats
from llm_blender.bench.rows import group_ids
from llm_blender.data import normalized_key
from llm_blender.rankers import load_ranker
from llm_blender.rankers.checkpoints import find_checkpoint, read_config, write_seen
from llm_blender.rankers.pair_ranker import PairRanker, PairRankerConfig
from llm_blender.ranking import Features, fit_temperature, log_loss, probability
from llm_blender.training.baselines import (
    BaselineLearner,
    MLMHeadLearner,
    RewardModelLearner,
    SimCLSLearner,
    SummaRerankerLearner,
)
from llm_blender.training.calibration import FEW, TEMPERATURES, TrainedPairs, cross_fitted, log_odds, recalibrate
from llm_blender.training.card import Quality, Run, model_card
from llm_blender.training.checkpoints import follow_init, new_pair_ranker
from llm_blender.training.groups import (
    Judgements,
    ScoredGroup,
    SourceCount,
    TrainingGroup,
    excluded_keys,
    find_tasks,
    load_groups,
    require_groups,
)
from llm_blender.training.loop import Reports, check_fingerprint
from llm_blender.training.processes import check_processes, is_main_process
from llm_blender.training.ranker import PairLearner
from llm_blender.training.recipes import Recipe, Source
from llm_blender.types import Example

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
        InputError: there are no pairs, the encoder reads fewer tokens than `recipe.max_length`, the recipe contradicts
            its `init`, `output` holds another run, or the processes cannot share this one.
        MissingExtraError: ``onnx`` is not installed.
    """
    check_processes(recipe.accumulate)
    recipe = follow_init(recipe)
    keys = excluded_keys(exclude)
    held_out = 0.0 if recipe.dev_sources else recipe.hold_out
    dev_sources, dev_folder = (recipe.sources, data) if held_out else (recipe.dev_sources, dev_data)
    groups, counts = load_groups(recipe.sources, data, keys, recipe.seed, part=(held_out, 1))
    dev, dev_counts = load_groups(dev_sources, dev_folder, keys, recipe.seed, part=(0, held_out or 1))
    name = backbone or recipe.backbone
    learner: Any
    examples: Sequence[Any]
    dev_examples: Sequence[Any]
    if recipe.ranker == "pair_ranker":
        learner, examples, dev_examples = PairLearner(recipe, *new_pair_ranker(recipe, name)), groups, dev
    else:
        kind: Any = _BASELINES[recipe.ranker]
        examples = _add_scores(groups, recipe.sources, data, kind)
        dev_examples = _add_scores(dev, dev_sources, dev_folder, kind)
        tasks = [find_tasks(examples)] if kind is SummaRerankerLearner else []
        with tempfile.TemporaryDirectory() as workspace:
            learner = kind(recipe, name, Path(workspace), *tasks)
    require_groups(examples)
    if is_main_process():
        _note_start(recipe, name, counts, dev_counts, reports.get("note"))
    trainer = output / "trainer"
    check_fingerprint(trainer, recipe, backbone, groups)
    started = time.perf_counter()
    log = learner.train(examples, dev_examples, trainer, **reports)
    seconds = time.perf_counter() - started
    run = Run(recipe, tuple(counts), tuple(dev_counts), tuple(map(Path, exclude)), tuple(log), Quality(), seconds)
    if not is_main_process():
        return run
    learner.save(output)
    quality, config = _measure(output, recipe, dev)
    run = replace(run, quality=quality)
    if quality.kept_first:
        PairLearner(recipe, *new_pair_ranker(recipe, name)).save(output)
    elif config is not None:
        config.save(output)
    elif quality.temperature != _temperature(output):
        learner.save_temperature(output, quality.temperature)
    write_seen(output, (normalized_key(Example(group.prompt)) for group in (*groups, *dev)))
    (output / "README.md").write_text(model_card(run, output), encoding="utf-8")
    return run


def _note_start(
    recipe: Recipe,
    backbone: str,
    counts: Sequence[SourceCount],
    dev: Sequence[SourceCount],
    note: Callable[[str], None] | None,
) -> None:
    """Describe what a run begins with, and groups that are left out for `Source.max_groups`."""
    if note is None:
        return
    origin = recipe.init if recipe.init and recipe.ranker == "pair_ranker" else backbone
    learnt, measured = (sum(count.pairs for count in part) for part in (counts, dev))
    held_out = " held out of the same files" if any(count.held_out for count in dev) else ""
    note(f"Learning from {learnt:,} pairs, from {origin}; {measured:,} pairs{held_out} are to measure on.")
    for count in counts:
        usable = count.rows - count.excluded - count.held_out
        if count.groups == count.source.max_groups < usable:
            note(f"{count.path.name}: {count.groups:,} groups of its {usable:,} rows, by --max-groups (max_groups).")


def _temperature(folder: Path) -> float:
    """Return the temperature of a checkpoint, 1 for a ranker without one."""
    return float(read_config(folder).get("temperature", 1.0))


def _add_scores(
    groups: Sequence[TrainingGroup], sources: Sequence[Source], folder: Path, kind: type[BaselineLearner]
) -> list[ScoredGroup]:
    """Add scores and references to groups, from the rows of their sources, if a baseline learns from them."""
    return (Judgements.read(sources, folder) if kind.scored else Judgements([])).of(groups)


def _measure(folder: Path, recipe: Recipe, dev: Sequence[TrainingGroup]) -> tuple[Quality, PairRankerConfig | None]:
    """Measure a checkpoint on development pairs as it will be used, in int8 and with evidence, and calibrate it there.

    A PairRanker that was trained on is calibrated anew (`_measure_trained_on`); any other has its temperature fitted.

    Returns:
        The figures, and the new configuration of a PairRanker that was trained on.
    """
    mlm = recipe.ranker == MLMHeadLearner.name
    judged = _development_pairs(dev, _MLM_PAIRS if mlm else None)
    if judged is None:
        return Quality(temperature=_temperature(folder)), None
    int8: dict[str, float] = {}
    if recipe.ranker == "pair_ranker":
        found, int8 = _predict_in_int8(folder, judged)
        if recipe.init:
            return _measure_trained_on(folder, recipe, judged, found, int8)
    else:
        pointwise = load_ranker(f"mlm:{folder}" if mlm else folder)
        found = replace(ranker_predictions(judged, pointwise, recipe.ranker), flips=None)
    temperature = fit_temperature(found.logits, judged.a_wins)
    return Quality(_figures(judged, found, found.logits / temperature), temperature, int8), None


def _predict_in_int8(folder: Path, judged: JudgedPairs) -> tuple[PairPredictions, dict[str, float]]:
    """Return the predictions of a PairRanker's int8 model without evidence, and its figures against float32."""
    found, full = (
        ranker_predictions(judged, PairRanker.from_pretrained(folder, precision=precision, evidence=False), "trained")
        for precision in ("int8", "fp32")
    )
    return found, {
        "agreement_fp32": agreements(judged, [full])[0].accuracy,
        "same_decision": float(np.mean((found.logits > 0) == (full.logits > 0))),
        "largest_difference": float(np.abs(found.logits - full.logits).max()),
    }


def _measure_trained_on(
    folder: Path, recipe: Recipe, judged: JudgedPairs, found: PairPredictions, int8: dict[str, float]
) -> tuple[Quality, PairRankerConfig | None]:
    """Measure a PairRanker against `Recipe.init`, and fit its temperature and its evidence anew (`recalibrate`).

    Its figures are those of fits on other instructions. With fewer than `FEW` instructions, nothing is fitted.

    Returns:
        The figures, and the new configuration; None if `Recipe.keep_best` keeps the weights of `Recipe.init`.
    """
    config, general = PairRankerConfig.load(folder), None
    first = ranker_predictions(judged, PairRanker.from_pretrained(recipe.init), recipe.init)
    start = _temperature(find_checkpoint(recipe.init))
    pairs = TrainedPairs(judged, found.logits, first.logits / start)
    if pairs.instructions < FEW:
        odds = log_odds(config, judged, found.logits)
    else:
        odds = cross_fitted(config, pairs)
        config, general = recalibrate(config, pairs)
    figures = _figures(judged, found, odds)
    before = _figures(judged, first, pairs.start)
    gain = agreements(judged, [first, replace(found, logits=odds)])[1].versus
    if gain is not None:
        before |= {"gain": gain.mean, "gain_low": gain.ci95.low, "gain_high": gain.ci95.high}
    worse = figures["log_loss"] >= before["log_loss"] or figures["agreement"] < before["agreement"]
    worse |= config.temperature > TEMPERATURES[1]  # its logits do not tell the better answer
    before["temperature"] = start
    if recipe.keep_best and worse:
        kept = {name: before[name] for name in figures}
        return Quality(kept, start, before=before, rejected=figures), None
    return Quality(figures, config.temperature, int8, before, general=general), config


def _figures(judged: JudgedPairs, found: PairPredictions, odds: Floats) -> dict[str, float]:
    """Return agreement with its interval, that of the longest answer, calibration and log loss, by name.

    Args:
        judged: n pairs.
        found: predictions of the model.
        odds: ``[n]`` log-odds of the ranker as it will be used.
    """
    (agreement,) = agreements(judged, [replace(found, logits=odds, probabilities=probability(odds))])
    interval = agreement.ci95
    figures = {
        "pairs": float(agreement.pairs),
        "agreement": agreement.accuracy,
        "agreement_low": interval and interval.low,
        "agreement_high": interval and interval.high,
        "longest": agreement.longest,
        "flip_rate": agreement.flip_rate,
        "ece": agreement.ece,
        "brier": agreement.brier,
        "log_loss": log_loss(odds, judged.a_wins),
    }
    return {name: value for name, value in figures.items() if value is not None}


def _development_pairs(dev: Sequence[TrainingGroup], most: int | None) -> JudgedPairs | None:
    """Turn the preferences of groups into judged pairs, at most so many; None if there are none."""
    found = []
    for group in dev:
        features = Features.read(group.texts, group.prompt)
        for a, b, p in group.preferences:
            gain = PairGain(features.situation, tuple((features.values[a] - features.values[b]).tolist()))
            found.append((TextPair(group.prompt, group.texts[a], group.texts[b]), p > 0.5, gain))
    if not found:
        return None
    pairs, a_wins, gains = zip(*found[:most], strict=True)
    groups = tuple(group_ids(pair.prompt for pair in pairs))
    return JudgedPairs("development", pairs, a_wins, groups, (None,) * len(pairs), gains)
