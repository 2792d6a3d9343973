"""Text generation on one or several devices."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from llm_blender._torch import DevicePool
from llm_blender.errors import InputError, WorkError
from llm_blender.fusers.gen_fuser.loading import Loaded

_generators = threading.Lock()  # torch's belong to the process: batches that sample take turns


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's generators, and set them back afterwards."""
    with _generators, torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


class _Stop(StoppingCriteria):
    """A criterion that ends a batch as soon as `stopped` returns True."""

    def __init__(self, stopped: Callable[[], bool]) -> None:
        self._stopped = stopped

    def __call__(self, input_ids: torch.Tensor, scores: Any, **options: Any) -> Any:
        return torch.full((input_ids.shape[0],), self._stopped(), dtype=torch.bool, device=input_ids.device)


class Writers(DevicePool):
    """A fuser's model on one or several devices.

    Args:
        loaded: the model.
        device: see `DevicePool`.
        placed: True if the model is on its device already.

    Raises:
        InputError: there is no such device.
    """

    def __init__(self, loaded: Loaded, device: Any, *, placed: bool = False) -> None:
        super().__init__(loaded.model, device, placed=placed)
        self.seq2seq = loaded.seq2seq

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        options: Mapping[str, Any],
        *,
        seed: int = 0,
        streamer: Any = None,
        stopped: Callable[[], bool] | None = None,
    ) -> list[list[int]]:
        """Write the answers to a batch of prompts, as tokens, on the first free device.

        Args:
            prompts: tokens of each.
            options: of ``model.generate``.
            seed: of sampling.
            streamer: for one causal prompt; gets the prompt, then each token.
            stopped: called after each token; the batch ends when it returns True.

        Raises:
            WorkError: the device has too little memory.
            InputError: ``model.generate`` refuses the options.
        """
        with self.free() as model:
            try:
                return self._write(model, prompts, dict(options), seed, streamer, stopped)
            except torch.OutOfMemoryError as error:
                raise WorkError(
                    f"The fuser needs more memory than {model.device} has: lower batch_size or max_length."
                ) from error

    def write_batches(
        self,
        batches: Sequence[Sequence[Sequence[int]]],
        options: Mapping[str, Any],
        seed: int,
        done: Callable[[int], None],
    ) -> list[list[list[int]]]:
        """Write many batches on all devices; call `done` with the size of each finished batch."""

        def run(batch: Sequence[Sequence[int]]) -> list[list[int]]:
            written = self.write(batch, options, seed=seed)
            done(len(batch))
            return written

        if self.parallel == 1:
            return [run(batch) for batch in batches]
        with ThreadPoolExecutor(self.parallel, thread_name_prefix="gen-fuser") as pool:
            return list(pool.map(run, batches))

    def _write(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        options: dict[str, Any],
        seed: int,
        streamer: Any,
        stopped: Callable[[], bool] | None,
    ) -> list[list[int]]:
        pad = model.generation_config.pad_token_id
        width = max(map(len, prompts))
        ids = torch.full((len(prompts), width), pad, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            # A causal LLM continues its prompt, so its padding goes before it.
            place = slice(0, len(prompt)) if self.seq2seq else slice(width - len(prompt), width)
            ids[row, place], mask[row, place] = torch.tensor(list(prompt)), 1
        if stopped is not None:
            options["stopping_criteria"] = StoppingCriteriaList([_Stop(stopped)])
        with torch.inference_mode(), _seeded(seed) if options.get("do_sample") else nullcontext():
            try:
                output = model.generate(
                    input_ids=ids.to(model.device), attention_mask=mask.to(model.device), streamer=streamer, **options
                )
            except (TypeError, ValueError) as error:
                raise InputError(f"The fuser cannot write so: {' '.join(str(error).split())}") from error
        start = 1 if self.seq2seq else width
        return [self._until_end(model, row[start:].tolist()) for row in output]

    @staticmethod
    def _until_end(model: Any, ids: list[int]) -> list[int]:
        end = model.generation_config.eos_token_id
        ends = set(end if isinstance(end, list) else [end])
        return next((ids[:i] for i, token in enumerate(ids) if token in ends), ids)
