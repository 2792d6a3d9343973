"""The records of other projects' files: JSON Lines, Parquet, or one JSON list of objects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llm_blender.data.files import (
    HALF_A_CHARACTER,
    holds_half_a_character,
    open_plain,
    read_records,
    reading,
)
from llm_blender.errors import InputError, NotFoundError, RowError

__all__ = ["Record", "Records", "SkipRecord", "sha256"]

Record = dict[str, Any]
_LFS = b"version https://git-lfs.github.com/spec/"


class SkipRecord(Exception):  # noqa: N818 - not an error: the record is well made and holds nothing to learn from
    """A record that is left out and counted; `str` of it is the reason. It does not leave this package."""


class Records:
    """What a file holds, record by record; ``.gz`` and ``.zst`` are unpacked.

    Args:
        path: JSON Lines, Parquet, or a JSON list of objects, which is told by its first character.

    Raises:
        NotFoundError: there is no such file.
        InputError: it cannot be read as what its name says, or Git LFS has not fetched it.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise NotFoundError(f"There is no file {path} (looked in {Path.cwd()}).")
        self.path = path
        with reading(str(path)), path.open("rb") as file:
            if file.read(len(_LFS)) == _LFS:
                raise InputError(f"{path} is a pointer of Git LFS in the file's place: run `git lfs pull` there.")
        self._is_list = path.suffix != ".parquet" and self._begins_with_a_bracket()
        self.unit = "row" if self._is_list or path.suffix == ".parquet" else "line"

    def __iter__(self) -> Iterator[tuple[int, Record | RowError]]:
        """The 1-based line or row with the record, or with what is wrong with it."""
        return self._of_list() if self._is_list else read_records(self.path)

    def error(self, number: int, reason: str) -> RowError:
        """What is wrong with a record of this file."""
        return RowError(self.path, number, reason, unit=self.unit)

    def _begins_with_a_bracket(self) -> bool:
        with reading(str(self.path)), open_plain(str(self.path)) as file:
            while head := file.read(4096):
                if text := head.removeprefix(b"\xef\xbb\xbf").lstrip():
                    return text.startswith(b"[")
        return False

    def _of_list(self) -> Iterator[tuple[int, Record | RowError]]:
        with reading(str(self.path)), open_plain(str(self.path)) as file:
            data = file.read()
        try:
            records = json.loads(data.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{self.path} is not JSON: {error}. Is it complete?") from error
        halves = b"\\ud" in data.lower()
        del data
        for number, record in enumerate(records, 1):
            if not isinstance(record, dict):
                yield number, self.error(number, f"a JSON object is wanted, not {type(record).__name__}")
            elif halves and holds_half_a_character(record):
                yield number, self.error(number, HALF_A_CHARACTER)
            else:
                yield number, record


def sha256(path: Path) -> str:
    """Of the file as it lies there, compressed or not."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
