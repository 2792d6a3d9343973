"""How long a text is, in tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from llm_blender.errors import InputError, NotFoundError
from llm_blender.rankers.checkpoints import BUNDLED, find_checkpoint

__all__ = ["token_counter"]


def token_counter(name: str) -> Callable[[str], int]:
    """Counts the tokens of a text, without special ones.

    Args:
        name: ``bundled`` is the bundled ranker's tokenizer; else the path of a ``tokenizer.json``, or its folder.

    Raises:
        NotFoundError: there is no such file.
        InputError: it is no tokenizer.
    """
    from tokenizers import Tokenizer

    path = find_checkpoint(BUNDLED) if name == BUNDLED else Path(name).expanduser()
    path = path / "tokenizer.json" if path.is_dir() else path
    if not path.is_file():
        raise NotFoundError(f"There is no tokenizer {path}: give `bundled`, or the path of a tokenizer.json.")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"{path} is no tokenizer that the tokenizers library reads: {error}.") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
