"""``blend check``: ask each LLM a few short questions, and print what works, how fast, and how to fix the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm_blender.cli._options import ConfigOption, JsonOption, LLMOption
from llm_blender.cli._output import DEGRADED, counted, note, on_terminal, print_json, print_table
from llm_blender.cli._progress import dollars, progress
from llm_blender.errors import InputError

if TYPE_CHECKING:
    from llm_blender.config import LLMConfig
    from llm_blender.llms.checks import LLMCheck

_WORDS = {True: "yes", False: "no", None: "-"}


def check(
    llm: LLMOption = None,
    config: ConfigOption = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Ask only one question: does it answer, and how fast.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Try each LLM with short questions: does it answer, how fast, at what cost, and what does it support.

    All LLMs answer at once. Each gets four questions of at most 64 tokens (1,024 if it thinks first): one that is
    streamed, the same with the same seed, one for a call of a tool, and one for a JSON object. A line on standard error
    names what that costs before, and one after. Each fault comes with its fix: the models that the server has, the
    variable of a refused key, the command that starts a server.

    The table: seconds to the first token; tokens per second after it; whether the same seed gave the same text (seed),
    the answer came in parts (stream), a function was called (tools), and a JSON object came (JSON); and dollars. Exit
    status: 0 if all LLMs answer, 3 if some do, 1 if none does.

    JSON: {llms: [{name, model, base_url, works, first_token, tokens_per_second, seed, stream, tools, json, calls, cost,
    problem, fix}], working, cost}; null is not known.
    """
    from llm_blender.cli.ask import choose_llms, note_free
    from llm_blender.config import load_config
    from llm_blender.llms.checks import cost_of_check

    loaded = load_config(config)
    entries = choose_llms(loaded, llm or []) or list(loaded.llm)
    if not entries:
        raise InputError(
            "No LLM is configured: `blend init` writes a blend.toml, or name one with --llm PROVIDER:MODEL."
        )
    note_free(entries)
    costs = [cost_of_check(entry, quick=quick) for entry in entries]
    known = [cost for cost in costs if cost is not None]
    usual, most = sum(cost[0] for cost in known), sum(cost[1] for cost in known)
    if most:
        others = f", and the calls of {counted(len(costs) - len(known), 'LLMs')} of unknown price"
        note(f"this costs about {dollars(usual)}, at most {dollars(most)}" + others * (len(known) < len(costs)))

    found = asyncio.run(_check_all(entries, loaded.folder, quick=quick))
    paid = [each.cost for each in found if each.cost is not None]
    working = sum(each.works for each in found)
    if as_json:
        cost = sum(paid) if len(paid) == len(found) else None
        print_json({"llms": [each.to_dict() for each in found], "working": working, "cost": cost})
    else:
        _print(found)
    for each in found:
        if each.problem is not None:
            note(f"{each.name}: {each.problem}" + ("" if each.fix is None else f"\n  fix: {each.fix}"))
    note(f"{working} of {len(found)} answer; {dollars(sum(paid), sum(e.calls for e in found if e.cost is None))}")
    if working < len(found):
        raise typer.Exit(DEGRADED if working else 1)


async def _check_all(entries: Sequence[LLMConfig], folder: Path, *, quick: bool) -> list[LLMCheck]:
    from llm_blender.llms.checks import check_llm

    with progress("checking", "LLMs") as report:
        done = 0

        async def checked(entry: LLMConfig) -> LLMCheck:
            nonlocal done
            found = await check_llm(entry, folder, quick=quick)
            done += 1
            report(done, len(entries))
            return found

        report(0, len(entries))
        return await asyncio.gather(*map(checked, entries))


def _print(found: Sequence[LLMCheck]) -> None:
    """Print a table: with a column for each finding, or on a terminal in the width of 80 characters."""
    if not on_terminal():
        columns = ["name", "model", "works", "first token", "tokens/s", "seed", "stream", "tools", "JSON", "cost"]
        each_of = [[_WORDS[value] for value in _supports(each).values()] for each in found]
        rows = [
            [each.name, each.model, *_numbers(each)[:3], *its, _numbers(each)[3]]
            for each, its in zip(found, each_of, strict=True)
        ]
        print_table(columns, rows)
        return
    rows = []
    for each in found:
        name = each.name if each.model in (each.name, each.name.partition(":")[2]) else f"{each.name}\n{each.model}"
        *numbers, cost = _numbers(each)
        able = [
            " ".join(name for name, value in _supports(each).items() if value is wanted) for wanted in (True, False)
        ]
        rows.append([name, *numbers, "\n".join(filter(None, [able[0], able[1] and f"no {able[1]}"])), cost])
    print_table(["LLM", "works", "first", "tok/s", "supports", "cost"], rows)


def _supports(found: LLMCheck) -> dict[str, bool | None]:
    return {"seed": found.seed, "stream": found.stream, "tools": found.tools, "JSON": found.json}


def _numbers(found: LLMCheck) -> list[str]:
    first = "-" if found.first_token is None else f"{found.first_token:.2f} s"
    rate = "-" if found.tokens_per_second is None else f"{found.tokens_per_second:,.0f}"
    return [_WORDS[found.works], first, rate, "?" if found.cost is None else dollars(found.cost)]
