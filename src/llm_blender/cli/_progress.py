"""Show progress on standard error: a bar on a terminal, otherwise a line every 30 seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llm_blender.cli._output import note

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    from llm_blender.jobs import OnRows, Rows

Report = Callable[[float, float], None]
"""Callback with (done, total); a total of 0 is unknown. Also an `llm_blender.types.OnProgress`."""

_EVERY = 30.0  # seconds between lines in a log


@contextmanager
def progress(label: str, unit: str, *, show: bool = True, status: Callable[[], str] | None = None) -> Iterator[Report]:
    """Show progress, speed and remaining time of the work in the ``with`` block.

    Args:
        label: name of the work, e.g. ``ranking``.
        unit: plural of what is counted; ``bytes`` are shown as kB and MB.
        show: False is silent, for rows on the same terminal.
        status: function that returns further text, such as the cost so far.
    """
    if not show:
        yield lambda done, total: None
        return
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with _bar(console, label, unit, status) as report:
            yield report
    else:
        yield _Log(label, unit, status)


@contextmanager
def _bar(console: Console, label: str, unit: str, status: Callable[[], str] | None) -> Iterator[Report]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns: list[str | ProgressColumn] = [TextColumn("{task.description}"), BarColumn(), *_counts(unit)]
    if status is not None:
        columns.append(TextColumn("{task.fields[status]}"))
    columns += [TimeRemainingColumn(compact=True), TextColumn("left")]
    # A redirected standard output would end up on standard error.
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(label, total=None, status="")
        yield lambda done, total: bar.update(
            task, completed=done, total=total or None, status=status() if status is not None else ""
        )


def _counts(unit: str) -> list[ProgressColumn]:
    from rich.progress import DownloadColumn, ProgressColumn, TransferSpeedColumn
    from rich.text import Text

    class Count(ProgressColumn):
        def render(self, task: Task) -> Text:
            total = "?" if task.total is None else f"{task.total:,.0f}"
            speed = task.finished_speed or task.speed
            rate = "" if speed is None else f", {_number(speed)} {unit}/s"
            return Text(f"{task.completed:,.0f}/{total} {unit}{rate}")

    return [DownloadColumn(), TransferSpeedColumn()] if unit == "bytes" else [Count()]


class _Log:
    """Progress in lines of a log; quick work prints none."""

    def __init__(self, label: str, unit: str, status: Callable[[], str] | None = None) -> None:
        self._label, self._unit, self._status = label, unit, status
        self._started = self._printed = time.monotonic()

    def __call__(self, done: float, total: float) -> None:
        now = time.monotonic()
        if now - self._printed < _EVERY or not done:
            return
        self._printed = now
        rate = done / (now - self._started)
        line = f"{self._label}: {done:,.0f}/{total or '?':,.0f} {self._unit}, {_number(rate)}/s"
        line += f", {self._status()}" if self._status is not None else ""
        note(line + (f", {(total - done) / rate / 60:.0f} min left" if total else ""))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def dollars(cost: float, unpriced: int = 0) -> str:
    """Format a cost in dollars, with the number of unpriced calls."""
    digits = 6 if 0 < cost < 0.001 else 4
    return f"${cost:.{digits}f}" + (f" and {unpriced:,} calls of unknown price" if unpriced else "")


@contextmanager
def job_progress(label: str, unit: str, *, show: bool = True) -> Iterator[OnRows]:
    """Show progress, speed and cost of a job."""
    status = ""
    with progress(label, unit, show=show, status=lambda: status) as report:

        def show_rows(rows: Rows) -> None:
            nonlocal status
            status = dollars(rows.cost, rows.unpriced) + (f", {rows.failed:,} failed" if rows.failed else "")
            report(rows.over, rows.total)

        yield show_rows


def stopping(rows: int) -> None:
    """Print that the work stops after the running calls."""
    note(f"stopping after {rows} running calls (interrupt again to abort them)")
