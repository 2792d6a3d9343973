"""Stand-ins for models, for tests of code that uses this package."""

from llm_blender.testing.llms import FakeCall, FakeLLM
from llm_blender.testing.openai_server import FakeOpenAIServer, FakeReply
from llm_blender.testing.rankers import FakeRanker

__all__ = ["FakeCall", "FakeLLM", "FakeOpenAIServer", "FakeRanker", "FakeReply"]
