"""A fuser recipe's files read: of each row the best candidates and the answer to write from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llm_blender._inputs import clean
from llm_blender.data import normalized_key, parse_row, parse_rows, stored_ranking
from llm_blender.errors import InputError
from llm_blender.fusers.consensus_fuser import Offer, agreement, gram_counts, merge, offers
from llm_blender.fusers.gen_fuser import CausalFormat, Prompt, Seq2SeqFormat
from llm_blender.fusers.texts import WORDS, sentences
from llm_blender.training.recipes import FuserRecipe, FuserSource
from llm_blender.types import Example, Instruction, Ranking

__all__ = ["FuserRow", "FuserRowCount", "Reader", "Tokens", "closest_merge", "load_rows"]


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


def closest_merge(best: str, others: Sequence[str], reference: str, *, gain: float = 0.004, most: int = 12) -> str:
    """The best candidate, with sentences left out and sentences of the others put in, closer to the reference.

    Of all sentences to leave out or put in, the one that brings the text closest is, then the next one: the greedy
    search that makes labels for extractive summaries (Nallapati et al. 2017, arXiv 1611.04230), from the best
    candidate on. Closeness is the F1 of words and pairs of words, as `ConsensusFuser` measures it.

    Args:
        best: the candidate to begin with.
        others: candidates.
        reference: what to come close to.
        gain: of F1, 0 to 1, that a move must bring.
        most: moves.
    """
    kept = [unit for unit in sentences(best.strip()) if WORDS.search(unit)]
    if not kept:
        return best
    pool = [Offer(unit, 0, 0.0) for unit in kept] + [
        replace(offer, source=offer.source + 1) for offer in offers(others)
    ]
    counts = gram_counts([*(offer.text for offer in pool), reference])
    said, wanted = counts[:-1], counts[-1:]
    inside = np.array([offer.source == 0 for offer in pool])
    text = said[inside].sum(axis=0, keepdims=True)
    close = agreement(text, wanted)[0, 0]
    for _ in range(most):
        moved = text + np.where(inside, -1, 1)[:, None] * said
        after = agreement(moved, wanted)[:, 0]
        best_move = int(after.argmax())
        if after[best_move] < close + gain:
            break
        inside[best_move] = not inside[best_move]
        text, close = moved[best_move : best_move + 1], after[best_move]
    stay = [unit for unit, stays in zip(kept, inside[: len(kept)], strict=True) if stays]
    return merge(stay, [offer for offer, stays in zip(pool, inside, strict=True) if stays and offer.source])


class Tokens(NamedTuple):
    """An example as token ids."""

    prompt: list[int]
    answer: list[int]


class Reader:
    """Makes examples of rows.

    The answer ends with the model's end token, unless it is cut: nobody should learn to break off.

    Args:
        tokenizer: of transformers.
        seq2seq: how the prompt is written, see `Seq2SeqFormat` and `CausalFormat`.
        recipe: lengths.
    """

    def __init__(self, tokenizer: Any, seq2seq: bool, recipe: FuserRecipe) -> None:
        self._tokenizer, self._recipe = tokenizer, recipe
        self._special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._format = Seq2SeqFormat if seq2seq else CausalFormat

    def fits(self, row: FuserRow) -> Tokens | None:
        """The example with all candidates, best first; None where two of them do not fit into `max_length`."""
        answer = self._answer(row, row.candidates)
        prompt = self._prompt(row, row.candidates, answer)
        return Tokens(prompt.ids, answer) if prompt else None

    def read(self, row: FuserRow, candidates: Sequence[str]) -> Tokens:
        """The example with these candidates, of a row that fits."""
        answer = self._answer(row, candidates)
        prompt = self._prompt(row, candidates, answer) or self._prompt(row, row.candidates, answer)
        return Tokens(prompt.ids if prompt else [], answer)

    def _answer(self, row: FuserRow, candidates: Sequence[str]) -> list[int]:
        """What is learnt, in tokens."""
        text = row.answer
        if self._recipe.target == "merge":
            best, *others = (self._shortened(text) for text in sorted(candidates, key=row.candidates.index))
            text = closest_merge(best, others, row.answer)
        return [*self._ids(text), self._tokenizer.eos_token_id][: self._recipe.answer_max_length]

    def _shortened(self, candidate: str) -> str:
        """As much of a candidate as is read."""
        ids = self._ids(candidate)[: self._recipe.candidate_max_length]
        return str(self._tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def _ids(self, text: str) -> list[int]:
        # What spells a special token is read as plain text, or not at all where the vocabulary knows it as such alone.
        ids = self._tokenizer(clean(text).strip(), add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [i for i in ids if i not in self._special]

    def _prompt(self, row: FuserRow, candidates: Sequence[str], answer: Sequence[int]) -> Prompt | None:
        room = self._recipe.max_length - len(answer)
        form = self._format(self._tokenizer, max_length=room, candidate_max_length=self._recipe.candidate_max_length)
        return form.prompt(row.instruction, row.input, candidates)
