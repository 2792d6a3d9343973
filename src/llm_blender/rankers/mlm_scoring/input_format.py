"""From a text to its copies, in each of which one token is masked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llm_blender._inputs import clean
from llm_blender.rankers._special_tokens import SpecialTokens, token_id
from llm_blender.rankers.checkpoints import load_tokenizer
from llm_blender.rankers.pointwise import Reading

__all__ = ["MaskedInput", "MaskedReading", "TokenizedText"]


@dataclass(frozen=True)
class MaskedReading(Reading):
    """A text with one masked token.

    Attributes:
        position: of the mask in `ids`.
        target: the token that was there.
    """

    position: int = 0
    target: int = 0


@dataclass(frozen=True)
class TokenizedText:
    """A text as token ids, without special ones.

    Attributes:
        ids: those that fit into the model.
        whole: how many there are.
    """

    ids: tuple[int, ...]
    whole: int


class MaskedInput:
    """Tokenises and masks.

    Args:
        folder: the checkpoint, for its tokenizer.

    Raises:
        CheckpointError: there is no tokenizer, or it lacks the mask or another special token.
    """

    def __init__(self, folder: Path) -> None:
        self._tokenizer = load_tokenizer(folder)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True  # a mask spelled in a text stays text
        self.special = SpecialTokens.of(self._tokenizer)
        self.mask = token_id(self._tokenizer, "[MASK]", "<mask>")

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def tokenize(self, texts: Sequence[str], max_length: int) -> list[TokenizedText]:
        """Each text, without its end where it has more tokens than this with the two special ones."""
        encodings = self._tokenizer.encode_batch([clean(text) for text in texts], add_special_tokens=False)
        room = max_length - 2
        return [TokenizedText(tuple(encoding.ids[:room]), len(encoding.ids)) for encoding in encodings]

    def mask_each(self, text: TokenizedText) -> Iterator[MaskedReading]:
        """One copy for each token of a text, in order."""
        sequence = [self.special.cls, *text.ids, self.special.sep]
        for position in range(1, len(sequence) - 1):
            masked = [*sequence[:position], self.mask, *sequence[position + 1 :]]
            yield MaskedReading(masked, len(text.ids), text.whole, None, position, sequence[position])
