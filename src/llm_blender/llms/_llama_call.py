"""One answer of llama.cpp while it is written."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_blender.errors import FailureReason, LLMError
from llm_blender.llms._llama import Chunk, Llama
from llm_blender.types import Candidate, OnText, Usage

__all__ = ["LlamaCall"]


class LlamaCall:
    """A request, and what has come of it; to be run once, in a thread of its own.

    Attributes:
        stop: set it to end the answer early.

    Args:
        llm: name of the LLM, for the candidate and for errors.
        request: see `Llama.run`.
        on_text: called in that thread with each new piece of text.
        adapter: through which the model answers; None is the model as it is.
    """

    def __init__(
        self, llm: str, request: Mapping[str, Any], on_text: OnText | None, adapter: Path | None = None
    ) -> None:
        self.stop = threading.Event()
        self._llm, self._request, self._on_text, self._adapter = llm, request, on_text, adapter
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._usage: Usage | None = None
        self._finish_reason: str | None = None

    def run(self, llama: Llama) -> Candidate:
        """Write the answer, waiting for a free slot first.

        Raises:
            LLMError: the request does not fit or is refused, its adapter is not loaded, the answer is empty, or it
                was stopped.
        """
        start = time.perf_counter()
        if self._adapter not in (None, *llama.adapters):
            raise self._error(
                "server", f"llama.cpp cannot use the adapter {self._adapter}: it is damaged, or of another model."
            )
        try:
            llama.run(self._request, self._take, self._adapter)
        except RuntimeError as error:
            raise self._error("bad_request", f"llama.cpp refuses the request: {error}") from error
        if self.stop.is_set():
            raise self._error("connection", "the LLM was closed while it wrote.")
        text = "".join(self._text).strip()
        if not text:
            raise self._error("empty", "the answer is empty: ask again, with another seed, or another model.")
        return Candidate(
            text,
            model=self._llm,
            reasoning="".join(self._reasoning).strip() or None,
            usage=self._usage,
            seconds=time.perf_counter() - start,
            cost=0.0,
            finish_reason=self._finish_reason,
        )

    def _take(self, chunk: Chunk) -> bool:
        if (error := chunk.get("error")) is not None:
            raise self._refusal(error)
        if usage := chunk.get("usage"):
            self._usage = Usage(usage["prompt_tokens"], usage["completion_tokens"])
        for choice in chunk.get("choices", ())[:1]:
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
            delta = choice.get("delta", {})
            self._reasoning.append(delta.get("reasoning_content") or "")
            if piece := delta.get("content") or choice.get("text"):
                self._text.append(piece)
                if self._on_text is not None and not self.stop.is_set():
                    self._on_text(piece)
        return self.stop.is_set()

    def _refusal(self, error: Mapping[str, Any]) -> LLMError:
        if error.get("type") == "exceed_context_size_error":
            return self._error(
                "bad_request",
                f"the prompt is too long: {error['n_prompt_tokens']} tokens, and the context holds"
                f" {error['n_ctx']}; shorten it, or give a larger `context`.",
            )
        reason: FailureReason = "bad_request" if error.get("code") == 400 else "server"
        return self._error(reason, f"llama.cpp reports: {error.get('message', error)}")

    def _error(self, reason: FailureReason, message: str) -> LLMError:
        return LLMError(self._llm, reason, message)
