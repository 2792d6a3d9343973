"""Find the files of other projects, and read the values of their records."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_blender.errors import InputError, NotFoundError, unknown_name


class SkipRecord(Exception):  # noqa: N818 - not an error: the record is well-formed and of no use
    """Signal to leave out and count a record; its message is the reason. Internal to data and datasets."""


_OUTPUTS, _ANNOTATIONS = "model_outputs.json", "annotations.json"


@dataclass(frozen=True)
class InputFile:
    """File to import.

    Attributes:
        path: its path.
        name: unique name within the import, the same on every machine.
        model: model of its folder in AlpacaEval's results; empty elsewhere.
        annotator: annotator of its folder, likewise.
    """

    path: Path
    name: str
    model: str = ""
    annotator: str = ""


@dataclass(frozen=True)
class Inputs:
    """Files of an import.

    Attributes:
        files: the files, in the same order on every machine.
        are_results: whether they come from a folder of AlpacaEval's results.
        annotators: all annotators with a folder there, selected or not.
    """

    files: tuple[InputFile, ...]
    are_results: bool = False
    annotators: tuple[str, ...] = ()


def find_inputs(inputs: Sequence[Path], *, models: Sequence[str] = (), annotators: Sequence[str] = ()) -> Inputs:
    """Find the files of an import.

    Args:
        inputs: files, or folders of AlpacaEval's results.
        models: models whose folders are searched; empty means all.
        annotators: annotators whose folders are searched; empty means all.

    Raises:
        NotFoundError: a file or folder does not exist.
        InputError: a folder holds no results, files and folders are mixed, one is given twice, or a name is unknown.
    """
    for path in inputs:
        if not path.exists():
            raise NotFoundError(f"There is no file or folder {path} (looked in {Path.cwd()}).")
    if len({path.resolve() for path in inputs}) < len(inputs):
        raise InputError("A file or folder is given twice: give each once.")
    folders = [path for path in inputs if path.is_dir()]
    if not folders:
        return Inputs(tuple(InputFile(path, name) for path, name in zip(inputs, short_names(inputs), strict=True)))
    if len(folders) < len(inputs):
        raise InputError(f"{folders[0]} is a folder and others are files: import them one by one.")
    found = [
        file
        for folder, name in zip(folders, short_names(folders), strict=True)
        for file in _results(folder, "" if len(folders) == 1 else f"{name}/")
    ]
    known = sorted({file.model for file in found})
    for model in models:
        if model not in known:
            raise unknown_name("model", model, known)
    judges = sorted({file.annotator for file in found if file.annotator})
    in_files = any(file.path.name == _ANNOTATIONS and not file.annotator for file in found)
    for annotator in annotators:
        if annotator not in judges and not in_files:
            raise unknown_name("annotator", annotator, judges)
    chosen = [file for file in found if not models or file.model in models]
    files = tuple(file for file in chosen if not annotators or file.annotator in ("", *annotators))
    return Inputs(files, True, tuple(judges))


def short_names(paths: Sequence[Path]) -> list[str]:
    """Shorten paths: remove the folders that all of them share."""
    if len(paths) < 2:
        return [path.name for path in paths]
    parts = [path.absolute().parts for path in paths]
    common = 0
    while all(len(of_path) > common + 1 and of_path[common] == parts[0][common] for of_path in parts):
        common += 1
    return ["/".join(of_path[common:]) for of_path in parts]


def _results(folder: Path, prefix: str) -> list[InputFile]:
    root = folder / "results" if (folder / "results").is_dir() else folder
    found = [
        InputFile(
            path,
            prefix + path.relative_to(root).as_posix(),
            model.name,
            "" if path.parent == model else path.parent.name,
        )
        for model in sorted((path for path in root.iterdir() if path.is_dir()), key=lambda path: path.name)
        for pattern in (_OUTPUTS, _ANNOTATIONS, f"*/{_ANNOTATIONS}")
        for path in sorted(model.glob(pattern), key=lambda path: path.parent.name)
    ]
    if not found:
        wanted = f"MODEL/{_OUTPUTS} or MODEL/ANNOTATOR/{_ANNOTATIONS}"
        raise InputError(f"{folder} holds no results of AlpacaEval: {wanted}.")
    return found


_LONGEST = 120  # characters of a value that counts as metadata of a row, not as content


def text(record: Mapping[str, Any], key: str) -> str:
    """Return the text of a key; raise ValueError if it is missing or not a string."""
    if key not in record:
        raise ValueError(f"`{key}` is missing; the keys are {', '.join(record) or 'none at all'}")
    value = record[key]
    if not isinstance(value, str):
        raise ValueError(f"`{key}` must be a text, not {type(value).__name__}")
    return value


def optional_text(record: Mapping[str, Any], key: str) -> str:
    """Return the text of a key as `text` does, or an empty one if it is missing, null, or NaN (pandas' empty cell)."""
    value = record.get(key)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return text(record, key)


def number(value: object) -> float | None:
    """Convert a value to a finite number; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def short_values(record: Mapping[str, Any], used: Iterable[str]) -> dict[str, Any]:
    """Collect the numbers, booleans and short texts of unused keys, for a row's `meta`."""
    left = {key: value for key, value in record.items() if key not in set(used)}
    return {key: value for key, value in left.items() if _is_short(value)}


def _is_short(value: object) -> bool:
    if isinstance(value, str):
        return 0 < len(value) <= _LONGEST and "\n" not in value
    return isinstance(value, int | float) and math.isfinite(value)


def fraction(seed: int, *texts: str) -> float:
    """Draw a number in [0, 1) by hash: the same for the same seed and texts on every machine."""
    digest = hashlib.sha256("\0".join([str(seed), *texts]).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def coin(seed: int, *texts: str) -> bool:
    """Draw True or False, each with probability 0.5, as `fraction` does."""
    return fraction(seed, *texts) < 0.5
