"""From rows to training pairs: which two answers to one instruction, and which is better."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llm_blender.training.recipe import Source
from llm_blender.types import Example

__all__ = ["TrainingPair", "draw_pairs"]


@dataclass(frozen=True)
class TrainingPair:
    """Two answers to one prompt, the better one known."""

    prompt: str
    better: str
    worse: str


def draw_pairs(rows: Sequence[Example], source: Source, seed: int) -> list[TrainingPair]:
    """Draw `source.max_pairs` pairs (or as many as there are), spread evenly over the rows.

    Rows take turns: each gives one pair drawn from its own before any gives a second, so that a row with many
    candidates does not crowd out the others.
    """
    rng = np.random.default_rng(seed)
    pools = {"implied": _implied, "labelled": _labelled, "mismatched": _mismatched}[source.pairs](rows, source, rng)
    shuffled = [[pool[i] for i in rng.permutation(len(pool))] for pool in pools if pool]
    order = rng.permutation(len(shuffled))
    turns = itertools.chain.from_iterable(itertools.zip_longest(*(shuffled[i] for i in order)))
    return list(itertools.islice((pair for pair in turns if pair is not None), source.max_pairs))


def _pair(row: Example, better: str, worse: str) -> list[TrainingPair]:
    usable = better.strip() != worse.strip()
    return [TrainingPair(row.prompt, better, worse)] if usable else []


def _labelled(rows: Iterable[Example], source: Source, _: np.random.Generator) -> Iterator[list[TrainingPair]]:
    for row in rows:
        pool: list[TrainingPair] = []
        for pair in row.pairs:
            a, b = row.candidates[pair.a], row.candidates[pair.b]
            if pair.label != "tie" and not {a.model, b.model} & set(source.exclude_models):
                better, worse = (a, b) if pair.label == "a" else (b, a)
                pool += _pair(row, better.text, worse.text)
        yield pool


def _mismatched(rows: Sequence[Example], _: Source, rng: np.random.Generator) -> Iterator[list[TrainingPair]]:
    referenced = [row for row in rows if row.reference]
    # A rotation by at least one: no row meets itself.
    others = np.roll(np.arange(len(referenced)), 1 + int(rng.integers(max(len(referenced) - 1, 1))))
    for row, other in zip(referenced, others, strict=True):
        yield _pair(row, row.reference or "", referenced[other].reference or "")


def _implied(rows: Sequence[Example], source: Source, _: np.random.Generator) -> Iterator[list[TrainingPair]]:
    names = source.scores or tuple(sorted({name for row in rows for c in row.candidates for name in c.scores}))
    standings = {name: _standings(rows, name) for name in names}
    strengths = {name: _strengths(rows, name, standings[name]) for name in names}
    for index, row in enumerate(rows):
        pool: list[TrainingPair] = []
        for name in names:
            kept = [
                (c.text, standings[name][index, i], strengths[name][c.model])
                for i, c in enumerate(row.candidates)
                if name in c.scores and c.model not in source.exclude_models
            ]
            for one, other in itertools.combinations(kept, 2):
                better, worse = (one, other) if one[1] > other[1] else (other, one)
                gap = better[1] - worse[1]
                comparable = abs(better[2] - worse[2]) <= source.comparable
                if comparable and gap >= source.min_gap and gap > 0:
                    pool += _pair(row, better[0], worse[0])
        yield pool


def _standings(rows: Sequence[Example], name: str) -> dict[tuple[int, int], float]:
    """Per (row, candidate): its score's mid-rank among all scores of that name, 0 worst to 1 best.

    Any scale, binary to continuous, becomes one on which a gap means the same.
    """
    keys = [(r, i) for r, row in enumerate(rows) for i, c in enumerate(row.candidates) if name in c.scores]
    values: NDArray[np.float64] = np.array([rows[r].candidates[i].scores[name] for r, i in keys])
    ordered = np.sort(values)
    below, upto = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    return dict(zip(keys, ((below + upto) / (2 * max(len(values), 1))).tolist(), strict=True))


def _strengths(rows: Sequence[Example], name: str, standings: dict[tuple[int, int], float]) -> dict[str | None, float]:
    """Mean standing of each LLM."""
    found: dict[str | None, list[float]] = defaultdict(list)
    for (r, i), standing in standings.items():
        found[rows[r].candidates[i].model].append(standing)
    return {model: float(np.mean(values)) for model, values in found.items()}
