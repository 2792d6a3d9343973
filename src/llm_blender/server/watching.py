"""What happens while an answer is made: counted, remembered of the LLMs, and told to whoever listens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from llm_blender.ensemble import Observer
from llm_blender.server.asking import Question
from llm_blender.server.service import Service
from llm_blender.types import Candidate, Failure

__all__ = ["Watch"]

Listener = Callable[[Mapping[str, Any]], None]


class Watch(Observer):
    """The observer of one question.

    Args:
        service: whose counters and breakers hear of it.
        question: which.
        tell: called in the event loop with each event, a JSON object whose `event` is its kind.
        pieces: also tell what is being written, piece by piece.
    """

    def __init__(
        self, service: Service, question: Question, tell: Listener = lambda event: None, *, pieces: bool = False
    ) -> None:
        self._service, self._tell, self._pieces = service, tell, pieces
        self._quorum = question.ensemble.limits.quorum
        self._answers = 0
        self._loop = asyncio.get_running_loop()

    def started(self, models: list[str]) -> None:
        """The calls begin."""
        self._tell({"event": "started", "llms": models})

    def writing(self, call: int, text: str) -> None:
        """A call has written a piece."""
        if self._pieces:
            self._tell({"event": "writing", "call": call, "text": text})

    def wrote(self, call: int, candidate: Candidate, *, stored: bool) -> None:
        """A call has its answer: a mark for its LLM."""
        name = candidate.model or ""
        self._answers += 1
        self._service.metrics.wrote(name, candidate, stored=stored)
        if not stored:
            self._service.breakers.answered(name)
        text = {"text": candidate.text} if self._pieces else {}  # pieces may begin anew, or never have come
        self._tell(
            {"event": "wrote", "call": call, "llm": name, "seconds": candidate.seconds, "stored": stored, **text}
        )

    def failed(self, call: int, failure: Failure) -> None:
        """A call has none: a mark against its LLM."""
        self._service.metrics.failed(failure)
        cut_off = failure.reason == "timeout" and self._quorum is not None and self._answers >= self._quorum
        if not cut_off:  # one that is only slower than the others stays
            self._service.breakers.failed(failure)
        self._tell({"event": "failed", "call": call, "llm": failure.model, "reason": failure.reason})

    def comparing(self, done: int, total: int) -> None:
        """Comparisons go on. Called from another thread."""
        event = {"event": "comparing", "done": done, "total": total}
        self._loop.call_soon_threadsafe(self._tell, event)

    def fusing(self, text: str) -> None:
        """The fuser has written a piece."""
        if self._pieces:
            self._tell({"event": "fusing", "text": text})
