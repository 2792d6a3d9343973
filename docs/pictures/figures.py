"""Draw the figures of how.md and which.md as SVG, legible on a light and on a dark page.

    python docs/pictures/figures.py

The figures of how.md follow figures 1 to 4 of arXiv 2306.02561; those of which.md are read from the tables of the docs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path

FOLDER = Path(__file__).parent
DOCS = FOLDER.parent

STYLE = """
text { font: 15px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1c2030 }
.page { fill: #ffffff } .small { font-size: 13px } .bold { font-weight: 600 } .faint { fill: #5a6072 }
.box { fill: #eef1fa; stroke: #7a86b8 } .best { fill: #d9efdd; stroke: #3f8a55 }
.model { fill: #fdf0d8; stroke: #b98a2f } .line { stroke: #5a6072; fill: none; stroke-width: 1.5 }
.head { fill: #5a6072 } .bar { fill: #4a5fc1 } .bar2 { fill: #a9b4dc } .range { stroke: #1c2030; stroke-width: 1.5 }
.plus { fill: #d9efdd } .minus { fill: #f7dcdc } .none { fill: #eceef4; stroke: #eceef4 }
@media (prefers-color-scheme: dark) {
  text { fill: #e4e7f2 } .page { fill: #1e2129 } .faint { fill: #a7aec4 } .box { fill: #2b3147; stroke: #8a96c8 }
  .best { fill: #24412d; stroke: #6fb985 } .model { fill: #463a22; stroke: #d0a44e } .line { stroke: #a7aec4 }
  .head { fill: #a7aec4 } .bar { fill: #8c9cf0 } .bar2 { fill: #6a76ad } .range { stroke: #e4e7f2 }
  .plus { fill: #24412d } .minus { fill: #4a2a2d } .none { fill: #2a2e3a; stroke: #2a2e3a }
}
"""


class Drawing:
    """A drawing that grows by its parts.

    Args:
        width: in units of the drawing.
        height: likewise.
    """

    def __init__(self, width: int, height: int) -> None:
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
            f"<style>{STYLE}</style>",
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"',
            'orient="auto"><path class="head" d="M0 0 L8 4 L0 8 z"/></marker></defs>',
            f'<rect class="page" width="{width}" height="{height}" rx="10"/>',
        ]

    def text(self, x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> None:
        """Write words; `y` is the base line."""
        self._parts.append(f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>')

    def box(
        self, x: float, y: float, width: float, height: float, lines: Sequence[str] = (), kind: str = "box"
    ) -> None:
        """Draw a box with lines of words in its middle."""
        self._parts.append(f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6"/>')
        top = y + height / 2 + 5 - 9 * (len(lines) - 1)
        for i, words in enumerate(lines):
            self.text(x + width / 2, top + 18 * i, words, "" if i == 0 else "small faint", "middle")

    def arrow(self, x1: float, y1: float, x2: float, y2: float) -> None:
        """Draw an arrow."""
        self._parts.append(f'<path class="line" marker-end="url(#arrow)" d="M{x1:g} {y1:g} L{x2:g} {y2:g}"/>')

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str = "line") -> None:
        """Draw a line."""
        self._parts.append(f'<path class="{kind}" d="M{x1:g} {y1:g} L{x2:g} {y2:g}"/>')

    def __str__(self) -> str:
        return "\n".join([*self._parts, "</svg>", ""])


BEST_OF_THE_PAPER = {
    "Vicuna": 25.47, "Open Assistant": 17.35, "MOSS": 15.93, "Alpaca": 15.41, "Baize": 14.23, "ChatGLM": 9.41,
    "Koala": 8.15, "MPT": 5.39, "Dolly V2": 5.16, "StableLM": 2.33, "Flan-T5": 1.30,
}  # fmt: skip
"""How often an LLM is first by GPT-Rank, ties included, in percent: the column Top-1 of the card of
llm-blender/pair-ranker."""


def best_of_the_paper() -> Drawing:
    """Draw how often each LLM of MixInstruct is the best (after figure 1)."""
    drawing = Drawing(720, 60 + 26 * len(BEST_OF_THE_PAPER))
    drawing.text(20, 30, "How often is it the best of eleven? Percent of MixInstruct's test rows", "bold")
    for i, (name, share) in enumerate(BEST_OF_THE_PAPER.items()):
        y = 46 + 26 * i
        drawing.text(140, y + 15, name, "", "end")
        drawing.box(150, y, 18 * share, 20, kind="bar")
        drawing.text(150 + 18 * share + 8, y + 15, f"{share:.1f}", "small")
    return drawing


def pipeline() -> Drawing:
    """Draw the way of a prompt (after figure 2)."""
    drawing = Drawing(860, 310)
    drawing.box(20, 125, 90, 56, ["prompt", "x"])
    for i, name in enumerate(("LLM 1", "LLM 2", "LLM 3", "LLM N")):
        y = 30 + 66 * i
        drawing.arrow(110, 153, 150, y + 22)
        drawing.box(152, y, 80, 44, [name])
        drawing.arrow(232, y + 22, 262, y + 22)
        drawing.box(264, y, 90, 44, [f"answer {'N' if i == 3 else i + 1}"])
        drawing.arrow(354, y + 22, 398, 153)
    drawing.box(400, 108, 120, 90, ["PairRanker", "compares pairs,", "adds evidence"], "model")
    drawing.arrow(520, 153, 556, 153)
    drawing.box(558, 118, 90, 70, ["ranking", "P(i beats j)"])
    drawing.arrow(648, 140, 698, 84)
    drawing.box(700, 46, 140, 56, ["the best one", "mode pick"], "best")
    drawing.arrow(648, 166, 698, 222)
    drawing.box(700, 196, 140, 70, ["GenFuser", "writes one from", "the best three"], "model")
    drawing.arrow(770, 196, 770, 106)
    drawing.text(762, 152, "guard: only if", "small faint", "end")
    drawing.text(762, 168, "it is better", "small faint", "end")
    return drawing


def _tokens(drawing: Drawing, x: float, y: float, parts: Iterable[tuple[str, float, str]]) -> float:
    for words, width, kind in parts:
        drawing.box(x, y, width, 34, [words], kind)
        x += width + 3
    return x


def readings() -> Drawing:
    """Draw the three ways to read an instruction and candidates (after figure 3)."""
    drawing = Drawing(860, 470)
    drawing.text(20, 32, "1. Alone: one candidate per pass, as a reward model or SummaReranker", "bold")
    for i, name in enumerate(("y₁", "y₂")):
        end = _tokens(drawing, 20, 46 + 42 * i, [("x", 120, "box"), (name, 150, "best")])
        drawing.arrow(end, 63 + 42 * i, end + 34, 63 + 42 * i)
        drawing.box(end + 36, 46 + 42 * i, 90, 34, ["encoder"], "model")
        drawing.arrow(end + 126, 63 + 42 * i, end + 160, 63 + 42 * i)
        drawing.text(end + 168, 68 + 42 * i, f"score {name}")
    drawing.text(590, 68, "N readings; the candidates", "small faint")
    drawing.text(590, 86, "never see each other", "small faint")

    drawing.text(20, 172, "2. Both in one sequence: PairRanker of the paper, PairRM", "bold")
    end = _tokens(drawing, 20, 186, [("x", 120, "box"), ("<1>", 40, "none"), ("y₁", 110, "best"), ("<2>", 40, "none"),
                                    ("y₂", 110, "best")])  # fmt: skip
    drawing.arrow(end, 203, end + 34, 203)
    drawing.box(end + 36, 186, 90, 34, ["encoder"], "model")
    drawing.arrow(end + 126, 203, end + 160, 203)
    drawing.text(end + 168, 208, "l(1, 2) = s₁ − s₂")
    drawing.text(
        20, 244, "N(N − 1) readings: both orders of each pair, since the place of a candidate matters", "small faint"
    )

    drawing.text(20, 292, "3. Late: each once, compared in the upper layers; the bundled ranker", "bold")
    for i, name in enumerate(("y₁", "y₂")):
        y = 306 + 62 * i
        end = _tokens(drawing, 20, y, [("x", 120, "box"), (name, 150, "best")])
        drawing.arrow(end, y + 17, end + 34, y + 17)
        drawing.box(end + 36, y, 120, 34, ["lower 4 layers"], "model")
        drawing.arrow(end + 156, y + 17, end + 196, 354)
    drawing.box(end + 198, 330, 150, 48, ["upper 2 layers", "attend to each other"], "model")
    drawing.arrow(end + 348, 354, end + 378, 354)
    drawing.text(end + 386, 359, "l(1, 2) = −l(2, 1)")
    drawing.text(20, 440, "N readings and N(N − 1)/2 short comparisons; no order to average away", "small faint")
    return drawing


LOGITS = ((0.0, 1.2, -0.4, 2.0), (-0.8, 0.0, -1.5, 0.6), (0.9, 1.1, 0.0, 1.7), (-1.6, -0.3, -2.1, 0.0))
"""Ordered logits l(i, j) of four candidates in the figure of the matrix."""


def matrix() -> Drawing:
    """Draw a matrix of comparisons and its aggregations (after figure 4)."""
    from llm_blender.ranking.aggregation import max_logits, max_wins

    drawing = Drawing(860, 330)
    names = ["y₁", "y₂", "y₃", "y₄"]
    drawing.text(20, 30, "l(i, j): above 0, i is better", "bold")
    for i in range(4):
        drawing.text(98 + 62 * i, 66, names[i], "small", "middle")
        drawing.text(54, 98 + 46 * i, names[i], "small", "end")
        for j in range(4):
            value = LOGITS[i][j]
            kind = "none" if i == j else "plus" if value > 0 else "minus"
            drawing.box(70 + 62 * j, 76 + 46 * i, 56, 38, ["" if i == j else f"{value:+.1f}"], kind)
    scores, wins = max_logits(LOGITS), max_wins(LOGITS)
    for title, values, x, pattern in (("MaxLogits", scores, 370, "{:+.1f}"), ("MaxWins", wins, 480, "{:.0f}")):
        drawing.text(x + 40, 66, title, "bold", "middle")
        for i, value in enumerate(values):
            drawing.box(x, 76 + 46 * i, 80, 38, [pattern.format(value)], "best" if value == max(values) else "box")
    drawing.text(370, 284, "MaxLogits: row minus column, over N", "small faint")
    drawing.text(370, 304, "MaxWins: cells won, of row and column", "small faint")
    drawing.text(620, 66, "Bubble", "bold")
    now = 0
    for step, challenger in enumerate(range(1, 4)):
        logit = (LOGITS[now][challenger] - LOGITS[challenger][now]) / 2
        kept = now if logit > 0 else challenger
        drawing.text(620, 100 + 46 * step, f"{names[now]} against {names[challenger]}: {logit:+.2f}")
        drawing.text(780, 100 + 46 * step, f"→ {names[kept]}", "bold")
        now = kept
    drawing.text(620, 230, "N − 1 pairs find the best", "small faint")
    return drawing


def agreement() -> Drawing:
    """Draw the agreement of each ranker with Claude, from the table of rankers.md."""
    rows = re.findall(r"^\|(.+)\|$", (DOCS / "rankers.md").read_text(encoding="utf-8"), re.MULTILINE)
    cells = [[cell.strip() for cell in row.split("|")] for row in rows]
    header = next(row for row in cells if row[:3] == ["pairs", "n", "bundled"])
    values = next(row for row in cells[cells.index(header) :] if row[0] == "pool judged by Claude")
    found = {}
    for name, cell in zip(header[2:], values[2:], strict=True):
        mean, low, high = map(float, re.findall(r"[\d.]+", cell))
        found[name] = (mean, low, high)
    drawing = Drawing(720, 92 + 30 * len(found))
    drawing.text(20, 30, f"Agreement with Claude on {values[1]} pairs of eleven LLMs, percent", "bold")
    left, unit = 190.0, 16.0
    for tick in (45, 50, 55, 60, 65, 70, 75):
        x = left + unit * (tick - 45)
        drawing.line(x, 44, x, 56 + 30 * len(found), "line" if tick == 50 else "none")
        drawing.text(x, 74 + 30 * len(found), str(tick) if tick != 50 else "50: chance", "small faint", "middle")
    for i, (name, (mean, low, high)) in enumerate(sorted(found.items(), key=lambda item: -item[1][0])):
        y = 52 + 30 * i
        drawing.text(left - 12, y + 15, name, "", "end")
        drawing.line(left + unit * (low - 45), y + 10, left + unit * (high - 45), y + 10, "range")
        drawing.box(left + unit * (mean - 45) - 6, y + 4, 12, 12, kind="bar" if name == "bundled" else "bar2")
        drawing.text(left + unit * (high - 45) + 8, y + 15, f"{mean:.1f}", "small")
    return drawing


FIGURES: dict[str, Callable[[], Drawing]] = {
    "best": best_of_the_paper,
    "pipeline": pipeline,
    "readings": readings,
    "matrix": matrix,
    "agreement": agreement,
}
"""The figures by their names."""


def main() -> None:
    """Write the figures."""
    for name, figure in FIGURES.items():
        (FOLDER / f"{name}.svg").write_text(str(figure()), encoding="utf-8")


if __name__ == "__main__":
    main()
