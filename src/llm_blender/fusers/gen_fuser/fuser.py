"""GenFuser: a sequence-to-sequence model or a causal LLM reads the candidates and writes the fused answer."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any, Self

from llm_blender._hub import find_folder
from llm_blender.errors import InputError, MissingExtraError
from llm_blender.fusers.base import BaseFuser, Row, fuser_rows
from llm_blender.fusers.gen_fuser.prompts import CausalFormat, Lengths, Prompt, PromptFormat, Seq2SeqFormat
from llm_blender.fusers.texts import find_flaw
from llm_blender.types import Fusion, Instruction, OnProgress, OnText, Usage

if TYPE_CHECKING:
    from llm_blender.fusers.gen_fuser.writing import Writers

_SEQ2SEQ = {"max_length": 1024, "candidate_max_length": 128, "max_new_tokens": 128, "beams": 4}
_CAUSAL = {"max_length": 4096, "candidate_max_length": 512, "max_new_tokens": 512, "beams": 1}
_THOUGHTS = ("<think>", "</think>")
_TAIL = 12  # last tokens of a prompt, which may open the thoughts
_TOO_SMALL = "the prompt holds at most {length} tokens, which leaves no room for two candidates; raise max_length"

_HALF = "\ufffd"  # an incomplete character: more bytes follow


class GenFuser(BaseFuser):
    """A fuser that runs in this process, on torch; load one with `from_pretrained`.

    It is deterministic: it writes by beam search or greedily, unless options of ``model.generate`` request sampling.

    Attributes:
        name: of the checkpoint.
        options: of ``model.generate``.
        batch_size: rows per batch.
        prompts: prompt format.

    Examples:
        >>> fuser = GenFuser.from_pretrained("llm-blender/gen_fuser_3b")  # doctest: +SKIP
        >>> candidates = ["Blue light is scattered most.", "The air scatters light."]
        >>> fuser.fuse("Why is the sky blue?", candidates).text  # doctest: +SKIP
        'The air scatters blue light most.'
    """

    def __init__(
        self,
        writers: Writers,
        tokenizer: Any,
        prompts: PromptFormat,
        *,
        name: str,
        options: dict[str, Any],
        max_length: int,
        batch_size: int = 8,
    ) -> None:
        self.name, self.options, self.batch_size, self.prompts = name, options, batch_size, prompts
        self._writers, self._tokenizer, self._max_length = writers, tokenizer, max_length

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        device: Any = None,
        dtype: Any = None,
        base: str | os.PathLike[str] | None = None,
        max_length: int | None = None,
        candidate_max_length: int | None = None,
        max_new_tokens: int | None = None,
        beams: int | None = None,
        batch_size: int = 8,
        bits: int | None = None,
        revision: str | None = None,
    ) -> Self:
        """Load a sequence-to-sequence model, a causal LLM, or a LoRA adapter of one of them.

        Args:
            name: a folder, or a Hub repository.
            device: ``cpu``, ``cuda``, ``mps``, …, or a list of devices to share the work; None takes CUDA if there is
                one, else the CPU.
            dtype: ``float32``, ``bfloat16``, ``float16``, or ``auto`` for that of the stored weights. None takes
                ``bfloat16`` on CUDA, else ``float32``.
            base: of an adapter, instead of the model that it names.
            max_length: most tokens of the prompt; None takes the one in the checkpoint's ``fuser.json``, else 1,024 for
                a sequence-to-sequence model, as in 0.0.2, and 4,096 for a causal LLM, less if its context is shorter.
            candidate_max_length: most tokens of each candidate; None likewise, else 128, as in 0.0.2, and 512 for a
                causal LLM.
            max_new_tokens: most tokens of the answer; None likewise, else the default of `candidate_max_length`.
            beams: of the beam search; None takes 4, as in 0.0.2, and 1 (greedy) for a causal LLM.
            batch_size: rows per batch.
            bits: 4 or 8 quantises the weights with bitsandbytes.
            revision: on the Hub.

        Raises:
            NotFoundError: there is no such checkpoint; the message lists where it was looked for.
            CheckpointError: the model writes no text, or a file of the checkpoint is missing or damaged.
            MissingExtraError: ``torch`` is not installed, or, for an adapter, ``lora``.
            InputError: there is no such device or dtype, a number is out of range, or the context is too short.
        """
        try:
            from llm_blender.fusers.gen_fuser.loading import load
            from llm_blender.fusers.gen_fuser.writing import Writers
        except ModuleNotFoundError as error:
            raise MissingExtraError("GenFuser", "torch") from error
        numbers = {
            "max_length": max_length,
            "candidate_max_length": candidate_max_length,
            "max_new_tokens": max_new_tokens,
            "beams": beams,
        }
        for what, number in {**numbers, "batch_size": batch_size}.items():
            if number is not None and number < 1:
                raise InputError(f"{what} must be above zero, not {number}.")
        folder = find_folder("fuser", name, revision)
        loaded = load(folder, dtype=dtype, device=device, base=None if base is None else os.fspath(base), bits=bits)
        given = {what: number for what, number in numbers.items() if number is not None}
        trained = Lengths.of_training(folder)
        named = {} if trained is None else trained.model_dump()
        sizes = {**(_SEQ2SEQ if loaded.seq2seq else _CAUSAL), **named, **given}
        if loaded.context is not None:
            sizes["max_new_tokens"] = min(sizes["max_new_tokens"], loaded.context // 2)
            sizes["max_length"] = min(sizes["max_length"], loaded.context - sizes["max_new_tokens"])
        form = (Seq2SeqFormat if loaded.seq2seq else CausalFormat)(
            loaded.tokenizer, max_length=sizes["max_length"], candidate_max_length=sizes["candidate_max_length"]
        )
        return cls(
            Writers(loaded, device, placed=bits is not None),
            loaded.tokenizer,
            form,
            name=os.fspath(name),
            options={"max_new_tokens": sizes["max_new_tokens"], "num_beams": sizes["beams"], "do_sample": False},
            max_length=sizes["max_length"],
            batch_size=batch_size,
        )

    def fuse(
        self, instruction: Instruction, candidates: Sequence[str], *, input: str = "", seed: int = 0, **options: Any
    ) -> Fusion:
        """Fuse the candidates of one instruction; see `fuse_many`."""
        (fusion,) = self.fuse_many([instruction], [candidates], inputs=[input], seed=seed, **options)
        return fusion

    def fuse_many(
        self,
        instructions: Sequence[Instruction],
        candidates: Sequence[Sequence[str]],
        *,
        inputs: Sequence[str] | None = None,
        seed: int = 0,
        progress: OnProgress | None = None,
        batch_size: int | None = None,
        candidate_max_length: int | None = None,
        **options: Any,
    ) -> list[Fusion]:
        """Fuse the candidates of many instructions, in batches of rows of about the same length.

        Args:
            instructions: prompts or conversations.
            candidates: texts of each, best first; lists may differ in length.
            inputs: MixInstruct's second field of each; None leaves it empty.
            seed: of sampling.
            progress: called with the number of finished rows and of all rows.
            batch_size: rows per batch; None takes the fuser's own.
            candidate_max_length: most tokens of each candidate; None takes the fuser's own.
            **options: of ``model.generate``, over the fuser's own.

        Raises:
            InputError: the lists differ in length, an instruction has no candidates, a candidate is not a text, or an
                option is unknown.
            WorkError: the device has too little memory.
        """
        for what, number in (("batch_size", batch_size), ("candidate_max_length", candidate_max_length)):
            if number is not None and number < 1:
                raise InputError(f"{what} must be above zero, not {number}.")
        if options.get("num_return_sequences", 1) != 1:
            raise InputError("A fuser writes one answer to each instruction: leave num_return_sequences out.")
        rows = fuser_rows(instructions, candidates, inputs)
        prompts = [self._read(row, candidate_max_length) for row in rows]
        readable = sorted(
            (i for i, prompt in enumerate(prompts) if prompt is not None), key=lambda i: -len(_ids(prompts[i]))
        )
        size = batch_size or self.batch_size
        batches = [readable[start : start + size] for start in range(0, len(readable), size)]
        count, lock = [len(prompts) - len(readable)], threading.Lock()

        def done(more: int) -> None:
            with lock:
                count[0] += more
                if progress is not None:
                    progress(count[0], len(prompts))

        started, options = time.perf_counter(), {**self.options, **options}
        written = self._writers.write_batches(
            [[_ids(prompts[i]) for i in batch] for batch in batches], options, seed, done
        )
        each = (time.perf_counter() - started) / max(len(readable), 1)
        ids = dict(zip(chain(*batches), chain(*written), strict=True))
        return [
            self._fusion(row, prompt, ids.get(i, []), options, each)
            for i, (row, prompt) in enumerate(zip(rows, prompts, strict=True))
        ]

    def stream(
        self, instruction: Instruction, candidates: Sequence[str], *, input: str = "", seed: int = 0, **options: Any
    ) -> Iterator[str]:
        """Yield the text of `fuse` piece by piece while it is written; in one piece with beam search.

        Closing the iterator stops the writing.

        Raises:
            InputError: as for `fuse_many`, or two candidates do not fit into the prompt.
        """
        (row,) = fuser_rows([instruction], [candidates], [input])
        if (prompt := self._read(row)) is None:
            raise InputError(f"Nothing is fused: {_TOO_SMALL.format(length=self._max_length)}.")
        pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        stop = threading.Event()
        broken: list[BaseException] = []

        def write() -> None:
            try:
                self._write(prompt, {**self.options, **options}, seed, pieces.put, stop.is_set)
            except BaseException as error:
                broken.append(error)
            finally:
                pieces.put(None)

        thread = threading.Thread(target=write, name="gen-fuser", daemon=True)
        thread.start()
        try:
            while (piece := pieces.get()) is not None:
                yield piece
        finally:
            stop.set()
            thread.join()
        if broken:
            raise broken[0]

    async def _fuse(self, row: Row, seed: int, on_text: OnText | None) -> Fusion:
        loop, stop = asyncio.get_running_loop(), threading.Event()

        def send(piece: str) -> None:
            if on_text is not None and not stop.is_set():
                with suppress(RuntimeError):  # the loop is closed, and nothing reads the pieces
                    loop.call_soon_threadsafe(on_text, piece)

        def run() -> Fusion:
            prompt = self._read(row)
            started = time.perf_counter()
            ids = [] if prompt is None else self._write(prompt, self.options, seed, send, stop.is_set)
            return self._fusion(row, prompt, ids, self.options, time.perf_counter() - started)

        try:
            return await asyncio.to_thread(run)
        finally:
            stop.set()

    def _read(self, row: Row, candidate_max_length: int | None = None) -> Prompt | None:
        return self.prompts.prompt(row.instruction, row.input, row.candidates, candidate_max_length)

    def _write(
        self,
        prompt: Prompt,
        options: dict[str, Any],
        seed: int,
        on_text: Callable[[str], object],
        stopped: Callable[[], bool],
    ) -> list[int]:
        """Write one answer, and pass on its pieces."""
        stream = TextStream(lambda ids: self._text(prompt, ids, whole=False), on_text)
        by_token = not self._writers.seq2seq and options.get("num_beams", 1) == 1
        (ids,) = self._writers.write(
            [prompt.ids], options, seed=seed, streamer=stream if by_token else None, stopped=stopped
        )
        stream.advance(self._text(prompt, ids))
        return ids

    def _text(self, prompt: Prompt, ids: list[int], *, whole: bool = True) -> str:
        """Decode the answer without a reasoning model's thoughts; empty while tokens may still belong to them."""
        text = self._decode(ids, skip_special_tokens=True).strip()
        if not whole and _THOUGHTS[0].startswith(text):
            return ""
        if text.startswith(_THOUGHTS[0]) or self._decode(prompt.ids[-_TAIL:]).rstrip().endswith(_THOUGHTS[0]):
            text = text.partition(_THOUGHTS[1])[2].strip()
        return text

    def _decode(self, ids: list[int], *, skip_special_tokens: bool = False) -> str:
        decode = self._tokenizer.decode
        return str(decode(ids, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False))

    def _fusion(
        self, row: Row, prompt: Prompt | None, ids: list[int], options: Mapping[str, Any], seconds: float
    ) -> Fusion:
        if prompt is None:
            error = _TOO_SMALL.format(length=self._max_length)
            return Fusion("", self.name, flaw="too_small", error=error, truncated=1.0)
        text, most = self._text(prompt, ids), options.get("max_new_tokens")
        cut_off = most is not None and len(ids) >= most
        return Fusion(
            text=text,
            fuser=self.name,
            used=prompt.used,
            truncated=prompt.truncated,
            flaw=find_flaw(text, row.prompt, row.candidates, prompt.marks, cut_off=cut_off),
            usage=Usage(len(prompt.ids), len(ids)),
            seconds=seconds,
        )


def _ids(prompt: Prompt | None) -> list[int]:
    return [] if prompt is None else prompt.ids


class TextStream:
    """A streamer for ``model.generate`` that turns tokens into pieces of text.

    The pieces together are the whole text without white space around it.

    Args:
        decode: decodes all tokens so far to a text without white space around it.
        on_text: called with each piece.
    """

    def __init__(self, decode: Callable[[list[int]], str], on_text: Callable[[str], object]) -> None:
        self._decode, self._on_text = decode, on_text
        self._ids: list[int] = []
        self._sent = ""
        self._started = False

    def put(self, value: Any) -> None:
        """Receive the prompt in the first call, and one token in each later call."""
        if not self._started:
            self._started = True
            return
        self._ids += value.flatten().tolist()
        text = self._decode(self._ids)
        if not text.endswith(_HALF):
            self.advance(text)

    def end(self) -> None:
        """Do nothing at the end of the generation; `advance` passes on the rest."""

    def advance(self, text: str) -> None:
        """Pass on the new end of the text."""
        if len(text) > len(self._sent) and text.startswith(self._sent):
            self._on_text(text[len(self._sent) :])
            self._sent = text
