"""The files that an import reads: those given, or those of a folder of AlpacaEval's results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llm_blender.errors import InputError, NotFoundError, unknown_name

__all__ = ["InputFile", "Inputs", "find_inputs", "short_names"]

_OUTPUTS, _ANNOTATIONS = "model_outputs.json", "annotations.json"


@dataclass(frozen=True)
class InputFile:
    """A file to read.

    Attributes:
        path: where it is.
        name: what tells it from the others of the import; says nothing of the machine.
        model: whose folder of AlpacaEval's results it stands in.
        annotator: likewise.
    """

    path: Path
    name: str
    model: str = ""
    annotator: str = ""


@dataclass(frozen=True)
class Inputs:
    """The files of an import.

    Attributes:
        files: in an order that does not depend on the machine.
        are_results: whether they come from a folder of AlpacaEval's results.
        annotators: all that have a folder there, whether they were asked for or not.
    """

    files: tuple[InputFile, ...]
    are_results: bool = False
    annotators: tuple[str, ...] = ()


def find_inputs(inputs: Sequence[Path], *, models: Sequence[str] = (), annotators: Sequence[str] = ()) -> Inputs:
    """The files that were given, or those of the folders that were.

    Args:
        inputs: files, or folders of AlpacaEval's results.
        models: only these models' folders are looked into; empty is all.
        annotators: only these annotators' folders, likewise.

    Raises:
        NotFoundError: one is not there.
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
    says_itself = any(file.path.name == _ANNOTATIONS and not file.annotator for file in found)
    for annotator in annotators:
        if annotator not in judges and not says_itself:
            raise unknown_name("annotator", annotator, judges)
    chosen = [file for file in found if not models or file.model in models]
    files = tuple(file for file in chosen if not annotators or file.annotator in ("", *annotators))
    return Inputs(files, True, tuple(judges))


def short_names(paths: Sequence[Path]) -> list[str]:
    """The paths without the folders that all of them stand in."""
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
            path.parent.name if path.parent != model else "",
        )
        for model in sorted((path for path in root.iterdir() if path.is_dir()), key=lambda path: path.name)
        for pattern in (_OUTPUTS, _ANNOTATIONS, f"*/{_ANNOTATIONS}")
        for path in sorted(model.glob(pattern), key=lambda path: path.parent.name)
    ]
    if not found:
        raise InputError(
            f"{folder} holds no results of AlpacaEval: MODEL/{_OUTPUTS} or MODEL/ANNOTATOR/{_ANNOTATIONS}."
        )
    return found
