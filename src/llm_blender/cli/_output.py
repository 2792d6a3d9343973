"""Print results on standard output and notes on standard error; map errors to exit codes."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from llm_blender.errors import LLMBlenderError, plain_words


def print_json(value: Any) -> None:
    """Print one line of JSON on standard output."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def on_terminal() -> bool:
    """Return whether standard output is a terminal."""
    return sys.stdout.isatty()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on standard output: drawn on a terminal, otherwise separated by tabs, for ``cut`` and ``awk``."""
    if not on_terminal():
        for row in (columns, *rows):
            typer.echo("\t".join(row))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(Text(cell, overflow="fold") for cell in row))  # plain text: brackets are not markup
    Console().print(table)


def note(text: str) -> None:
    """Print a line on standard error."""
    typer.echo(text, err=True)


def counted(count: float, unit: str) -> str:
    """Format a number of things, such as ``1 row`` and ``2,000 rows``; `unit` is the plural."""
    return f"{count:,.0f} {unit.removesuffix('s') if count == 1 else unit}"


def note_unread(share: float, what: str = "text") -> None:
    """Print the share of a text that the ranker did not read, unless it is below 0.1 %."""
    if share >= 0.001:
        note(f"{share:.1%} of the {what} was too long for the ranker to read")


class _Warnings(logging.Handler):
    """The log of the package on standard error; a warning that repeats is shown once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._shown: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if record.levelno > logging.WARNING or text not in self._shown:
            self._shown.add(text)
            note(text)


def show_warnings() -> None:
    """Show the warnings of this package on standard error from now on."""
    log = logging.getLogger("llm_blender")
    log.handlers = [handler for handler in log.handlers if not isinstance(handler, _Warnings)] + [_Warnings()]


DEGRADED = 3
"""Exit code of a degraded result, with ``--strict``."""
_FAILED, _INTERRUPTED, _TERMINATED = 1, 130, 143

_DEBUG = "LLM_BLENDER_DEBUG"


class BlendGroup(TyperGroup):
    """Root command, which converts errors to exit codes."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        """Read the options before the command."""
        with _usage_errors():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            with _usage_errors():
                result = super().invoke(ctx)
            sys.stdout.flush()  # here, where a closed pipe can still be handled
        except LLMBlenderError as error:
            _report_error(error, str(error))
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            typer.echo("interrupted", err=True)
            raise typer.Exit(_INTERRUPTED) from error
        except BrokenPipeError as error:
            # The reader, e.g. `head`, is done. Python flushes again at exit and must not find the closed pipe.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from error
        return result


_UsageError: type[Any] = typer.BadParameter.__mro__[1]  # of click, or of the copy of it inside typer


@contextmanager
def _usage_errors() -> Iterator[None]:
    """Report errors of the command line like all others, in one line without the words of pydantic."""
    try:
        yield
    except _UsageError as error:
        text, ctx = error.format_message(), error.ctx
        if ctx is None or text == ctx.get_help():  # a command without arguments shows its help
            raise
        text = re.sub(r"^(Invalid value for )?([^:]*): should", r"\2 should", plain_words(text))
        _report_error(error, f"{text}; see `{ctx.command_path} {ctx.help_option_names[0]}`.")
        raise typer.Exit(error.exit_code) from error


def end_unexpected(error: Exception) -> NoReturn:
    """Report an unexpected error and exit."""
    text = f"unexpected {type(error).__name__}: {error}"
    _report_error(error, text if _debugging() else f"{text} (run again with {_DEBUG}=1 to see where)")
    sys.exit(_FAILED)


def terminate(*_: object) -> NoReturn:
    """Exit on a signal through the ``with`` blocks, which clean up."""
    sys.exit(_TERMINATED)


def _debugging() -> bool:
    return os.environ.get(_DEBUG, "") not in ("", "0")


def _report_error(error: Exception, text: str) -> None:
    if _debugging():
        typer.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    typer.secho("error: ", fg="red", bold=True, err=True, nl=False)
    typer.echo(" ".join(text.split()), err=True)
