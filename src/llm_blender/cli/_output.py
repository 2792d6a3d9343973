"""Print results on standard output and notes on standard error; map errors to exit codes."""

from __future__ import annotations

import errno
import itertools
import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
    """Print a table on standard output: drawn on a terminal, otherwise separated by tabs, for ``cut`` and ``awk``.

    On a terminal, numbers stand to the right and are never broken, and titles are broken at words. A table that is too
    wide is printed in parts, one below the other, each with the columns of names.
    """
    if not on_terminal():
        for row in (columns, *rows):
            typer.echo("\t".join(row))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    drawn = _columns(columns, rows, console.width)
    for part in _parts(drawn, console.width):
        table = Table(box=box.SIMPLE_HEAD)
        for column, width in zip(part, _widths(part, console.width), strict=True):
            table.add_column(
                Text(column.title), width=width, justify="right" if column.numeric else "left", overflow="fold"
            )
        for row in zip(*(column.cells for column in part), strict=True):
            table.add_row(*map(Text, row))  # plain text: brackets are not markup
        console.print(table)


_NUMBER = r"[-+−±~$(]*\d[\d.,]*[)%]?"
_NUMERIC = re.compile(rf"{_NUMBER}(?: (?:to|of|±|{_NUMBER}))*")
_INTERVAL = "95 %"  # title of the column beside a value; it is not broken
_NAMES = 0.7  # largest share of the terminal that columns of names may take in each part
_WORD = 1 / 3  # share of the terminal above which a word is broken
_LEAST = 6  # width to which a column of names is squeezed, where numbers need the room


@dataclass(frozen=True)
class _Column:
    """A column of a table on a terminal; widths are in cells of the terminal.

    Attributes:
        least: width at which no number, and no short word, is broken.
        whole: width at which nothing is broken.
        numeric: whether at least half of the cells are numbers.
    """

    title: str
    cells: tuple[str, ...]
    least: int
    whole: int
    numeric: bool


def _columns(titles: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[_Column]:
    from rich.cells import cell_len

    found = []
    for title, *cells in zip(titles, *rows, strict=True):
        filled = [cell for cell in cells if cell.strip(" –-")]
        numeric = 2 * sum(_NUMERIC.fullmatch(cell) is not None for cell in filled) >= len(filled)
        whole = [cell_len(cell) for cell in cells if _NUMERIC.fullmatch(cell)]
        words = [min(cell_len(word), int(width * _WORD)) for cell in cells for word in cell.split()]
        least = max([*whole, *words, *map(cell_len, [title] if title == _INTERVAL else title.split()), 1])
        found.append(_Column(title, tuple(cells), least, max(map(cell_len, (title, *cells))), numeric))
    return found


def _taken(widths: Iterable[int]) -> int:
    """Return the width of a table: two spaces in a column, one between columns, and one at each end."""
    return sum(width + 3 for width in widths) + 1


def _parts(columns: Sequence[_Column], width: int) -> list[list[_Column]]:
    """Divide columns into tables that fit, each with the columns of names; an interval stays beside its value."""
    names = [*itertools.takewhile(lambda column: not column.numeric, columns)] or [*columns[:1]]
    if len(names) == len(columns) or _taken(column.least for column in names) > width * _NAMES:
        names = [*columns[:1]]
    groups: list[list[_Column]] = []
    for column in columns[len(names) :]:
        if groups and column.title == _INTERVAL:
            groups[-1].append(column)
        else:
            groups.append([column])
    parts = [names]
    for group in groups:
        if len(parts[-1]) > len(names) and _taken(column.least for column in (*parts[-1], *group)) > width:
            parts.append(names)
        parts[-1] = [*parts[-1], *group]
    return parts


def _widths(columns: Sequence[_Column], width: int) -> list[int]:
    """Return widths that fit: the least ones, and what is left to columns that need more, from left to right.

    Where even the least ones do not fit, columns of names are squeezed.
    """
    widths = [column.least for column in columns]
    for place, column in enumerate(columns):
        left = width - _taken(widths)
        if left < 0 and not column.numeric:
            widths[place] = max(min(_LEAST, column.least), column.least + left)
        widths[place] += max(0, min(column.whole - column.least, left))
    return widths


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
            # The reader, e.g. `head`, is done.
            _discard_output()
            raise typer.Exit(0) from error
        except OSError as error:
            if error.errno != errno.ENOSPC or error.filename is not None:
                raise
            text = "Standard output cannot be written: the disk is full. Make room, and run the command again"
            _report_error(error, f"{text}: no answer of an LLM is paid for twice.")
            _discard_output()
            raise typer.Exit(_FAILED) from error
        return result


_EXTRA = re.compile(r"^Got unexpected extra arguments?(?:\(s\))? \((.*)\)$", re.DOTALL)
_DASH = re.compile(r"^(No such option: -(?:\d|\S*\s(?!\(Possible)).*)$", re.DOTALL)
_QUESTION = re.compile(r"^(No such command '.*\s.*')$", re.DOTALL)
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
        text = _EXTRA.sub(r"Unexpected: \1; a text with spaces is in quotes", text)
        text = _DASH.sub(r"\1; a text that begins with - comes after --", text)
        text = _QUESTION.sub(r"\1: `blend ask` asks a question", text)
        end = " See" if text.endswith("?") else "; see"
        _report_error(error, f"{text}{end} `{ctx.command_path} {ctx.help_option_names[0]}`.")
        raise typer.Exit(error.exit_code) from error


def _discard_output() -> None:
    """Let what is buffered go nowhere: Python flushes again at exit, and must not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
