"""Who writes candidates: LLMs behind a server, or inside this process."""

from llm_blender.llms.embedded import EmbeddedLLM
from llm_blender.llms.loading import load_llm
from llm_blender.llms.local_servers import LocalServer, find_local_servers
from llm_blender.llms.openai_compatible import OpenAICompatibleLLM
from llm_blender.llms.reasoning import ReasoningSplitter, split_reasoning
from llm_blender.llms.replay import ReplayLLM
from llm_blender.llms.retry import Backoff
from llm_blender.llms.variations import Variation, default_variations

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
