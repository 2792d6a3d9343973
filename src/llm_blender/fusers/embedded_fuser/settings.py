"""The folder of an embedded fuser, and its ``fuser.json``."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llm_blender.errors import CheckpointError

__all__ = ["ADAPTER", "SETTINGS", "TOKENIZER", "Base", "Settings"]

ADAPTER, SETTINGS, TOKENIZER = "adapter.gguf", "fuser.json", "tokenizer.json"


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Base(_Frozen):
    """The GGUF file that the adapter adapts.

    Attributes:
        model: the embedded model's name, or the path of its file.
        size: bytes of the file.
        sha256: of the file.
    """

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


class Settings(_Frozen):
    """How an embedded fuser reads and writes.

    Attributes:
        base: what it adapts.
        chat: what the base's chat template writes before and after the user's message; None where it has none.
        max_length: tokens of the prompt.
        candidate_max_length: tokens of each candidate.
        max_new_tokens: most tokens of the answer.
        format_version: of the folder.
    """

    base: Base
    chat: tuple[str, str] | None
    max_length: int = Field(ge=1)
    candidate_max_length: int = Field(ge=1)
    max_new_tokens: int = Field(ge=1)
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
        try:
            return cls.model_validate_json((folder / SETTINGS).read_bytes())
        except ValidationError as error:
            first: Any = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the whole"
            raise CheckpointError(f"{folder / SETTINGS}: {where}: {first['msg']}.") from error

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``fuser.json``."""
        (Path(folder) / SETTINGS).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
