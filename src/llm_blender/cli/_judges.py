"""LLMs of the configuration as rankers: ``judge:NAME``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llm_blender.cli._output import note
from llm_blender.errors import unknown_name

if TYPE_CHECKING:
    from llm_blender.rankers.llm_judge import LLMJudge

__all__ = ["JUDGE", "load_judges", "note_judges"]

JUDGE = "judge:"
"""Stands before the name of an LLM that compares."""

_CONCURRENCY = 32  # an LLM's own `concurrency` is the limit


def load_judges(names: Sequence[str], config: Path | None) -> dict[str, LLMJudge]:
    """The judges of these names, whose replies are kept in the user's store.

    Args:
        names: each ``judge:`` and the name of an LLM.
        config: None looks where ``blend ask`` does.

    Raises:
        InputError: there is no such LLM in the configuration, or something in it is wrong.
    """
    if not names:
        return {}
    from llm_blender.config import load_config
    from llm_blender.ensemble import Ensemble
    from llm_blender.rankers.llm_judge import LLMJudge
    from llm_blender.store import Store

    llms = {member.llm.name: member.llm for member in Ensemble.from_config(load_config(config)).members}
    judges = {}
    for name in names:
        llm = name.removeprefix(JUDGE)
        if llm not in llms:
            raise unknown_name("LLM", llm, llms)
        judges[name] = LLMJudge(llms[llm], concurrency=_CONCURRENCY, store=Store())
    return judges


def note_judges(judges: Mapping[str, LLMJudge]) -> None:
    """Say on standard error what they were asked and what it cost."""
    for name, judge in judges.items():
        totals = judge.totals
        cost = "cost unknown" if totals.cost is None else f"${totals.cost:.4f}"
        tokens = totals.usage.prompt_tokens + totals.usage.completion_tokens
        note(f"{name}: {totals.calls:,} calls, {totals.recalled:,} found in the store; {tokens:,} tokens, {cost}")
        if totals.unreadable:
            example = " ".join((totals.example or "").split())[:80]
            note(f"{name}: {totals.unreadable:,} replies held no verdict and count as ties, such as {example!r}")
        if totals.not_kept:
            note(f"{name}: the store could not keep the replies: {totals.not_kept}")
