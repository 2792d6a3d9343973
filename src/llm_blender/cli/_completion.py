"""Values of options that the shell completes: names of LLMs, rankers, fusers and strategies."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import typer

from llm_blender.errors import LLMBlenderError


def complete_llm(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the name of an LLM: one of the configuration, or an embedded one."""
    from llm_blender.llms.models import CATALOGUE

    return _starting(incomplete, [*_configured(ctx), *(model.name for model in CATALOGUE)])


def complete_ranker(incomplete: str) -> list[str]:
    """Complete the name of a ranker that needs no file."""
    from llm_blender.rankers.heuristics import HEURISTICS

    return _starting(incomplete, ["bundled", *HEURISTICS])


def complete_fuser(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the name of a fuser that needs no file."""
    chat = [f"chat:{name}" for name in _configured(ctx)]
    return _starting(incomplete, ["chat", *chat, "consensus", "longest"])


def complete_strategy(incomplete: str) -> list[str]:
    """Complete the name of a strategy."""
    from llm_blender.ranking import STRATEGIES

    return _starting(incomplete, STRATEGIES)


def _configured(ctx: typer.Context) -> list[str]:
    """List the LLMs of the configuration; none where it cannot be read."""
    from llm_blender.config import load_config

    given = ctx.params.get("config")
    try:
        return [entry.name for entry in load_config(None if given is None else Path(given)).llm]
    except LLMBlenderError:
        return []


def _starting(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
