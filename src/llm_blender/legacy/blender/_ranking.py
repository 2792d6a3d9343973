"""Scores, comparisons and contests of a ranker, unrounded and in float32, as in 0.0.2."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from llm_blender.errors import InputError, MissingExtraError, unknown_name
from llm_blender.rankers.pair_ranker import PairRanker
from llm_blender.ranking import Advance, Pool, knockout, rank_many
from llm_blender.types import OnProgress

from ..gpt_eval.utils import get_scores_from_cmps

if TYPE_CHECKING:
    from llm_blender.rankers.pointwise import PointwiseRanker

__all__ = [
    "MODES",
    "REF_MODES",
    "Match",
    "PairReader",
    "PointwiseReader",
    "Reader",
    "Texts",
    "Truncation",
    "bubble",
    "by_bubble",
    "by_knockout",
    "contest",
    "list_of",
    "make_reader",
    "progress_bar",
    "read_lists",
    "read_texts",
    "references",
    "start_orders",
    "texts_of",
]


@dataclass(frozen=True)
class Texts:
    """Sources with their candidates; the lists may differ in length.

    Attributes:
        sources: instruction and input, joined without a separator, as in the training of the published rankers.
        candidates: candidates of each source.
    """

    sources: list[str]
    candidates: list[list[str]]

    @property
    def sizes(self) -> list[int]:
        """Number of candidates of each source."""
        return [len(texts) for texts in self.candidates]


def read_texts(inputs: Sequence[str], candidates: Sequence[Sequence[str]], instructions: Sequence[str] | None) -> Texts:
    """Check the lists and join instructions and inputs; errors as for `read_lists`."""
    before, read, lists = read_lists(inputs, candidates, instructions)
    return Texts([instruction + text for instruction, text in zip(before, read, strict=True)], lists)


def read_lists(
    inputs: Sequence[str], candidates: Sequence[Sequence[str]], instructions: Sequence[str] | None
) -> tuple[list[str], list[str], list[list[str]]]:
    """Check instructions (empty for None), inputs and candidates.

    Raises:
        InputError: lists are empty or differ in length, or a text is not a string.
    """
    read = texts_of(inputs, "inputs")
    before = [""] * len(read) if instructions is None else texts_of(instructions, "instructions", len(read))
    listed = list_of(candidates, "candidates", len(read))
    return before, read, [texts_of(texts, f"candidates[{i}]") for i, texts in enumerate(listed)]


def texts_of(values: Any, name: str, count: int | None = None) -> list[str]:
    """Check a list of texts and return it as Python strings.

    Args:
        values: a list, array or column of texts.
        name: name of the argument, for the error.
        count: required number of texts; None for any number above zero.

    Raises:
        InputError: the list is empty or has another length, or an item is not a string.
    """
    items = list_of(values, name, count)
    for i, text in enumerate(items):
        if not isinstance(text, str):
            raise InputError(f"{name}[{i}] must be a text, not {type(text).__name__}: {text!r:.60}.")
    return [str(text) for text in items]  # numpy.str_ becomes str


def list_of(values: Any, name: str, count: int | None = None) -> list[Any]:
    """Convert a list, array or column to a list; arguments and errors as for `texts_of`, except for the items."""
    if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
        raise InputError(f"{name} must be a list, not {type(values).__name__}.")
    items = list(values)
    if not items:
        raise InputError(f"{name} is empty: give at least one.")
    if count is not None and len(items) != count:
        raise InputError(f"{count} inputs need as many {name}, not {len(items)}.")
    return items


@contextmanager
def progress_bar(title: str, shown: bool) -> Iterator[OnProgress | None]:
    """Show a progress bar on a terminal.

    Yields:
        The function to call with (done, total); None if no bar is shown.
    """
    if not (shown and sys.stderr.isatty()):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


Floats = NDArray[np.float32]
Match = tuple[int, int, int]
"""(source, candidate A, candidate B), by index."""
Truncation = Literal["auto", "right", "left", "middle", "reference"]

BOTH, FORWARD, BACKWARD = MODES = ("[A,B]+[B,A]", "[A,B]", "[B,A]")
"""Orders in which a pair is compared; ``[B,A]`` is above zero if B, read first, is better."""


def make_reader(
    ranker: PairRanker | PointwiseRanker,
    *,
    truncation: str = "auto",
    batch_size: int = 1,
    lengths: tuple[int | None, int | None] = (None, None),
    title: str = "",
) -> PairReader | PointwiseReader:
    """Set the options of a ranker for one call.

    Args:
        ranker: a pairwise or a pointwise ranker.
        truncation: ``reference``, or a truncation of `PairRanker`.
        batch_size: batch size of ``reference``.
        lengths: maximum numbers of tokens of source and candidate; None for the ranker's own.
        title: title of the progress bar; empty for no bar.

    Raises:
        InputError: a value is out of range, or this ranker does not support it.
    """
    if not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"batch_size must be a number above zero, not {batch_size!r}.")
    if not isinstance(ranker, PairRanker):
        if truncation != "auto" or any(lengths):
            raise InputError("Truncation and lengths can be chosen for a PairRanker only, not for the one loaded.")
        return PointwiseReader(ranker, title)
    known = ("auto", "right", "left", "middle", "reference")
    if truncation not in known:
        raise unknown_name("truncation", truncation, known)
    ranker = ranker.with_lengths(*lengths) if any(lengths) else copy(ranker)
    if truncation != "auto":
        ranker.truncation = "right" if truncation == "reference" else truncation  # type: ignore[assignment]
    return PairReader(ranker, batch_size if truncation == "reference" else 0, title)


@dataclass(frozen=True)
class PairReader:
    """A PairRanker with the options of one call.

    Attributes:
        ranker: the ranker.
        legacy_batch: instructions a batch that share the length of their candidates, as in 0.0.2; 0 for none.
        title: title of the progress bar; empty for no bar.
        pairwise: whether the model compares pairs; else comparisons are differences of scores.
    """

    ranker: PairRanker
    legacy_batch: int
    title: str
    pairwise: bool = True

    def scores(self, texts: Texts) -> list[Floats]:
        """Score the candidates of each source, higher is better."""
        pairs = [(i, a, b) for i, size in enumerate(texts.sizes) for a, b in permutations(range(size), 2)]
        logits = self._logits(texts, pairs)
        scores, start = [], 0
        for size in texts.sizes:
            matrix = np.zeros((size, size), np.float32)
            matrix[~np.eye(size, dtype=bool)] = logits[start : start + size * (size - 1)]  # in the order of the pairs
            scores.append(get_scores_from_cmps(matrix))
            start += size * (size - 1)
        return scores

    def compare(self, texts: Texts, matches: Sequence[Match], mode: str = BOTH) -> Floats:
        """Compute a logit for each match: above zero, A is better (in the mode ``[B,A]``, B)."""
        swapped = [(i, b, a) for i, a, b in matches]
        if mode != BOTH:
            return self._logits(texts, list(matches) if mode == FORWARD else swapped)
        # Two equal texts tie: their logits cancel exactly.
        differ = [row for row, (i, a, b) in enumerate(matches) if texts.candidates[i][a] != texts.candidates[i][b]]
        logits = self._logits(texts, [pairs[row] for pairs in (matches, swapped) for row in differ])
        found = np.zeros(len(matches), np.float32)
        found[differ] = logits[: len(differ)] - logits[len(differ) :]
        return found

    def _logits(self, texts: Texts, pairs: list[Match]) -> Floats:
        if not pairs:
            return np.zeros(0, np.float32)
        with progress_bar(self.title, bool(self.title)) as progress:
            return self.ranker.pair_logits(
                texts.sources, texts.candidates, pairs, legacy_batch=self.legacy_batch, progress=progress
            )


@dataclass(frozen=True)
class PointwiseReader:
    """A pointwise ranker with the options of one call; see `PairReader`."""

    ranker: PointwiseRanker
    title: str
    pairwise: bool = False

    def scores(self, texts: Texts) -> list[Floats]:
        """Score the candidates of each source, higher is better."""
        with progress_bar(self.title, bool(self.title)) as progress:
            scores = self.ranker.scores(texts.sources, texts.candidates, progress=progress)
        return [np.asarray(row, np.float32) for row in scores]

    def compare(self, texts: Texts, matches: Sequence[Match], mode: str = BOTH) -> Floats:
        """Compute a logit for each match: above zero, A is better (in the mode ``[B,A]``, B)."""
        scores = self.scores(texts)
        differences = np.array([scores[i][a] - scores[i][b] for i, a, b in matches], np.float32)
        # Scaled so that, as with a PairRanker, the logit of both orders is the difference of the two.
        return differences * np.float32({BOTH: 1, FORWARD: 0.5, BACKWARD: -0.5}[mode])


Reader = PairReader | PointwiseReader
Order = list[int]
"""Indices of candidates, the best first (or the worst)."""
Step = tuple[int, int, int]
"""(candidate so far, challenger, winner), by index."""


def contest(kind: str, reader: Reader, texts: Texts, batch_size: int, *, worst: bool) -> list[Order]:
    """Order each source's candidates, the best first or the worst, by the original's ``pairrm_cmp_type``.

    A pointwise ranker orders by its scores, whatever the kind.

    Raises:
        InputError: the kind is unknown.
    """
    kinds = ("bubble", "full", "reference")
    if kind not in kinds:
        raise unknown_name("pairrm_cmp_type", kind, kinds)
    if kind == "full" or not reader.pairwise:
        sign = 1 if worst else -1
        return [np.argsort(sign * row, kind="stable").tolist() for row in reader.scores(texts)]
    if kind == "bubble":
        return by_knockout(reader, texts, worst=worst)
    return by_bubble(reader, texts, batch_size, worst=worst)


def by_knockout(reader: Reader, texts: Texts, *, worst: bool) -> list[Order]:
    """Run knockout contests for all sources at once; the other candidates follow by the round of their elimination."""
    sign = -1.0 if worst else 1.0

    def compare(pool: Pool, advance: Advance) -> NDArray[np.float64]:
        return sign * reader.compare(texts, pool, FORWARD).astype(np.float64)

    rankings = rank_many(texts.candidates, [knockout(size) for size in texts.sizes], compare)
    return [list(ranking.order) for ranking in rankings]


def by_bubble(reader: Reader, texts: Texts, batch_size: int, *, worst: bool) -> list[Order]:
    """Run 0.0.2's bubble from a random order; the other candidates follow in the order of their defeats."""
    starts = start_orders(texts.sizes, batch_size)
    steps = bubble(reader, texts, starts, worst=worst)
    return [
        [
            row[-1][2] if row else start[0],
            *(challenger if leader == winner else leader for leader, challenger, winner in row),
        ]
        for row, start in zip(steps, starts, strict=True)
    ]


def bubble(reader: Reader, texts: Texts, starts: Sequence[Order], *, worst: bool = False) -> list[list[Step]]:
    """Compare the best candidate so far with the next one (arXiv 2306.02561, section 4.2); in a tie the next one wins.

    Args:
        reader: ranker of the texts.
        texts: sources and candidates.
        starts: order of the candidates of each source.
        worst: search for the worst candidate instead of the best.

    Returns:
        The steps of each source.
    """
    steps: list[list[Step]] = [[] for _ in starts]
    best = [start[0] for start in starts]
    for place in range(1, max(map(len, starts))):
        matches = [(i, best[i], start[place]) for i, start in enumerate(starts) if place < len(start)]
        for (i, leader, challenger), logit in zip(matches, reader.compare(texts, matches).tolist(), strict=True):
            best[i] = leader if (-logit if worst else logit) > 0 else challenger
            steps[i].append((leader, challenger, best[i]))
    return steps


def start_orders(sizes: Sequence[int], batch_size: int) -> list[Order]:
    """Draw the start orders as 0.0.2: by torch's global generator, once for each batch of inputs.

    Raises:
        MissingExtraError: torch is not installed.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingExtraError("The start order of the reference", "torch") from error
    torch.empty((), dtype=torch.int64).random_()  # 0.0.2's DataLoader drew one number first
    starts: list[Order] = []
    for first in range(0, len(sizes), batch_size):
        batch = sizes[first : first + batch_size]
        order = torch.randperm(max(batch)).tolist()
        starts += [[place for place in order if place < size] for size in batch]
    return starts


def _by_length(texts: list[str]) -> list[int]:
    return sorted(range(len(texts)), key=lambda place: len(texts[place]))


REF_MODES: dict[str, Callable[[list[str]], int]] = {
    "longest": lambda texts: max(range(len(texts)), key=lambda place: len(texts[place])),
    "shortest": lambda texts: _by_length(texts)[0],
    "median_length": lambda texts: _by_length(texts)[len(texts) // 2],
    "first": lambda texts: 0,
    "last": lambda texts: len(texts) - 1,
}
"""Functions that choose the reference among the candidates; lengths in characters, the first of equal ones."""


def references(texts: Texts, mode: str, given: Sequence[str] | None) -> tuple[Texts, list[Match]]:
    """Add the references to the texts, and list their matches.

    Args:
        texts: sources and candidates.
        mode: one of `REF_MODES`.
        given: a reference for each source, instead of one of its candidates.

    Returns:
        The texts with the reference after the candidates of each source, and for each candidate of each source the
        match (source, reference, candidate).

    Raises:
        InputError: the number of references is not that of the sources, or a reference is not a string.
    """
    choose = REF_MODES[mode]
    if given is None:
        chosen = [row[choose(row)] for row in texts.candidates]
    else:
        chosen = texts_of(given, "ref_candidates", len(texts.sources))
    rows = [[*row, reference] for row, reference in zip(texts.candidates, chosen, strict=True)]
    matches = [(i, size, place) for i, size in enumerate(texts.sizes) for place in range(size)]
    return Texts(texts.sources, rows), matches
