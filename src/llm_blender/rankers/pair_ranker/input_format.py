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

__all__ = ["InputFormat", "PairBatch", "PairSequence"]

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
