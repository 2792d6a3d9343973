"""From texts to the sequence in which a reward model reads an instruction with one candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from tokenizers import Tokenizer

from llm_blender._inputs import clean
from llm_blender.errors import CheckpointError, InputError
from llm_blender.rankers.pointwise import Reading
from llm_blender.types import Instruction, instruction_text, to_messages

__all__ = ["ChatFormat", "PairFormat", "RewardInput"]

Pair = tuple[Instruction, str]


class RewardInput(Protocol):
    """Turns pairs of an instruction and a candidate into sequences."""

    def read(self, pairs: Sequence[Pair]) -> list[Reading]:
        """One sequence per pair."""
        ...


class PairFormat:
    """Instruction and candidate as the two texts of a pair, with the special tokens of the tokenizer around them.

    What is too long loses the beginning of the instruction, so that a conversation keeps its last turn, down to a
    quarter of the room; then the end of the candidate. A special token that a text spells is read as plain text.

    Args:
        tokenizer: of the checkpoint.
        max_length: tokens of a sequence.
        token_types: whether the model reads them.
        reference: read texts as llm-blender 0.0.2 did, which decoded their tokens and tokenised them again: special
            tokens that a text spells, and characters that are not in the vocabulary, fall out.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int, *, token_types: bool, reference: bool = False) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = not reference
        self._tokenizer, self._types, self._reference = tokenizer, token_types, reference
        self._frame = _Frame.of(tokenizer)
        self._room = max_length - len(self._frame)

    def read(self, pairs: Sequence[Pair]) -> list[Reading]:
        """One sequence per pair; each text is tokenised once."""
        texts = [(clean(instruction_text(instruction)), clean(text)) for instruction, text in pairs]
        unique = list(dict.fromkeys(text for pair in texts for text in pair))
        encodings = self._tokenizer.encode_batch(unique, add_special_tokens=False)
        if self._reference:
            again = [self._tokenizer.decode(encoding.ids, skip_special_tokens=True) for encoding in encodings]
            encodings = self._tokenizer.encode_batch(again, add_special_tokens=False)
        ids = {text: encoding.ids for text, encoding in zip(unique, encodings, strict=True)}
        return [self._join(ids[source], ids[candidate]) for source, candidate in texts]

    def _join(self, source: list[int], candidate: list[int]) -> Reading:
        whole = len(source) + len(candidate)
        if whole > self._room:
            candidate = candidate[: self._room - min(len(source), self._room // 4)]
            source = source[len(source) - min(len(source), self._room - len(candidate)) :]
        ids, types = self._frame.around(source, candidate)
        return Reading(ids, len(source) + len(candidate), whole, types if self._types else None)


@dataclass(frozen=True)
class _Frame:
    """The special tokens of a pair, and the type of each of its tokens.

    Attributes:
        special: those before, between and after the two texts: (id, type) each.
        types: of the tokens of the first and of the second text.
    """

    special: tuple[list[tuple[int, int]], list[tuple[int, int]], list[tuple[int, int]]]
    types: tuple[int, int]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Self:
        """As the tokenizer's own template puts them."""
        encoding = tokenizer.encode("a", "a")
        special: tuple[list[tuple[int, int]], list[tuple[int, int]], list[tuple[int, int]]] = ([], [], [])
        types = [0, 0]
        place = 0
        for token, kind, text in zip(encoding.ids, encoding.type_ids, encoding.sequence_ids, strict=True):
            if text is None:
                special[place].append((token, kind))
            else:
                place, types[text] = text + 1, kind
        return cls(special, (types[0], types[1]))

    def __len__(self) -> int:
        return sum(map(len, self.special))

    def around(self, first: list[int], second: list[int]) -> tuple[list[int], list[int]]:
        """Ids and types of the whole sequence."""
        before, between, after = self.special
        one, two = ([(token, kind) for token in text] for text, kind in zip((first, second), self.types, strict=True))
        ids, types = zip(*before, *one, *between, *two, *after, strict=True)
        return list(ids), list(types)


class ChatFormat:
    """The conversation with the candidate as its last turn, in the model's chat template.

    A message that spells a special token of the tokenizer is kept from being read as one. What is too long loses its
    beginning, but for the token that begins every sequence.

    Args:
        tokenizer: of the checkpoint.
        template: transformers' tokenizer, for its template.
        max_length: tokens of a sequence.
        folder: the checkpoint, for messages.
    """

    def __init__(self, tokenizer: Tokenizer, template: Any, max_length: int, folder: Path) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer, self._template, self._max_length, self._folder = tokenizer, template, max_length, folder
        self._special = sorted(template.all_special_tokens, key=len, reverse=True)
        self._special_ids = {tokenizer.token_to_id(token) for token in self._special}

    @classmethod
    def load(cls, folder: Path, tokenizer: Tokenizer, max_length: int) -> Self:
        """With the chat template of a checkpoint.

        Raises:
            CheckpointError: it cannot be read.
        """
        from transformers import PreTrainedTokenizerFast

        try:
            template = PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
        except Exception as error:  # whatever a damaged file raises
            raise CheckpointError(f"The tokenizer of {folder} cannot be read: {error}") from error
        return cls(tokenizer, template, max_length, folder)

    def read(self, pairs: Sequence[Pair]) -> list[Reading]:
        """One sequence per pair."""
        texts = [self._render(instruction, candidate) for instruction, candidate in pairs]
        encodings = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        return [self._cut(encoding.ids) for encoding in encodings]

    def _render(self, instruction: Instruction, candidate: str) -> str:
        turns = (
            [{"role": "user", "content": instruction}]
            if isinstance(instruction, str)
            else [dict(message) for message in to_messages(instruction)]
        )
        turns.append({"role": "assistant", "content": candidate})
        messages = [{**turn, "content": self._plain(str(turn["content"]))} for turn in turns]
        try:
            return str(self._template.apply_chat_template(messages, tokenize=False))
        except Exception as error:  # a template refuses in words of its own, e.g. a system message
            raise InputError(f"The chat template of {self._folder} refuses this conversation: {error}") from error

    def _plain(self, text: str) -> str:
        text = clean(text)
        for token in self._special:
            if token in text:
                text = text.replace(token, f"{token[:1]} {token[1:]}")
        return text

    def _cut(self, ids: list[int]) -> Reading:
        lost = len(ids) - self._max_length
        if lost <= 0:
            return Reading(ids, len(ids), len(ids))
        first = ids[:1] if ids[0] in self._special_ids else []
        kept = [*first, *ids[lost + len(first) :]]
        return Reading(kept, len(kept), len(ids))
