"""Backends and comparisons of a late-comparing PairRanker, which reads each text once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from llm_blender.rankers.batching import side_by_side, token_batches
from llm_blender.rankers.pair_ranker.backends import LoadModel, available_processors, load_session, load_torch
from llm_blender.rankers.pair_ranker.config import PairRankerConfig
from llm_blender.rankers.pair_ranker.input_format import LEFT, SOURCE, FittedTexts, PairBatch, PairSequence
from llm_blender.ranking import Advance, Pool


@dataclass(frozen=True)
class ReadText:
    """An instruction with one candidate, as a `LateBackend` read it.

    Attributes:
        sequence: what the model reads.
        length: of the whole candidate, in tokens.
        reading: what the backend keeps of it.
    """

    sequence: PairSequence
    length: int
    reading: Any


class LateBackend(Protocol):
    """Backend in two steps: read texts, then compare pairs of what was read."""

    parallel: int
    """Number of batches that run at the same time, each called from its own thread."""
    singly: bool
    """Whether a batch of one is best."""

    def read(self, sequences: Sequence[PairSequence]) -> list[Any]:
        """Return the reading of each sequence, which holds one candidate."""
        ...

    def compare(self, pairs: Sequence[tuple[ReadText, ReadText]]) -> NDArray[np.float32]:
        """Return logits ``[P, tasks]``."""
        ...


READINGS = ("states", "query", "key", "value")
"""Outputs of the reader in ONNX, ``[1, T, …]`` each (`llm_blender.rankers.pair_ranker.late_onnx`)."""
COMPARER_INPUTS = (*(f"{side}_{name}" for side in ("left", "right") for name in READINGS), "sides", "means", "lengths")
"""Inputs of the comparer in ONNX."""


class LateOnnxBackend:
    """ONNX Runtime backend, on the two models of `export_onnx`: one text or pair at a time in each thread.

    Without neighbours there is no padding, and a result cannot depend on them, nor on the number of threads.

    Args:
        reader: the model that reads a text.
        comparer: the model that compares two.
        threads: number of threads; None takes all processors available to this process.
        load: `load_session`, or another function that loads a model.

    Raises:
        CheckpointError: a file is missing or holds another model.
    """

    singly = True

    def __init__(
        self, reader: Path, comparer: Path, *, threads: int | None = None, load: LoadModel = load_session
    ) -> None:
        self.parallel = threads or available_processors()
        self._reader = load(reader, {"input_ids"}, threads=1, parallel=self.parallel)
        self._comparer = load(comparer, set(COMPARER_INPUTS), threads=1, parallel=self.parallel)

    def read(self, sequences: Sequence[PairSequence]) -> list[Any]:
        """Return the `READINGS` of each sequence."""
        return [self._reader.run(READINGS, {"input_ids": np.array([sequence.ids])}) for sequence in sequences]

    def compare(self, pairs: Sequence[tuple[ReadText, ReadText]]) -> NDArray[np.float32]:
        """Return logits ``[P, tasks]``."""
        return np.concatenate([self._logits(*pair) for pair in pairs])

    def _logits(self, left: ReadText, right: ReadText) -> NDArray[np.float32]:
        start, end = len(left.sequence), len(left.sequence) + len(right.sequence)
        sides = np.ones((1, end, 1), np.float32)
        sides[:, start:] = -1
        means = np.zeros((4, end), np.float32)
        for text, rows, columns in ((left, means[:2], slice(start)), (right, means[2:], slice(start, end))):
            for row, segment in zip(rows, (SOURCE, LEFT), strict=True):
                chosen = np.asarray(text.sequence.segments) == segment
                row[columns] = chosen / max(1, chosen.sum())
        lengths = np.array([[left.length], [right.length]], np.float32)
        inputs = (*left.reading, *right.reading, sides, means, lengths)
        (logits,) = self._comparer.run(["logits"], dict(zip(COMPARER_INPUTS, inputs, strict=True)))
        return np.asarray(logits, np.float32)


class LateTorchBackend:
    """PyTorch backend; for arguments and errors see `TorchBackend`."""

    singly = False

    def __init__(self, folder: Path, config: PairRankerConfig, *, device: Any = None, dtype: str = "float32") -> None:
        self.model, self._replicas = load_torch(folder, config, device, dtype)
        self.parallel = self._replicas.parallel

    def read(self, sequences: Sequence[PairSequence]) -> list[Any]:
        """Return the states ``[T, H]`` of each sequence, computed by the first free device."""
        batch = PairBatch.pad(sequences)
        states = self._replicas(batch.input_ids, batch.attention_mask, method="encode")
        return [state[: len(sequence)].copy() for state, sequence in zip(states, sequences, strict=True)]

    def compare(self, pairs: Sequence[tuple[ReadText, ReadText]]) -> NDArray[np.float32]:
        """Return logits ``[P, tasks]``, computed by the first free device."""
        texts = [left for left, _ in pairs] + [right for _, right in pairs]
        batch = PairBatch.pad([text.sequence for text in texts])
        states = np.zeros((*batch.input_ids.shape, texts[0].reading.shape[-1]), np.float32)
        for row, text in zip(states, texts, strict=True):
            row[: len(text.sequence)] = text.reading
        lengths = np.array([text.length for text in texts], np.int64)
        return self._replicas(states, batch.attention_mask, batch.segment_ids, lengths)


KEPT_TOKENS = 32_768
"""Tokens whose readings a `LateComparer` keeps: 200 MB of the bundled ranker, at 1,560 floats each."""

_Text = tuple[int, int, int]
"""Numbers of an instruction and a candidate, and the whole candidate's length in tokens (`FittedTexts.text_key`)."""


class LateComparer:
    """Comparisons of the candidates of one call, over all rounds of its strategies.

    The model's logits change sign when the candidates change places, so each pair is computed once for both orders.

    Args:
        backend: runs the model.
        texts: of the call.
        max_tokens: of a batch, if the backend takes more than one text or pair.
        kept: number of tokens whose readings are kept.
    """

    def __init__(self, backend: LateBackend, texts: FittedTexts, max_tokens: int, *, kept: int = KEPT_TOKENS) -> None:
        self.texts = texts
        self._backend, self._max_tokens = backend, 1 if backend.singly else max_tokens
        self._kept = kept
        self._read_texts: OrderedDict[_Text, ReadText] = OrderedDict()
        self._sequences: dict[_Text, PairSequence] = {}

    def __call__(self, pool: Pool, advance: Advance) -> NDArray[np.float64]:
        """Return the logits of a pool of ordered pairs."""
        places: dict[tuple[_Text, _Text], list[tuple[int, int]]] = {}
        for number, (prompt, left, right) in enumerate(pool):
            pair = self._text(prompt, left), self._text(prompt, right)
            # By what the texts are: so even the last bit does not depend on the order of the candidates.
            first, second = ((self._sequences[text].ids, text[-1]) for text in pair)
            sign = 1 if first <= second else -1
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
        """Read those of these texts that are missing; drop the least recently used ones that exceed `kept` tokens."""
        wanted = dict.fromkeys(texts)
        for text in wanted:
            if text in self._read_texts:
                self._read_texts.move_to_end(text)
        missing = [text for text in wanted if text not in self._read_texts]
        kept = sum(len(self._sequences[text]) for text in (*self._read_texts, *missing))
        for text in [text for text in self._read_texts if text not in wanted]:
            if kept > self._kept:
                kept -= len(self._read_texts.pop(text).sequence)

        def run(batch: NDArray[np.intp]) -> None:
            rows = [missing[number] for number in batch]
            sequences = [self._sequences[text] for text in rows]
            for text, sequence, reading in zip(rows, sequences, self._backend.read(sequences), strict=True):
                self._read_texts[text] = ReadText(sequence, text[-1], reading)

        lengths = [len(self._sequences[text]) for text in missing]
        for _ in side_by_side(run, token_batches(lengths, self._max_tokens), self._backend.parallel):
            pass

    def _compare(self, pairs: Sequence[tuple[_Text, _Text]]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        # A batch pads both sequences of a pair to the longer one.
        lengths = [2 * max(len(self._sequences[text]) for text in pair) for pair in pairs]

        def run(batch: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
            rows = [(self._read_texts[left], self._read_texts[right]) for left, right in map(pairs.__getitem__, batch)]
            return batch, self._backend.compare(rows).mean(axis=-1)

        yield from side_by_side(run, token_batches(lengths, self._max_tokens), self._backend.parallel)
