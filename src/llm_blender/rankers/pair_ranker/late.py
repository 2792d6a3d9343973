"""Backends and comparisons of a late-comparing PairRanker, which reads each text once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llm_blender.rankers.batching import in_lanes, in_turn, side_by_side, token_batches
from llm_blender.rankers.pair_ranker.backends import LoadModel, available_processors, load_session, load_torch
from llm_blender.rankers.pair_ranker.config import PairRankerConfig
from llm_blender.rankers.pair_ranker.input_format import LEFT, SOURCE, FittedTexts, PairBatch, PairSequence
from llm_blender.ranking import Advance, Pool

_T = TypeVar("_T")


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
    devices: int
    """Number of devices with a memory of their own, which keep what they read."""
    ahead: int
    """Number of batches to begin before the result of an earlier one is awaited, see `side_by_side`."""

    def read(self, sequences: Sequence[PairSequence], device: int = 0, /) -> list[Any]:
        """Return the reading of each sequence, which holds one candidate, by one of the devices."""
        ...

    def move(self, reading: Any, device: int, /) -> Any:
        """Copy a reading to another device."""
        ...

    def compare(self, pairs: Sequence[tuple[ReadText, ReadText]], device: int = 0, /) -> ArrayLike:
        """Return logits ``[P, tasks]`` by one of the devices, as an array or what `numpy.asarray` makes one of."""
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
        threads: number of threads; None takes those of `available_processors`.
        load: `load_session`, or another function that loads a model.

    Raises:
        CheckpointError: a file is missing or holds another model.
    """

    singly, devices, ahead = True, 1, 0

    def __init__(
        self, reader: Path, comparer: Path, *, threads: int | None = None, load: LoadModel = load_session
    ) -> None:
        self.parallel = threads or available_processors()
        self._reader = load(reader, {"input_ids"}, threads=1, parallel=self.parallel)
        self._comparer = load(comparer, set(COMPARER_INPUTS), threads=1, parallel=self.parallel)

    def read(self, sequences: Sequence[PairSequence], device: int = 0, /) -> list[Any]:
        """Return the `READINGS` of each sequence."""
        return [self._reader.run(READINGS, {"input_ids": np.array([sequence.ids])}) for sequence in sequences]

    def move(self, reading: Any, device: int, /) -> Any:
        """Return the reading, as there is one memory."""
        return reading

    def compare(self, pairs: Sequence[tuple[ReadText, ReadText]], device: int = 0, /) -> NDArray[np.float32]:
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
    """PyTorch backend; for arguments and errors see `TorchBackend`. States stay on the device that read them."""

    singly = False

    def __init__(self, folder: Path, config: PairRankerConfig, *, device: Any = None, dtype: str = "float32") -> None:
        self.model, self._replicas = load_torch(folder, config, device, dtype)
        self.parallel = self.devices = self._replicas.parallel
        self.ahead = self._replicas.ahead

    def read(self, sequences: Sequence[PairSequence], device: int = 0, /) -> list[Any]:
        """Return the states ``[T, H]`` of each sequence, tensors on the device."""
        batch = PairBatch.pad(sequences)
        states = self._replicas.run(batch.input_ids, batch.attention_mask, method="encode", number=device)
        return [state[: len(sequence)].clone() for state, sequence in zip(states, sequences, strict=True)]

    def move(self, reading: Any, device: int, /) -> Any:
        """Copy states to another device."""
        return reading.to(self._replicas.devices[device])

    def compare(self, pairs: Sequence[tuple[ReadText, ReadText]], device: int = 0, /) -> ArrayLike:
        """Return logits ``[P, tasks]``."""
        from torch.nn.utils.rnn import pad_sequence

        texts = [left for left, _ in pairs] + [right for _, right in pairs]
        batch = PairBatch.pad([text.sequence for text in texts])
        states = pad_sequence([text.reading for text in texts], batch_first=True)
        lengths = np.array([text.length for text in texts], np.int64)
        return self._replicas(states, batch.attention_mask, batch.segment_ids, lengths, number=device)


KEPT_TOKENS = 32_768
"""Tokens whose readings a device keeps at least: 200 MB of the bundled ranker in ONNX, at 1,560 floats each."""
_KEPT_BATCHES = 8
"""Batches whose readings a device keeps, where these are more tokens: enough for full batches of their pairs."""


def kept_tokens(backend: LateBackend, max_tokens: int) -> int:
    """Return the number of tokens whose readings each device of a backend keeps, with batches of this size."""
    return KEPT_TOKENS if backend.singly else max(KEPT_TOKENS, _KEPT_BATCHES * max_tokens)


_Text = tuple[int, int, int]
"""Numbers of an instruction and a candidate, and the whole candidate's length in tokens (`FittedTexts.text_key`)."""
_Pair = tuple[_Text, _Text]


class LateComparer:
    """Comparisons of the candidates of one call, over all rounds of its strategies.

    The model's logits change sign when the candidates change places, so each pair is computed once for both orders.
    Several devices share the texts, those of a prompt side by side; a pair is compared where its texts were read. If
    they were read on two devices, the one with less work compares it, and the other text's states are copied there
    once.

    Args:
        backend: runs the model.
        texts: of the call.
        max_tokens: of a batch, if the backend takes more than one text or pair.
        layers: number of layers that read, and of those that compare: the cost of a token in each.
        kept: number of tokens whose readings a device keeps; copies for pairs of two devices come on top until the
            next round. None is what `kept_tokens` returns.
    """

    def __init__(
        self,
        backend: LateBackend,
        texts: FittedTexts,
        max_tokens: int,
        *,
        layers: tuple[int, int] = (1, 1),
        kept: int | None = None,
    ) -> None:
        self.texts = texts
        self._backend, self._max_tokens, self._layers = backend, 1 if backend.singly else max_tokens, layers
        self._kept = kept_tokens(backend, max_tokens) if kept is None else kept
        self._read_texts: list[OrderedDict[_Text, ReadText]] = [OrderedDict() for _ in range(backend.devices)]
        self._sequences: dict[_Text, PairSequence] = {}

    def __call__(self, pool: Pool, advance: Advance) -> NDArray[np.float64]:
        """Return the logits of a pool of ordered pairs."""
        places: dict[_Pair, list[tuple[int, int]]] = {}
        for number, (prompt, left, right) in enumerate(pool):
            pair = self._text(prompt, left), self._text(prompt, right)
            # By what the texts are: so even the last bit does not depend on the order of the candidates.
            first, second = ((self._sequences[text].ids, text[-1]) for text in pair)
            sign = 1 if first <= second else -1
            places.setdefault(pair if sign > 0 else pair[::-1], []).append((number, sign))
        chunks = list(self._chunks(places))
        reading, comparing = self._costs(chunks)
        work = reading + comparing

        def report(cost: int) -> None:
            advance(len(pool) * cost / work, reading / work)

        logits = np.empty(len(pool))
        for pairs in chunks:
            self._read(dict.fromkeys(text for pair in pairs for text in pair), report)
            for numbers, values in self._compare(pairs, report):
                for number, value in zip(numbers, values, strict=True):
                    for place, sign in places[pairs[number]]:
                        logits[place] = sign * value
        return logits

    def _text(self, prompt: int, candidate: int) -> _Text:
        text = self.texts.text_key(prompt, candidate)
        if text not in self._sequences:
            self._sequences[text] = self.texts.alone(prompt, candidate)
        return text

    def _width(self, pair: _Pair) -> int:
        """Return the tokens of a pair in a batch, which pads both sequences to the longer one."""
        return 2 * max(len(self._sequences[text]) for text in pair)

    def _chunks(self, pairs: Iterable[_Pair]) -> Iterator[list[_Pair]]:
        """Split pairs, in order, into chunks whose texts' states fit into what all devices keep."""
        most = self._kept * self._backend.devices
        chunk: list[_Pair] = []
        inside: set[_Text] = set()
        tokens = 0
        for pair in pairs:
            new = {text for text in pair if text not in inside}
            needed = sum(len(self._sequences[text]) for text in new)
            if chunk and tokens + needed > most:
                yield chunk
                chunk, inside, tokens = [], set(), 0
                new = set(pair)
                needed = sum(len(self._sequences[text]) for text in new)
            chunk.append(pair)
            inside |= new
            tokens += needed
        if chunk:
            yield chunk

    def _costs(self, chunks: Sequence[Sequence[_Pair]]) -> tuple[int, int]:
        """Estimate the cost of reading and of comparing chunks: tokens times layers."""
        known = set().union(*self._read_texts)
        reading = comparing = 0
        for pairs in chunks:
            wanted = {text for pair in pairs for text in pair}
            reading += self._cost([len(self._sequences[text]) for text in wanted - known], 0)
            comparing += self._cost([self._width(pair) for pair in pairs], 1)
            known = wanted
        return reading, comparing

    def _cost(self, widths: Sequence[int], part: int) -> int:
        return self._layers[part] * sum(widths)

    def _read(self, wanted: Mapping[_Text, None], report: Callable[[int], None]) -> None:
        """Read those of these texts that are missing; drop the least recently used ones that exceed `kept` tokens."""
        missing = [text for text in wanted if not any(text in known for known in self._read_texts)]
        lanes = self._shares(missing)
        for known, new in zip(self._read_texts, lanes, strict=True):
            for text in wanted:
                if text in known:
                    known.move_to_end(text)
            kept = sum(len(self._sequences[text]) for text in (*known, *new))
            for text in [text for text in known if text not in wanted]:
                if kept > self._kept:
                    kept -= len(known.pop(text).sequence)

        def begin(device: int, batch: NDArray[np.intp]) -> Callable[[], NDArray[np.intp]]:
            rows = [lanes[device][number] for number in batch]
            sequences = [self._sequences[text] for text in rows]
            readings = self._backend.read(sequences, device)
            for text, sequence, reading in zip(rows, sequences, readings, strict=True):
                self._read_texts[device][text] = ReadText(sequence, text[-1], reading)
            return lambda: batch

        widths = [[len(self._sequences[text]) for text in lane] for lane in lanes]
        for device, batch in self._run(begin, widths):
            report(self._cost([widths[device][number] for number in batch], 0))

    def _shares(self, texts: Sequence[_Text]) -> list[Sequence[_Text]]:
        """Split texts, in order, into a share for each device with about as many tokens."""
        if self._backend.devices == 1:
            return [texts]
        tokens = np.cumsum([0, *(len(self._sequences[text]) for text in texts)])
        cuts = np.searchsorted(tokens, np.linspace(0, tokens[-1], self._backend.devices + 1))
        return [texts[start:end] for start, end in pairwise(cuts)]

    def _compare(
        self, pairs: Sequence[_Pair], report: Callable[[int], None]
    ) -> Iterator[tuple[Sequence[int], NDArray[np.float32]]]:
        """Yield numbers of pairs with their logits."""
        lanes = self._homes(pairs)
        widths = [[self._width(pairs[number]) for number in lane] for lane in lanes]

        def begin(device: int, batch: NDArray[np.intp]) -> Callable[[], tuple[NDArray[np.intp], NDArray[np.float32]]]:
            known = self._read_texts[device]
            rows = [(known[left], known[right]) for left, right in (pairs[lanes[device][number]] for number in batch)]
            logits = self._backend.compare(rows, device)
            return lambda: (batch, np.asarray(logits).mean(axis=-1))

        for device, (batch, values) in self._run(begin, widths):
            report(self._cost([widths[device][number] for number in batch], 1))
            yield [lanes[device][number] for number in batch], values

    def _homes(self, pairs: Sequence[_Pair]) -> list[Sequence[int]]:
        """Choose the device of each pair, and copy states there that it lacks; return the pairs of each device."""
        if self._backend.devices == 1:
            return [range(len(pairs))]
        lanes: list[list[int]] = [[] for _ in self._read_texts]
        load = [0] * len(lanes)
        apart = []
        for number, pair in enumerate(pairs):
            whole = [device for device, known in enumerate(self._read_texts) if all(text in known for text in pair)]
            if whole:
                lanes[whole[0]].append(number)
                load[whole[0]] += self._width(pair)
            else:
                apart.append(number)
        for number in apart:
            pair = pairs[number]
            holders = [device for device, known in enumerate(self._read_texts) if any(text in known for text in pair)]
            home = min(holders, key=load.__getitem__)
            lanes[home].append(number)
            load[home] += self._width(pair)
            for text in pair:
                if text not in self._read_texts[home]:
                    there = next(known[text] for known in self._read_texts if text in known)
                    moved = self._backend.move(there.reading, home)
                    self._read_texts[home][text] = replace(there, reading=moved)
        return list(lanes)

    def _run(
        self, begin: Callable[[int, NDArray[np.intp]], Callable[[], _T]], widths: Sequence[Sequence[int]]
    ) -> Iterator[tuple[int, _T]]:
        """Run batches of the rows of each device, and yield each result with its device."""
        backend = self._backend

        def results(device: int) -> Iterator[tuple[int, _T]]:
            batches = token_batches(widths[device], self._max_tokens)
            start = partial(begin, device)
            ordered = (
                side_by_side(start, batches, backend.parallel, backend.ahead)
                if backend.devices == 1
                else in_turn(start, batches, backend.ahead)
            )
            return ((device, result) for result in ordered)

        yield from in_lanes(results, backend.devices)
