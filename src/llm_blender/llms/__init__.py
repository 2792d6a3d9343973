"""Who writes candidates: LLMs behind a server, or inside this process."""

from llm_blender.llms.openai_compatible import OpenAICompatibleLLM
from llm_blender.llms.reasoning import ReasoningSplitter, split_reasoning
from llm_blender.llms.retry import Backoff

__all__ = ["Backoff", "OpenAICompatibleLLM", "ReasoningSplitter", "split_reasoning"]
