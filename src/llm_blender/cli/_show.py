"""Output of ``blend ask --show``, ``blend chat`` and ``blend logs``: a table, the texts, and remarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from llm_blender.cli._markdown import print_text
from llm_blender.cli._output import counted, note, note_unread
from llm_blender.cli._progress import dollars
from llm_blender.errors import describe_failures, grouped_failures

if TYPE_CHECKING:
    from llm_blender.ensemble import Member
    from llm_blender.types import Answer, Candidate, Ranking

_WIDTH = 80
_NAMES = 28  # characters of the name of an LLM in the table
_COLUMNS = ("", "LLM", "P(win)", "tokens in", "out", "time", "cost")


@dataclass(frozen=True)
class Row:
    """A line of the table: a candidate, or an LLM without an answer.

    Attributes:
        rank: its place; None without an answer.
        name: of the LLM, with the number of the sample if it gave several.
        win: probability to beat another candidate, formatted; may be empty.
        candidate: its values, as of `Candidate.to_dict`.
        remarks: further words.
    """

    rank: int | None
    name: str
    win: str = ""
    candidate: Mapping[str, Any] | None = None
    remarks: tuple[str, ...] = ()

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells of the columns."""
        values = self.candidate or {}
        usage, seconds, cost = values.get("usage") or {}, values.get("seconds"), values.get("cost")
        name = self.name if len(self.name) <= _NAMES else f"{self.name[: _NAMES - 1]}…"
        return (
            "–" if self.rank is None else f"{self.rank}.",
            name,
            self.win,
            f"{usage['prompt_tokens']:,}" if usage else "",
            f"{usage['completion_tokens']:,}" if usage else "",
            "" if seconds is None else f"{seconds:.1f} s",
            "" if cost is None else dollars(cost),
        )


def print_rows(rows: Sequence[Row]) -> None:
    """Print a table of at most 80 columns, without empty ones; remarks that do not fit get their own line."""
    lines = [_COLUMNS, *(row.cells for row in rows)]
    kept = [i for i in range(len(_COLUMNS)) if i < 2 or any(line[i] for line in lines[1:])]
    widths = {i: max(len(line[i]) for line in lines) for i in kept}
    for line, row in zip(lines, [None, *rows], strict=True):
        cells = [line[i].ljust(widths[i]) if i < 2 else line[i].rjust(widths[i]) for i in kept]
        text, remarks = "  ".join(cells).rstrip(), "" if row is None else "; ".join(row.remarks)
        if remarks and len("  ".join(cells)) + 2 + len(remarks) <= _WIDTH:
            text, remarks = f"{'  '.join(cells)}  {remarks}", ""
        typer.secho(text, bold=row is None)
        if remarks:
            typer.echo(f"{' ' * (widths[0] + 2)}{remarks}")


def sample_names(members: Sequence[Member]) -> tuple[list[str], list[str]]:
    """Return the name and the manner of each call: an LLM with several samples numbers them.

    The manner is what makes the sample another one, the system message and temperature of an embedded LLM; else empty.
    """
    names, manners = [], []
    for member in members:
        identity = member.llm.identity
        styles = identity.get("variations") or [{}]
        for sample in range(member.samples):
            names.append(member.llm.name if member.samples == 1 else f"{member.llm.name} #{sample + 1}")
            style = styles[sample % len(styles)]
            parts = [f"temperature {style['temperature']:g}"] if style and member.samples > 1 else []
            parts += [f"“{style['system']}”"] if parts and style.get("system") else []
            manners.append(", ".join(parts))
    return names, manners


def remark_on(answer: Answer, stored: int, turns: int = 1) -> None:
    """Print what is missing from an answer to standard error, and where it comes from.

    Args:
        answer: the answer.
        stored: number of its candidates that come from the store.
        turns: number of messages of its prompt; of a conversation, the ranker reads the beginning and the end.
    """
    for alike in grouped_failures(answer.failures):
        note(f"no answer: {describe_failures(alike)}")
    if answer.fusion is not None:
        note(f"{'fused' if answer.mode == 'fuse' else 'not fused'}: {answer.fusion.message}")
    best = answer.candidates[answer.ranking.best]
    if answer.mode == "pick" and best.cut_off:
        note(f"this answer of {best.model} is {_cut_off(best)}; raise its max_tokens")
    note_unread(answer.ranking.truncated, "text" if turns == 1 else "conversation, with its answers,")
    if stored:
        note(f"{stored} of {len(answer.candidates)} answers come from the store; another --seed makes new ones.")


def _cut_off(candidate: Candidate) -> str:
    return (
        "cut off" if candidate.usage is None else f"cut off at {counted(candidate.usage.completion_tokens, 'tokens')}"
    )


def show_answer(answer: Answer, stored: Mapping[int, bool], members: Sequence[Member], *, plain: bool) -> None:
    """Print a table of all candidates and failures, then the texts, best first, the fused text, and the totals.

    Args:
        answer: the answer.
        stored: calls with an answer, and whether it comes from the store.
        members: the LLMs of the calls.
        plain: whether Markdown is printed as it is on a terminal, too.
    """
    import numpy as np

    from llm_blender.ranking import majority, probability_matrix, win_probabilities

    ranking, wins = answer.ranking, win_probabilities(answer.ranking)
    whole = ~np.isnan(probability_matrix(ranking)).any(axis=1)
    wins = np.where(whole, wins, np.nan)  # a mean over few opponents is not comparable
    calls = sorted(stored)
    names, manners = sample_names(members)
    rows = []
    for i in ranking.order:
        candidate, win = answer.candidates[i], "" if wins[i] != wins[i] else f"{wins[i]:.2f}"
        remarks = ["cut off"] * candidate.cut_off + ["stored"] * stored[calls[i]] + _final(ranking, i)
        rows.append(Row(ranking.ranks[i], names[calls[i]], win, candidate.to_dict(), tuple(remarks)))
    for alike in grouped_failures(answer.failures):
        times = f", {len(alike)} times" if len(alike) > 1 else ""
        rows.append(Row(None, alike[0].model, remarks=(f"{alike[0].reason.replace('_', ' ')}{times}",)))
    print_rows(rows)
    typer.echo()
    for i in ranking.order:
        about = [manners[calls[i]], _cut_off(answer.candidates[i]) * answer.candidates[i].cut_off, *_flaws(ranking, i)]
        words = "; ".join(part for part in about if part)
        typer.secho(f"{ranking.ranks[i]}.  {names[calls[i]]}{f'  ({words})' if words else ''}", bold=True)
        print_text(answer.candidates[i].text.strip(), plain=plain)
        typer.echo()
    if answer.fusion is not None and answer.fusion.fusion is not None and answer.fusion.fusion.text:
        by = answer.fusion.fusion.fuser
        typer.secho(f"fused by {by}" if answer.mode == "fuse" else f"not used, by {by}", bold=True)
        print_text(answer.fusion.fusion.text, plain=plain)
        typer.echo()
    if not np.isnan(wins).all():
        note("P(win): how often a judge would prefer the answer to another candidate, on average")
    if not whole.all():
        rough = "compares some of the pairs: the order behind the first one is rough"
        note(f"{ranking.strategy} {rough}; --strategy full compares all")
    if ranking.evidence is not None and (most := majority(ranking.evidence.answers)) and most.count > 1:
        note(f"{most.count} of {most.total} agree on {most.answer}")
    for line in _verdicts(ranking):
        note(line)
    tokens = answer.usage.prompt_tokens + answer.usage.completion_tokens
    cost = "cost unknown" if answer.cost is None else dollars(answer.cost)
    work = f"{counted(ranking.comparisons, 'comparisons')} ({ranking.strategy})"
    if len(ranking.order) > 1 and len({candidate.text.strip() for candidate in answer.candidates}) == 1:
        work = f"all {len(ranking.order)} answers are identical"
    note(f"{work}, {answer.seconds:.1f} s, {counted(tokens, 'new tokens')}, {cost}")


def _final(ranking: Ranking, i: int) -> list[str]:
    """Describe the final answer of a candidate, if it has one."""
    answers = None if ranking.evidence is None else ranking.evidence.answers
    return [f"answers {answers[i]}"] if answers and answers[i] is not None else []


def _flaws(ranking: Ranking, i: int) -> list[str]:
    """Describe the flaws of form of a candidate."""
    from llm_blender.ranking import FLAWS

    flaws = None if ranking.evidence is None else ranking.evidence.flaws
    return [FLAWS[flaw] for flaw in flaws[i]] if flaws else []


def _verdicts(ranking: Ranking) -> list[str]:
    """Describe the verdicts of a judge; candidates have the numbers of their ranks."""
    judging = None if ranking.evidence is None else ranking.evidence.judging
    lines = []
    for verdict in () if judging is None else judging.verdicts:
        a, b = ranking.ranks[verdict.a], ranking.ranks[verdict.b]
        better, worse = (a, b) if verdict.value > 0 else (b, a)
        orders = "both orders" if abs(verdict.value) == 1 else "one order, a tie in the other"
        text = f"preferred {better} to {worse} ({orders})" if verdict.value else f"preferred neither of {a} and {b}"
        lines.append(f"judge: {judging.judge if judging else ''} {text}")
    return lines
