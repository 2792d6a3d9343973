"""LLMs that write candidates: behind a server, or inside this process."""

from __future__ import annotations

from pathlib import Path

from llm_blender.config import EmbeddedConfig, LLMConfig, ReplayConfig
from llm_blender.llms.chat_response import ReasoningSplitter, split_reasoning
from llm_blender.llms.embedded import EmbeddedLLM, Variation, default_variations
from llm_blender.llms.local_servers import LocalServer, find_local_servers
from llm_blender.llms.openai_compatible import OpenAICompatibleLLM
from llm_blender.llms.pacing import Backoff
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


def load_llm(entry: LLMConfig, folder: str | Path | None = None) -> LLM:
    """Make the LLM of an ``[[llm]]`` of ``blend.toml``.

    Args:
        entry: the ``[[llm]]``.
        folder: base of relative paths in the entry; None is the working directory.

    Raises:
        ConfigError: the environment variable of its key is not set.
        NotFoundError: its model or its file of rows does not exist.
    """
    if isinstance(entry, ReplayConfig):
        return ReplayLLM(entry.name, Path(folder or "") / Path(entry.rows).expanduser(), entry.model)
    if isinstance(entry, EmbeddedConfig):
        return EmbeddedLLM.from_config(entry)
    return OpenAICompatibleLLM.from_config(entry)
