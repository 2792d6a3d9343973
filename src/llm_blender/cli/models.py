"""``blend models``: list and download the models that run in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llm_blender.cli._options import JsonOption
from llm_blender.cli._output import on_terminal, print_json, print_table
from llm_blender.cli._progress import progress
from llm_blender.errors import NotFoundError

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="List, download and find embedded models.")

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="A name from the list, owner/name/file.gguf on the Hub, or a file.")
]


@app.command("list")
def list_models(as_json: JsonOption = False) -> None:
    """List the models known by name, and those on this machine.

    A terminal shows which are here, `blend models path NAME` where; a file or a pipe gets the paths.

    JSON: [{name, size, licence, path}], size in bytes, path null for a model that is not on this machine.
    """
    from rich.filesize import decimal

    from llm_blender.llms.models import CATALOGUE, installed

    paths = {name: str(path) for name, path in installed().items()}
    models = [(model.name, model.size, model.licence, paths.pop(model.name, None)) for model in CATALOGUE]
    models += [(name, Path(path).stat().st_size, None, path) for name, path in paths.items()]
    if as_json:
        print_json([dict(zip(("name", "size", "licence", "path"), model, strict=True)) for model in models])
        return
    here = "yes" if on_terminal() else None
    rows = [
        (name, decimal(size) if size else "", licence or "", (here or path) if path else "")
        for name, size, licence, path in models
    ]
    print_table(["name", "size", "licence", "on this machine"], rows)


@app.command()
def pull(name: NameArgument, as_json: JsonOption = False) -> None:
    """Download a model if it is missing, and print its path.

    JSON: {name, path}.
    """
    from llm_blender.llms.models import pull as pull_model

    with progress(f"downloading {name}", "bytes") as report:
        path = pull_model(name, progress=report)
    _print_path(name, path, as_json)


@app.command("path")
def print_path(name: NameArgument, as_json: JsonOption = False) -> None:
    """Print the path of a model on this machine, without downloading it.

    JSON: {name, path}.
    """
    from llm_blender.llms.models import resolve

    path = resolve(name)
    if path is None:
        raise NotFoundError(f"{name} is not on this machine: blend models pull {name}")
    _print_path(name, path, as_json)


def _print_path(name: str, path: Path, as_json: bool) -> None:
    if as_json:
        print_json({"name": name, "path": str(path)})
    else:
        typer.echo(path)
