"""Stand-ins for models, for tests of code that uses this package."""

from llm_blender.testing.rankers import FakeRanker

__all__ = ["FakeRanker"]
