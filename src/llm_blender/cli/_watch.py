"""Show one prompt at work: the text of a lone LLM as it comes, or who of several has answered, on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from llm_blender.cli._markdown import Stream
from llm_blender.cli._output import counted
from llm_blender.ensemble import Observer
from llm_blender.types import Candidate, Failure

_NAMES = 40  # characters of the names of LLMs in the status line
_ROWS = 12  # LLMs in the live view


class Watcher(Observer):
    """Observer of who has answered.

    Attributes:
        stored: calls with an answer, and whether it comes from the store.
    """

    def __init__(self) -> None:
        self.stored: dict[int, bool] = {}

    def wrote(self, call: int, candidate: Candidate, *, stored: bool) -> None:
        self.stored[call] = stored


class Streamed(Watcher):
    """Observer that prints the text of a lone LLM as it comes.

    Args:
        stream: receives the text.
    """

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self._stream = stream
        self._printed, self._space, self._open = "", "", False

    def writing(self, call: int, text: str) -> None:
        text = self._space + text
        kept = text.rstrip()  # a text ends without white space
        self._space = text[len(kept) :] if self._printed or kept else ""
        self._print(kept if self._printed else kept.lstrip())

    def finish(self, text: str) -> None:
        """Print what is missing of the whole text: all of it if it comes from the store."""
        if text.startswith(self._printed):
            self._print(text[len(self._printed) :])
        else:  # thoughts without a mark in front were part of it
            self._print(f"\n\n{text}")
        self.close()

    def close(self) -> None:
        """End the line of a text, whole or not."""
        if self._open:
            self._open = False
            self._stream.close()

    def _print(self, text: str) -> None:
        if text:
            self._open = True
            self._printed += text
            self._stream.feed(text)


@contextmanager
def watched() -> Iterator[Watcher]:
    """Yield an observer that draws who has answered, and bars, if standard error is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Watcher()
        return
    columns = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[status]}"), TimeElapsedColumn()]
    bars = Progress(*columns, console=console, auto_refresh=False)
    view = _View(bars)
    with Live(get_renderable=view.draw, console=console, transient=True, redirect_stdout=False) as live:
        view.refresh = live.refresh
        yield view


@dataclass
class _Member:
    """Progress of one LLM."""

    calls: int = 0
    answered: int = 0
    pieces: int = 0
    tokens: int = 0
    seconds: float = 0.0
    failure: str = ""

    def describe(self) -> tuple[str, str]:
        """Return its mark, and what it does in a few words."""
        parts = []
        if self.calls > 1 and self.answered:
            parts.append(f"{self.answered} of {self.calls}")
        if self.answered:
            parts.append(f"{self.seconds:.1f} s")
            parts += [counted(self.tokens, "tokens")] * (self.tokens > 0)
        elif self.pieces:
            parts.append(f"writing, {counted(self.pieces, 'tokens')}")
        parts += [self.failure] * bool(self.failure)
        mark = "✓" if self.answered == self.calls else "✗" if self.failure else "…"
        return mark, ", ".join(parts) or "waiting"


class _View(Watcher):
    """A line for each LLM, and bars for candidates (with their speed), comparisons and fusing.

    Attributes:
        refresh: draws the view at once, at the start and where an LLM has answered or failed.
    """

    def __init__(self, bars: Progress) -> None:
        super().__init__()
        self.refresh: Callable[[], None] = lambda: None
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._awaited: dict[int, str] = {}
        self._names: list[str] = []
        self._members: dict[str, _Member] = {}
        self._pieces, self._total, self._fused = 0, 0, 0
        self._begun = self._since = 0.0

    def draw(self) -> Group:
        """Draw the view of this moment."""
        table = Table.grid(padding=(0, 1))
        shown = list(self._members.items())
        for name, member in shown[:_ROWS]:
            mark, words = member.describe()
            table.add_row(mark, Text(name, no_wrap=True, overflow="ellipsis"), Text(words, no_wrap=True))
        if len(shown) > _ROWS:
            table.add_row("", f"and {len(shown) - _ROWS} more")
        return Group(table, self._bars)

    def started(self, models: list[str]) -> None:
        self._begun = time.monotonic()
        self._total, self._awaited, self._names = len(models), dict(enumerate(models)), models
        for name in models:
            self._members.setdefault(name, _Member()).calls += 1
        self._update()
        self.refresh()

    def writing(self, call: int, text: str) -> None:
        self._since = self._since or time.monotonic()  # from the first piece: loading a model does not count
        self._pieces += 1  # one piece is about one token
        self._members[self._names[call]].pieces += 1
        self._update()

    def wrote(self, call: int, candidate: Candidate, *, stored: bool) -> None:
        super().wrote(call, candidate, stored=stored)
        member = self._members[self._names[call]]
        member.answered += 1
        member.tokens += 0 if candidate.usage is None else candidate.usage.completion_tokens
        member.seconds = time.monotonic() - self._begun
        self._end(call)

    def failed(self, call: int, failure: Failure) -> None:
        self._members[self._names[call]].failure = failure.reason.replace("_", " ")
        self._end(call)

    def comparing(self, done: int, total: int) -> None:
        self._show("comparing", f"{done} of {total}", done, total)

    def fusing(self, text: str) -> None:
        self._fused += 1
        self._show("fusing", f"{self._fused} tokens")

    def _end(self, call: int) -> None:
        del self._awaited[call]
        self._update()
        self.refresh()

    def _update(self) -> None:
        over = self._total - len(self._awaited)
        status = f"{over} of {self._total}"
        if self._pieces > 1:
            status += f", {self._pieces / max(time.monotonic() - self._since, 1e-3):.0f} tokens/s"
        if self._awaited:
            names = ", ".join(dict.fromkeys(self._awaited.values()))
            status += f"; waiting for {names if len(names) <= _NAMES else f'{names[:_NAMES].rstrip()}…'}"
        self._show("asking", status, over, self._total)

    def _show(self, name: str, status: str, done: int = 0, total: int | None = None) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total, status="")
        self._bars.update(self._tasks[name], completed=done, total=total, status=status)
