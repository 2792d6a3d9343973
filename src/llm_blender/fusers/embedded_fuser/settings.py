"""The folder of an embedded fuser."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict

from llm_blender.errors import CheckpointError
from llm_blender.fusers.gen_fuser.lengths import SETTINGS, Lengths

__all__ = ["ADAPTER", "SETTINGS", "TOKENIZER", "Base", "Settings"]

ADAPTER, TOKENIZER = "adapter.gguf", "tokenizer.json"


class Base(BaseModel):
    """The GGUF file that the adapter adapts.

    Attributes:
        model: the embedded model's name, or the path of its file.
        size: bytes of the file.
        sha256: of the file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    size: int
    sha256: str

    @classmethod
    def of(cls, model: str, path: Path) -> Self:
        """From the file of a model."""
        return cls(model=model, size=path.stat().st_size, sha256=_sha256(path))

    def is_file(self, path: Path) -> bool:
        """Whether a file is this one, wherever it lies."""
        return path.stat().st_size == self.size and _sha256(path) == self.sha256


class Settings(Lengths):
    """How an embedded fuser reads and writes; its ``fuser.json``.

    Attributes:
        base: what it adapts.
        chat: what the base's chat template writes before and after the user's message; None where it has none.
        format_version: of the folder.
    """

    base: Base
    chat: tuple[str, str] | None
    format_version: Literal[1] = 1

    @classmethod
    def load(cls, folder: Path) -> Self:
        """From the folder of a fuser.

        Raises:
            CheckpointError: a file is missing, or ``fuser.json`` is not what it should be.
        """
        for name in (SETTINGS, ADAPTER, TOKENIZER):
            if not (folder / name).is_file():
                raise CheckpointError(
                    f"{folder} is no embedded fuser: it lacks {name}. Make one by `blend export ADAPTER DIR`."
                )
        return super().load(folder)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
