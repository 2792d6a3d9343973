"""An LLM inside this process: a small GGUF model run by llama.cpp, without server or key."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from llm_blender.errors import CheckpointError, LLMError, NotFoundError
from llm_blender.llms._llama import Llama, LlamaCall
from llm_blender.llms.models import DEFAULT_MODEL, find, resolve
from llm_blender.types import Candidate, Message, OnText, Sampling, text_messages

if TYPE_CHECKING:
    from llm_blender.config import EmbeddedConfig


@dataclass(frozen=True)
class Variation:
    """A style of answering; several styles make one model's candidates differ.

    Attributes:
        system: system message; None leaves it to the model's chat template.
        temperature: sampling temperature.
    """

    system: str | None
    temperature: float


# A model of 135 M parameters is most often right where it is nearly greedy, and loses the thread in long answers.
_STYLES = (
    Variation(None, 0.1),
    Variation("You are a helpful assistant. Be brief.", 0.4),
    Variation("Answer in a few short, clear sentences. Be accurate and to the point.", 0.2),
    Variation("You are a careful expert. Answer in one short paragraph.", 0.4),
    Variation("You are a friendly teacher. Answer in one or two simple sentences.", 0.4),
)


def default_variations(n: int = len(_STYLES)) -> tuple[Variation, ...]:
    """Return `n` styles of answering for best-of-n from one small model, the safest first.

    After the fifth they repeat at a temperature higher by 0.2, up to 1.
    """
    rounds = ((_STYLES[index % len(_STYLES)], index // len(_STYLES)) for index in range(n))
    return tuple(Variation(v.system, min(1.0, v.temperature + 0.2 * again)) for v, again in rounds)


_SAMPLING = Sampling()
_MAX_TOKENS = 400
"""Enough for nearly every answer of a small model to end by itself."""
_DECODING = MappingProxyType(
    {
        # Only tokens at least a tenth as likely as the likeliest (min-p, arXiv 2407.01082).
        "min_p": 0.1,
        # Models this small fall into loops. DRY ("don't repeat yourself") makes a token less likely that would continue
        # a repeated sequence of `dry_allowed_length` tokens or more, and `frequency_penalty` one that occurred often.
        # `repeat_penalty` would make them avoid the names, numbers and words of the question, however rare.
        "dry_multiplier": 0.8,
        "dry_base": 1.75,
        "dry_allowed_length": 3,
        "dry_penalty_last_n": 1024,
        "dry_sequence_breakers": ['"'],  # keys and values of JSON may be repeated
        "frequency_penalty": 0.2,
        "repeat_last_n": 128,
    }
)
"""Options of llama.cpp for every call of `EmbeddedLLM.generate`."""


class EmbeddedLLM:
    """An LLM inside this process.

    The model is loaded by the first call, and stays until `close`. Calls run in threads, up to `parallel` at
    once; more are queued. Messages, sampling and seed determine the text, whatever other calls run at the same time, up
    to 256 tokens of prompt and answer together, and further behind a short prompt: a long one is read in batches with
    other calls, which changes how llama.cpp rounds.

    Sample k (`Sampling.sample`) answers in the k-th of `variations`, so that best-of-n from one model gives
    different candidates, and its seed is `Sampling.seed` (0 if None) plus k.

    Attributes:
        name: its name in the ensemble.
        path: file of the model.

    Args:
        name: see above.
        model: a name for `llm_blender.llms.models.resolve`, or a path.
        sampling: defaults for options that a call leaves None; they override the variation's temperature.
        system: system message for conversations without one; it overrides the variation's.
        variations: styles of answering, taken in turn.
        context: maximum tokens of prompt and answer together.
        parallel: maximum answers written at once; None takes the number known to be safe for the model.
        threads: number of computing threads; None takes the available physical cores.

    Raises:
        NotFoundError: there is no such model, or it is not downloaded.
        CheckpointError: the file is no GGUF file.
    """

    def __init__(
        self,
        name: str,
        model: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        sampling: Sampling = _SAMPLING,
        system: str | None = None,
        variations: Sequence[Variation] | None = None,
        context: int = 4096,
        parallel: int | None = None,
        threads: int | None = None,
    ) -> None:
        self.name = name
        self.path = _model_file(os.fspath(model))
        self._sampling, self._system = sampling, system
        self._variations = tuple(variations or default_variations())
        self._context, self._threads = context, threads
        self._parallel = _safe_parallel(os.fspath(model)) if parallel is None else parallel
        self._lock, self._loading = threading.Lock(), threading.Lock()
        self._llama: Llama | None = None
        self._adapters: tuple[Path, ...] = ()
        self._loaded: tuple[Path, ...] = ()  # the adapters of `_llama`, as far as they could be loaded
        self._pool: ThreadPoolExecutor | None = None
        self._calls: set[LlamaCall] = set()

    @classmethod
    def from_config(cls, config: EmbeddedConfig) -> Self:
        """Make the LLM of an ``[[llm]]`` of ``blend.toml``.

        Raises:
            NotFoundError: there is no such model, or it is not downloaded.
            CheckpointError: the file is no GGUF file.
        """
        return cls(config.name, config.model, sampling=config.sampling, system=config.system, context=config.context)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {str(self.path)!r})"

    @property
    def identity(self) -> dict[str, Any]:
        """Settings that its answers depend on, apart from messages and sampling; part of `call_key`."""
        return {
            "provider": "embedded",
            "model": self.path.name,
            "bytes": self.path.stat().st_size,
            "sampling": self._sampling.to_dict(),
            "system": self._system,
            "variations": [asdict(variation) for variation in self._variations],
            "context": self._context,
            "decoding": {"max_tokens": _MAX_TOKENS, **_DECODING},
        }

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling = _SAMPLING, *, on_text: OnText | None = None
    ) -> Candidate:
        """Answer a conversation; `on_text` is called in the event loop.

        Raises:
            LLMError: the conversation does not fit the context, the answer is empty, or the file cannot be run.
        """
        return await self._answer(self._request(messages, sampling), on_text)

    async def complete(
        self, prompt: Sequence[int], *, max_tokens: int, adapter: Path | None = None, on_text: OnText | None = None
    ) -> Candidate:
        """Continue a prompt greedily.

        Args:
            prompt: tokens, read as they are.
            max_tokens: maximum tokens of the answer.
            adapter: the GGUF file of a LoRA adapter, see `adapt`; None uses the bare model.
            on_text: gets the answer as it comes, in the event loop.

        Raises:
            LLMError: as for `generate`, or the adapter is damaged or of another model.
        """
        if adapter is not None:
            self.adapt(adapter)
        request = {"prompt": list(prompt), "max_tokens": max_tokens, "temperature": 0.0}
        return await self._answer(request, on_text, adapter)

    def adapt(self, adapter: Path) -> None:
        """Load a LoRA adapter together with the model; only a `complete` that names it uses it.

        After the first call, the model is reloaded.
        """
        with self._lock:
            if adapter not in self._adapters:
                self._adapters += (adapter,)

    async def _answer(self, request: dict[str, Any], on_text: OnText | None, adapter: Path | None = None) -> Candidate:
        loop = asyncio.get_running_loop()
        call = LlamaCall(self.name, request, on_text and (lambda text: _later(loop, on_text, text)), adapter)
        with self._lock:
            self._pool = self._pool or ThreadPoolExecutor(self._parallel, thread_name_prefix="embedded-llm")
            future = self._pool.submit(self._run, call)
            self._calls.add(call)
        try:
            return await asyncio.wrap_future(future)
        finally:
            call.stop.set()  # no effect on a call that is over
            self._calls.discard(call)

    def most_cost(self, messages: Sequence[Message], sampling: Sampling = _SAMPLING) -> float:
        """Return 0: an answer costs nothing."""
        return 0.0

    def close(self) -> None:
        """Stop the calls under way and free the model's memory; a later call loads it again."""
        with self._lock:
            pool, self._pool = self._pool, None
            for call in self._calls:
                call.stop.set()
        if pool is not None:
            pool.shutdown(cancel_futures=True)
        with self._loading:
            self._llama = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await asyncio.to_thread(self.close)

    def _run(self, call: LlamaCall) -> Candidate:
        with self._loading:
            if self._llama is None or self._loaded != self._adapters:
                self._llama = None  # freed with the last call that runs on it
                self._loaded = self._adapters
                self._llama = self._load(self._loaded)
            llama = self._llama
        return call.run(llama)

    def _load(self, adapters: tuple[Path, ...]) -> Llama:
        try:
            return Llama(
                self.path, context=self._context, parallel=self._parallel, threads=self._threads, adapters=adapters
            )
        except RuntimeError:
            if adapters:  # a bad adapter does not cost the answers of the bare model
                return self._load(())
            message = (
                f"llama.cpp cannot load {self.path}: it is damaged (delete it and download it again), of a"
                " kind that this llama.cpp does not know, or larger than the free memory."
            )
            raise LLMError(self.name, "server", message) from None

    def _request(self, messages: Sequence[Message], sampling: Sampling) -> dict[str, Any]:
        own, variation = self._sampling, self._variations[sampling.sample % len(self._variations)]
        turns = text_messages(messages)
        system = self._system if self._system is not None else variation.system
        if system is not None and not any(turn["role"] == "system" for turn in turns):
            turns.insert(0, {"role": "system", "content": system})
        options = {
            "temperature": _first(sampling.temperature, own.temperature, variation.temperature),
            "top_p": _first(sampling.top_p, own.top_p),
            "max_tokens": _first(sampling.max_tokens, own.max_tokens, _MAX_TOKENS),
            "seed": ((_first(sampling.seed, own.seed) or 0) + sampling.sample) % 2**31,
            "stop": list(sampling.stop or own.stop) or None,
            **_DECODING,
        }
        return {
            # Half a character, as broken input may hold it, is no JSON.
            "messages": [{**turn, "content": turn["content"].encode(errors="replace").decode()} for turn in turns],
            **{key: value for key, value in options.items() if value is not None},
        }


def _later(loop: asyncio.AbstractEventLoop, on_text: OnText, text: str) -> None:
    with suppress(RuntimeError):  # the loop is over
        loop.call_soon_threadsafe(on_text, text)


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _model_file(model: str) -> Path:
    path = resolve(model)
    if path is None:
        raise NotFoundError(f"The model {model} is not downloaded: run `blend models pull {model}`.")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise CheckpointError(f"{path} is no GGUF file: give the path of a model in llama.cpp's format.")
    return path


def _safe_parallel(model: str) -> int:
    try:
        return find(model).parallel
    except NotFoundError:  # a local file
        return 1
