"""Results as tables: for a terminal, a log, a model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path

from llm_blender.bench.agreement import Agreement
from llm_blender.bench.fusion import FusionEffort, FusionMeasures, FusionWins
from llm_blender.bench.plots import DARK, LIGHT
from llm_blender.bench.selection import Selection
from llm_blender.errors import InputError
from llm_blender.ranking import Interval

__all__ = [
    "Table",
    "agreement_table",
    "fusion_effort_table",
    "fusion_table",
    "html_table",
    "page",
    "selection_table",
    "write_page",
]

_NOTHING = "–"
_ALL = "(all)"


@dataclass(frozen=True)
class Table:
    """Cells as text.

    Attributes:
        columns: their titles; all but the first `names` hold numbers.
        rows: as many cells each as there are columns.
        names: how many columns hold text.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    names: int

    def markdown(self) -> str:
        """GitHub's Markdown, numbers to the right, aligned in the source as well."""
        lines = [[cell.replace("|", "\\|") for cell in line] for line in (self.columns, *self.rows)]
        widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]

        def line(cells: Sequence[str]) -> str:
            padded = [
                cell.ljust(width) if i < self.names else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
            ]
            return f"| {' | '.join(padded)} |"

        rule = ["-" * width if i < self.names else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
        return "\n".join([line(lines[0]), line(rule), *map(line, lines[1:])])


def agreement_table(results: Sequence[Agreement]) -> Table:
    """Shares in percent, Brier's score as it is.

    Under the methods of each file or subset stand the judges: how often they prefer the longer answer, and the Brier
    score of the constant base rate.
    """
    reference = next((result.method for result in results if result.versus is None), "")
    divided = any(result.subset is not None for result in results)
    rows: list[tuple[str, ...]] = []
    for (file, subset), group in groupby(results, key=lambda result: (result.file, result.subset)):
        names = (file, subset or _ALL) if divided else (file,)
        of_group = list(group)
        rows += [(*names, *_agreement_cells(result)) for result in of_group]
        rows.append((*names, *_judges_cells(of_group[0])))
    names_of = ("file", "subset", "method") if divided else ("file", "method")
    shares = ("accuracy", "95 %", f"against {reference}, 95 %", "undecided", "longer", "flips", "ECE", "Brier")
    return Table((*names_of, "pairs", "ties", *shares), tuple(rows), names=len(names_of))


def _agreement_cells(result: Agreement) -> tuple[str, ...]:
    return (
        result.method,
        f"{result.pairs:,}",
        f"{result.ties:,}",
        _number(result.accuracy, 100),
        _interval(result.ci95, 100) if result.ci95 else "by definition",
        _interval(result.versus.ci95, 100, sign="+") if result.versus else _NOTHING,
        _number(result.undecided, 100),
        _number(result.prefers_longer, 100),
        _number(result.flip_rate, 100),
        _number(result.ece, 100),
        _NOTHING if result.brier is None else f"{result.brier:.3f}",
    )


def _judges_cells(result: Agreement) -> tuple[str, ...]:
    counts = (f"{result.pairs:,}", f"{result.ties:,}")
    known = (_number(result.longest, 100), _NOTHING, _NOTHING, f"{result.brier_base_rate:.3f}")
    return ("judges", *counts, *(_NOTHING,) * 4, *known)


def selection_table(results: Sequence[Selection], *, percent: bool) -> Table:
    """Quality on the score's own scale, or times 100.

    Args:
        results: of the same rows.
        percent: multiply by 100, as suits scores from 0 to 1.
    """
    scale = 100 if percent else 1
    return Table(
        ("method", "rows", "quality", "95 %", "against random, 95 %", "comparisons"),
        tuple(
            (
                result.method,
                f"{result.rows:,}",
                _number(result.quality, scale),
                _interval(result.ci95, scale),
                _interval(result.vs_random_ci95, scale, sign="+") if result.vs_random_ci95 else _NOTHING,
                f"{result.comparisons:,}",
            )
            for result in results
        ),
        names=1,
    )


def fusion_table(results: Mapping[str, FusionMeasures]) -> Table:
    """Means on each metric's own scale; a metric that could not be computed has a line without numbers.

    Args:
        results: by file; of one file alone, its name is left out.
    """
    measures = [measure for of_file in results.values() for measure in of_file.measures]
    other = next((measure.versus.method for measure in measures if measure.versus), "")
    lines = [
        (
            file,
            measure.metric,
            measure.method,
            f"{measure.rows:,}",
            _significant(measure.mean),
            f"{_significant(measure.ci95.low)} to {_significant(measure.ci95.high)}",
            _significant(measure.versus.mean, "+") if measure.versus else _NOTHING,
            f"{_significant(measure.versus.ci95.low, '+')} to {_significant(measure.versus.ci95.high, '+')}"
            if measure.versus
            else _NOTHING,
        )
        for file, of_file in results.items()
        for measure in of_file.measures
    ]
    lines += [
        (file, metric, "unavailable", *(_NOTHING,) * 5)
        for file, of_file in results.items()
        for metric in of_file.unavailable
    ]
    against = f"against {other}" if other else "difference"
    columns = ("file", "metric", "method", "rows", "mean", "95 %", against, "95 %")
    return _without_file(Table(columns, tuple(lines), names=3), len(results))


def fusion_effort_table(efforts: Mapping[str, FusionEffort], wins: Mapping[str, FusionWins]) -> Table:
    """What fusing took in each file, and how often a judge preferred the fused text, where one was asked.

    Args:
        efforts: by file; of one file alone, its name is left out.
        wins: likewise, of the files that were judged.
    """
    lines = []
    for file, effort in efforts.items():
        won = wins.get(file)
        lines.append(
            (
                file,
                ", ".join(f"{reason} {count:,}" for reason, count in effort.reasons.items()),
                f"{effort.rows:,}",
                f"{effort.asked:,}",
                f"{effort.let_through:,}",
                f"{effort.prompt_tokens:,.0f}",
                f"{effort.completion_tokens:,.0f}",
                f"{effort.seconds:,.2f}",
                _NOTHING if effort.cost is None else f"{effort.cost:.4f}",
                f"{100 * effort.truncated:.1f}",
                f"{100 * won.share:.1f} ({_interval(won.ci95, 100)}) of {won.rows:,}" if won else _NOTHING,
            )
        )
    columns = (
        "file",
        "reasons",
        "rows",
        "fused",
        "let through",
        "tokens in",
        "out",
        "s",
        "$",
        "cut %",
        "judge, wins %",
    )
    return _without_file(Table(columns, tuple(lines), names=2), len(efforts))


def _without_file(table: Table, files: int) -> Table:
    """The table without its first column where all its lines have the same."""
    if files > 1:
        return table
    return Table(table.columns[1:], tuple(row[1:] for row in table.rows), table.names - 1)


def _significant(value: float, sign: str = "") -> str:
    """Four digits: scales of metrics differ."""
    return format(value, f"{sign}.4g")


def _number(value: float | None, scale: float, sign: str = "") -> str:
    if value is None:
        return _NOTHING
    return format(value * scale, f"{sign}.1f" if scale != 1 else f"{sign}.3g")


def _interval(interval: Interval, scale: float, sign: str = "") -> str:
    return f"{_number(interval.low, scale, sign)} to {_number(interval.high, scale, sign)}"


_STYLE = f"""
:root {{ color-scheme: light dark; --ink: {LIGHT.ink}; --quiet: #5f5f5f; --line: #dddddd; --paper: {LIGHT.paper}; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: {DARK.ink}; --quiet: #a8a8a8; --line: #3a3a3a; --paper: {DARK.paper}; }}
}}
body {{ margin: 0 auto; max-width: 84rem; padding: 1.5rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }}
h1 {{ font-size: 1.4rem; }} h2 {{ font-size: 1.1rem; margin-top: 2.5rem; }}
table {{ border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25rem .4rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }}
th:first-child {{ text-align: left; font-weight: 600; }}
tbody th {{ font-weight: 400; }}
small {{ display: block; color: var(--quiet); font-size: .7rem; font-weight: 400; }}
.best {{ font-weight: 700; }}
p, li, figcaption {{ max-width: 60rem; }} figcaption, footer {{ color: var(--quiet); }}
"""


def page(title: str, parts: Sequence[str], style: str = "") -> str:
    """The page, in HTML; it follows the reader's choice of light or dark.

    Args:
        title: as text.
        parts: of its body, in HTML.
        style: rules beside those of all pages.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}{style}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def html_table(table: Table) -> str:
    """The table in HTML."""
    head, *lines = [_row(cells, head=not number) for number, cells in enumerate((table.columns, *table.rows))]
    return f"<table><thead>{head}</thead><tbody>{''.join(lines)}</tbody></table>"


def write_page(page: str, path: Path) -> Path:
    """Write a page, and the folders that it needs.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot hold the page ({error.strerror or error}).") from error
    return path


def _row(cells: Sequence[str], *, head: bool) -> str:
    name, *others = (escape(cell) for cell in cells)
    rest = "".join(f'<th scope="col">{cell}</th>' if head else f"<td>{cell}</td>" for cell in others)
    return f'<tr><th scope="{"col" if head else "row"}">{name}</th>{rest}</tr>'
