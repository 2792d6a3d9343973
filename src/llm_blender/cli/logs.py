"""``blend logs``: what was answered before; and the record of it that ``ask`` and ``chat`` keep and go on from."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_blender.cli._options import JsonOption, PlainOption
from llm_blender.cli._output import note, print_json, print_table
from llm_blender.cli._progress import dollars
from llm_blender.errors import InputError, StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_blender.history import KeptAnswer
    from llm_blender.store import Store
    from llm_blender.types import Answer, Message

_OWNER = "command line"  # beside the clients of a service, who have digests of keys
_SHOWN = 60  # characters of a prompt in the list

ContinueOption = Annotated[
    bool, typer.Option("--continue", "-c", help="Go on with the last conversation, its system message included.")
]
NoLogOption = Annotated[
    bool,
    typer.Option("--no-log", help="Keep no prompt, and nothing for `blend logs`; texts of answers stay in the store."),
]


def logs(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="NUMBER|WORD", help="The number of an answer to show whole, or words to search for."),
    ] = None,
    *,
    limit: Annotated[int, typer.Option("-n", metavar="N", min=1, help="List at most N answers, the newest ones.")] = 20,
    everything: Annotated[
        bool, typer.Option("--all", help="Include the answers of the playground of `blend serve`.")
    ] = False,
    forget: Annotated[
        bool, typer.Option("--delete", help="Delete the answer of NUMBER, and its texts in the store.")
    ] = False,
    plain: PlainOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the answers of `blend ask` and `blend chat`, newest first, or show one whole.

    They are in the store (LLM_BLENDER_STORE), which only its owner can read, and never hold API keys.

    JSON: [{number, id, time, prompt, winner, cost}], or for one answer the same with messages, text and answer, the
    JSON of `blend ask`.
    """
    from llm_blender.history import History
    from llm_blender.store import Store

    words, owner = words or [], None if everything else _OWNER
    history = History(Store())
    if len(words) == 1 and words[0].isdecimal():
        kept = history.numbered(int(words[0]), owner=owner)
        if forget:
            history.forget(kept.id, owner=owner)
            note(f"deleted {kept.number}")
        elif as_json:
            print_json({**_summary(kept), "messages": list(kept.messages), "text": kept.text, "answer": kept.report})
        else:
            _print_whole(kept, plain=plain)
        return
    if forget:
        raise InputError("--delete needs the NUMBER of one answer; `blend logs` lists them.")
    found = [_summary(answer) for answer in history.search(words, limit, owner=owner)]
    if as_json:
        print_json(found)
    elif found:
        print_table(("number", "time", "prompt", "winner", "cost"), [_cells(each) for each in found])
    else:
        note("no answers" + (f" with {' '.join(words)}" if words else " yet: `blend ask` keeps them"))


def keep_answer(store: Store | None, messages: Sequence[Message], answer: Answer, system: str | None) -> None:
    """Keep an answer for `blend logs`; a store that cannot be written is a remark: it costs no answer.

    Args:
        store: the store of the ensemble; None keeps nothing.
        messages: the conversation.
        answer: the answer to it.
        system: the system message of the command line, which is not part of the conversation.
    """
    from llm_blender.history import History

    if store is None:
        return
    report = answer.to_dict()
    text = report.pop("text")
    report |= {} if system is None else {"system": system}
    try:
        History(store).keep(f"ask-{uuid.uuid4().hex[:16]}", messages, text, report, owner=_OWNER)
    except StoreError as error:
        note(f"the answer is missing from `blend logs`: {error}")


def last_conversation() -> tuple[list[Message], str | None]:
    """Return the last conversation with its answer, and its system message.

    Raises:
        InputError: there is none.
    """
    from llm_blender.conversations import to_messages
    from llm_blender.history import History
    from llm_blender.store import Store

    found = History(Store()).latest(1, owner=_OWNER)
    if not found:
        raise InputError("There is no conversation to go on with: `blend logs` is empty.")
    (kept,) = found
    return [*to_messages(kept.messages), {"role": "assistant", "content": kept.text}], kept.report.get("system")


def _winner(report: dict[str, Any]) -> str:
    if report.get("mode") == "fuse":
        return f"fused by {(report.get('fusion') or {}).get('fuser', '?')}"
    candidates, best = report.get("candidates") or [], (report.get("ranking") or {}).get("best", 0)
    return candidates[best].get("model") or "?" if best < len(candidates) else "?"


def _summary(kept: KeptAnswer) -> dict[str, Any]:
    report = dict(kept.report)
    return {
        "number": kept.number,
        "id": kept.id,
        "time": kept.created_at.isoformat(timespec="seconds"),
        "prompt": kept.messages[-1]["content"] if kept.messages else "",
        "winner": _winner(report),
        "cost": report.get("cost"),
    }


def _cells(summary: dict[str, Any]) -> tuple[str, ...]:
    from datetime import datetime

    prompt = " ".join(summary["prompt"].split())
    return (
        str(summary["number"]),
        datetime.fromisoformat(summary["time"]).astimezone().strftime("%Y-%m-%d %H:%M"),
        prompt if len(prompt) <= _SHOWN else f"{prompt[: _SHOWN - 1]}…",
        summary["winner"],
        "" if summary["cost"] is None else dollars(summary["cost"]),
    )


def _print_whole(kept: KeptAnswer, *, plain: bool) -> None:
    """Print the conversation, the table of the candidates, and the answer."""
    from llm_blender.cli._markdown import print_text
    from llm_blender.cli._show import Row, print_rows

    number, time, _, winner, cost = _cells(_summary(kept))
    typer.secho("  ".join(part for part in (number, time, winner, cost) if part), bold=True)
    if system := kept.report.get("system"):
        typer.echo(f"system: {system}")
    for turn in kept.messages:
        typer.echo(f"{turn['role']}: {turn['content']}")
    typer.echo()
    pairs = zip(kept.report["candidates"], kept.candidates, strict=False)  # without a fused text
    rows = [
        Row(
            values.get("rank"),
            values.get("model") or "?",
            candidate=values,
            remarks=("cut off",) * candidate.cut_off,
        )
        for values, candidate in sorted(pairs, key=lambda pair: pair[0].get("rank", 1))
    ]
    rows += [
        Row(None, failure.get("model", "?"), remarks=(failure.get("reason", "").replace("_", " "),))
        for failure in kept.report.get("failures") or ()
    ]
    print_rows(rows)
    typer.echo()
    print_text(kept.text, plain=plain)
