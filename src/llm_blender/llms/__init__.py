"""Who writes candidates: LLMs behind a server, or inside this process."""

from __future__ import annotations

from pathlib import Path

from llm_blender.config import EmbeddedConfig, LLMConfig, ReplayConfig
from llm_blender.llms.chat_response import ReasoningSplitter, split_reasoning
from llm_blender.llms.embedded import EmbeddedLLM, Variation, default_variations
from llm_blender.llms.local_servers import LocalServer, find_local_servers
from llm_blender.llms.openai_compatible import Backoff, OpenAICompatibleLLM
from llm_blender.llms.replay import ReplayLLM
from llm_blender.types import LLM

__all__ = [
    "Backoff",
    "EmbeddedLLM",
    "LocalServer",
    "OpenAICompatibleLLM",
    "ReasoningSplitter",
    "ReplayLLM",
    "Variation",
    "default_variations",
    "find_local_servers",
    "load_llm",
    "split_reasoning",
]


def load_llm(entry: LLMConfig, folder: Path | None = None) -> LLM:
    """The LLM of an ``[[llm]]`` of ``blend.toml``.

    Args:
        entry: see there.
        folder: from which the files that it names are seen; None is the current one.

    Raises:
        ConfigError: the variable that should hold its key is not set.
        NotFoundError: its model or its file of rows is not there.
        InputError: its file of rows holds nothing that could be given back.
    """
    if isinstance(entry, ReplayConfig):
        from llm_blender.llms.replay import ReplayLLM

        return ReplayLLM(entry.name, (folder or Path()) / Path(entry.rows).expanduser(), entry.model)
    if isinstance(entry, EmbeddedConfig):
        from llm_blender.llms.embedded import EmbeddedLLM

        return EmbeddedLLM.from_config(entry)
    from llm_blender.llms.openai_compatible import OpenAICompatibleLLM

    return OpenAICompatibleLLM.from_config(entry)
