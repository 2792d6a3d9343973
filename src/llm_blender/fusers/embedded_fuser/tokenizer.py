"""The base's tokenizer, without transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llm_blender.errors import CheckpointError

__all__ = ["ChatTokenizer"]


class ChatTokenizer:
    """What `CausalFormat` uses of a tokenizer of transformers, by ``tokenizers`` alone; the same tokens.

    Args:
        file: a ``tokenizer.json``.
        chat: what the chat template writes before and after the message of a user; None where there is none.

    Raises:
        CheckpointError: the file is damaged.
    """

    def __init__(self, file: Path, chat: tuple[str, str] | None) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer: Any = Tokenizer.from_file(str(file))
        except Exception as error:  # tokenizers raises no class of its own
            raise CheckpointError(f"{file} is no tokenizer: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.added_tokens_decoder = self._tokenizer.get_added_tokens_decoder()
        self.chat_template = chat

    def __call__(
        self, text: str, *, add_special_tokens: bool = True, return_offsets_mapping: bool = False
    ) -> dict[str, Any]:
        """Tokens of a text, and where they stand in it."""
        encoding = self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return {"input_ids": encoding.ids, "offset_mapping": encoding.offsets}

    def apply_chat_template(self, conversation: Sequence[Mapping[str, str]], **options: Any) -> str:
        """The one message of a conversation as the chat template writes it, with the beginning of the answer."""
        (message,) = conversation
        before, after = self.chat_template or ("", "")
        return f"{before}{message['content']}{after}"
