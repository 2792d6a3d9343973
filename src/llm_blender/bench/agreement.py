"""Agreement of rankers with judges, on pairs of answers with a known better one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_blender.bench.judged_pairs import JudgedPairs, compare_pairs, evidence_weights
from llm_blender.bench.report import NOTHING, Result, Table, format_interval, format_number
from llm_blender.bench.resampling import Difference, Floats, Resampling
from llm_blender.rankers.heuristics import Consensus, First, Heuristic, Longest, Random
from llm_blender.ranking import (
    FEATURES,
    SITUATIONS,
    EvidenceFit,
    Interval,
    brier_score,
    calibration_bins,
    expected_calibration_error,
)
from llm_blender.types import OnProgress, Ranker


@dataclass(frozen=True, eq=False)
class PairPredictions:
    """Preferences of one method on n pairs.

    Attributes:
        method: its name.
        logits: ``[n]``: above zero, a is better; below, b is; at zero the method prefers neither.
        probabilities: ``[n]``: that a is better; None for a method that gives no probabilities.
        flips: ``[n]``: whether reading the two in the other order changes the preference; None for a method that reads
            no order.
        drawn: the method is a random draw, whose expected accuracy has no interval.
    """

    method: str
    logits: Floats
    probabilities: Floats | None = None
    flips: NDArray[np.bool_] | None = None
    drawn: bool = False

    def take(self, places: NDArray[np.intp]) -> PairPredictions:
        """Return the predictions for some of the pairs."""
        return replace(
            self,
            logits=self.logits[places],
            probabilities=None if self.probabilities is None else self.probabilities[places],
            flips=None if self.flips is None else self.flips[places],
        )


def ranker_predictions(
    judged: JudgedPairs, ranker: Ranker, name: str, *, progress: OnProgress | None = None
) -> PairPredictions:
    """Compare all pairs in both orders."""
    comparisons = compare_pairs(ranker, judged.pairs, gains=judged.gains, progress=progress)
    # Flips are the model's own preference in either order: all else is the same in both.
    weights = evidence_weights(ranker)
    gains = np.array([gain.weigh(weights) for gain in judged.gains])
    forward = np.array([comparison.forward for comparison in comparisons]) - gains
    backward = np.array([comparison.backward for comparison in comparisons]) + gains
    return PairPredictions(
        name,
        np.array([comparison.logit for comparison in comparisons]),
        np.array([comparison.probability for comparison in comparisons]),
        np.sign(forward.round(9)) != -np.sign(backward.round(9)),
    )


def baseline_predictions(judged: JudgedPairs) -> list[PairPredictions]:
    """Return the predictions of the methods that need no model.

    ``random`` is one half by definition; ``longest`` goes by characters; ``first`` always prefers a; ``consensus``
    prefers the answer closest to all candidates of the prompt, and is left out where rows have no third candidate.
    """
    n = len(judged.pairs)
    shares = np.sign([gain.values[FEATURES.index("consensus")] for gain in judged.gains])
    return [
        PairPredictions(Random.name, np.zeros(n), np.full(n, 0.5), drawn=True),
        *(PairPredictions(heuristic.name, _preferences(judged, heuristic)) for heuristic in (Longest(), First())),
        *([PairPredictions(Consensus.name, shares)] if shares.any() else []),
    ]


def _preferences(judged: JudgedPairs, heuristic: Heuristic) -> Floats:
    """Return the sign of a heuristic's logits: its probabilities are not worth measuring."""
    rankings = heuristic.rank_many([pair.prompt for pair in judged.pairs], [[pair.a, pair.b] for pair in judged.pairs])
    return np.sign([ranking.logits[0, 1] for ranking in rankings])


@dataclass(frozen=True)
class ReliabilityBin:
    """A tenth of the pairs, with similar predicted probabilities.

    `confidence` is the mean probability of the preferred answer, `accuracy` how often the judge preferred it too.
    """

    pairs: int
    confidence: float
    accuracy: float
    ci95: Interval


@dataclass(frozen=True)
class Agreement(Result):
    """Agreement of one method with the judges of one file, or of one subset of it.

    Attributes:
        file: source of the pairs.
        subset: the part of the file; None for all of it.
        method: a ranker's name, ``random``, ``longest``, ``first`` or ``consensus``.
        pairs: number of judged pairs, without the judges' ties.
        ties: number of ties that are left out.
        accuracy: share of pairs in which the method prefers the better answer, both orders taken together; one half
            where it prefers neither. That of ``random`` is its expectation.
        ci95: interval of `accuracy`, resampled by instruction (Wilson's where it is 0 or 1); None for ``random``.
        with_ties: accuracy with the judges' ties counted as one half each.
        undecided: share of the pairs in which the method prefers neither.
        longest: accuracy of ``longest`` on the same pairs, which is how often the judges preferred the longer answer;
            one half where both are equally long.
        prefers_longer: how often the method prefers the longer answer, counted likewise.
        flip_rate: share in which reading the two in the other order changes the preference of the model, before both
            orders are taken together. None for baselines.
        ece: mean distance between confidence (the probability of the preferred answer) and accuracy, over ten bins of
            equal mass. None for baselines.
        brier: mean squared error of the probability. None for baselines without probabilities.
        brier_base_rate: Brier score of a constant, the share of pairs in which a is better. Near 0.25 where a and b are
            in no order; lower where a file always calls the same LLM a, which rankers cannot see.
        versus: accuracy against that of the first method of the table; None for that one. `to_dict` calls its `mean`
            ``accuracy``.
        bins: terms of `ece`.
    """

    file: str
    subset: str | None
    method: str
    pairs: int
    ties: int
    accuracy: float
    ci95: Interval | None
    with_ties: float
    undecided: float
    longest: float
    prefers_longer: float
    flip_rate: float | None
    ece: float | None
    brier: float | None
    brier_base_rate: float
    versus: Difference | None = None
    bins: tuple[ReliabilityBin, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values = super().to_dict()
        if (versus := self.versus) is not None:
            values["versus"] = {"method": versus.method, "accuracy": versus.mean, "ci95": versus.ci95}
        return values


def agreements(judged: JudgedPairs, methods: Sequence[PairPredictions], *, seed: int = 0) -> list[Agreement]:
    """Measure how often each method agrees with the judge, on all pairs, then on each subset.

    All are compared with the first one.
    """
    results = _agreements(judged, methods, seed)
    for part, places in judged.parts():
        results += _agreements(part, [method.take(places) for method in methods], seed)
    return results


def _agreements(judged: JudgedPairs, methods: Sequence[PairPredictions], seed: int) -> list[Agreement]:
    resampling = Resampling(judged.groups, seed=seed)
    longer = np.sign([float(len(pair.a) - len(pair.b)) for pair in judged.pairs])
    reference = methods[0]
    reference_hits = _agree(reference.logits, judged.sides)
    a_wins, pairs = np.array(judged.a_wins, dtype=np.float64), len(judged.pairs)
    results = []
    for method in methods:
        hits = _agree(method.logits, judged.sides)
        accuracy, probabilities = float(hits.mean()), method.probabilities
        calibrated = None if probabilities is None or method.drawn else _confidence(probabilities)
        results.append(
            Agreement(
                file=judged.file,
                subset=judged.subset,
                method=method.method,
                pairs=pairs,
                ties=judged.ties,
                accuracy=accuracy,
                ci95=None if method.drawn else resampling.share(hits),
                with_ties=(accuracy * pairs + judged.ties / 2) / (pairs + judged.ties),
                undecided=float((method.logits == 0).mean()),
                longest=float(_agree(longer, judged.sides).mean()),
                prefers_longer=float(_agree(longer, method.logits).mean()),
                flip_rate=None if method.flips is None else float(method.flips.mean()),
                ece=None if calibrated is None else expected_calibration_error(calibrated, hits),
                brier=None if probabilities is None else brier_score(probabilities, a_wins),
                brier_base_rate=float(a_wins.mean() * (1 - a_wins.mean())),
                versus=None if method is reference else resampling.difference(reference.method, hits, reference_hits),
                bins=() if calibrated is None else _bins(judged, calibrated, hits, seed),
            )
        )
    return results


def _bins(judged: JudgedPairs, confidence: Floats, hits: Floats, seed: int) -> tuple[ReliabilityBin, ...]:
    groups = np.array(judged.groups)
    return tuple(
        ReliabilityBin(
            len(part.members),
            part.promised,
            part.happened,
            Resampling(groups[part.members], seed=seed).share(hits[part.members]),
        )
        for part in calibration_bins(confidence, hits)
    )


def _confidence(probabilities: Floats) -> Floats:
    # Which of the two is called a means nothing, so calibration is that of the preferred answer. Rounded, since 1 − p
    # has lost digits, and equal values must fall into one bin.
    return np.maximum(probabilities, 1 - probabilities).round(9)


def _agree(one: Floats, other: Floats) -> Floats:
    """Return ``[n]``: 1 where two preferences agree, 0 where not, ½ where one prefers neither."""
    shares: Floats = (1 + np.sign(one) * np.sign(other)) / 2
    return shares


def agreement_table(results: Sequence[Agreement]) -> Table:
    """Return shares in percent and the Brier score as it is.

    The last line of each file or subset, ``judges``, shows how often they prefer the longer answer, and the Brier score
    of the constant base rate.
    """
    reference = next((result.method for result in results if result.versus is None), "")
    divided = any(result.subset is not None for result in results)
    rows: list[tuple[str, ...]] = []
    for (file, subset), group in groupby(results, key=lambda result: (result.file, result.subset)):
        names = (file, subset or "(all)") if divided else (file,)
        of_group = list(group)
        rows += [(*names, *_cells(result)) for result in of_group]
        rows.append((*names, *_judges_cells(of_group[0])))
    names_of = ("file", "subset", "method") if divided else ("file", "method")
    shares = ("accuracy", "95 %", f"against {reference}, 95 %", "undecided", "longer", "flips", "ECE", "Brier")
    return Table((*names_of, "pairs", "ties", *shares), tuple(rows), names=len(names_of))


def _cells(result: Agreement) -> tuple[str, ...]:
    return (
        result.method,
        f"{result.pairs:,}",
        f"{result.ties:,}",
        format_number(result.accuracy, ".1f", 100),
        format_interval(result.ci95, ".1f", 100) if result.ci95 else "by definition",
        format_interval(result.versus.ci95 if result.versus else None, "+.1f", 100),
        *(
            format_number(share, ".1f", 100)
            for share in (result.undecided, result.prefers_longer, result.flip_rate, result.ece)
        ),
        format_number(result.brier, ".3f"),
    )


def _judges_cells(result: Agreement) -> tuple[str, ...]:
    counts = (f"{result.pairs:,}", f"{result.ties:,}")
    longest = format_number(result.longest, ".1f", 100)
    return ("judges", *counts, *(NOTHING,) * 4, longest, NOTHING, NOTHING, f"{result.brier_base_rate:.3f}")


def evidence_table(fit: EvidenceFit) -> Table:
    """Return the weights of each situation, their intervals, and what each part is worth.

    ``gain`` is how much the log loss rises, in thousandths of a nat, with the best weights without this part.
    """
    rows: list[Sequence[str]] = []
    for situation in SITUATIONS:
        found = fit.situations.get(situation)
        if found is None:
            continue
        for name in ("model", *FEATURES):
            if name in found.without:
                low, high = found.ci95[name]
                weight = getattr(fit.weights[situation], name)
                gain = 1000 * (found.without[name] - found.log_loss)
                rows.append(
                    (
                        situation,
                        f"{found.pairs:,}",
                        f"{found.log_loss:.4f}",
                        name,
                        f"{weight:.3f}",
                        f"{low:.3f} to {high:.3f}",
                        f"{gain:+.1f}",
                    )
                )
    columns = ("situation", "pairs", "log loss", "part", "weight", "95 %", "gain")
    return Table(columns, tuple(tuple(row) for row in rows), names=1)
