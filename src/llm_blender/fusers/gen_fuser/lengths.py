"""``fuser.json``: the lengths that a fuser was trained with, beside its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llm_blender.errors import CheckpointError

__all__ = ["SETTINGS", "Lengths"]

SETTINGS = "fuser.json"


class Lengths(BaseModel):
    """How long the texts are that a fuser reads and writes.

    Attributes:
        max_length: tokens of the prompt.
        candidate_max_length: tokens of each candidate.
        max_new_tokens: most tokens of the answer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_length: int = Field(ge=1)
    candidate_max_length: int = Field(ge=1)
    max_new_tokens: int = Field(ge=1)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """From the folder of a fuser.

        Raises:
            CheckpointError: ``fuser.json`` is missing, or not what it should be.
        """
        path = folder / SETTINGS
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
        except ValidationError as error:
            first: Any = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the whole"
            raise CheckpointError(f"{path}: {where}: {first['msg']}.") from error

    @classmethod
    def of_training(cls, folder: Path) -> Self | None:
        """Those that a checkpoint names; None where it names none."""
        return cls.load(folder) if (folder / SETTINGS).is_file() else None

    def save(self, folder: Path) -> None:
        """Write ``fuser.json``."""
        (folder / SETTINGS).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
