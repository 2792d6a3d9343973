"""Rows reduced to what a bench needs: prompts, texts, and one judge's scores of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llm_blender.errors import InputError, unknown_name
from llm_blender.types import Candidate, Example

__all__ = ["REST", "ScoredRow", "group_ids", "scored_rows", "subset_names"]


@dataclass(frozen=True)
class ScoredRow:
    """The candidates of one instruction that have the score, in the order of their row.

    Attributes:
        prompt: instruction and input as one text.
        texts: of the candidates.
        models: who wrote them; None where the row does not say.
        qualities: their scores, on the score's own scale, higher is better.
        extra: what else the row says, as in `Example.extra`.
    """

    prompt: str
    texts: tuple[str, ...]
    models: tuple[str | None, ...]
    qualities: tuple[float, ...]
    extra: Mapping[str, Any] = field(default_factory=dict)


def scored_rows(
    rows: Iterable[Example], score: str, models: Sequence[str] = (), *, complete: bool = False
) -> list[ScoredRow]:
    """The rows in which at least two candidates have the score.

    Args:
        rows: of one file.
        score: its name among the candidates' scores.
        models: only these LLMs' candidates; none named: all candidates.
        complete: only rows in which each of `models` has the score.

    Raises:
        InputError: the score or a model stands in no row (the nearest name is given), or no row is left.
    """
    examples = list(rows)
    candidates = [candidate for example in examples for candidate in example.candidates]
    _check(candidates, score, models)
    kept = []
    for example in examples:
        scored = [c for c in example.candidates if score in c.scores and (not models or c.model in models)]
        missing = set(models) - {c.model for c in scored} if complete else set()
        if len(scored) >= 2 and not missing:
            kept.append(
                ScoredRow(
                    example.prompt,
                    tuple(c.text for c in scored),
                    tuple(c.model for c in scored),
                    tuple(c.scores[score] for c in scored),
                    example.extra,
                )
            )
    if not kept:
        wanted = "all of the models" if complete else "at least two candidates"
        raise InputError(f"There is no row in which {wanted} have the score {score!r}.")
    return kept


def _check(candidates: Sequence[Candidate], score: str, models: Sequence[str]) -> None:
    scores = {name for candidate in candidates for name in candidate.scores}
    if score not in scores:
        raise unknown_name("score", score, sorted(scores))
    names = {candidate.model for candidate in candidates if candidate.model is not None}
    for model in models:
        if model not in names:
            raise unknown_name("model", model, sorted(names))


def group_ids(prompts: Iterable[str]) -> list[int]:
    """A number per row, shared by rows with the same prompt: what a bootstrap draws together.

    Rows whose prompt is empty have an unknown one each, not the same.
    """
    numbers: dict[str | int, int] = {}
    return [numbers.setdefault(prompt or row, len(numbers)) for row, prompt in enumerate(prompts)]


REST = "(none)"
"""The subset of the rows that do not say theirs."""


def subset_names(rows: Iterable[Mapping[str, Any]], key: str) -> list[str]:
    """The subset of each row: its value under a key.

    Args:
        rows: what each row holds besides instruction and candidates, as in `Example.extra`.
        key: such as ``source``; of an object inside the row ``meta.subset``, or ``subset`` alone if only one is
            called so.

    Returns:
        One name a row; `REST` where the row has no such key, or null.

    Raises:
        InputError: no row has the key, several are called so, or a value is neither text nor number.
    """
    flat = [dict(_flat(row)) for row in rows]
    known = sorted({name for row in flat for name in row})
    matching = [key] if key in known else [name for name in known if name.rpartition(".")[2] == key]
    if not matching:
        raise unknown_name("key", key, known)
    if len(matching) > 1:
        raise InputError(f"Several keys of the rows are called {key!r}: say which of {', '.join(matching)}.")
    return [_name(matching[0], row.get(matching[0])) for row in flat]


def _flat(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The keys of a row, those of objects inside it with a dot."""
    for key, value in row.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _name(key: str, value: Any) -> str:
    if value is None:
        return REST
    if not isinstance(value, str | int | float):
        raise InputError(f"{key!r} cannot name a subset: a text or a number is wanted, not {type(value).__name__}.")
    return str(value) or REST
