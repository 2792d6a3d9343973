"""Long work on standard error: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from llm_blender.cli._output import note
from llm_blender.ensemble import Observer
from llm_blender.types import Candidate, Failure

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import ProgressColumn

    from llm_blender.jobs import OnRows, Rows

__all__ = [
    "MaxCostOption",
    "Report",
    "RestartOption",
    "UnknownPricesOption",
    "Watcher",
    "dollars",
    "job_progress",
    "progress",
    "stopping",
    "watched",
]

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


MaxCostOption = Annotated[
    float | None,
    typer.Option("--max-cost", min=0, metavar="DOLLARS", help="What all runs of this job together may cost."),
]
UnknownPricesOption = Annotated[
    bool,
    typer.Option("--allow-unknown-prices", help="Ask LLMs without a price, too; their calls are counted, not priced."),
]
RestartOption = Annotated[
    bool,
    typer.Option("--restart", help="Forget what an earlier run did; answers are still found in the store."),
]


def dollars(cost: float, unpriced: int = 0) -> str:
    """A cost, and how much of it nobody knows."""
    known = f"${cost:.4f}"
    return f"{known} and {unpriced:,} calls of unknown price" if unpriced else known


@contextmanager
def job_progress(label: str, unit: str, *, show: bool = True) -> Iterator[OnRows]:
    """Shows how far a job is, rows a second, and what it has cost."""
    latest: list[Rows] = []

    def said() -> str:
        rows = latest[-1]
        failed = f", {rows.failed:,} failed" if rows.failed else ""
        return f"{dollars(rows.cost, rows.unpriced)}{failed}"

    with progress(label, unit, show=show, said=said) as report:

        def tell(rows: Rows) -> None:
            latest[:] = [rows]
            report(rows.over, rows.total)

        yield tell


def stopping(rows: int) -> None:
    """Say on standard error that the work stops, and what it waits for."""
    note(f"stopping; {rows} calls under way come to their end first (interrupt again to give them up)")


class Watcher(Observer):
    """Counts the answers that were in the store."""

    stored = 0

    def wrote(self, call: int, candidate: Candidate, *, stored: bool) -> None:
        self.stored += stored


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
