"""An LLM without a model, for tests of code that calls LLMs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from llm_blender.conversations import message_text
from llm_blender.errors import FailureReason, LLMError
from llm_blender.types import Candidate, Message, OnText, Sampling, Usage

_SAMPLING = Sampling()
_PIECES = re.compile(r"\s*\S+\s*|\s+")


@dataclass(frozen=True)
class FakeCall:
    """One call of a `FakeLLM`."""

    messages: tuple[Message, ...]
    sampling: Sampling


class FakeLLM:
    """An LLM that returns given answers, and can delay, fail, stream, answer with nothing, or never end.

    Args:
        name: its name in the ensemble.
        answers: one text for all calls; or one per call, starting over after the last; or a function.
        delay: seconds before an answer or an error.
        errors: one for all calls; or one per call (None: no error), and none after the last. A `FailureReason` is
            raised as an `LLMError`.
        never_ends: repeat the answer until the call is cancelled.
        usage: tokens of each call; None counts words.
        cost: dollars of each call.

    Attributes:
        calls: all calls, in order.
        cancelled: number of cancelled calls.
        most_at_once: maximum number of concurrent calls.

    Examples:
        >>> llm = FakeLLM("fake", ["One.", "Two."], errors=["rate_limit"])
        >>> asyncio.run(llm.generate([{"role": "user", "content": "Count."}]))
        Traceback (most recent call last):
        llm_blender.errors.LLMError: fake: planted rate_limit
        >>> asyncio.run(llm.generate([{"role": "user", "content": "Count."}])).text
        'Two.'
    """

    def __init__(
        self,
        name: str = "fake",
        answers: str | Sequence[str] | Callable[[Sequence[Message], Sampling], str] = "An answer.",
        *,
        delay: float = 0.0,
        errors: FailureReason | Exception | Sequence[FailureReason | Exception | None] = (),
        never_ends: bool = False,
        usage: Usage | None = None,
        cost: float | None = 0.0,
    ) -> None:
        self.name, self.delay, self.never_ends = name, delay, never_ends
        self._answers, self._usage, self._cost = answers, usage, cost
        self._errors: Iterator[FailureReason | Exception | None]
        self._errors = repeat(errors) if isinstance(errors, str | Exception) else iter(errors)
        self.calls: list[FakeCall] = []
        self.cancelled = self.most_at_once = self._running = 0

    @property
    def identity(self) -> dict[str, Any]:
        """Identity of its answers for `call_key`."""
        return {"provider": "fake", "name": self.name}

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling = _SAMPLING, *, on_text: OnText | None = None
    ) -> Candidate:
        """Answer or fail as configured; `on_text` receives the answer word by word."""
        number = len(self.calls)
        self.calls.append(FakeCall(tuple(messages), sampling))
        error = next(self._errors, None)
        self._running += 1
        self.most_at_once = max(self.most_at_once, self._running)
        try:
            await asyncio.sleep(self.delay)
            if error is not None:
                raise LLMError(self.name, error, f"planted {error}") if isinstance(error, str) else error
            text = self._answer(number, messages, sampling)
            while True:
                for piece in _PIECES.findall(text):
                    if on_text is not None:
                        on_text(piece)
                    await asyncio.sleep(0)
                if not self.never_ends:
                    break
                await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self._running -= 1
        words = sum(len(message_text(message).split()) for message in messages)
        return Candidate(
            text=text,
            model=self.name,
            usage=self._usage or Usage(words, len(text.split())),
            seconds=self.delay,
            cost=self._cost,
            finish_reason="stop",
        )

    def most_cost(self, messages: Sequence[Message], sampling: Sampling = _SAMPLING) -> float | None:
        """Return the dollars of each call."""
        return self._cost

    def _answer(self, number: int, messages: Sequence[Message], sampling: Sampling) -> str:
        if isinstance(self._answers, str):
            return self._answers
        if callable(self._answers):
            return self._answers(messages, sampling)
        return self._answers[number % len(self._answers)]
