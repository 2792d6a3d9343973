"""``blend compare``: compare two answers to one instruction."""

from __future__ import annotations

from typing import Annotated

import typer

from llm_blender.cli._options import (
    STDIO,
    BackendOptions,
    ConfigOption,
    JsonOption,
    RankerOption,
    read_text,
    with_options,
)
from llm_blender.cli._output import note_unread, print_json
from llm_blender.errors import InputError

_EQUAL = 0.55  # probability up to which neither answer is called the better one


@with_options
def compare(
    instruction: Annotated[str, typer.Argument(metavar="INSTRUCTION", help="Instruction of both answers.")],
    a: Annotated[str, typer.Argument(metavar="A", help="One answer.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Other answer.")],
    *,
    ranker: RankerOption = None,
    backend: BackendOptions,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two answers: which is better, and with what probability.

    Each of the three is a text, @FILE (a text that begins with @ is written @@), or - for standard input.

    The ranker is that of the configuration, unless --ranker names another one.

    JSON: {winner: A|B|tie, probability, logit}, the probability that A is better.
    """
    from llm_blender.config import load_config
    from llm_blender.types import Comparison

    if [instruction, a, b].count(STDIO) > 1:
        raise InputError("Standard input (-) can be only one of INSTRUCTION, A and B: give the others as @FILE.")
    instruction, a, b = read_text(instruction), read_text(a), read_text(b)
    if not instruction.strip():
        raise InputError("The instruction is empty: give the text that A and B answer.")

    configured = load_config(config).ranker
    ranking = backend.load(ranker or configured.name, configured).rank(instruction, [a, b], strategy="full")
    result = Comparison.from_ranking(ranking)
    note_unread(ranking.truncated)
    if as_json:
        print_json({"winner": result.winner, "probability": result.probability, "logit": result.logit})
    elif result.winner == "tie":
        typer.echo("A and B are equally good")
    else:
        probability = result.probability if result.winner == "A" else 1 - result.probability
        verdict = f"{result.winner} is better" if probability > _EQUAL else "A and B are about equally good"
        typer.echo(f"{verdict} (P = {probability:.2f})")
