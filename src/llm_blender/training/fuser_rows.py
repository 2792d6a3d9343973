"""Training rows of a fuser, and their tokens: the best candidates of each row and the answer to learn."""

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
from llm_blender.training.groups import file_card
from llm_blender.training.recipes import FuserRecipe, FuserSource
from llm_blender.types import Example, Instruction, Ranking


@dataclass(frozen=True)
class FuserRow:
    """One training example of a fuser.

    Attributes:
        instruction: prompt or conversation.
        input: MixInstruct's second field.
        candidates: texts, best first.
        answer: reference text.
    """

    instruction: Instruction
    input: str
    candidates: tuple[str, ...]
    answer: str


@dataclass(frozen=True)
class FuserRowCount:
    """Counts of one file.

    Attributes:
        source: of the recipe.
        path: of the file.
        rows: rows read.
        excluded: rows left out, since their prompt is in a test file.
        without_reference: rows left out of the others, for lack of a reference.
        without_candidates: rows left out of those with a reference, for lack of candidates.
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
        """Number of rows that are learnt from."""
        return sum(self.chosen_by.values())


def load_rows(
    sources: Sequence[FuserSource], folder: Path, excluded: frozenset[str], top_k: int, seed: int
) -> tuple[list[FuserRow], list[FuserRowCount]]:
    """Load the rows of all sources, with up to `top_k` candidates each.

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
    named = {key: value for key, value in file_card(path).items() if not getattr(source, key)}
    count = FuserRowCount(
        source.model_copy(update=named),
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
    """Return the answer to learn; empty if there is none."""
    if not source.reference_model:
        return example.reference or ""
    return next((c.text for c in example.candidates if c.model == source.reference_model), "")


def _candidates(
    example: Example, ranking: Ranking | None, source: FuserSource, rng: np.random.Generator
) -> tuple[str, list[str]]:
    """Order a row's candidates: what orders them, and their distinct texts, best first."""
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
    """Explain why no row of a file can be used."""
    if count.rows == count.excluded:
        return f"{count.path} holds no rows{' but those whose prompt is in a test file' if count.rows else ''}."
    if not count.without_candidates and count.source.reference_model:
        return f"No row of {count.path} has an answer of {count.source.reference_model} to use as the reference."
    if not count.without_candidates:
        return f"No row of {count.path} has a reference (`output` or `reference`) for the fuser to learn."
    chosen = " of the LLMs that the source takes" if count.source.models or count.source.exclude_models else ""
    return f"No row of {count.path} has a reference and candidates{chosen}: `blend data build` makes candidates."


def closest_merge(best: str, others: Sequence[str], reference: str, *, gain: float = 0.004, most: int = 12) -> str:
    """Bring the best candidate closer to a reference, by sentences left out and sentences of other candidates put in.

    Each move leaves out or puts in the sentence that brings the text closest: the greedy search that labels extractive
    summaries (Nallapati et al. 2017, arXiv 1611.04230), started from the best candidate. Closeness is the F1 of words
    and pairs of words, as `ConsensusFuser` measures it.

    Args:
        best: candidate to start from.
        others: other candidates.
        reference: text to come close to.
        gain: least F1, 0 to 1, that a move must add.
        most: maximum number of moves.
    """
    kept = [unit for unit in sentences(best.strip()) if WORDS.search(unit)]
    if not kept:
        return best
    pool = [Offer(unit, 0, 0.0) for unit in kept] + [
        replace(offer, source=offer.source + 1) for offer in offers(others)
    ]
    counts = gram_counts([*(offer.text for offer in pool), reference])
    of_pool, of_reference = counts[:-1], counts[-1:]
    inside = np.array([offer.source == 0 for offer in pool])
    text = of_pool[inside].sum(axis=0, keepdims=True)
    close = agreement(text, of_reference)[0, 0]
    for _ in range(most):
        moved = text + np.where(inside, -1, 1)[:, None] * of_pool
        after = agreement(moved, of_reference)[:, 0]
        best_move = int(after.argmax())
        if after[best_move] < close + gain:
            break
        inside[best_move] = not inside[best_move]
        text, close = moved[best_move : best_move + 1], after[best_move]
    stay = [unit for unit, stays in zip(kept, inside[: len(kept)], strict=True) if stays]
    return merge(stay, [offer for offer, stays in zip(pool, inside, strict=True) if stays and offer.source])


class Tokens(NamedTuple):
    """Token ids of one example."""

    prompt: list[int]
    answer: list[int]


class Reader:
    """Tokenizer of rows.

    An answer ends with the model's end token unless it is cut, so that a fuser does not learn to break off.

    Args:
        tokenizer: of transformers.
        seq2seq: whether prompts are written in `Seq2SeqFormat`, or in `CausalFormat`.
        recipe: lengths.
    """

    def __init__(self, tokenizer: Any, seq2seq: bool, recipe: FuserRecipe) -> None:
        self._tokenizer, self._recipe = tokenizer, recipe
        self._special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._format = Seq2SeqFormat if seq2seq else CausalFormat

    def fits(self, row: FuserRow) -> Tokens | None:
        """Tokenise a row with all candidates, best first; None if two of them do not fit into `max_length`."""
        answer = self._answer(row, row.candidates)
        prompt = self._prompt(row, row.candidates, answer)
        return Tokens(prompt.ids, answer) if prompt else None

    def read(self, row: FuserRow, candidates: Sequence[str]) -> Tokens:
        """Tokenise a row that fits, with these candidates."""
        answer = self._answer(row, candidates)
        prompt = self._prompt(row, candidates, answer) or self._prompt(row, row.candidates, answer)
        return Tokens(prompt.ids if prompt else [], answer)

    def _answer(self, row: FuserRow, candidates: Sequence[str]) -> list[int]:
        """Tokenise what is learnt."""
        text = row.answer
        if self._recipe.target == "merge":
            best, *others = (self._shortened(text) for text in sorted(candidates, key=row.candidates.index))
            text = closest_merge(best, others, row.answer)
        return [*self._ids(text), self._tokenizer.eos_token_id][: self._recipe.answer_max_length]

    def _shortened(self, candidate: str) -> str:
        """Cut a candidate to the tokens that are read."""
        ids = self._ids(candidate)[: self._recipe.candidate_max_length]
        return str(self._tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def _ids(self, text: str) -> list[int]:
        # Text that spells a special token is plain text; if the vocabulary has only the special token, it is left out.
        ids = self._tokenizer(clean(text).strip(), add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [i for i in ids if i not in self._special]

    def _prompt(self, row: FuserRow, candidates: Sequence[str], answer: Sequence[int]) -> Prompt | None:
        left = self._recipe.max_length - len(answer)
        form = self._format(self._tokenizer, max_length=left, candidate_max_length=self._recipe.candidate_max_length)
        return form.prompt(row.instruction, row.input, candidates)
