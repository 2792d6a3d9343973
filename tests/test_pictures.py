"""The pictures of a terminal in the docs show what the commands print today."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "pictures"
SCRIPT = runpy.run_path(str(FOLDER / "terminal.py"))
_NUMBER = re.compile(r"\d+\.\d+")


SLOW = {"select"}  # it ranks 100 rows
NAMES = [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in SCRIPT["SCENES"]]


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_what_its_script_draws(name: str) -> None:
    drawn = SCRIPT["words"](SCRIPT["draw"](name, SCRIPT["SCENES"][name]))
    kept = SCRIPT["words"]((FOLDER / f"{name}.svg").read_text(encoding="utf-8"))
    again = f"run `python docs/pictures/terminal.py`: {name}.svg is not what the command prints"
    assert [_NUMBER.sub("#", line) for line in drawn] == [_NUMBER.sub("#", line) for line in kept], again
    numbers = [float(number) for number in _NUMBER.findall("\n".join(drawn))]
    # Processors without VNNI round the int8 models in another way.
    assert numbers == pytest.approx([float(number) for number in _NUMBER.findall("\n".join(kept))], abs=0.03), again


def test_pictures_load_nothing() -> None:
    for path in FOLDER.glob("*.svg"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"url\(\s*[\"']?https?:|<script|<image|(?<!xmlns:)xlink:href=\"http", text), path.name


FIGURES = runpy.run_path(str(FOLDER / "figures.py"))["FIGURES"]


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_what_its_script_draws(name: str) -> None:
    assert (FOLDER / f"{name}.svg").read_text(encoding="utf-8") == str(FIGURES[name]())
