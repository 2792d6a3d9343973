"""Who wants to watch an ensemble at work."""

from __future__ import annotations

from llm_blender.errors import StoreError
from llm_blender.types import Candidate, Failure

__all__ = ["Observer"]


class Observer:
    """Told what happens while an answer is made; override what is of interest. Called in the event loop.

    `call` is the 0-based index of one asked-for answer, in the order of the LLMs and their samples.
    """

    def started(self, models: list[str]) -> None:
        """The calls begin: the LLM of each."""

    def writing(self, call: int, text: str) -> None:
        """A call has written another piece of text."""

    def wrote(self, call: int, candidate: Candidate, *, stored: bool) -> None:
        """A call has its answer; `stored`: from the store, nobody was asked."""

    def not_kept(self, error: StoreError) -> None:
        """An answer could not be stored; it is used all the same."""

    def failed(self, call: int, failure: Failure) -> None:
        """A call has none."""

    def comparing(self, done: int, total: int) -> None:
        """Comparisons done and expected. Called from another thread."""

    def fusing(self, text: str) -> None:
        """The fuser has written another piece of a text, which may not be what is given back."""
