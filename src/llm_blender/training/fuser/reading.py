"""From rows to tokens: the prompt as `GenFuser` writes it, and the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from llm_blender._inputs import clean
from llm_blender.fusers.gen_fuser import CausalFormat, Prompt, Seq2SeqFormat
from llm_blender.training.fuser.recipe import FuserRecipe
from llm_blender.training.fuser.rows import FuserRow
from llm_blender.training.fuser.targets import closest_merge

__all__ = ["Reader", "Tokens"]


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
