"""What the commands share that work through a job."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from llm_blender.cli._output import note
from llm_blender.cli._progress import progress

if TYPE_CHECKING:
    from llm_blender.jobs import OnRows, Rows

__all__ = ["MaxCostOption", "RestartOption", "UnknownPricesOption", "dollars", "job_progress", "stopping"]

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
