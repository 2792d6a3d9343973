"""``blend compare``: which of two answers is better."""

from __future__ import annotations

from typing import Annotated

import typer

from llm_blender.cli._options import (
    STDIO,
    BackendOption,
    DeviceOption,
    JsonOption,
    PrecisionOption,
    RankerOption,
    read_text,
)
from llm_blender.cli._output import print_json
from llm_blender.errors import InputError

__all__ = ["compare"]


def compare(
    instruction: Annotated[str, typer.Argument(metavar="INSTRUCTION", help="What was asked.")],
    a: Annotated[str, typer.Argument(metavar="A", help="One answer.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The other answer.")],
    ranker: RankerOption = "bundled",
    backend: BackendOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = "int8",
    as_json: JsonOption = False,
) -> None:
    """Say which of two answers is better, and how surely.

    Each of the three is a text, @FILE (a text that begins with @ is written @@), or - for standard input.

    JSON: {winner: A|B|tie, probability, logit}, the probability that A is better.
    """
    if [instruction, a, b].count(STDIO) > 1:
        raise InputError("Standard input (-) can be only one of INSTRUCTION, A and B: give the others as @FILE.")
    instruction, a, b = read_text(instruction), read_text(a), read_text(b)
    if not instruction.strip():
        raise InputError("The instruction is empty: give the text that A and B answer.")

    from llm_blender.rankers import load_ranker

    result = load_ranker(ranker, backend=backend, device=device, precision=precision).compare(instruction, a, b)
    if as_json:
        print_json({"winner": result.winner, "probability": result.probability, "logit": result.logit})
    elif result.winner == "tie":
        typer.echo("A and B are equally good")
    else:
        probability = result.probability if result.winner == "A" else 1 - result.probability
        typer.echo(f"{result.winner} is better (P = {probability:.2f})")
