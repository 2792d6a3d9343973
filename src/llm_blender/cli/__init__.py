"""The command ``blend``.

Each command is a module, and a line below adds it. ``blend --help`` imports all of them, so they import heavy packages
(numpy, torch, onnxruntime, openai, rich) inside their functions.
"""

from __future__ import annotations

import io
import signal
import sys
from typing import Annotated

import typer

from llm_blender.cli import (
    ask,
    bench,
    compare,
    config,
    data,
    export,
    fuse,
    models,
    priors,
    rank,
    run,
    serve,
    train,
    votes,
)
from llm_blender.cli._output import BlendGroup, end_unexpected, show_warnings, terminate

__all__ = ["app", "main"]

app = typer.Typer(
    name="blend",
    cls=BlendGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"token_normalize_func": lambda name: "out" if name == "output" else name},  # --output is --out
)
app.command()(ask.ask)
app.command()(rank.rank)
app.command()(compare.compare)
app.command()(fuse.fuse)
app.command()(run.run)
app.command()(serve.serve)
app.command()(export.export)
app.add_typer(train.app, name="train")
app.add_typer(bench.app, name="bench")
app.add_typer(data.app, name="data")
app.add_typer(models.app, name="models")
app.add_typer(priors.app, name="priors")
app.add_typer(votes.app, name="votes")
app.add_typer(config.app, name="config")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"llm-blender {version('llm-blender')}")
        raise typer.Exit


@app.callback()
def _blend(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Query several LLMs, rank their answers by comparing them in pairs, and return the best or fuse the best ones.

    Results go to standard output, progress to standard error. Exit status: 0 done, 1 the work failed, 2 the input
    or the configuration is wrong, 3 done but degraded (with --strict), 130 interrupted.
    """
    show_warnings()


def main() -> None:
    """Run ``blend`` with the arguments of this process, and exit."""
    signal.signal(signal.SIGTERM, terminate)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Output is UTF-8 whatever the locale; file names may hold other bytes, which are kept.
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    try:
        app()
    except Exception as error:
        end_unexpected(error)
