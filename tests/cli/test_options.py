from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from typer.testing import CliRunner

from llm_blender.cli._options import with_options


@dataclass(frozen=True)
class Common:
    """Options of several commands."""

    count: Annotated[int, typer.Option("--count", min=1, help="Repeat N times.")] = 1
    loud: Annotated[bool, typer.Option("--loud")] = False


app = typer.Typer()


@app.command()
@with_options
def say(word: str, *, options: Common) -> None:
    """Say a word."""
    text = " ".join([word] * options.count)
    typer.echo(text.upper() if options.loud else text)


@app.command()
@with_options
def hum(pitch: int = 3, *, options: Common) -> None:
    """Hum."""
    typer.echo("m" * pitch * options.count)


def run(*args):
    return CliRunner().invoke(app, args)


def test_commands_share_a_group_of_options():
    assert run("say", "ho", "--count", "2", "--loud").stdout == "HO HO\n"
    assert run("say", "ho").stdout == "ho\n"
    assert run("hum", "--pitch", "2", "--count", "2").stdout == "mmmm\n"


def test_help_and_checks_are_those_of_plain_options():
    text = run("say", "--help").stdout
    assert "Repeat N times." in text
    assert "Say a word." in text
    assert "--options" not in text
    assert run("say", "ho", "--count", "0").exit_code == 2


def test_output_is_another_name_of_out(blend, ranker):
    Path("rows.jsonl").write_text('{"instruction": "Q", "candidates": ["a", "bb"]}\n')
    assert blend("rank", "rows.jsonl", "--output", "out.jsonl").exit_code == 0
    assert '"best": 1' in Path("out.jsonl").read_text()
    assert "--output" not in blend("rank", "--help").stdout
