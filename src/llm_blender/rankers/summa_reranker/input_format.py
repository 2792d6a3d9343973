"""From texts to the sequence in which a SummaReranker reads an instruction with one candidate.

``[CLS] <source>x [SEP] <candidate>y [SEP]``, where ``<source>`` and ``<candidate>`` are plain text and no tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llm_blender._inputs import clean
from llm_blender.rankers._special_tokens import SpecialTokens
from llm_blender.rankers.checkpoints import load_tokenizer
from llm_blender.rankers.pointwise import Reading
from llm_blender.rankers.pointwise_config import PointwiseConfig
from llm_blender.types import Instruction, instruction_text

__all__ = ["SummaInput"]

_SOURCE, _CANDIDATE = "<source>", "<candidate>"
_EDGES = 2  # [CLS] and [SEP], which count into the length of each text


class SummaInput:
    """Tokenises, truncates and joins as the published weights were trained.

    A text is cut to its length, decoded, put behind its prefix and tokenised again; special tokens and unknown
    characters fall out with that. The prefixes do not count into the lengths but into the room of the whole
    sequence: beside a full instruction, the end of a candidate that fills its own length is cut off too.

    Args:
        folder: the checkpoint, for its tokenizer.
        config: the lengths.

    Raises:
        CheckpointError: there is no tokenizer, or it lacks a special token.
    """

    def __init__(self, folder: Path, config: PointwiseConfig) -> None:
        self._config = config
        self._tokenizer, self._plain = load_tokenizer(folder), load_tokenizer(folder)
        for tokenizer in (self._tokenizer, self._plain):
            tokenizer.no_truncation()
            tokenizer.no_padding()
        self._plain.encode_special_tokens = True  # nothing that decoding puts together becomes a special token
        self.special = SpecialTokens.of(self._tokenizer)
        self.vocabulary = self._tokenizer.get_vocab_size()

    def read(self, pairs: Sequence[tuple[Instruction, str]]) -> list[Reading]:
        """One sequence per pair; each text is tokenised once."""
        room = self._config.source_max_length + self._config.candidate_max_length + 3
        sources = [(instruction_text(instruction), not isinstance(instruction, str)) for instruction, _ in pairs]
        source_of = self._fit(_SOURCE, sources, self._config.source_max_length - _EDGES)
        candidates = [(text, False) for _, text in pairs]
        candidate_of = self._fit(_CANDIDATE, candidates, self._config.candidate_max_length - _EDGES)
        readings = []
        for source, candidate in zip(sources, candidates, strict=True):
            (first, first_read, first_whole), (second, second_read, second_whole) = (
                source_of[source],
                candidate_of[candidate],
            )
            ids = [self.special.cls, *first, self.special.sep, *second]
            lost = max(0, len(ids) + 1 - room)
            ids = [*ids[: len(ids) - lost], self.special.sep]
            read = first_read + max(0, second_read - lost)
            readings.append(Reading(ids, read, first_whole + second_whole))
        return readings

    def _fit(
        self, prefix: str, texts: Sequence[tuple[str, bool]], room: int
    ) -> dict[tuple[str, bool], tuple[list[int], int, int]]:
        """For each text (and whether its end is what must stay): ids, tokens kept, tokens it has."""
        unique = list(dict.fromkeys(texts))
        whole = [e.ids for e in self._tokenizer.encode_batch([clean(t) for t, _ in unique], add_special_tokens=False)]
        kept = [
            ids if len(ids) <= room else ids[-room:] if from_end else ids[:room]
            for ids, (_, from_end) in zip(whole, unique, strict=True)
        ]
        again = [prefix + self._tokenizer.decode(ids, skip_special_tokens=True) for ids in kept]
        encoded = self._plain.encode_batch(again, add_special_tokens=False)
        return {
            text: (encoding.ids, len(short), len(ids))
            for text, encoding, short, ids in zip(unique, encoded, kept, whole, strict=True)
        }
