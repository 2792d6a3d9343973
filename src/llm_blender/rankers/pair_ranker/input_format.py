"""From texts to the one sequence in which a PairRanker reads an instruction and two candidates.

``[CLS] <|source|> x [SEP] <|candidate1|> y_left [SEP] <|candidate2|> y_right [SEP]``

(arXiv 2306.02561, section 3.2; the published checkpoints have a ``[CLS]`` before each marker.) Each text is tokenised
once, alone; sequences are put together from token ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from llm_blender.errors import CheckpointError
from llm_blender.rankers.checkpoints import load_tokenizer
from llm_blender.rankers.pair_ranker.config import PairRankerConfig

__all__ = ["FittedTexts", "InputFormat", "PairBatch", "PairSequence"]

SOURCE, LEFT, RIGHT = 1, 2, 3


@dataclass(frozen=True)
class PairSequence:
    """One ordered pair as the model reads it.

    Attributes:
        ids: token ids.
        segments: per token, 1 where it counts for the instruction's vector, 2 for the left and 3 for the right
            candidate's, 0 elsewhere.
    """

    ids: list[int]
    segments: list[int]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class PairBatch:
    """Pairs padded to the longest, int64 ``[B, T]`` each."""

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    segment_ids: NDArray[np.int64]

    @classmethod
    def pad(cls, sequences: Sequence[PairSequence], pad_id: int = 0) -> PairBatch:
        """Put sequences under each other, padded on the right."""
        shape = len(sequences), max(map(len, sequences))
        ids = np.full(shape, pad_id, np.int64)
        mask, segments = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = sequence.ids
            mask[row, : len(sequence)] = 1
            segments[row, : len(sequence)] = sequence.segments
        return cls(ids, mask, segments)


class InputFormat:
    """Tokenises, truncates and joins.

    A text that spells a marker or another special token is read as plain text.

    Args:
        tokenizer: whose vocabulary holds the config's markers, a ``[CLS]`` and a ``[SEP]`` (or ``<s>``, ``</s>``).
        config: lengths, markers, pooling.

    Raises:
        CheckpointError: the tokenizer lacks one of these tokens.
    """

    def __init__(self, tokenizer: Tokenizer, config: PairRankerConfig) -> None:
        self.config = config
        self._tokenizer = tokenizer
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # special tokens spelled in a text stay text
        self._cls = self._id("[CLS]", "<s>")
        self._sep = self._id("[SEP]", "</s>")
        self.pad_id = self._id("[PAD]", "<pad>")
        self._markers = [self._id(marker) for marker in config.markers]

    @classmethod
    def load(cls, folder: Path, config: PairRankerConfig) -> InputFormat:
        """With the ``tokenizer.json`` of a checkpoint.

        Raises:
            CheckpointError: there is none, or it cannot be read.
        """
        return cls(load_tokenizer(folder), config)

    def with_config(self, config: PairRankerConfig) -> InputFormat:
        """The same tokenizer under another configuration."""
        return InputFormat(self._tokenizer, config)

    def _id(self, *names: str) -> int:
        ids = (self._tokenizer.token_to_id(name) for name in names)
        found = next((token for token in ids if token is not None), None)
        if found is None:
            raise CheckpointError(f"The tokenizer has no token {' or '.join(names)}: it is not this model's.")
        return found

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, whole and without special tokens."""
        # JSON can smuggle in lone surrogates, which no tokenizer takes.
        clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        if self.config.special_tokens == "each_text":
            clean = [text.replace("[SEP]", " ") for text in clean]  # as those checkpoints were trained
        return [encoding.ids for encoding in self._tokenizer.encode_batch(clean, add_special_tokens=False)]

    def fit_source(self, ids: list[int], tail: float | None = None) -> list[int]:
        """An instruction within `source_max_length`: its head, and its tail, where the last turn stands.

        Args:
            ids: of the whole instruction.
            tail: share that is kept from its end; None takes the configuration's.
        """
        return _cut(ids, self.config.source_max_length, self.config.source_tail if tail is None else tail)

    def fit_candidate(self, ids: list[int], source_length: int) -> list[int]:
        """A candidate within what the (fitted) instruction leaves: half of it where two stand in a sequence."""
        room = (self.config.max_length - self.config.overhead - source_length) // self.config.beside
        return _cut(ids, room, self.config.candidate_tail)

    def join(self, source: list[int], left: list[int] | None, right: list[int] | None) -> PairSequence:
        """The sequence of one ordered pair, from fitted token ids; with one side None, of one candidate alone."""
        ids, segments = [self._cls], [0]
        again = self.config.special_tokens == "each_text"
        texts = zip((SOURCE, LEFT, RIGHT), self._markers, (source, left, right), strict=True)
        for segment, marker, text in texts:
            if text is not None:
                if again and segment != SOURCE:
                    ids.append(self._cls)
                    segments.append(0)
                ids += [marker, *text, self._sep]
                inside = segment if self.config.pooling == "mean" else 0
                segments += [segment, *[inside] * len(text), 0]
        return PairSequence(ids, segments)


def _cut(ids: list[int], room: int, tail_share: float) -> list[int]:
    if len(ids) <= room:
        return ids
    tail = int(room * tail_share)
    return ids[: room - tail] + ids[len(ids) - tail :]


class FittedTexts:
    """What the model reads of instructions and their candidates.

    Args:
        input_format: tokenises and cuts.
        prompts: the instructions as texts.
        candidates: texts of each.
        tails: of each instruction, the share of what is kept that comes from its end.
        coupled: instructions whose candidates are cut alike, beside the longest of them (llm-blender 0.0.2 did so
            by batches); 0 looks at each alone.

    Attributes:
        truncated: of each instruction, the share of its and its candidates' tokens that is not read.
    """

    def __init__(
        self,
        input_format: InputFormat,
        prompts: Sequence[str],
        candidates: Sequence[Sequence[str]],
        tails: Sequence[float],
        coupled: int = 0,
    ) -> None:
        self._format = input_format
        unique = list(dict.fromkeys([*prompts, *(text for texts in candidates for text in texts)]))
        ids = dict(zip(unique, input_format.tokenize(unique), strict=True))
        self._sources = [
            input_format.fit_source(ids[prompt], tail) for prompt, tail in zip(prompts, tails, strict=True)
        ]
        beside = _longest([len(source) for source in self._sources], coupled or 1)
        self._candidates = [
            [input_format.fit_candidate(ids[text], length) for text in texts]
            for length, texts in zip(beside, candidates, strict=True)
        ]
        numbers: dict[tuple[int, ...], int] = {}
        self._source_numbers = [numbers.setdefault(tuple(source), len(numbers)) for source in self._sources]
        self._candidate_numbers = [
            [numbers.setdefault(tuple(text), len(numbers)) for text in texts] for texts in self._candidates
        ]
        self._whole = [[len(ids[text]) for text in texts] for texts in candidates]
        whole = [
            len(ids[prompt]) + sum(len(ids[text]) for text in texts)
            for prompt, texts in zip(prompts, candidates, strict=True)
        ]
        read = [
            len(source) + sum(map(len, texts)) for source, texts in zip(self._sources, self._candidates, strict=True)
        ]
        self.truncated = [1 - r / w if w else 0.0 for r, w in zip(read, whole, strict=True)]

    def key(self, prompt: int, left: int, right: int) -> tuple[int, int, int]:
        """Equal for pairs that read the same."""
        numbers = self._candidate_numbers[prompt]
        return self._source_numbers[prompt], numbers[left], numbers[right]

    def length(self, prompt: int, left: int, right: int) -> int:
        """Tokens of a pair's sequence."""
        texts = self._candidates[prompt]
        return self._format.config.overhead + len(self._sources[prompt]) + len(texts[left]) + len(texts[right])

    def sequence(self, prompt: int, left: int, right: int) -> PairSequence:
        """A pair as the model reads it."""
        texts = self._candidates[prompt]
        return self._format.join(self._sources[prompt], texts[left], texts[right])

    def text_key(self, prompt: int, candidate: int) -> tuple[int, int, int]:
        """Equal for candidates that, with their instructions, read the same and are as long as a whole.

        The last part is that length, in tokens, those that are not read included.
        """
        numbers, lengths = self._candidate_numbers[prompt], self._whole[prompt]
        return self._source_numbers[prompt], numbers[candidate], lengths[candidate]

    def alone(self, prompt: int, candidate: int) -> PairSequence:
        """A candidate as the model reads it when it stands alone beside its instruction."""
        return self._format.join(self._sources[prompt], self._candidates[prompt][candidate], None)


def _longest(lengths: list[int], size: int) -> list[int]:
    """For each length, the longest of its neighbours in batches of that size."""
    return [max(lengths[i - i % size : i - i % size + size]) for i in range(len(lengths))]
