"""Rows of a bench: an instruction, its candidates, and how good they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from llm_blender.errors import InputError, unknown_name
from llm_blender.types import Candidate, Example, LabelledPair


@dataclass(frozen=True)
class BenchRow:
    """One instruction and the candidates that a bench compares.

    Attributes:
        prompt: instruction and input as one text.
        candidates: in the order of their row.
        qualities: their scores, on the score's own scale, higher is better; empty without a score.
        pairs: judgements of the candidates.
        reference: a known good answer.
        extra: other keys of the row, as in `Example.extra`.
    """

    prompt: str
    candidates: tuple[Candidate, ...]
    qualities: tuple[float, ...] = ()
    pairs: tuple[LabelledPair, ...] = ()
    reference: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def texts(self) -> tuple[str, ...]:
        """Texts of the candidates."""
        return tuple(candidate.text for candidate in self.candidates)

    @property
    def models(self) -> tuple[str | None, ...]:
        """LLM of each candidate; None where the row does not name it."""
        return tuple(candidate.model for candidate in self.candidates)


def scored_rows(
    rows: Iterable[Example], score: str, models: Sequence[str] = (), *, complete: bool = False
) -> list[BenchRow]:
    """Select the rows in which at least two candidates have a score, or with `complete` each of the LLMs.

    With `models`, only the candidates of these LLMs are kept.

    Raises:
        InputError: no row has the score or a model (the message gives the nearest name), or no row is left.
    """
    return [row for _, row in scored_examples(rows, score, models, complete=complete)]


def scored_examples(
    rows: Iterable[Example], score: str, models: Sequence[str] = (), *, complete: bool = False
) -> list[tuple[Example, BenchRow]]:
    """Select rows as `scored_rows` does, each with the example that it was made of.

    Raises:
        InputError: as for `scored_rows`.
    """
    examples = list(rows)
    check_names(examples, models, score)
    kept = []
    for example in examples:
        scored = [c for c in example.candidates if score in c.scores and (not models or c.model in models)]
        missing = set(models) - {c.model for c in scored} if complete else set()
        if len(scored) >= 2 and not missing:
            qualities = tuple(candidate.scores[score] for candidate in scored)
            kept.append((example, BenchRow(example.prompt, tuple(scored), qualities, extra=example.extra)))
    if not kept:
        wanted = "all of the models" if complete else "at least two candidates"
        raise InputError(f"There is no row in which {wanted} have the score {score!r}.")
    return kept


def check_names(examples: Iterable[Example], models: Sequence[str], score: str | None) -> None:
    """Check that candidates have a score and come from given LLMs.

    Raises:
        InputError: no candidate has the score, or is of one of the models; the message gives the nearest name.
    """
    candidates = [candidate for example in examples for candidate in example.candidates]
    scores = {name for candidate in candidates for name in candidate.scores}
    if score is not None and score not in scores:
        raise unknown_name("score", score, sorted(scores))
    names = {candidate.model for candidate in candidates if candidate.model is not None}
    for model in models:
        if model not in names:
            raise unknown_name("model", model, sorted(names))


def fused_answer(fusion: Any) -> str:
    """Return the answer of a row's ``fusion``: the fused text, or the candidate that was returned in its place.

    Raises:
        InputError: it holds none.
    """
    answer = fusion.get("answer", fusion.get("text")) if isinstance(fusion, Mapping) else None
    if not isinstance(answer, str):
        raise InputError("`fusion` has no `text`: make it by `blend fuse`.")
    return answer


def group_ids(prompts: Iterable[str]) -> list[int]:
    """Assign numbers to rows by prompt, so that a bootstrap draws rows of one prompt together.

    Rows with an empty prompt get a number each, as their prompts are unknown and not equal.
    """
    numbers: dict[str | int, int] = {}
    return [numbers.setdefault(prompt or row, len(numbers)) for row, prompt in enumerate(prompts)]


REST = "(none)"
"""Subset of the rows that do not name theirs."""


def subset_names(rows: Iterable[Mapping[str, Any]], key: str) -> list[str]:
    """Return the subset of each row: its value under a key.

    Args:
        rows: other keys of each row, as in `Example.extra`.
        key: such as ``source``; of an object inside the row ``meta.subset``, or ``subset`` alone if the name is unique.

    Returns:
        One name a row; `REST` where the row has no such key, or null.

    Raises:
        InputError: no row has the key, the key is ambiguous, or a value is neither text nor number.
    """
    flat = [dict(_flatten(row)) for row in rows]
    known = sorted({name for row in flat for name in row})
    matching = [key] if key in known else [name for name in known if name.rpartition(".")[2] == key]
    if not matching:
        raise unknown_name("key", key, known)
    if len(matching) > 1:
        raise InputError(f"The key {key!r} is ambiguous: choose one of {', '.join(matching)}.")
    return [_subset_name(matching[0], row.get(matching[0])) for row in flat]


def _flatten(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the keys of a row, those of objects inside it with a dot."""
    for key, value in row.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _subset_name(key: str, value: Any) -> str:
    if value is None:
        return REST
    if not isinstance(value, str | int | float):
        raise InputError(f"{key!r} cannot name a subset: it must be a text or a number, not {type(value).__name__}.")
    return str(value) or REST


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
