"""Long work on standard error: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llm_blender.cli._output import note

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import ProgressColumn

__all__ = ["Report", "progress"]

Report = Callable[[float, float], None]
"""Called with (done, total); 0 as total is unknown. It is what `llm_blender.types.OnProgress` wants, too."""

_EVERY = 30.0  # seconds between lines in a log


@contextmanager
def progress(label: str, unit: str, *, show: bool = True, said: Callable[[], str] | None = None) -> Iterator[Report]:
    """Show how far the work in the ``with`` block is, how fast it goes and how long it will take.

    Args:
        label: what is done, e.g. ``ranking``.
        unit: what is counted, in the plural; ``bytes`` are written as kB and MB.
        show: False is silent, for when a bar would stand between rows on the same terminal.
        said: what else stands there, such as the cost so far.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if not show:
        yield lambda done, total: None
    elif console.is_terminal:
        with _bar(console, label, unit, said) as report:
            yield report
    else:
        yield _Log(label, unit, said)


@contextmanager
def _bar(console: Console, label: str, unit: str, said: Callable[[], str] | None) -> Iterator[Report]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns: list[str | ProgressColumn] = [TextColumn("{task.description}"), BarColumn(), *_counts(unit)]
    if said is not None:
        columns.append(TextColumn("{task.fields[said]}"))
    columns += [TimeRemainingColumn(compact=True), TextColumn("left")]
    # Redirected, what the command prints meanwhile would reach standard error instead of standard output.
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(label, total=None, said="")
        yield lambda done, total: bar.update(
            task, completed=done, total=total or None, said=said() if said is not None else ""
        )


def _counts(unit: str) -> list[ProgressColumn]:
    from rich.progress import DownloadColumn, ProgressColumn, Task, TransferSpeedColumn
    from rich.text import Text

    class Count(ProgressColumn):
        def render(self, task: Task) -> Text:
            total = "?" if task.total is None else f"{task.total:,.0f}"
            speed = task.finished_speed or task.speed
            rate = "" if speed is None else f", {_number(speed)} {unit}/s"
            return Text(f"{task.completed:,.0f}/{total} {unit}{rate}")

    return [DownloadColumn(), TransferSpeedColumn()] if unit == "bytes" else [Count()]


class _Log:
    """Says every now and then how far the work is; quick work says nothing."""

    def __init__(self, label: str, unit: str, said: Callable[[], str] | None = None) -> None:
        self._label, self._unit, self._said = label, unit, said
        self._started = self._told = time.monotonic()

    def __call__(self, done: float, total: float) -> None:
        now = time.monotonic()
        if now - self._told < _EVERY or not done:
            return
        self._told = now
        rate = done / (now - self._started)
        line = f"{self._label}: {done:,.0f}/{total or '?':,.0f} {self._unit}, {_number(rate)}/s"
        line += f", {self._said()}" if self._said is not None else ""
        note(line + (f", {(total - done) / rate / 60:.0f} min left" if total else ""))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
