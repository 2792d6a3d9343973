"""Fit of a ranker's evidence weights to judged rows, and its table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from llm_blender.bench.report import NOTHING, Table
from llm_blender.bench.rows import BenchRow
from llm_blender.ranking import FEATURES, SITUATIONS, EvidenceFit


def draw_candidates(rows: Iterable[BenchRow], count: int, *, draws: int = 1, seed: int = 0) -> list[BenchRow]:
    """Draw `count` candidates of each row, `draws` times; a row with no more candidates than that is kept once."""
    rng = np.random.default_rng(seed)
    result = []
    for row in rows:
        for _ in range(draws if count < len(row.candidates) else 1):
            kept = rng.permutation(len(row.candidates))[:count].tolist()
            candidates = tuple(row.candidates[i] for i in kept)
            result.append(replace(row, candidates=candidates, qualities=tuple(row.qualities[i] for i in kept)))
    return result


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
                known = abs(weight) > 1e-6 or name == "length"
                rows.append(
                    (
                        situation,
                        f"{found.pairs:,}",
                        f"{found.log_loss:.4f}",
                        name,
                        f"{weight:.3f}" if known else NOTHING,
                        f"{low:.3f} to {high:.3f}",
                        f"{gain:+.1f}",
                    )
                )
    columns = ("situation", "pairs", "log loss", "part", "weight", "95 %", "gain")
    return Table(columns, tuple(tuple(row) for row in rows), names=1)
