"""Who writes candidates: LLMs behind a server, or inside this process."""

from llm_blender.llms.local_servers import LocalServer, find_local_servers
from llm_blender.llms.openai_compatible import OpenAICompatibleLLM
from llm_blender.llms.reasoning import ReasoningSplitter, split_reasoning
from llm_blender.llms.retry import Backoff

__all__ = [
    "Backoff",
    "LocalServer",
    "OpenAICompatibleLLM",
    "ReasoningSplitter",
    "find_local_servers",
    "split_reasoning",
]
