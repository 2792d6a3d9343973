"""Answers on standard output: Markdown is rendered on a terminal, and is left as it is in a pipe."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

import typer

from llm_blender.cli._output import on_terminal

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.live import Live
    from rich.markdown import Markdown

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
_NEW_BLOCK = re.compile(r"[^\s\d*+>|-]")  # begins neither an indented line, nor a further item, quote or table row
_REFRESHES = 12  # per second


class Stream(Protocol):
    """Receiver of a text that comes in pieces."""

    def feed(self, piece: str) -> None:
        """Print the next piece."""

    def close(self) -> None:
        """End the text, and its line."""


def text_stream(*, plain: bool) -> Stream:
    """Make the receiver of one text on standard output."""
    return PlainStream() if (console := _console(plain=plain)) is None else MarkdownStream(console)


def print_text(text: str, *, plain: bool) -> None:
    """Print a whole text on standard output."""
    if (console := _console(plain=plain)) is None:
        typer.echo(text)
    else:
        console.print(render(text))


def render(text: str) -> Markdown:
    """Parse Markdown for rich; line breaks stay, as in verse, and tags of HTML are text."""
    from markdown_it import MarkdownIt
    from rich.markdown import Markdown

    parsed = MarkdownIt("commonmark", {"html": False}).enable("strikethrough").enable("table").parse(text)
    for token in parsed:
        for child in token.children or ():
            if child.type == "softbreak":
                child.type = "hardbreak"
    markdown = Markdown(text)
    markdown.parsed = parsed
    return markdown


def _console(*, plain: bool) -> Console | None:
    """Make the console of a terminal that Markdown is rendered on; None where the text is printed as it is."""
    if plain or not on_terminal():
        return None
    from rich.console import Console

    console = Console()
    return None if console.is_dumb_terminal else console


class PlainStream:
    """Standard output as it is."""

    def feed(self, piece: str) -> None:
        """Print the next piece at once."""
        typer.echo(piece, nl=False)

    def close(self) -> None:
        """End the line."""
        typer.echo()


class MarkdownStream:
    """Markdown on a terminal: finished blocks are printed, and the block that is being written is drawn again.

    Args:
        console: the terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._open = ""
        self._any = False
        self._live: Live | None = None

    def feed(self, piece: str) -> None:
        """Draw the text with its next piece."""
        from rich.live import Live

        done, self._open = split_blocks(self._open + piece)
        if done:
            self._print(done)
        if self._live is None:
            self._live = Live(
                console=self._console, refresh_per_second=_REFRESHES, transient=True, redirect_stderr=False
            )
            self._live.start()
        self._live.update(_Tail(self._open, self._any), refresh=not self._any and not done)

    def close(self) -> None:
        """Print the last block."""
        text, self._open = self._open, ""
        self._print(text)

    def _print(self, text: str) -> None:
        if self._live is not None:
            self._live.update("")
            self._live.stop()
            self._live = None
        if text.strip():
            if self._any:
                self._console.print()
            self._console.print(render(text))
            self._any = True


class _Tail:
    """Last lines of the block that is being written, as many as the screen has."""

    def __init__(self, text: str, after: bool) -> None:
        self._text, self._after = text, after

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment

        lines = console.render_lines(render(self._text), options, pad=False) if self._text.strip() else []
        none: list[list[Segment]] = [[]]
        for line in (none * self._after + lines)[-max(console.height - 2, 1) :]:
            yield from line
            yield Segment.line()


def split_blocks(text: str) -> tuple[str, str]:
    """Split the beginning of a Markdown text into its finished blocks and the rest.

    A block ends at an empty line outside of fences, before a line that cannot continue a list, a quote or a table.
    """
    end, place, fence, empty = 0, 0, "", False
    for line in text.splitlines(keepends=True):
        if not fence and empty and _NEW_BLOCK.match(line):
            end = place
        marker = _FENCE.match(line)
        if marker and not fence:
            fence = marker[1]
        elif marker and marker[1].startswith(fence) and not line.strip(" \r\n`~"):
            fence = ""
        empty, place = not line.strip(), place + len(line)
    return text[:end], text[end:]
