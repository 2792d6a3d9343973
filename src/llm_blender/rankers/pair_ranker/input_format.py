"""Build the one sequence in which a PairRanker reads an instruction and two candidates.

``[CLS] <|source|> x [SEP] <|candidate1|> y_left [SEP] <|candidate2|> y_right [SEP]``

(arXiv 2306.02561, section 3.2; the published checkpoints have a ``[CLS]`` before each marker.) Each text is tokenised
once, by itself; sequences are joined from token ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from llm_blender._inputs import clean
from llm_blender.rankers.batching import pad
from llm_blender.rankers.checkpoints import SpecialTokens, load_tokenizer, token_id
from llm_blender.rankers.pair_ranker.config import PairRankerConfig

SOURCE, LEFT, RIGHT = 1, 2, 3
_CHARS = 10  # characters for each token that could be kept from the head of a text, and as many from its tail
_VISIBLE = 5  # of them, at least so many that are no white space, which may be no token


@dataclass(frozen=True)
class PairSequence:
    """The sequence of one ordered pair.

    Attributes:
        ids: token ids.
        segments: for each token 1 if it counts for the instruction's vector, 2 for the left and 3 for the right
            candidate's, else 0.
    """

    ids: list[int]
    segments: list[int]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class PairBatch:
    """A batch of pairs, padded to the longest; int64 ``[B, T]`` each."""

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    segment_ids: NDArray[np.int64]

    @classmethod
    def pad(cls, sequences: Sequence[PairSequence], pad_id: int = 0) -> PairBatch:
        """Stack sequences, padded on the right."""
        ids, mask = pad([sequence.ids for sequence in sequences], pad_id)
        segments, _ = pad([sequence.segments for sequence in sequences], 0)
        return cls(ids, mask, segments)


class InputFormat:
    """Tokenizer, truncation and joining of a PairRanker.

    A marker or another special token inside a text is read as plain text.

    Args:
        tokenizer: its vocabulary holds the config's markers, a ``[CLS]`` and a ``[SEP]`` (or ``<s>``, ``</s>``).
        config: lengths, markers, pooling.

    Raises:
        CheckpointError: the tokenizer lacks one of these tokens.
    """

    def __init__(self, tokenizer: Tokenizer, config: PairRankerConfig) -> None:
        self.config = config
        self._tokenizer = tokenizer
        tokenizer.no_truncation()  # training passes a tokenizer of transformers
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # special tokens inside a text stay text
        special = SpecialTokens.of(tokenizer)
        self._cls, self._sep, self.pad_id = special.cls, special.sep, special.pad
        self._markers = [token_id(tokenizer, marker) for marker in config.markers]

    @classmethod
    def load(cls, folder: Path, config: PairRankerConfig) -> InputFormat:
        """Load the ``tokenizer.json`` of a checkpoint.

        Raises:
            CheckpointError: the file is missing or unreadable.
        """
        return cls(load_tokenizer(folder), config)

    def with_config(self, config: PairRankerConfig) -> InputFormat:
        """Return the same tokenizer with another configuration."""
        return InputFormat(self._tokenizer, config)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each whole text, without special tokens."""
        cleaned = [clean(text) for text in texts]
        if self.config.special_tokens == "each_text":
            cleaned = [text.replace("[SEP]", " ") for text in cleaned]  # as in the training of those checkpoints
        return [encoding.ids for encoding in self._tokenizer.encode_batch(cleaned, add_special_tokens=False)]

    def shorten(self, text: str) -> str:
        """Cut what no sequence can hold out of the middle of a very long text, before it is tokenised.

        Tokens have fewer characters than the cut assumes, so head and tail still fill the sequence. Where they are
        mostly white space, as in a wide table, more of them is kept.
        """
        kept, enough = _CHARS * self.config.max_length, _VISIBLE * self.config.max_length
        while len(text) > 2 * kept and min(map(_visible, (text[:kept], text[-kept:]))) < enough:
            kept *= 2
        return text if len(text) <= 2 * kept else text[:kept] + text[-kept:]

    def fit_source(self, ids: list[int], tail_share: float | None = None) -> list[int]:
        """Cut an instruction to `source_max_length`: keep its head, and its tail, which holds the last turn.

        Args:
            ids: of the whole instruction.
            tail_share: share of the kept tokens that comes from its end; None takes the configuration's.
        """
        share = self.config.source_tail if tail_share is None else tail_share
        return _cut(ids, self.config.source_max_length, share)

    def fit_candidate(self, ids: list[int], source_length: int) -> list[int]:
        """Cut a candidate to the budget that the fitted instruction leaves, halved if a sequence holds two."""
        budget = self.config.max_length - self.config.overhead - source_length
        return _cut(ids, budget // self.config.candidates_per_sequence, self.config.candidate_tail)

    def join(self, source: list[int], left: list[int] | None, right: list[int] | None) -> PairSequence:
        """Join fitted token ids to the sequence of an ordered pair, or of one candidate if the other side is None."""
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


def _visible(text: str) -> int:
    """Count the characters that are no white space."""
    return sum(map(len, text.split()))


def _cut(ids: list[int], budget: int, tail_share: float) -> list[int]:
    if len(ids) <= budget:
        return ids
    tail = int(budget * tail_share)
    return ids[: budget - tail] + ids[len(ids) - tail :]


class FittedTexts:
    """Instructions and candidates of one call, tokenised and cut to length.

    Args:
        input_format: tokenises and cuts.
        prompts: the instructions as texts.
        candidates: texts of each.
        tail_shares: for each instruction, the share of the kept tokens that comes from its end.
        legacy_batch: number of instructions whose candidates get the budget that the longest of them leaves, as in
            the batches of llm-blender 0.0.2; 0 treats each instruction by itself.

    Attributes:
        truncated: for each instruction, the share of its and its candidates' tokens that is not read; an estimate where
            a text is so long that it is not tokenised whole.
    """

    def __init__(
        self,
        input_format: InputFormat,
        prompts: Sequence[str],
        candidates: Sequence[Sequence[str]],
        tail_shares: Sequence[float],
        legacy_batch: int = 0,
    ) -> None:
        self._format = input_format
        unique = list(dict.fromkeys([*prompts, *(text for texts in candidates for text in texts)]))
        short = [input_format.shorten(text) for text in unique]
        ids = dict(zip(unique, input_format.tokenize(short), strict=True))
        lengths_of = {  # in tokens; of a text that was cut, an estimate
            text: len(ids[text]) if text is cut else round(len(ids[text]) * len(text) / len(cut))
            for text, cut in zip(unique, short, strict=True)
        }
        self._sources = [
            input_format.fit_source(ids[prompt], share) for prompt, share in zip(prompts, tail_shares, strict=True)
        ]
        lengths = _longest([len(source) for source in self._sources], legacy_batch or 1)
        self._candidates = [
            [input_format.fit_candidate(ids[text], length) for text in texts]
            for length, texts in zip(lengths, candidates, strict=True)
        ]
        numbers: dict[tuple[int, ...], int] = {}
        self._source_numbers = [numbers.setdefault(tuple(source), len(numbers)) for source in self._sources]
        self._candidate_numbers = [
            [numbers.setdefault(tuple(text), len(numbers)) for text in texts] for texts in self._candidates
        ]
        self._whole = [[lengths_of[text] for text in texts] for texts in candidates]
        whole = [lengths_of[prompt] + sum(texts) for prompt, texts in zip(prompts, self._whole, strict=True)]
        read = [
            len(source) + sum(map(len, texts)) for source, texts in zip(self._sources, self._candidates, strict=True)
        ]
        self.truncated = [1 - r / w if w else 0.0 for r, w in zip(read, whole, strict=True)]

    def key(self, prompt: int, left: int, right: int) -> tuple[int, int, int]:
        """Return a key that is equal for pairs with the same sequence."""
        numbers = self._candidate_numbers[prompt]
        return self._source_numbers[prompt], numbers[left], numbers[right]

    def length(self, prompt: int, left: int, right: int) -> int:
        """Return the number of tokens of a pair's sequence."""
        texts = self._candidates[prompt]
        return self._format.config.overhead + len(self._sources[prompt]) + len(texts[left]) + len(texts[right])

    def sequence(self, prompt: int, left: int, right: int) -> PairSequence:
        """Return the sequence of a pair."""
        texts = self._candidates[prompt]
        return self._format.join(self._sources[prompt], texts[left], texts[right])

    def text_key(self, prompt: int, candidate: int) -> tuple[int, int, int]:
        """Return a key that is equal for candidates with the same sequence and the same whole length.

        Its last part is that length in tokens, truncated ones included.
        """
        numbers, lengths = self._candidate_numbers[prompt], self._whole[prompt]
        return self._source_numbers[prompt], numbers[candidate], lengths[candidate]

    def alone(self, prompt: int, candidate: int) -> PairSequence:
        """Return the sequence of one candidate with its instruction."""
        return self._format.join(self._sources[prompt], self._candidates[prompt][candidate], None)


def _longest(lengths: list[int], size: int) -> list[int]:
    """Return for each length the longest in its batch of that size."""
    return [max(lengths[i - i % size : i - i % size + size]) for i in range(len(lengths))]
