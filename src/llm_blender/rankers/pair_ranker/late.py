"""Backends and comparisons of a late-comparing PairRanker, which reads each text once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from llm_blender.rankers.batching import side_by_side, token_batches
from llm_blender.rankers.pair_ranker.backends import load_session, load_torch
from llm_blender.rankers.pair_ranker.config import PairRankerConfig
from llm_blender.rankers.pair_ranker.input_format import FittedTexts, PairBatch, PairSequence
from llm_blender.ranking import Advance, Pool

Reading = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""States ``[2 P, T, H]``, mask and segments ``[2 P, T]``, whole lengths ``[2 P]``: P left candidates, P right ones."""


class LateBackend(Protocol):
    """Backend in two steps: read batches of texts, then compare pairs of their states."""

    parallel: int
    """Number of batches that run at the same time, each called from its own thread."""

    def read(self, batch: PairBatch) -> NDArray[np.float32]:
        """Return the states ``[B, T, H]`` of sequences with one candidate each."""
        ...

    def compare(self, reading: Reading) -> NDArray[np.float32]:
        """Return logits ``[P, tasks]``."""
        ...


class LateOnnxBackend:
    """ONNX Runtime backend, on the two models of `export_onnx`.

    Raises:
        CheckpointError: a file is missing or holds another model.
    """

    parallel = 1

    def __init__(self, reader: Path, comparer: Path, *, threads: int | None = None) -> None:
        self._reader = load_session(reader, {"input_ids", "attention_mask"}, threads=threads)
        self._comparer = load_session(comparer, {"states", "attention_mask", "segment_ids", "lengths"}, threads=threads)

    def read(self, batch: PairBatch) -> NDArray[np.float32]:
        """Return states ``[B, T, H]``."""
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        (states,) = self._reader.run(["states"], inputs)
        return np.asarray(states, np.float32)

    def compare(self, reading: Reading) -> NDArray[np.float32]:
        """Return logits ``[P, tasks]``."""
        names = ("states", "attention_mask", "segment_ids", "lengths")
        (logits,) = self._comparer.run(["logits"], dict(zip(names, reading, strict=True)))
        return np.asarray(logits, np.float32)


class LateTorchBackend:
    """PyTorch backend; for arguments and errors see `TorchBackend`."""

    def __init__(self, folder: Path, config: PairRankerConfig, *, device: Any = None, dtype: str = "float32") -> None:
        self.model, self._replicas = load_torch(folder, config, device, dtype)
        self.parallel = self._replicas.parallel

    def read(self, batch: PairBatch) -> NDArray[np.float32]:
        """Return states ``[B, T, H]``, computed by the first free device."""
        return self._replicas(batch.input_ids, batch.attention_mask, method="encode")

    def compare(self, reading: Reading) -> NDArray[np.float32]:
        """Return logits ``[P, tasks]``, computed by the first free device."""
        return self._replicas(*reading)


_Text = tuple[int, int, int]
"""Numbers of an instruction and a candidate, and the whole candidate's length in tokens (`FittedTexts.text_key`)."""


class LateComparer:
    """Comparisons of the candidates of one call, over all rounds of its strategies.

    The model's logits change sign when the candidates change places, so each pair is computed once for both orders.

    Args:
        backend: runs the model.
        texts: of the call.
        pad_id: of the tokenizer.
        max_tokens: of a batch.
        kept: number of tokens whose states are kept; the default takes 100 MB at 384 floats each.
    """

    def __init__(
        self, backend: LateBackend, texts: FittedTexts, pad_id: int, max_tokens: int, *, kept: int = 65_536
    ) -> None:
        self.texts = texts
        self._backend, self._pad_id, self._max_tokens = backend, pad_id, max_tokens
        self._kept = kept
        self._states: OrderedDict[_Text, NDArray[np.float32]] = OrderedDict()
        self._sequences: dict[_Text, PairSequence] = {}

    def __call__(self, pool: Pool, advance: Advance) -> NDArray[np.float64]:
        """Return the logits of a pool of ordered pairs."""
        places: dict[tuple[_Text, _Text], list[tuple[int, int]]] = {}
        for number, (prompt, left, right) in enumerate(pool):
            pair = self._text(prompt, left), self._text(prompt, right)
            sign = 1 if pair[0] <= pair[1] else -1
            places.setdefault(pair if sign > 0 else pair[::-1], []).append((number, sign))
        logits = np.empty(len(pool))
        for pairs in self._chunks(places):
            self._read(text for pair in pairs for text in pair)
            for batch, values in self._compare(pairs):
                requests = [places[pairs[row]] for row in batch]
                for entries, value in zip(requests, values, strict=True):
                    for number, sign in entries:
                        logits[number] = sign * value
                advance(sum(map(len, requests)))
        return logits

    def _text(self, prompt: int, candidate: int) -> _Text:
        text = self.texts.text_key(prompt, candidate)
        if text not in self._sequences:
            self._sequences[text] = self.texts.alone(prompt, candidate)
        return text

    def _chunks(self, pairs: Iterable[tuple[_Text, _Text]]) -> Iterator[list[tuple[_Text, _Text]]]:
        """Split pairs, in order, into chunks whose texts' states fit into `kept` tokens."""
        chunk: list[tuple[_Text, _Text]] = []
        inside: set[_Text] = set()
        tokens = 0
        for pair in pairs:
            new = {text for text in pair if text not in inside}
            needed = sum(len(self._sequences[text]) for text in new)
            if chunk and tokens + needed > self._kept:
                yield chunk
                chunk, inside, tokens = [], set(), 0
                new = set(pair)
                needed = sum(len(self._sequences[text]) for text in new)
            chunk.append(pair)
            inside |= new
            tokens += needed
        if chunk:
            yield chunk

    def _read(self, texts: Iterable[_Text]) -> None:
        """Compute missing states of these texts; drop the least recently used ones that exceed `kept` tokens."""
        wanted = list(dict.fromkeys(texts))
        for text in wanted:
            if text in self._states:
                self._states.move_to_end(text)
        missing = [text for text in wanted if text not in self._states]
        kept = sum(map(len, self._states.values())) + sum(len(self._sequences[text]) for text in missing)
        for text in [text for text in self._states if text not in set(wanted)]:
            if kept > self._kept:
                kept -= len(self._states.pop(text))

        def run(batch: NDArray[np.intp]) -> None:
            rows = [missing[number] for number in batch]
            states = self._backend.read(PairBatch.pad([self._sequences[text] for text in rows], self._pad_id))
            for text, state in zip(rows, states, strict=True):
                self._states[text] = state[: len(self._sequences[text])].copy()

        lengths = [len(self._sequences[text]) for text in missing]
        for _ in side_by_side(run, token_batches(lengths, self._max_tokens), self._backend.parallel):
            pass

    def _compare(self, pairs: Sequence[tuple[_Text, _Text]]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        # Both sequences of a pair are padded to the longer one.
        lengths = [2 * max(len(self._sequences[text]) for text in pair) for pair in pairs]

        def run(batch: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
            rows = [pairs[number] for number in batch]
            reading = self._pad([left for left, _ in rows] + [right for _, right in rows])
            return batch, self._backend.compare(reading).mean(axis=-1)

        yield from side_by_side(run, token_batches(lengths, self._max_tokens), self._backend.parallel)

    def _pad(self, texts: Sequence[_Text]) -> Reading:
        batch = PairBatch.pad([self._sequences[text] for text in texts], self._pad_id)
        width = self._states[texts[0]].shape[-1]
        states = np.zeros((*batch.input_ids.shape, width), np.float32)
        for row, text in enumerate(texts):
            states[row, : len(self._sequences[text])] = self._states[text]
        whole = np.array([length for _, _, length in texts], np.int64)
        return states, batch.attention_mask, batch.segment_ids, whole
