"""Training groups, drawn from rows: answers to one instruction, and preferences between them."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from llm_blender.data import normalized_key, read_rows
from llm_blender.errors import InputError
from llm_blender.training.recipes import Source
from llm_blender.types import Example

logger = logging.getLogger(__name__)

_RAREST = 8  # words of a text by which others are found
_COMMON = 4.0  # idf below which a word is common: that of one text in 55
_FEW = 4  # texts; a word in no more than these is never common, however few texts there are


def similar_texts(texts: Sequence[str], k: int) -> list[list[int]]:
    """Find the `k` most similar other texts of each text, for hard negatives.

    Similarity is the cosine of TF-IDF vectors. Only texts that share one of the text's rarest words are considered, so
    there may be fewer than `k`, or none.

    Returns:
        Indices per text, most similar first.
    """
    words = [Counter(re.findall(r"\w+", text.lower())) for text in texts]
    places: dict[str, list[int]] = defaultdict(list)
    for index, counts in enumerate(words):
        for word in counts:
            places[word].append(index)
    idf = {word: float(np.log(len(texts) / len(found))) for word, found in places.items()}
    weights = [{word: count * idf[word] for word, count in counts.items()} for counts in words]
    norms = [max(float(np.sqrt(sum(w * w for w in vector.values()))), 1e-9) for vector in weights]
    result: list[list[int]] = []
    for index, vector in enumerate(weights):
        similar: dict[int, float] = defaultdict(float)
        for word in _rarest_words(vector, idf, places):
            for other in places[word]:
                similar[other] += vector[word] * weights[other][word] / norms[other]
        similar.pop(index, None)
        result.append(heapq.nsmallest(k, similar, key=lambda other: (-similar[other], other)))
    return result


def _rarest_words(words: Collection[str], idf: Mapping[str, float], places: Mapping[str, Sequence[int]]) -> list[str]:
    """Choose the rarest words; a common one only if all are common."""
    rarest = heapq.nsmallest(_RAREST, words, key=lambda word: (-idf[word], word))
    rare = [word for word in rarest if idf[word] >= _COMMON or len(places[word]) <= _FEW]
    return rare or rarest[:1]


_FULL_GAP = 0.5
"""Difference of mid-ranks from which a preference is certain: that between winning and losing."""
_SIMILAR = 5  # similar instructions to draw a hard negative from
_BEATEN = 3  # candidates to which a distractor loses


class Preference(NamedTuple):
    """Probability that text `a` is better than text `b`, both by index."""

    a: int
    b: int
    probability: float


@dataclass(frozen=True)
class TrainingGroup:
    """Answers to one prompt and preferences between them.

    A model that reads each answer once learns up to n (n − 1) / 2 comparisons from n answers.
    """

    prompt: str
    texts: tuple[str, ...]
    preferences: tuple[Preference, ...]


def draw_groups(rows: Sequence[Example], source: Source, seed: int) -> list[TrainingGroup]:
    """Draw `source.max_groups` groups, or as many as there are, evenly over the rows.

    Rows take turns: each gives one group before any gives a second. ``labelled`` and ``reference`` rows give one
    each; an ``implied`` row gives more until a few draws in succession bring nothing new.
    """
    rng = np.random.default_rng(seed)
    kinds: dict[str, type[_Draw]] = {"implied": _Implied, "labelled": _Labelled, "reference": _Reference}
    make = kinds[pairs_of(source, rows)](rows, source, rng)
    groups: list[TrainingGroup] = []
    seen: set[tuple[int, frozenset[str]]] = set()
    order = rng.permutation(len(rows)).tolist()
    while order and len(groups) < source.max_groups:
        fruitful = []
        for index in order:
            for _ in range(make.tries):
                group = make.draw(index)
                key = (index, frozenset(group.texts)) if group else None
                if group and key and key not in seen:
                    seen.add(key)
                    groups.append(group)
                    fruitful.append(index)
                    break
            if len(groups) == source.max_groups:
                break
        order = fruitful if make.tries > 1 else []
    return groups


def pairs_of(source: Source, rows: Sequence[Example]) -> str:
    """Return how pairs are found: `Source.pairs`, and for ``auto`` what the rows hold."""
    if source.pairs != "auto":
        return source.pairs
    return "implied" if any(candidate.scores for row in rows for candidate in row.candidates) else "labelled"


class _Draw(Protocol):
    tries: int
    """Draws per turn until a group is new; 1 if a row has only one group."""

    def __init__(self, rows: Sequence[Example], source: Source, rng: np.random.Generator) -> None: ...

    def draw(self, index: int) -> TrainingGroup | None:
        """Draw a group of a row, by index; None if it has none."""
        ...


def _group(row: Example, texts: Sequence[str], preferences: Iterable[Preference]) -> TrainingGroup | None:
    kept = tuple(p for p in preferences if texts[p.a].strip() != texts[p.b].strip())
    return TrainingGroup(row.prompt, tuple(texts), kept) if kept else None


class _Labelled:
    """Candidates with labelled pairs; ties are left out."""

    tries = 1

    def __init__(self, rows: Sequence[Example], source: Source, rng: np.random.Generator) -> None:
        self._rows, self._excluded = rows, set(source.exclude_models)

    def draw(self, index: int) -> TrainingGroup | None:
        row = self._rows[index]
        preferences = []
        for pair in row.pairs:
            if pair.label != "tie" and not {row.candidates[i].model for i in (pair.a, pair.b)} & self._excluded:
                preferences.append(Preference(pair.a, pair.b, float(pair.label == "a")))
        used = sorted({i for p in preferences for i in (p.a, p.b)})
        place = {i: n for n, i in enumerate(used)}
        moved = [Preference(place[p.a], place[p.b], p.probability) for p in preferences]
        return _group(row, [row.candidates[i].text for i in used], moved)


class _Reference:
    """The reference against texts that do not answer the instruction, or only in part."""

    tries = 1

    def __init__(self, rows: Sequence[Example], source: Source, rng: np.random.Generator) -> None:
        self._rows, self._rng, self._kinds = rows, rng, source.negatives
        self._referenced = [i for i, row in enumerate(rows) if row.reference]
        hard = "neighbour" in self._kinds
        similar = similar_texts([rows[i].prompt for i in self._referenced], _SIMILAR) if hard else []
        self._similar = {
            i: [self._referenced[n] for n in found] for i, found in zip(self._referenced, similar, strict=False)
        }

    def draw(self, index: int) -> TrainingGroup | None:
        row = self._rows[index]
        if not row.reference:
            return None
        negatives = [text for kind in self._kinds if (text := self._negative(kind, index, row.reference))]
        preferences = [Preference(0, n, 1.0) for n in range(1, len(negatives) + 1)]
        return _group(row, [row.reference, *negatives], preferences)

    def _negative(self, kind: str, index: int, reference: str) -> str | None:
        if kind == "cut":
            words = reference.split(" ")
            least, most = max(1, len(words) // 4), 3 * len(words) // 4
            return " ".join(words[: int(self._rng.integers(least, most))]) if most > least + 2 else None
        others = self._similar[index] if kind == "neighbour" else [i for i in self._referenced if i != index]
        return self._rows[others[int(self._rng.integers(len(others)))]].reference if others else None


class _Implied:
    """Candidates of comparable LLMs, by their scores."""

    tries = 5

    def __init__(self, rows: Sequence[Example], source: Source, rng: np.random.Generator) -> None:
        self._rows, self._source, self._rng = rows, source, rng
        names = source.scores or tuple(sorted({name for row in rows for c in row.candidates for name in c.scores}))
        self._mid_ranks = {name: _mid_ranks(rows, name) for name in names}
        self._strength = _strengths(rows, self._mid_ranks)
        hard = source.distractors > 0
        self._similar = similar_texts([row.prompt for row in rows], _SIMILAR) if hard else []

    def draw(self, index: int) -> TrainingGroup | None:
        row = self._rows[index]
        known = [i for i in range(len(row.candidates)) if self._usable(index, i)]
        if len(known) < 2:
            return None
        anchor = self._strength[row.candidates[known[int(self._rng.integers(len(known)))]].model]
        close = [i for i in known if abs(self._strength[row.candidates[i].model] - anchor) <= self._source.comparable]
        chosen = [close[n] for n in self._rng.permutation(len(close))[: self._source.candidates]]
        preferences = [
            Preference(a, b, probability)
            for a, b in itertools.combinations(range(len(chosen)), 2)
            if (probability := self._probability(index, chosen[a], chosen[b])) is not None
        ]
        texts = [row.candidates[i].text for i in chosen]
        if self._similar and self._rng.random() < self._source.distractors and (other := self._distractor(index)):
            beaten = self._rng.permutation(len(texts))[:_BEATEN].tolist()
            preferences += [Preference(n, len(texts), 1.0) for n in beaten]
            texts.append(other)
        return _group(row, texts, preferences)

    def _usable(self, row: int, candidate: int) -> bool:
        found = self._rows[row].candidates[candidate]
        return found.model not in self._source.exclude_models and any(
            (row, candidate) in mid_ranks for mid_ranks in self._mid_ranks.values()
        )

    def _probability(self, row: int, a: int, b: int) -> float | None:
        """Average over the scores that differ enough; None if none does."""
        gaps = [
            gap
            for mid_ranks in self._mid_ranks.values()
            if (row, a) in mid_ranks and (row, b) in mid_ranks
            for gap in [mid_ranks[row, a] - mid_ranks[row, b]]
            if gap and abs(gap) >= self._source.min_gap
        ]
        mean = float(np.mean(np.clip(np.array(gaps) / _FULL_GAP, -1, 1))) if gaps else 0.0
        return 0.5 + mean / 2 if mean else None

    def _distractor(self, index: int) -> str | None:
        """Draw a hard negative: an answer to a similar instruction, by one of the better LLMs."""
        similar = self._similar[index]
        if not similar:
            return None
        other = similar[int(self._rng.integers(len(similar)))]
        known = [i for i in range(len(self._rows[other].candidates)) if self._usable(other, i)]
        known.sort(key=lambda i: -self._strength[self._rows[other].candidates[i].model])
        better = known[: max(1, len(known) // 2)]
        return self._rows[other].candidates[better[int(self._rng.integers(len(better)))]].text if better else None


def _mid_ranks(rows: Sequence[Example], name: str) -> dict[tuple[int, int], float]:
    """Compute the mid-rank of each score among all scores of its name, 0 worst to 1 best, by (row, candidate).

    So a gap means the same on any scale, binary to continuous: between the two values of a binary score it is 0.5.
    """
    keys = [(r, i) for r, row in enumerate(rows) for i, c in enumerate(row.candidates) if name in c.scores]
    values: NDArray[np.float64] = np.array([rows[r].candidates[i].scores[name] for r, i in keys])
    ordered = np.sort(values)
    below, upto = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    return dict(zip(keys, ((below + upto) / (2 * max(len(values), 1))).tolist(), strict=True))


def _strengths(
    rows: Sequence[Example], mid_ranks: Mapping[str, Mapping[tuple[int, int], float]]
) -> dict[str | None, float]:
    """Average the mid-ranks of each LLM, over all scores."""
    found: dict[str | None, list[float]] = defaultdict(list)
    for of_score in mid_ranks.values():
        for (r, i), mid_rank in of_score.items():
            found[rows[r].candidates[i].model].append(mid_rank)
    return {model: float(np.mean(values)) for model, values in found.items()}


PREFERENCE = "preference"
"""Task of every group: how often a text is preferred to the group's others."""


@dataclass(frozen=True)
class ScoredGroup:
    """A training group with scores.

    Attributes:
        group: texts and preferences.
        scores: by name, one per text of the group; NaN where unknown.
        reference: an answer known to be good.
    """

    group: TrainingGroup
    scores: Mapping[str, tuple[float, ...]]
    reference: str | None = None

    def targets(self, tasks: Sequence[str]) -> NDArray[np.float64]:
        """Return the scores ``[texts, tasks]``, NaN where unknown; those of `PREFERENCE` are `wins_share`."""
        unknown = (float("nan"),) * len(self.group.texts)
        columns = [
            wins_share(self.group) if task == PREFERENCE else np.array(self.scores.get(task, unknown)) for task in tasks
        ]
        return np.stack(columns, 1)


def wins_share(group: TrainingGroup) -> NDArray[np.float64]:
    """Compute each text's mean probability of being the better one, ``[texts]``; NaN if it is in no preference."""
    found: list[list[float]] = [[] for _ in group.texts]
    for a, b, probability in group.preferences:
        found[a].append(probability)
        found[b].append(1 - probability)
    # Rounded, so that equal texts have equal shares.
    return np.array([round(sum(shares) / len(shares), 6) if shares else float("nan") for shares in found])


class Judgements:
    """Scores and references of rows, by prompt and text."""

    def __init__(self, rows: Iterable[Example]) -> None:
        scores: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self._references: dict[str, str] = {}
        for row in rows:
            prompt = row.prompt
            if row.reference:
                self._references.setdefault(prompt, row.reference)
            for candidate in row.candidates:
                for name, score in candidate.scores.items():
                    scores[prompt, candidate.text][name].append(score)
        # Two LLMs may have written the same text and have different scores.
        self._scores = {
            key: {name: sum(values) / len(values) for name, values in of_text.items()}
            for key, of_text in scores.items()
        }

    @classmethod
    def read(cls, sources: Sequence[Source], folder: Path) -> Judgements:
        """Read the files of a recipe's sources.

        Raises:
            NotFoundError: a file is not in the folder.
            RowError: a row cannot be used.
        """
        files = dict.fromkeys(folder / source.file for source in sources)
        return cls(row for file in files for row in read_rows(file))

    def of(self, groups: Iterable[TrainingGroup]) -> list[ScoredGroup]:
        """Add scores and references to groups; an answer to another prompt has no scores."""
        return [ScoredGroup(group, self._of(group), self._references.get(group.prompt)) for group in groups]

    def _of(self, group: TrainingGroup) -> dict[str, tuple[float, ...]]:
        found = [self._scores.get((group.prompt, text), {}) for text in group.texts]
        names = sorted({name for scores in found for name in scores})
        return {name: tuple(scores.get(name, float("nan")) for scores in found) for name in names}


def find_tasks(groups: Sequence[ScoredGroup], least: float = 0.1) -> tuple[str, ...]:
    """List the tasks to learn: `PREFERENCE`, and the scores that differ within enough groups, most frequent first.

    Args:
        groups: training groups.
        least: share of the groups in which a score must differ between texts.
    """
    differing = Counter(
        name
        for group in groups
        for name, values in group.scores.items()
        if len({value for value in values if not np.isnan(value)}) > 1
    )
    often = sorted(
        (name for name, count in differing.items() if count >= least * len(groups)), key=lambda n: (-differing[n], n)
    )
    return (PREFERENCE, *(name for name in often if name != PREFERENCE))


@dataclass(frozen=True)
class SourceCount:
    """Counts of one file.

    Attributes:
        source: of the recipe.
        path: of the file.
        rows: rows read.
        excluded: rows left out, since their prompt is in a test file.
        groups: groups drawn.
        pairs: preferences in them.
        held_out: rows on the other side of `Recipe.hold_out`.
    """

    source: Source
    path: Path
    rows: int
    excluded: int
    groups: int
    pairs: int
    held_out: int = 0


def excluded_keys(files: Sequence[str | Path]) -> frozenset[str]:
    """Read the normalised prompts of test files, which must not be among training rows."""
    return frozenset(normalized_key(row) for path in files for row in read_rows(path))


def share_of(key: str, seed: int) -> float:
    """Draw a number from 0 to 1 for an instruction: it depends on both alone, whatever other instructions there are."""
    digest = hashlib.sha256(f"{seed} {key}".encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8]) / 2**64


def load_groups(
    sources: Sequence[Source],
    folder: Path,
    excluded: frozenset[str],
    seed: int,
    *,
    part: tuple[float, float] = (0, 1),
) -> tuple[list[TrainingGroup], list[SourceCount]]:
    """Draw the groups of all sources and shuffle them.

    Args:
        sources: files of rows.
        folder: of the files.
        excluded: normalised prompts that are left out.
        seed: of the draws.
        part: instructions that are read, by their `share_of`: from the first number to below the second.

    Raises:
        NotFoundError: a source's file is not in the folder.
        RowError: a row cannot be used.
    """
    groups: list[TrainingGroup] = []
    counts: list[SourceCount] = []
    for position, source in enumerate(sources):
        path = folder / source.file
        rows: list[Example] = list(read_rows(path))
        kept = [row for row in rows if not excluded or normalized_key(row) not in excluded]
        here = (
            kept
            if part == (0, 1)
            else [row for row in kept if part[0] <= share_of(normalized_key(row), seed) < part[1]]
        )
        source = _described(source, path, rows)
        drawn = draw_groups(here, source, seed * 1_000 + position)
        pairs = sum(len(group.preferences) for group in drawn)
        counts.append(
            SourceCount(source, path, len(rows), len(rows) - len(kept), len(drawn), pairs, len(kept) - len(here))
        )
        groups += drawn
    order = np.random.default_rng(seed).permutation(len(groups))
    return [groups[i] for i in order], counts


def _described(source: Source, path: Path, rows: Sequence[Example]) -> Source:
    """Fill in what a source leaves open: how pairs are found, and name, URL and licence from the file's own card."""
    found = {key: value for key, value in file_card(path).items() if not getattr(source, key)}
    pairs = pairs_of(source, rows)
    if source.pairs == "auto" and pairs == "implied":
        lost = sum(bool(row.pairs) and not any(candidate.scores for candidate in row.candidates) for row in rows)
        if lost:
            logger.warning(
                "%s: %s of %s rows have judged pairs and no scores, and teach nothing beside rows with scores: put "
                "them into a file of their own, or take only the pairs with --pairs labelled.",
                *(path, f"{lost:,}", f"{len(rows):,}"),
            )
    return source.model_copy(update=found | {"pairs": pairs})


_CARD_ROW = re.compile(r"^\| (source|url|licence) \| (.*?) \|$", re.MULTILINE)


def file_card(path: Path) -> dict[str, str]:
    """Read name, URL and licence from the card ``FILE.md`` of ``blend data import``, as far as they are known."""
    try:
        text = path.with_name(f"{path.name}.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    found = {key: value.replace(r"\|", "|") for key, value in _CARD_ROW.findall(text) if value != "unknown"}
    return {{"source": "name"}.get(key, key): value for key, value in found.items()}


def require_groups(groups: Sequence[TrainingGroup] | Sequence[ScoredGroup]) -> None:
    """Refuse to train on nothing.

    Raises:
        InputError: there are no groups.
    """
    if not groups:
        raise InputError(
            "No training pairs: a row needs `chosen` and `rejected`, or candidates with `pairs`, or with `scores` that "
            "differ by at least min_gap (--pairs labelled reads the pairs of rows that have scores too)."
        )
