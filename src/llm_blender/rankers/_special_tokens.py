"""The tokens that stand around texts, whatever a vocabulary calls them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from tokenizers import Tokenizer

from llm_blender.errors import CheckpointError

__all__ = ["SpecialTokens", "token_id"]


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the tokens before, after and beyond a sequence."""

    cls: int
    sep: int
    pad: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Self:
        """By the names of BERT's family or of RoBERTa's.

        Raises:
            CheckpointError: there is none by these names.
        """
        return cls(
            token_id(tokenizer, "[CLS]", "<s>"),
            token_id(tokenizer, "[SEP]", "</s>"),
            token_id(tokenizer, "[PAD]", "<pad>"),
        )


def token_id(tokenizer: Tokenizer, *names: str) -> int:
    """The id of the first of these tokens that the vocabulary holds.

    Raises:
        CheckpointError: it holds none of them.
    """
    found = next((token for token in map(tokenizer.token_to_id, names) if token is not None), None)
    if found is None:
        raise CheckpointError(f"The tokenizer has no token {' or '.join(names)}: it is not this model's.")
    return found
