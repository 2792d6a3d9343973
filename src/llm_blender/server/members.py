"""An LLM as one request asks it: the client's own messages and options, and answers of the form that it wants."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llm_blender.ensemble.budget import Priced
from llm_blender.errors import LLMError
from llm_blender.llms.openai_compatible import OpenAICompatibleLLM
from llm_blender.server.schemas import ChatRequest
from llm_blender.types import LLM, Candidate, Message, OnText, Sampling

__all__ = ["AskedLLM", "Wishes"]

_SAMPLING = Sampling()
# Not for the LLMs: what the service itself answers to, and what is about the client.
_OWN = frozenset(
    {
        "blend", "function_call", "functions", "logprobs", "max_completion_tokens", "max_tokens", "messages",
        "metadata", "model", "n", "prompt_cache_key", "safety_identifier", "seed", "service_tier", "stop", "store",
        "stream", "stream_options", "temperature", "top_logprobs", "top_p", "user",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Wishes:
    """What a request asks of every LLM.

    Attributes:
        sampling: its options; None leaves them to the LLM.
        messages: the conversation with calls of tools and their results, which only an LLM behind an API
            understands; None where it has none.
        json: answers that are no JSON are none.
        discarded: answers that were paid for and are of the wrong form.
    """

    sampling: Sampling
    messages: tuple[Mapping[str, Any], ...] | None = None
    json: bool = False
    discarded: list[Candidate] = field(default_factory=list)

    @classmethod
    def of(cls, request: ChatRequest) -> Wishes:
        """Those of a request."""
        given = request.model_dump(exclude_unset=True, exclude_none=True)
        extra = {key: value for key, value in given.items() if key not in _OWN}
        stop = request.stop or []
        sampling = Sampling(
            temperature=request.temperature,
            top_p=request.top_p,
            max_tokens=request.max_completion_tokens or request.max_tokens,
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            extra=extra or None,
        )
        with_tools = any(message.role == "tool" or message.tool_calls for message in request.messages)
        messages = tuple(message.model_dump(exclude_unset=True) for message in request.messages)
        wants_json = request.response_format is not None and request.response_format.type != "text"
        return cls(sampling, messages if with_tools else None, wants_json)

    @property
    def need_api(self) -> bool:
        """Whether an LLM must be behind an API to fulfil them."""
        extra = self.sampling.extra or {}
        return self.messages is not None or self.json or "tools" in extra

    def refused_by(self, llm: LLM) -> bool:
        """Whether an LLM cannot fulfil them."""
        return self.need_api and not isinstance(llm, OpenAICompatibleLLM)


class AskedLLM:
    """An LLM that is asked as a request wishes.

    Args:
        llm: who answers.
        wishes: how.
    """

    def __init__(self, llm: LLM, wishes: Wishes) -> None:
        self._llm, self._wishes = llm, wishes

    @property
    def name(self) -> str:
        """Its name in the ensemble."""
        return self._llm.name

    @property
    def identity(self) -> Mapping[str, Any]:
        """What its answers depend on: the LLM, and the wishes."""
        wishes = {"sampling": self._wishes.sampling.to_dict(), "messages": self._wishes.messages}
        return {**self._llm.identity, "wishes": wishes}

    def most_cost(self, messages: Sequence[Message], sampling: Sampling = _SAMPLING) -> float | None:
        """Dollars that an answer costs at most; None where that is unknown."""
        if not isinstance(self._llm, Priced):
            return None
        return self._llm.most_cost(self._messages(messages), self._sampling(sampling))

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling = _SAMPLING, *, on_text: OnText | None = None
    ) -> Candidate:
        """Answer a conversation.

        Raises:
            LLMError: there is no answer, or none of the form that is wished for.
        """
        candidate = await self._llm.generate(self._messages(messages), self._sampling(sampling), on_text=on_text)
        if self._wishes.json and candidate.tool_calls is None and not _is_json(candidate.text):
            self._wishes.discarded.append(candidate)
            raise LLMError(self.name, "bad_response", "the answer is not the JSON that response_format asks for")
        return candidate

    def _messages(self, messages: Sequence[Message]) -> Sequence[Any]:
        return messages if self._wishes.messages is None else self._wishes.messages

    def _sampling(self, sampling: Sampling) -> Sampling:
        return replace(self._wishes.sampling, seed=sampling.seed, sample=sampling.sample)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
