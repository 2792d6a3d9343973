"""Draw the pictures of a terminal: real commands on recorded answers, as SVG.

    python docs/pictures/terminal.py

The commands, the bundled ranker and everything printed are real. The answers, their tokens, prices and seconds are
written here, so that a picture needs no network and comes out the same. What depends on the moment is
replaced: the seconds of a whole answer and of a ranking, and the times in `blend logs`. The terminal has 80 columns, or
as many as the longest line.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from llm_blender.cli import app
from llm_blender.config import Price
from llm_blender.ensemble import Ensemble
from llm_blender.testing import FakeLLM
from llm_blender.types import Answer, Candidate, Failure, Usage

FOLDER = Path(__file__).parent
WIDTH = 80

CONFIG = """
[[llm]]
name = "llama3.2"
model = "llama3.2:3b"
base_url = "http://localhost:11434/v1"

[[llm]]
name = "qwen3"
model = "qwen3:4b"
base_url = "http://localhost:11434/v1"

[[llm]]
name = "gpt-4.1-mini"
model = "gpt-4.1-mini"
base_url = "https://api.openai.com/v1"
api_key_env = "OPENAI_API_KEY"
"""


@dataclass(frozen=True)
class Recorded:
    """An answer as if a server had given it.

    Attributes:
        text: the answer.
        prompt_tokens: tokens of the prompt.
        completion_tokens: tokens of the answer.
        seconds: duration of the call.
        cost: dollars.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    cost: float = 0.0


PENS = "12 pens at $4 for 3 and a $5 case: how many dollars?"
BREAD = "How do I keep bread fresh?"
FREEZE = "And for longer than a week?"
_LLMS = ("llama3.2", "qwen3", "gpt-4.1-mini")
_ANSWERS = {
    PENS: [
        Recorded("Each pen costs $4, so 12 pens cost 12 × $4 = $48. With the case:\n\n**Answer: 53**", 41, 34, 1.1),
        Recorded("12 pens are 4 groups of 3, so they cost 4 × $4 = $16.\n\nThe answer is 21.", 39, 57, 2.4),
        Recorded(
            "- 12 pens are 4 × 3 pens: 4 × $4 = **$16**\n- the case is **$5**\n\nThe answer is 21.", 38, 46, 1.3, 89e-6
        ),
    ],
    BREAD: [
        Recorded("Put it in the fridge.", 14, 6, 0.4),
        Recorded("Keep it in a closed bread box or a cloth bag, away from the sun.", 13, 17, 0.9),
        Recorded(
            "Keep it in a **bread box** or a cloth bag at room temperature. A fridge makes it stale faster.",
            *(12, 25, 0.8, 45e-6),
        ),
    ],
    FREEZE: [
        Recorded("Freeze it.", 60, 3, 0.3),
        Recorded("Slice it, freeze it in a closed bag, and toast the slices as you need them.", 58, 19, 1.0),
        Recorded("Freeze it in slices, in an airtight bag: it keeps for about three months.", 55, 19, 0.9, 52e-6),
    ],
}
ANSWERS = {prompt: dict(zip(_LLMS, answers, strict=True)) for prompt, answers in _ANSWERS.items()}
"""The recorded answers by prompt and LLM."""

ROWS = [
    {
        "instruction": prompt,
        "candidates": [{"model": name, "text": answer.text} for name, answer in ANSWERS[prompt].items()],
    }
    for prompt in (BREAD, PENS)
]
"""Rows of a file, with the same answers as candidates."""


class RecordedLLM(FakeLLM):
    """An LLM with the recorded answers of one name."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "")

    async def generate(self, messages: Sequence[Any], *args: Any, **options: Any) -> Candidate:
        """Return the recorded answer to the last message."""
        await super().generate(messages, *args, **options)
        answer = ANSWERS[messages[-1]["content"]][self.name]
        usage = Usage(answer.prompt_tokens, answer.completion_tokens)
        return Candidate(
            answer.text, self.name, usage=usage, seconds=answer.seconds, cost=answer.cost, finish_reason="stop"
        )


class Screen:
    """A terminal of 80 columns in which commands run, one after another.

    Args:
        folder: the current folder of the commands, with a ``blend.toml``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._text = folder, io.StringIO()

    @property
    def text(self) -> str:
        """Everything on it, with its escape sequences."""
        return self._text.getvalue()

    def type(self, command: str) -> None:
        """Write a prompt and the command behind it."""
        self._text.write(f"\x1b[32;1m$\x1b[0m {command}\n")

    def write(self, *lines: str) -> None:
        """Write lines."""
        self._text.writelines(f"{line}\n" for line in lines)

    def space(self) -> None:
        """Write an empty line."""
        self.write("")

    def run(self, *arguments: str, lines: Sequence[str] = (), terminal: bool = True, status: int = 0) -> None:
        """Run a command of `blend`.

        Args:
            arguments: its arguments.
            lines: what a person types into it.
            terminal: whether standard output is a terminal, and not a pipe.
            status: the exit status that it has.
        """
        typed = iter(lines)

        def read(prompt: str = "") -> str:
            line = next(typed, None)
            self._text.write(f"\x1b[32;1m{prompt}\x1b[0m" + ("" if line is None else f"{line}\n"))
            if line is None:
                raise EOFError
            return line

        out, errors, keyboard = (
            _Stream(self, terminal=terminal),
            _Stream(self, terminal=False),
            _Stream(self, terminal=True),
        )
        streams = mock.patch.multiple(sys, stdout=out, stderr=errors, stdin=keyboard)
        with streams, mock.patch("builtins.input", read), contextlib.chdir(self.folder):
            if (ended := app(list(arguments), standalone_mode=False) or 0) != status:
                raise RuntimeError(f"blend {arguments[0]} ended with {ended}:\n{self.text}")


class _Stream(io.TextIOBase):
    """A stream onto a screen, which is a terminal or a file."""

    encoding = "utf-8"

    def __init__(self, screen: Screen, *, terminal: bool) -> None:
        self._screen, self._terminal = screen, terminal

    def isatty(self) -> bool:
        return self._terminal

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return self._screen._text.write(text)


def begin(screen: Screen) -> None:
    """Write a configuration from what is there, and try each LLM: servers and measurements are recorded, too."""
    from llm_blender.cli.init import Source
    from llm_blender.llms.checks import LLMCheck
    from llm_blender.llms.providers import PROVIDERS

    models = {"openai": ("gpt-4.1-mini",), "ollama": ("llama3.2:3b", "qwen3:4b")}
    sources = [Source(PROVIDERS[provider], its) for provider, its in models.items()]
    works = {"works": True, "stream": True, "tools": True, "json": True, "calls": 4}
    measured = {
        "gpt-4.1-mini": {"first_token": 0.41, "tokens_per_second": 92.0, "seed": False, "cost": 0.000169, **works},
        "llama3.2:3b": {"first_token": 0.18, "tokens_per_second": 71.0, "seed": True, **works},
        "qwen3:4b": {
            "problem": "no answer within 120 s",
            "fix": "try again: a server may load the model first; else raise timeout",
        },
    }

    async def find() -> tuple[list[Source], list[str]]:
        return sources, []

    async def check(entry: Any, folder: Path, *, quick: bool) -> LLMCheck:
        return LLMCheck(entry.name, entry.model, entry.base_url, **measured[entry.model])

    (screen.folder / "blend.toml").unlink()
    screen.type("blend init --yes")
    providers = "llm_blender.llms.providers"
    with (
        mock.patch("llm_blender.cli.init.find_sources", find),
        mock.patch(f"{providers}.has_prices", return_value=True),
        mock.patch(f"{providers}.price_of", return_value=Price(input=0.4, output=1.6)),
    ):
        screen.run("init", "--yes")
    screen.space()
    screen.type("blend check")
    with mock.patch("llm_blender.llms.checks.check_llm", check):
        screen.run("check", status=3)


def ask(screen: Screen) -> None:
    """Ask with all candidates shown: the picture of the README."""
    screen.type(f"blend ask {PENS!r} --show")
    screen.run("ask", PENS, "--show")


def chat(screen: Screen) -> None:
    """Chat, with a look at the candidates."""
    screen.type("blend chat")
    screen.run("chat", lines=[BREAD, FREEZE, "/show"])


def logs(screen: Screen) -> None:
    """List what was asked before."""
    for prompt in (BREAD, PENS):
        Screen(screen.folder).run("ask", prompt)
    screen.type("blend logs")
    screen.run("logs")
    screen.type("blend logs bread")
    screen.run("logs", "bread")


def rank(screen: Screen) -> None:
    """Rank the candidates of a file, and compare two answers."""
    (screen.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    screen.type("blend rank rows.jsonl -o best.jsonl --best-of-n")
    screen.run("rank", "rows.jsonl", "-o", "best.jsonl", "--best-of-n")
    screen.type("cut -c1-76 best.jsonl")
    screen.write(*(line[:76] for line in (screen.folder / "best.jsonl").read_text(encoding="utf-8").splitlines()))
    screen.space()
    better, worse = ANSWERS[BREAD]["qwen3"].text, "I like bread."
    screen.type(f"blend compare {BREAD!r} \\\n    {better!r} \\\n    {worse!r}")
    screen.run("compare", BREAD, better, worse)


def select(screen: Screen) -> None:
    """Measure five LLMs, each right on other questions, against the pick among them."""
    chance = random.Random(5)
    words = {
        "llama3.2": ("{0} cups cost {0} × ${1}.", 0.66),
        "qwen3": ("Each is ${1}, and there are {0}.", 0.72),
        "gemma3": ("We have to multiply {0} by ${1}.", 0.68),
        "mistral": ("{0} times {1} dollars.", 0.62),
        "gpt-4.1-mini": ("I multiply {0} by {1}.", 0.76),
    }
    with (screen.folder / "scored.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(100):
            count, price = chance.randint(3, 30), chance.randint(2, 9)
            candidates = []
            for name, (text, rate) in words.items():
                right = chance.random() < rate
                total = count * price + (0 if right else chance.choice((-10, 10, price, -price)))
                text = f"{text.format(count, price)} The answer is {total}."
                candidates.append({"model": name, "text": text, "scores": {"right": float(right)}})
            row = {"instruction": f"How many dollars are {count} cups at ${price}?", "candidates": candidates}
            file.write(json.dumps(row) + "\n")
    command = ["bench", "select", "scored.jsonl", "--score", "right", "--folds", "5"]
    screen.type(f"blend {' '.join(command)} \\\n    | cut -f1,3,7,8 | column -ts $'\\t'")
    piped = Screen(screen.folder)
    piped.run(*command, terminal=False)
    rows = [[row[i] for i in (0, 2, 6, 7)] for line in piped.text.splitlines() if len(row := line.split("\t")) == 8]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    screen.write(*("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows))


def live(screen: Screen) -> None:
    """Show one moment of the view while the LLMs answer."""
    from llm_blender.cli import _watch

    now = 0.0
    screen.type(f"blend ask {BREAD!r}")
    console = Console(file=_Stream(screen, terminal=True), width=WIDTH, color_system="truecolor", force_terminal=True)
    columns = [
        _watch.TextColumn("{task.description}"),
        _watch.BarColumn(20),
        _watch.TextColumn("{task.fields[status]}"),
    ]
    with mock.patch.object(_watch.time, "monotonic", side_effect=lambda: now):
        view = _watch._View(_watch.Progress(*columns, console=console, auto_refresh=False))
        view.started(list(_LLMS))
        now = 0.3
        for piece in ("word",) * 6:
            view.writing(0, piece)
        now = 0.6
        view.wrote(0, Candidate("Put it in the fridge.", _LLMS[0], usage=Usage(14, 6)), stored=False)
        view.failed(2, Failure(_LLMS[2], "rate_limit", "the server refuses further calls"))
        now = 0.9
        for piece in ("word",) * 12:
            view.writing(1, piece)
        console.print(view.draw())


@contextlib.contextmanager
def recorded() -> Iterator[Screen]:
    """Yield a screen whose commands meet recorded answers in place of LLMs, and a store of their own."""
    asked = Ensemble.ask

    def ask_at_once(self: Ensemble, *args: Any, **options: Any) -> Answer:
        answer = asked(self, *args, **options)
        return replace(answer, seconds=max(candidate.seconds or 0.0 for candidate in answer.candidates) + 0.2)

    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        (folder / "blend.toml").write_text(CONFIG, encoding="utf-8")
        environment = {
            "LLM_BLENDER_STORE": str(folder / "store.db"),
            "COLUMNS": str(WIDTH),
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
            "TZ": "UTC",
        }
        stack.enter_context(mock.patch.dict(os.environ, environment))
        for hidden in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
            os.environ.pop(hidden, None)
        stack.enter_context(
            mock.patch("llm_blender.ensemble.ensemble.load_llm", lambda entry, folder: RecordedLLM(entry.name))
        )
        stack.enter_context(mock.patch.object(Ensemble, "ask", ask_at_once))
        yield Screen(folder)


SCENES: dict[str, Callable[[Screen], None]] = {
    "begin": begin,
    "terminal": ask,
    "live": live,
    "chat": chat,
    "logs": logs,
    "rank": rank,
    "select": select,
}
"""What each picture shows, by its name."""

THEME = TerminalTheme(
    (24, 26, 32),
    (214, 218, 226),
    [(60, 64, 74), (240, 113, 120), (126, 200, 140), (229, 192, 123), (110, 170, 250), (198, 146, 233), (96, 196, 206),
     (214, 218, 226)],
    [(120, 126, 140), (240, 113, 120), (126, 200, 140), (229, 192, 123), (110, 170, 250), (198, 146, 233),
     (96, 196, 206), (255, 255, 255)],
)  # fmt: skip
SVG = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" role="img">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; white-space: pre }}
.{unique_id}-title {{ font: 16px sans-serif }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""Frame of rich's drawing, with the fonts of the reader's machine: a picture loads nothing."""
_ELAPSED = re.compile(r" in \d+\.\d s$", re.MULTILINE)
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d")


def draw(name: str, scene: Callable[[Screen], None]) -> str:
    """Run a scene, and return its picture."""
    with recorded() as screen:
        scene(screen)
        text = _TIME.sub("2026-11-30 10:12", _ELAPSED.sub(" in 0.2 s", screen.text)).rstrip()
    return svg(name, text)


def svg(name: str, text: str) -> str:
    """Draw a text with its escape sequences as a terminal."""
    console = Console(
        width=max(WIDTH, *(Text.from_ansi(line).cell_len for line in text.splitlines())),
        record=True,
        file=io.StringIO(),
        color_system="truecolor",
        force_terminal=True,
        legacy_windows=False,
    )
    console.print(Text.from_ansi(f"{text}\n "), overflow="fold", soft_wrap=False)  # a line below, as rich cuts the last
    picture = console.export_svg(title="", theme=THEME, code_format=SVG, unique_id=name)
    return "\n".join(line.rstrip() for line in picture.splitlines() if line.strip()) + "\n"


def words(picture: str) -> list[str]:
    """Return the lines of text in a picture, without its drawing: what a test compares."""
    import html

    found: dict[float, list[tuple[float, str]]] = {}
    for x, y, text in re.findall(r'<text [^>]*? x="([\d.]+)" y="([\d.]+)"[^>]*>(.*?)</text>', picture):
        found.setdefault(float(y), []).append((float(x), html.unescape(text)))
    return [" ".join("".join(text for _, text in sorted(found[y])).split()) for y in sorted(found)]


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", help="draw only this picture")
    options = parser.parse_args()
    for name, scene in SCENES.items():
        if options.only is None or name in options.only:
            (FOLDER / f"{name}.svg").write_text(draw(name, scene), encoding="utf-8")


if __name__ == "__main__":
    main()
