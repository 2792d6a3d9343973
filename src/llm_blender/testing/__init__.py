"""Stand-ins for models and counts of their work, for tests of code that uses this package."""

from llm_blender.testing.llms import FakeCall, FakeLLM
from llm_blender.testing.openai_server import FakeOpenAIServer, FakeReply
from llm_blender.testing.rankers import FakeRanker
from llm_blender.testing.work import CountedBatch, CountingBackend, Work, chat_texts, counted, work_of

__all__ = [
    "CountedBatch",
    "CountingBackend",
    "FakeCall",
    "FakeLLM",
    "FakeOpenAIServer",
    "FakeRanker",
    "FakeReply",
    "Work",
    "chat_texts",
    "counted",
    "work_of",
]
