"""``blend export``: a checkpoint's ONNX files from its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llm_blender.cli._options import JsonOption
from llm_blender.cli._output import note, print_json
from llm_blender.errors import MissingExtraError

__all__ = ["export"]


def export(
    ranker: Annotated[str, typer.Argument(metavar="RANKER", help="`bundled`, a folder, or a Hub repository.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the whole checkpoint goes.")],
    backbone: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Folder or Hub name of the encoder's config.json, if the ranker names none."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a ranker's checkpoint with its ONNX models, in float32 and int8, made from its weights.

    JSON: {output, files}.
    """
    try:
        from llm_blender.rankers.pair_ranker.export import export_checkpoint
    except ModuleNotFoundError as error:
        raise MissingExtraError("Export to ONNX", "train") from error

    files = [str(path) for path in export_checkpoint(ranker, folder, backbone)]
    if as_json:
        print_json({"output": str(folder), "files": files})
    else:
        for file in files:
            note(f"wrote {file}")
