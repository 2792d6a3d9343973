"""Show progress on standard error: a bar on a terminal, otherwise a line every 30 seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from llm_blender.cli._output import counted, note

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Task
    from rich.text import Text

    from llm_blender.jobs import OnRows, Rows


class Report(Protocol):
    """Callback of work in progress; also an `llm_blender.types.OnProgress`."""

    def __call__(self, done: float, total: float, before: float = 0, /) -> None:
        """Report what is done of a total (0 is unknown), and what of it earlier runs did."""


_EVERY = 30.0  # seconds between lines in a log


class _Pace:
    """Progress, speed and remaining time of work, as text.

    Args:
        unit: plural of what is counted.
        status: function that returns further text, such as the cost so far.

    Attributes:
        started: when the work began, by `time.monotonic`.
        done: what is done, of the `total`; both are 0 at first.
    """

    def __init__(self, unit: str, status: Callable[[], str] | None) -> None:
        self._unit, self._status = unit, status
        self.started = time.monotonic()
        self.done = self.total = self._before = 0.0

    def report(self, done: float, total: float, before: float = 0) -> None:
        """Take note of the progress."""
        self.done, self.total, self._before = done, total, before

    def text(self, now: float) -> str:
        """Describe it; empty before the first report."""
        if not (self.done or self.total):
            return ""
        total = f"/{self.total:,.0f}" if self.total else ""
        parts = [f"{self.done:,.0f}{total} {self._unit}"]
        seconds = now - self.started
        rate = (self.done - self._before) / seconds if seconds >= 1 else 0.0  # too early to tell
        if rate > 0:
            parts.append(f"{rounded(rate)}/s")
        if self._status is not None and (status := self._status()):
            parts.append(status)
        if rate > 0 and self.total:
            parts.append(f"{_duration((self.total - self.done) / rate)} left")
        return ", ".join(parts)


def rounded(value: float) -> str:
    """Format a number in two figures, such as ``0.25``, or as an integer from 10 on."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


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
        yield lambda done, total, before=0, /: None
        return
    from rich.console import Console

    console, pace = Console(stderr=True), _Pace(unit, status)
    if console.is_terminal:
        with _bar(console, label, unit, pace) as report:
            yield report
    else:
        yield _Log(label, pace)


@contextmanager
def _bar(console: Console, label: str, unit: str, pace: _Pace) -> Iterator[Report]:
    from rich.progress import BarColumn, DownloadColumn, Progress, ProgressColumn, TextColumn, TransferSpeedColumn
    from rich.text import Text

    class Pace(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(pace.text(time.monotonic()))

    counts = [DownloadColumn(), TransferSpeedColumn()] if unit == "bytes" else [Pace()]
    columns = [TextColumn("{task.description}"), BarColumn(), *counts]
    # A redirected standard output would end up on standard error.
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(label, total=None)

        def report(done: float, total: float, before: float = 0, /) -> None:
            pace.report(done, total, before)
            bar.update(task, completed=done, total=total or None)

        yield report


class _Log:
    """Progress in lines of a log; quick work prints none."""

    def __init__(self, label: str, pace: _Pace) -> None:
        self._label, self._pace = label, pace
        self._printed = pace.started

    def __call__(self, done: float, total: float, before: float = 0, /) -> None:
        now = time.monotonic()
        self._pace.report(done, total, before)
        if now - self._printed >= _EVERY and done:
            self._printed = now
            note(f"{self._label}: {self._pace.text(now)}")


def dollars(cost: float, unpriced: int = 0) -> str:
    """Format a cost in dollars, with the number of unpriced calls."""
    digits = 6 if 0 < cost < 0.001 else 4
    return f"${cost:.{digits}f}" + (f" and {counted(unpriced, 'calls')} of unknown price" if unpriced else "")


@contextmanager
def job_progress(label: str, unit: str, *, show: bool = True) -> Iterator[OnRows]:
    """Show progress, speed and cost of a job."""
    status = ""
    with progress(label, unit, show=show, status=lambda: status) as report:

        def show_rows(rows: Rows) -> None:
            nonlocal status
            status = dollars(rows.cost, rows.unpriced) + (f", {rows.failed:,} failed" if rows.failed else "")
            report(rows.over, rows.total, rows.resumed)

        yield show_rows


def stopping(rows: int) -> None:
    """Print that the work stops after the running calls."""
    note(f"stopping after {rows} running calls (interrupt again to abort them)")
