"""What a terminal shows while an ensemble works."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from llm_blender.ensemble import Observer
from llm_blender.errors import StoreError
from llm_blender.types import Candidate, Failure

__all__ = ["Watcher", "watched"]


class Watcher(Observer):
    """Counts the answers that were in the store."""

    stored = 0
    trouble: StoreError | None = None

    def wrote(self, call: int, candidate: Candidate, *, stored: bool) -> None:
        self.stored += stored

    def not_kept(self, error: StoreError) -> None:
        self.trouble = error


@contextmanager
def watched() -> Iterator[Watcher]:
    """An observer that draws bars on standard error, where that is a terminal; silent elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Watcher()
        return
    columns = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"), TimeElapsedColumn()]
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bars:
        yield _Bars(bars)


class _Bars(Watcher):
    """A bar for the candidates, with the speed at which they are written, one for the comparisons, one for fusing."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._writing: TaskID | None = None
        self._comparing: TaskID | None = None
        self._fusing: TaskID | None = None
        self._fused = 0
        self._pieces, self._total, self._over = 0, 0, 0
        self._since = 0.0

    def started(self, models: list[str]) -> None:
        self._total = len(models)
        self._writing = self._bars.add_task("asking", total=self._total, said="")
        self._say()

    def writing(self, call: int, text: str) -> None:
        self._since = self._since or time.monotonic()  # not from the start: loading a model is no writing
        self._pieces += 1  # one piece is one token, or near it
        self._say()

    def wrote(self, call: int, candidate: Candidate, *, stored: bool) -> None:
        super().wrote(call, candidate, stored=stored)
        self._over += 1
        self._say()

    def failed(self, call: int, failure: Failure) -> None:
        self._over += 1
        self._say()

    def comparing(self, done: int, total: int) -> None:
        if self._comparing is None:
            self._comparing = self._bars.add_task("comparing", total=total, said="")
        self._bars.update(self._comparing, completed=done, total=total, said=f"{done} of {total}")

    def fusing(self, text: str) -> None:
        if self._fusing is None:
            self._fusing = self._bars.add_task("fusing", total=None, said="")
        self._fused += 1
        self._bars.update(self._fusing, said=f"{self._fused} tokens")

    def _say(self) -> None:
        if self._writing is None:
            return
        said = f"candidate {min(self._over + 1, self._total)} of {self._total}"
        if self._pieces > 1:
            said += f", {self._pieces / max(time.monotonic() - self._since, 1e-3):.0f} tokens/s"
        self._bars.update(self._writing, completed=self._over, said=said)
