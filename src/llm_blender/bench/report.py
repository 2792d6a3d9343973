"""Results as JSON values, as Markdown tables and as an HTML page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from llm_blender.errors import InputError
from llm_blender.ranking import Interval

NOTHING = "–"
"""Cell of a table that holds no value."""


@dataclass(frozen=True)
class Theme:
    """Colours of a plot.

    Attributes:
        ink: of text and lines.
        quiet: of axes and remarks.
        grid: of lines in the background.
        paper: of the background.
        baseline: of methods that are no rankers.
        accents: of rankers; they differ in greyscale and for colour-blind readers.
    """

    ink: str
    quiet: str
    grid: str
    paper: str
    baseline: str
    accents: tuple[str, ...]

    @property
    def style(self) -> dict[Any, Any]:
        """Settings for ``matplotlib.rc_context``."""
        return {
            "font.family": "sans-serif",
            "font.size": 9,
            "text.color": self.ink,
            "axes.labelcolor": self.ink,
            "axes.edgecolor": self.quiet,
            "axes.facecolor": self.paper,
            "figure.facecolor": self.paper,
            "savefig.facecolor": self.paper,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "xtick.color": self.quiet,
            "ytick.color": self.quiet,
            "svg.fonttype": "none",  # text stays text
            "svg.hashsalt": "llm-blender",  # the same results, the same bytes
        }


# Dark to light (on dark paper, light to dark); baselines are fainter than any ranker.
LIGHT = Theme(
    "#222222", "#777777", "#eeeeee", "#ffffff", "#d4d4d4", ("#1b3a5c", "#a3431f", "#4f9f94", "#b08cc4", "#c4b24a")
)
DARK = Theme(
    "#e8e8e8", "#9a9a9a", "#333333", "#1c1c1e", "#5a5a5a", ("#a9cbf0", "#e8865a", "#5fb3a6", "#a67fbf", "#b5a23a")
)


class Result:
    """Base of the dataclasses that a bench prints as JSON."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]


@dataclass(frozen=True)
class Table:
    """Table of texts.

    Attributes:
        columns: titles; all columns but the first `names` hold numbers.
        rows: one cell for each column.
        names: number of columns that hold text.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    names: int

    def markdown(self) -> str:
        """Return GitHub's Markdown, with numbers to the right and columns aligned in the source as well."""
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

    def without_first(self) -> Table:
        """Return the table without its first column."""
        return Table(self.columns[1:], tuple(row[1:] for row in self.rows), self.names - 1)


def format_number(value: float | None, form: str, scale: float = 1) -> str:
    """Format a value times `scale`; `NOTHING` for None."""
    return NOTHING if value is None else format(value * scale, form)


def format_interval(interval: Interval | None, form: str, scale: float = 1) -> str:
    """Format both ends of an interval as `format_number` does."""
    return NOTHING if interval is None else " to ".join(format(end * scale, form) for end in interval)


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


def page(title: str, parts: Iterable[str], style: str = "") -> str:
    """Return an HTML page that follows the reader's choice of light or dark.

    The parts of its body are HTML, the title is text; `style` adds rules to those of all pages.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}{style}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def html_table(table: Table) -> str:
    """Return the table in HTML."""
    head = html_row(table.columns[0], [f'<th scope="col">{escape(title)}</th>' for title in table.columns[1:]], "col")
    rows = [html_row(row[0], [f"<td>{escape(cell)}</td>" for cell in row[1:]]) for row in table.rows]
    return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"


def html_row(name: str, cells: Sequence[str], scope: str = "row") -> str:
    """Return a row of an HTML table: `name` is the text of its heading, `cells` are HTML."""
    return f'<tr><th scope="{scope}">{escape(name)}</th>{"".join(cells)}</tr>'


def write_page(page: str, path: str | Path) -> Path:
    """Write a page, and create its folder.

    Raises:
        InputError: the file cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot hold the page ({error.strerror or error}).") from error
    return path
