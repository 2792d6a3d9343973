"""Remarks on a training run that failed or is doubtful: what was found, and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llm_blender.training.calibration import FEW, TEMPERATURES

if TYPE_CHECKING:
    from llm_blender.training.card import FuserRun, Quality, Run

_WIDE = 0.2  # width of an interval of the agreement: ten points to either side
_ECE = 0.1
_CHANCE = 100  # pairs; with fewer, chance alone makes that much
_SAME = 0.95  # share of the decisions in which int8 and float32 agree
_FLIPS = 0.3
_TOO_LONG = 0.1  # share of a fuser's rows


def ranker_remarks(run: Run) -> list[str]:
    """Describe what makes a ranker's run doubtful, in sentences; empty if nothing does."""
    return [*_on_quality(run.quality, run.recipe.init), *_on_loss(run.log, "learning_rate")]


def _on_quality(quality: Quality, init: str) -> Iterator[str]:
    dev = quality.dev
    if not dev:
        yield (
            "Nothing is known of its quality: there were no development pairs. Give rows that it does not learn from, "
            "with --dev or --hold-out."
        )
        return
    if quality.kept_first:
        trained = quality.rejected
        yield (
            f"Training made it no better on the development pairs (agreement {quality.before['agreement']:.3f} before, "
            f"{trained['agreement']:.3f} after; log loss {quality.before['log_loss']:.3f}, {trained['log_loss']:.3f}): "
            f"the weights of {init} are kept. Give more pairs, or a smaller --learning-rate and fewer --epochs."
        )
    before = quality.before
    if before and before["agreement_high"] < 0.5:
        part = f"only {before['agreement']:.0%}" if before["agreement"] else "none"
        yield (
            f"{init} agreed on {part} of the held-out pairs: your judgements contradict it. If that is your taste, "
            "nothing is wrong; else check that `chosen`, the labels or the scores name the better answer."
        )
    if before and quality.general is None and not quality.kept_first:
        yield (
            f"Temperature and evidence are those of {init}: the {dev['pairs']:.0f} held-out pairs are of fewer than "
            f"{FEW} instructions, too few to fit them. Give more pairs, or hold out more (--hold-out 0.4), or fit them "
            "on other rows: `blend train calibrate`."
        )
    low, high = dev["agreement_low"], dev["agreement_high"]
    agreement, longest = dev["agreement"], dev["longest"]
    interval = f"{agreement:.3f} (95 %: {low:.3f} to {high:.3f})"
    if high < 0.5:
        yield (
            f"It prefers the worse answer more often than not: agreement {interval}. Check that `chosen`, the labels "
            "or the scores name the better answer."
        )
    elif low <= 0.5:
        yield (
            f"It may be no better than chance: agreement {interval} on {dev['pairs']:.0f} pairs. Give more pairs to "
            "learn from, or more development pairs if you believe that it is better."
        )
    if agreement < longest:
        yield (
            f"It agrees less than the rule that takes the longer answer: {agreement:.3f} against {longest:.3f}. "
            'Use `[ranker] name = "longest"`, which costs nothing, or give more pairs whose shorter answer is better.'
        )
    if high - low > _WIDE:
        yield (
            f"{dev['pairs']:.0f} development pairs tell little: the agreement is between {low:.3f} and {high:.3f}. "
            f"About {_pairs_needed(agreement)} pairs of different instructions make that 5 points to either side."
        )
    yield from _on_calibration(quality)
    if quality.int8 and quality.int8["same_decision"] < _SAME:
        yield (
            f"int8 and float32 decide alike on only {quality.int8['same_decision']:.1%} of the pairs. Load it with "
            '`precision="fp32"`.'
        )
    if dev.get("flip_rate", 0) > _FLIPS:
        yield (
            f"The other order of two answers changes {dev['flip_rate']:.0%} of its decisions. Train on from a ranker "
            "that compares late (--init bundled), or give more pairs."
        )


def _on_calibration(quality: Quality) -> Iterator[str]:
    low, high = TEMPERATURES
    if quality.temperature > high:
        yield (
            f"Its probabilities mean nothing: the fitted temperature {quality.temperature:.3g} is at its bound, as the "
            "logits do not tell the better answer. Give more pairs, and look whether the loss falls."
        )
    elif quality.temperature < low:
        yield (
            f"Its probabilities are too sure: the fitted temperature {quality.temperature:.3g} is at its bound, as it "
            "decides all development pairs rightly. Fit it on more and harder pairs: `blend train calibrate`."
        )
    elif quality.dev["ece"] > _ECE:
        chance = f", in part by chance on {quality.dev['pairs']:.0f} pairs" if quality.dev["pairs"] < _CHANCE else ""
        yield (
            f"Its probabilities are {100 * quality.dev['ece']:.0f} points off on average{chance}. Fit them on other "
            "rows (`blend train calibrate`), or hold out more (--hold-out 0.4)."
        )


def _pairs_needed(agreement: float) -> str:
    """Return the number of independent pairs for an interval of ten points, in hundreds."""
    share = min(max(agreement, 0.2), 0.8)
    return f"{round(share * (1 - share) * (1.96 / 0.05) ** 2, -2):.0f}"


def _on_loss(log: Sequence[Mapping[str, Any]], setting: str) -> Iterator[str]:
    """Remark on a loss that does not fall: that on development examples, else that of the training."""
    for name, what in (("eval_loss", "development"), ("loss", "training")):
        stage = log[-1]["stage"] if log else ""
        losses = [entry[name] for entry in log if name in entry and entry["stage"] == stage]
        if len(losses) >= 2:
            if min(losses[1:]) >= losses[0]:
                yield (
                    f"The {what} loss did not fall: {losses[0]:.3f} at first, {losses[-1]:.3f} at the end. Lower "
                    f"{setting} if it rose, raise it or train for more epochs if it stayed."
                )
            elif losses[-1] > 1.05 * min(losses):
                yield (
                    f"The {what} loss rose again: {min(losses):.3f} at its best, {losses[-1]:.3f} at the end. Train "
                    "for fewer epochs, or keep the best checkpoint (keep_best = true)."
                )
            return


def fuser_remarks(run: FuserRun) -> list[str]:
    """Describe what makes a fuser's run doubtful, in sentences; empty if nothing does."""
    return list(_on_fuser(run))


def _on_fuser(run: FuserRun) -> Iterator[str]:
    found = run.evaluations
    used = sum(count.used for count in run.sources)
    if used and run.too_long > _TOO_LONG * used:
        yield (
            f"{run.too_long:,} of {used:,} rows were too long and left out. Raise max_length, or lower "
            "candidate_max_length or answer_max_length."
        )
    if not found:
        yield "Nothing is known of its quality: there were no development rows. Give some with --dev."
        return
    first, last = found[0], found[-1]
    if last["loss"] >= first["loss"]:
        yield (
            f"The development loss did not fall: {first['loss']:.3f} before training, {last['loss']:.3f} after it. "
            "Lower learning_rate if it rose, raise it or train for more steps if it stayed."
        )
    elif last["loss_high"] >= first["loss"]:
        yield (
            f"{last['rows']:.0f} development rows cannot tell whether the loss fell: {first['loss']:.3f} before "
            f"training, {last['loss_low']:.3f} to {last['loss_high']:.3f} after it. Give more of them."
        )
