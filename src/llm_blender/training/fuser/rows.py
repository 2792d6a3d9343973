"""A fuser recipe's files read: of each row the best candidates and the answer to write from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llm_blender.data import normalized_key, parse_row, parse_rows, stored_ranking
from llm_blender.errors import InputError
from llm_blender.training.fuser.recipe import FuserSource
from llm_blender.types import Example, Instruction, Ranking

__all__ = ["FuserRow", "FuserRowCount", "load_rows"]


@dataclass(frozen=True)
class FuserRow:
    """What a fuser learns to do.

    Attributes:
        instruction: a prompt or a conversation.
        input: MixInstruct's second field.
        candidates: texts, best first.
        answer: the reference.
    """

    instruction: Instruction
    input: str
    candidates: tuple[str, ...]
    answer: str


@dataclass(frozen=True)
class FuserRowCount:
    """What one file gave.

    Attributes:
        source: what was asked of it.
        path: where it is.
        rows: in it.
        excluded: left out because a test file asks the same.
        without_reference: left out of the others.
        without_candidates: left out of those with a reference.
        chosen_by: rows used, by what ordered their candidates: ``ranking``, ``score`` or ``chance``.
    """

    source: FuserSource
    path: Path
    rows: int
    excluded: int
    without_reference: int
    without_candidates: int
    chosen_by: Mapping[str, int]

    @property
    def used(self) -> int:
        """Rows that are learnt from."""
        return sum(self.chosen_by.values())


def load_rows(
    sources: Sequence[FuserSource], folder: Path, excluded: frozenset[str], top_k: int, seed: int
) -> tuple[list[FuserRow], list[FuserRowCount]]:
    """The rows of all sources, with `top_k` candidates each, or as many as there are.

    Raises:
        NotFoundError: a source's file is not in the folder.
        RowError: a row cannot be used.
        InputError: a file has no row to learn from.
    """
    rows: list[FuserRow] = []
    counts: list[FuserRowCount] = []
    for position, source in enumerate(sources):
        found, count = _load(source, folder / source.file, excluded, top_k, np.random.default_rng([seed, position]))
        rows += found
        counts.append(count)
    return rows, counts


def _load(
    source: FuserSource, path: Path, excluded: frozenset[str], top_k: int, rng: np.random.Generator
) -> tuple[list[FuserRow], FuserRowCount]:
    read = list(parse_rows(path, _parse))
    kept = [row for row in read if not excluded or normalized_key(row[0]) not in excluded]
    referred = [(example, ranking, _reference(example, source)) for example, ranking in kept]
    answered = [(example, ranking, answer) for example, ranking, answer in referred if answer.strip()]
    usable = []
    for example, ranking, answer in answered:
        chosen_by, texts = _candidates(example, ranking, source, rng)
        if texts:
            row = FuserRow(example.instruction, example.input, tuple(texts[:top_k]), answer)
            usable.append((chosen_by, row))
    drawn = [usable[i] for i in sorted(rng.permutation(len(usable))[: source.max_rows])]
    count = FuserRowCount(
        source,
        path,
        rows=len(read),
        excluded=len(read) - len(kept),
        without_reference=len(kept) - len(answered),
        without_candidates=len(answered) - len(usable),
        chosen_by=Counter(chosen_by for chosen_by, _ in drawn),
    )
    if not drawn:
        raise InputError(_nothing(count))
    return [row for _, row in drawn], count


def _parse(record: Mapping[str, Any]) -> tuple[Example, Ranking | None]:
    example = parse_row(record)
    return example, None if example.extra.get("ranking") is None else stored_ranking(example)


def _reference(example: Example, source: FuserSource) -> str:
    """The answer to learn; empty where there is none."""
    if not source.reference_model:
        return example.reference or ""
    return next((c.text for c in example.candidates if c.model == source.reference_model), "")


def _candidates(
    example: Example, ranking: Ranking | None, source: FuserSource, rng: np.random.Generator
) -> tuple[str, list[str]]:
    """What orders a row's candidates, and their different texts, best first."""
    known = [
        int(i)
        for i in rng.permutation(len(example.candidates))  # the seed orders what nothing else does
        if example.candidates[i].text.strip()
        and (not source.models or example.candidates[i].model in source.models)
        and example.candidates[i].model not in (*source.exclude_models, source.reference_model)
    ]
    scored = [i for i in known if source.score in example.candidates[i].scores]
    chosen_by = "chance"
    if ranking is not None:
        chosen_by, known = "ranking", sorted(known, key=lambda i: -ranking.scores[i])
    elif scored:
        chosen_by, known = "score", sorted(scored, key=lambda i: -example.candidates[i].scores[source.score])
    return chosen_by, list({example.candidates[i].text.strip(): example.candidates[i].text for i in known}.values())


def _nothing(count: FuserRowCount) -> str:
    """Why no row of a file can be used."""
    if count.rows == count.excluded:
        return f"{count.path} holds no rows{' but those that a test file asks' if count.rows else ''}."
    if not count.without_candidates and count.source.reference_model:
        return f"No row of {count.path} has an answer of {count.source.reference_model}, which is to be the reference."
    if not count.without_candidates:
        return (
            f"No row of {count.path} has a reference (`output` or `reference`), which the fuser is to learn to write."
        )
    which = " of the LLMs that the source takes" if count.source.models or count.source.exclude_models else ""
    return f"No row of {count.path} has a reference and candidates{which}: `blend data build` makes candidates."
