"""From a text to the sequence in which SimCLS reads it: ``[CLS] <source> x [SEP]`` or ``[CLS] <candidate> y [SEP]``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llm_blender._inputs import clean
from llm_blender.rankers._special_tokens import SpecialTokens, token_id
from llm_blender.rankers.checkpoints import load_tokenizer
from llm_blender.rankers.pointwise import Reading
from llm_blender.rankers.pointwise_config import PointwiseConfig

__all__ = ["SimCLSInput"]

_SOURCE, _CANDIDATE = "<source>", "<candidate>"


class SimCLSInput:
    """Tokenises and truncates.

    A text that spells a special token is read with that token, as the published weights were trained; it stands
    nowhere that the model looks for it.

    Args:
        folder: the checkpoint, for its tokenizer.
        config: the lengths.

    Raises:
        CheckpointError: there is no tokenizer, or it lacks a marker or a special token.
    """

    def __init__(self, folder: Path, config: PointwiseConfig) -> None:
        self._config = config
        self._tokenizer = load_tokenizer(folder)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.special = SpecialTokens.of(self._tokenizer)
        self.vocabulary = self._tokenizer.get_vocab_size()
        for marker in (_SOURCE, _CANDIDATE):
            token_id(self._tokenizer, marker)

    def read_sources(self, texts: Sequence[str], from_end: Sequence[bool]) -> list[Reading]:
        """Instructions; `from_end` says of which the beginning is cut, where one is too long, and not the end."""
        return self._read(_SOURCE, texts, from_end, self._config.source_max_length)

    def read_candidates(self, texts: Sequence[str]) -> list[Reading]:
        """Candidates."""
        return self._read(_CANDIDATE, texts, [False] * len(texts), self._config.candidate_max_length)

    def _read(self, marker: str, texts: Sequence[str], from_end: Sequence[bool], length: int) -> list[Reading]:
        # With its marker, not after it: what begins a word depends on what stands before.
        encoded = self._tokenizer.encode_batch([marker + clean(text) for text in texts], add_special_tokens=False)
        room = length - 3
        readings = []
        for encoding, end in zip(encoded, from_end, strict=True):
            first, *rest = encoding.ids
            kept = rest if len(rest) <= room else rest[-room:] if end else rest[:room]
            readings.append(Reading([self.special.cls, first, *kept, self.special.sep], len(kept), len(rest)))
        return readings
