"""Show the progress of one prompt on standard error: candidates, comparisons and fusing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from llm_blender.ensemble import Observer
from llm_blender.types import Candidate, Failure


class Watcher(Observer):
    """Observer that counts the answers from the store."""

    stored = 0

    def wrote(self, call: int, candidate: Candidate, *, stored: bool) -> None:
        self.stored += stored


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
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._pieces, self._total, self._over, self._fused = 0, 0, 0, 0
        self._since = 0.0

    def started(self, models: list[str]) -> None:
        self._total = len(models)
        self._update()

    def writing(self, call: int, text: str) -> None:
        self._since = self._since or time.monotonic()  # from the first piece: loading a model does not count
        self._pieces += 1  # one piece is about one token
        self._update()

    def wrote(self, call: int, candidate: Candidate, *, stored: bool) -> None:
        super().wrote(call, candidate, stored=stored)
        self._over += 1
        self._update()

    def failed(self, call: int, failure: Failure) -> None:
        self._over += 1
        self._update()

    def comparing(self, done: int, total: int) -> None:
        self._show("comparing", f"{done} of {total}", done, total)

    def fusing(self, text: str) -> None:
        self._fused += 1
        self._show("fusing", f"{self._fused} tokens")

    def _update(self) -> None:
        status = f"candidate {min(self._over + 1, self._total)} of {self._total}"
        if self._pieces > 1:
            status += f", {self._pieces / max(time.monotonic() - self._since, 1e-3):.0f} tokens/s"
        self._show("asking", status, self._over, self._total)

    def _show(self, name: str, status: str, done: int = 0, total: int | None = None) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total, status="")
        self._bars.update(self._tasks[name], completed=done, total=total, status=status)
