"""What a judge adds who reads only close calls: recorded verdicts of GPT-4, and labels of Claude as the truth.

    python benchmarks/close_calls.py $DATA --ranker consensus -o runs/close_calls

Each label of alpacaeval_v1 is a win against text_davinci_003, so the verdict on a pair is the difference of two wins, 0
for a tie. Temperature and weight of the judge are fitted on train and dev rows. Prints Markdown tables of pairs and of
picks, and draws OUTPUT/close_calls.png and .svg.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llm_blender.bench import BenchRow, CachedRanker, Table, scored_rows
from llm_blender.bench.plots import headline, new_figure, outer_legend, point_axis, save_figures
from llm_blender.bench.report import Theme
from llm_blender.bench.resampling import Resampling
from llm_blender.cli._progress import progress
from llm_blender.data import read_rows
from llm_blender.rankers import load_ranker
from llm_blender.ranking import (
    CloseCalls,
    Interval,
    PairwiseRanker,
    add_verdicts,
    closest_pair,
    fit_temperature,
)
from llm_blender.ranking.aggregation import sigmoid
from llm_blender.types import Judging, Ranker, Ranking, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

FILE, TRUTH, JUDGE = "alpacaeval_v1.jsonl.zst", "claude_win_vs_text_davinci_003", "gpt-4_win_vs_text_davinci_003"
SHARES = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)
CLOSEST = 0.2  # share of the pairs on which the judge's weight is fitted
RULES = [CloseCalls(margin, pairs) for pairs in (1, 2, 3) for margin in (0.1, 0.15, 0.2, 0.25, 0.3, 0.5)]


@dataclass(frozen=True)
class Judged:
    """The rows of one split whose candidates both judges have labelled.

    Attributes:
        rows: rows with the truth as the quality of their candidates.
        verdicts: for each row, the label of the judge by candidate.
        rankings: of the rows, without the judge.
    """

    rows: list[BenchRow]
    verdicts: list[list[float]]
    rankings: list[Ranking]

    @classmethod
    def read(cls, folders: Sequence[Path], ranker: Ranker) -> Judged:
        """Read and rank the rows."""
        rows = []
        for folder in folders:
            for row in scored_rows(read_rows(folder / FILE), TRUTH):
                kept = [i for i, candidate in enumerate(row.candidates) if JUDGE in candidate.scores]
                candidates, qualities = (tuple(values[i] for i in kept) for values in (row.candidates, row.qualities))
                rows.append(replace(row, candidates=candidates, qualities=qualities))
        labels = [[candidate.scores[JUDGE] for candidate in row.candidates] for row in rows]
        with progress("ranking", "comparisons") as report:
            prompts, texts = [row.prompt for row in rows], [row.texts for row in rows]
            rankings = ranker.rank_many(prompts, texts, strategy="full", progress=report)
        return cls(rows, labels, rankings)

    def and_(self, other: Judged) -> Judged:
        """Return the rows of both."""
        return Judged(self.rows + other.rows, self.verdicts + other.verdicts, self.rankings + other.rankings)

    def pairs(self) -> tuple[Floats, Floats, Floats, NDArray[np.intp]]:
        """Return evidence in logits, verdict, sign of the truth and row of each pair that the truth decides."""
        found = [
            (ranking.logit(i, j), labels[i] - labels[j], np.sign(row.qualities[i] - row.qualities[j]), number)
            for number, (row, labels, ranking) in enumerate(zip(self.rows, self.verdicts, self.rankings, strict=True))
            for i, j in combinations(range(len(labels)), 2)
            if row.qualities[i] != row.qualities[j]
        ]
        evidence, verdicts, truth, rows = np.array(found, np.float64).T
        return evidence, verdicts, truth, rows.astype(np.intp)

    def pick(self, rule: CloseCalls, temperature: float) -> tuple[Floats, float]:
        """Return the quality of each row's pick, and the mean number of pairs that the judge compared."""
        qualities, compared = [], 0
        for row, labels, given in zip(self.rows, self.verdicts, self.rankings, strict=True):
            ranking, judging = replace(given, temperature=temperature), Judging(JUDGE)
            while (pair := closest_pair(ranking, row.texts, rule)) is not None:
                verdict = Verdict(*pair, labels[pair[0]] - labels[pair[1]])
                judging = replace(judging, verdicts=(*judging.verdicts, verdict))
                ranking = add_verdicts(ranking, judging, rule)
            compared += len(judging.verdicts)
            qualities.append(row.qualities[ranking.best])
        return np.array(qualities), compared / len(self.rows)


def main() -> None:
    """Fit on train and dev rows, print the tables of these and of the test rows, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder with train, dev and test")
    parser.add_argument("--ranker", default="bundled", help="`bundled`, `consensus`, or a folder")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/close_calls"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    ranker: Ranker = load_ranker(options.ranker)
    if isinstance(ranker, PairwiseRanker):
        ranker = CachedRanker(ranker, options.output / "comparisons.db", options.ranker)
    fitted = Judged.read([options.data / "train", options.data / "dev"], ranker)
    splits = {"train and dev": fitted, "test": Judged.read([options.data / "test"], ranker)}
    evidence, verdicts, truth, _ = fitted.pairs()
    temperature = fit_temperature(evidence, (truth + 1) / 2)
    close = closest(evidence, CLOSEST)
    weight = verdict_weight(evidence[close] / temperature, verdicts[close], truth[close])
    decided = close & (verdicts != 0)
    right = np.mean(np.sign(verdicts[decided]) == truth[decided])
    print(
        f"{options.ranker}: temperature {temperature:.3f} on train and dev. Of the closest {CLOSEST:.0%} of the pairs, "
        f"the judge decides {decided.sum() / close.sum():.1%}, {right:.1%} of them as the truth does. The weight of a "
        f"verdict is {weight:.2f}, that of an accuracy of {sigmoid(weight):.2f}. P(better) of these pairs is within "
        f"{np.abs(sigmoid(evidence[close] / temperature) - 0.5).max():.2f} of ½.\n"
    )
    found = {
        name: qualities(split, temperature) for name, split in {**splits, "all": fitted.and_(splits["test"])}.items()
    }
    print(pair_table(found).markdown(), "\n")
    print(pick_table(splits, temperature).markdown())
    save_figures({"close_calls": lambda theme: draw(found, theme)}, options.output)


def closest(evidence: Floats, share: float) -> NDArray[np.bool_]:
    """Mark the share of the pairs with the least evidence."""
    places = np.argsort(np.abs(evidence), kind="stable")
    marked = np.zeros(len(evidence), bool)
    marked[places[: round(share * len(evidence))]] = True
    return marked


def verdict_weight(evidence: Floats, verdicts: Floats, truth: Floats) -> float:
    """Fit the weight of the verdicts beside the evidence, in nats, by maximum likelihood (bisection of the slope)."""
    low, high = 0.0, 10.0
    while high - low > 1e-6:
        weight = (low + high) / 2
        slope = np.mean(verdicts * truth / (1 + np.exp(truth * (evidence + weight * verdicts))))
        low, high = (weight, high) if slope > 0 else (low, weight)
    return low


@dataclass(frozen=True)
class Quality:
    """Share of the pairs on which a choice and the truth agree; half of the ties count."""

    mean: float
    ci95: Interval
    gain: Interval | None = None


def qualities(split: Judged, temperature: float) -> dict[str, Quality]:
    """Return the quality of the judge alone, and of the evidence with a share of the pairs judged."""
    evidence, verdicts, truth, rows = split.pairs()
    drawn = Resampling(rows)
    weight = CloseCalls().weight

    def right(choice: Floats) -> Floats:
        return np.where(choice == 0, 0.5, np.sign(choice) == truth)

    alone = right(evidence)
    found = {"pairs": Quality(len(truth), Interval(0, 0)), "judge alone": measured(right(verdicts), drawn, alone)}
    for share in SHARES:
        judged = evidence / temperature + weight * verdicts * closest(evidence, share)
        found[f"{share:.0%}"] = measured(right(judged), drawn, alone if share else None)
    return found


def measured(values: Floats, drawn: Resampling, others: Floats | None) -> Quality:
    """Measure values, and how much more they are than others."""
    gain = None if others is None else drawn.interval(values - others)
    return Quality(float(values.mean()), drawn.interval(values), gain)


def pair_table(found: dict[str, dict[str, Quality]]) -> Table:
    """Return quality by the share of pairs that the judge compares."""
    columns = ["judged"]
    for name, of_split in found.items():
        columns += [f"{name}, {of_split['pairs'].mean:,.0f} pairs", "gain"]
    names = [name for name in next(iter(found.values())) if name != "pairs"]
    rows = []
    for name in names:
        cells = [name]
        for of_split in found.values():
            quality = of_split[name]
            cells += [percent(quality.mean, quality.ci95), "–" if quality.gain is None else signed(quality.gain)]
        rows.append(tuple(cells))
    return Table(tuple(columns), tuple(rows), names=1)


def pick_table(splits: dict[str, Judged], temperature: float) -> Table:
    """Return the quality of the picked answer by margin and budget."""
    columns = ["pairs at most", "margin"]
    for name, split in splits.items():
        columns += [f"{name}, {len(split.rows)} rows: pairs a row", "quality", "gain"]
    rows = []
    for rule in [CloseCalls(pairs=0), *RULES]:
        cells = [str(rule.pairs), f"{rule.margin:.2f}" if rule.pairs else "–"]
        for split in splits.values():
            drawn = Resampling(range(len(split.rows)))
            (plain, _), (values, compared) = (split.pick(each, temperature) for each in (CloseCalls(pairs=0), rule))
            gain = signed(drawn.interval(values - plain)) if rule.pairs else "–"
            cells += [f"{compared:.2f}", percent(float(values.mean()), drawn.interval(values)), gain]
        rows.append(tuple(cells))
    return Table(tuple(columns), tuple(rows), names=2)


def percent(value: float, ci95: Interval) -> str:
    """Write a share with its interval, in percent."""
    return f"{100 * value:.1f} ({100 * ci95.low:.1f} to {100 * ci95.high:.1f})"


def signed(ci95: Interval) -> str:
    """Write the interval of a difference, in points."""
    return f"{100 * ci95.low:+.1f} to {100 * ci95.high:+.1f}"


def draw(found: dict[str, dict[str, Quality]], theme: Theme) -> Figure:
    """Draw quality by the share of pairs that the judge compares."""
    figure = new_figure(6.4, 3.6)
    axis = figure.subplots()
    point_axis(axis, theme)
    x = [100 * share for share in SHARES]
    for place, name in enumerate(("train and dev", "test")):
        of_split = found[name]
        colour, shift = theme.accents[place], 0.6 * place
        shown = [of_split[f"{share:.0%}"] for share in SHARES]
        for at, quality in zip(x, shown, strict=True):
            axis.plot([at + shift] * 2, [100 * end for end in quality.ci95], color=colour, linewidth=1, alpha=0.45)
        places, means = [at + shift for at in x], [100 * quality.mean for quality in shown]
        axis.plot(places, means, color=colour, linewidth=1.2, marker="o", markersize=4, label=name)
        alone = 100 * of_split["judge alone"].mean
        axis.axhline(alone, color=colour, linewidth=0.8, dashes=(4, 3))
    axis.set(xlabel="pairs that the judge compares, %, closest first", ylabel="agreement with the truth, %")
    outer_legend(axis)
    headline(axis, "A judge for close calls", "dashed: the judge alone; bars are 95 % intervals", theme)
    return figure


if __name__ == "__main__":
    main()
