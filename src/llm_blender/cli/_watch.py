"""Show the progress of one prompt on standard error: candidates, comparisons and fusing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from llm_blender.ensemble import Observer
from llm_blender.types import Candidate, Failure

_NAMES = 40  # characters of the names of LLMs in the status line


class Watcher(Observer):
    """Observer of who has answered.

    Attributes:
        stored: calls with an answer, and whether it comes from the store.
    """

    def __init__(self) -> None:
        self.stored: dict[int, bool] = {}

    def wrote(self, call: int, candidate: Candidate, *, stored: bool) -> None:
        self.stored[call] = stored


@contextmanager
def watched() -> Iterator[Watcher]:
    """Yield an observer that draws bars if standard error is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Watcher()
        return
    columns = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[status]}"), TimeElapsedColumn()]
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bars:
        yield _Bars(bars)


class _Bars(Watcher):
    """Bars for candidates (with their speed), comparisons and fusing."""

    def __init__(self, bars: Progress) -> None:
        super().__init__()
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._awaited: dict[int, str] = {}
        self._pieces, self._total, self._fused = 0, 0, 0
        self._since = 0.0

    def started(self, models: list[str]) -> None:
        self._total, self._awaited = len(models), dict(enumerate(models))
        self._update()

    def writing(self, call: int, text: str) -> None:
        self._since = self._since or time.monotonic()  # from the first piece: loading a model does not count
        self._pieces += 1  # one piece is about one token
        self._update()

    def wrote(self, call: int, candidate: Candidate, *, stored: bool) -> None:
        super().wrote(call, candidate, stored=stored)
        self._end(call)

    def failed(self, call: int, failure: Failure) -> None:
        self._end(call)

    def comparing(self, done: int, total: int) -> None:
        self._show("comparing", f"{done} of {total}", done, total)

    def fusing(self, text: str) -> None:
        self._fused += 1
        self._show("fusing", f"{self._fused} tokens")

    def _end(self, call: int) -> None:
        del self._awaited[call]
        self._update()

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
