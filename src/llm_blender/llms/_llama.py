"""llama.cpp in this process, through xllamacpp: load a GGUF file, run a request, stop it."""

from __future__ import annotations

import math
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from llm_blender.errors import FailureReason, LLMError
from llm_blender.types import Candidate, OnText, Usage

Chunk = Mapping[str, Any]
"""A piece of a streamed answer, in the format of the OpenAI API."""

_BATCH = 256
"""Prompt tokens computed at once; between two batches a call can be stopped."""


class Llama:
    """A loaded model with `parallel` slots, each answering one request at a time.

    Attributes:
        adapters: the loaded adapters.

    Args:
        path: a GGUF file.
        adapters: GGUF files of LoRA adapters of the model; a request without an adapter uses the bare model.
        context: maximum tokens of prompt and answer together, per slot.
        parallel: number of slots.
        threads: number of computing threads; None takes the available cores.

    Raises:
        RuntimeError: llama.cpp cannot load the file or an adapter; it gives no reason.
    """

    def __init__(
        self, path: Path, *, context: int, parallel: int, threads: int | None = None, adapters: Sequence[Path] = ()
    ) -> None:
        self.adapters = tuple(adapters)
        xllamacpp = _import_xllamacpp()
        params = xllamacpp.CommonParams()
        params.model.path = os.fspath(path)
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(os.fspath(adapter), 0.0) for adapter in adapters]
        params.verbosity = -1  # else it logs to the process's stderr
        params.warmup = False  # costs more than it saves on a model this small
        params.n_gpu_layers = 0  # a GPU's results depend on what else is in its batch
        params.n_parallel = parallel
        # A cache of its own for each slot: in a shared one, the order of summation, and so the text, depends on
        # what the other slots hold.
        params.kv_unified = False
        # Its order of summation depends on the longest of the slots.
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.n_ctx = context * parallel
        params.n_batch = params.n_ubatch = _BATCH
        params.cache_ram_mib = 0  # prompts are not reused
        for pool in (params.cpuparams, params.cpuparams_batch):
            pool.n_threads = available_cores() if threads is None else threads
        # The server also listens on a loopback port: a random key closes it.
        params.api_keys = [secrets.token_urlsafe()]
        params.ui = params.endpoint_slots = params.endpoint_props = False
        self._server = xllamacpp.Server(params)

    def run(self, request: Mapping[str, Any], on_chunk: Callable[[Chunk], bool], adapter: Path | None = None) -> None:
        """Run one streamed request to its end, waiting for a free slot first.

        Args:
            request: the body of an OpenAI chat completion; or, with a ``prompt`` of text or tokens, of a completion.
            on_chunk: called with each piece, including an ``error``, and after each batch of the prompt; True stops
                the request. An exception stops the request, too, and is raised here.
            adapter: the one of `adapters` to use; None uses the bare model.

        Raises:
            RuntimeError: the request cannot be read.
        """
        raised: list[BaseException] = []

        def relay(chunk: Chunk) -> bool:
            try:
                return on_chunk(chunk)
            except BaseException as error:  # the C++ code between here and the caller would drop it
                raised.append(error)
                return True

        # Without a cached prompt the same request gives the same bits whatever ran in its slot before.
        extra = {"stream": True, "return_progress": True, "cache_prompt": False}
        usage = {"stream_options": {"include_usage": True}}
        lora = {} if adapter is None else {"lora": [{"id": self.adapters.index(adapter), "scale": 1.0}]}
        server = self._server
        handle = server.handle_completions if "prompt" in request else server.handle_chat_completions
        handle({**request, **extra, **usage, **lora}, relay)
        if raised:
            raise raised[0]


def available_cores() -> int:
    """Return the number of physical cores that this process may use; -1 leaves the choice to llama.cpp."""
    if not hasattr(os, "sched_getaffinity"):
        return -1
    cpus = os.sched_getaffinity(0)
    try:
        siblings = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
        cores = len({Path(siblings.format(cpu)).read_text() for cpu in cpus})
    except OSError:
        cores = len(cpus)
    try:  # a container's share of the machine
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return min(cores, max(1, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores


def _import_xllamacpp() -> ModuleType:
    with _short_spin():
        import xllamacpp
    return xllamacpp  # type: ignore[no-any-return]


@contextmanager
def _short_spin() -> Iterator[None]:
    """Make OpenMP's threads sleep soon when they wait for each other.

    They wait some hundred times a token. By default each spins for milliseconds; on cores shared with other
    processes that takes time from the thread it waits for: measured on two busy cores, 3 tokens/s against 50. GNU's
    OpenMP reads the variable once, when it is loaded.
    """
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    if any(name in os.environ for name in names):  # the user has chosen
        yield
        return
    os.environ["GOMP_SPINCOUNT"] = "1000"
    try:
        yield
    finally:
        del os.environ["GOMP_SPINCOUNT"]


class LlamaCall:
    """A request and its answer so far; run once, in its own thread.

    Attributes:
        stop: event that ends the answer early.

    Args:
        llm: name of the LLM, for the candidate and for errors.
        request: see `Llama.run`.
        on_text: called in that thread with each new piece of text.
        adapter: LoRA adapter to use; None uses the bare model.
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
            LLMError: the request is refused or too long, its adapter is not loaded, the answer is empty, or the call
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
            tokens = error["n_prompt_tokens"]
            short = f"the prompt is too long: {tokens} tokens, and the context holds {error['n_ctx']}; shorten it"
            wider = 1 << (tokens + 1000).bit_length()  # with room for an answer
            fix = f'raise it in blend.toml: an [[llm]] with provider = "embedded", its model, and context = {wider}'
            return LLMError(self._llm, "bad_request", f"{short}, or {fix}.", public=short, own=False)
        reason: FailureReason = "bad_request" if error.get("code") == 400 else "server"
        return self._error(reason, f"llama.cpp reports: {error.get('message', error)}")

    def _error(self, reason: FailureReason, message: str) -> LLMError:
        return LLMError(self._llm, reason, message)
