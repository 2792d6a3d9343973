"""Backends of the PairRanker, ONNX Runtime (core) and torch (extra): functions from a batch to logits."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llm_blender.errors import CheckpointError, InputError, MissingExtraError
from llm_blender.rankers.batching import check_max_tokens, side_by_side, token_batches
from llm_blender.rankers.optimised_models import open_session
from llm_blender.rankers.pair_ranker.config import PairRankerConfig
from llm_blender.rankers.pair_ranker.input_format import FittedTexts, PairBatch
from llm_blender.ranking import Advance, Pool

if TYPE_CHECKING:
    from llm_blender.rankers._torch import Loading, Replicas
    from llm_blender.rankers.pair_ranker.modeling import AnyPairRanker


class Backend(Protocol):
    """Function from a batch to logits."""

    parallel: int
    """Number of batches that run at the same time, each called from its own thread."""

    ahead: int
    """Number of batches to begin before the result of an earlier one is awaited, see `side_by_side`."""

    def __call__(self, batch: PairBatch) -> ArrayLike:
        """Return logits ``[B, tasks]``, as an array or what `numpy.asarray` makes one of."""
        ...


class OnnxModel(Protocol):
    """Model in ONNX that some library runs."""

    def run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]], /) -> Sequence[NDArray[Any]]:
        """Return these outputs; any thread may call it."""
        ...


class LoadModel(Protocol):
    """Function that loads an `OnnxModel`, such as `load_session`."""

    def __call__(self, path: Path, inputs: set[str], /, *, threads: int | None, parallel: int = 1) -> OnnxModel:
        """Load the model at a path.

        Args:
            path: the file.
            inputs: names that the model's inputs must have.
            threads: of one call; None takes those of `available_processors`.
            parallel: number of calls at the same time.

        Raises:
            CheckpointError: the file is not an ONNX model, or has other inputs.
        """
        ...


class OnnxBackend:
    """ONNX Runtime backend.

    Args:
        path: the model.
        threads: number of threads; None takes those of `available_processors`.
        providers: ONNX Runtime's execution providers, e.g. ``["CUDAExecutionProvider"]``.
        load: `load_session`, or another function that loads the model.

    Raises:
        CheckpointError: the file is not a PairRanker in ONNX.
    """

    parallel, ahead = 1, 0

    def __init__(
        self,
        path: Path,
        *,
        threads: int | None = None,
        providers: list[str] | None = None,
        load: LoadModel | None = None,
    ) -> None:
        wanted = {"input_ids", "attention_mask", "segment_ids"}
        load = load or partial(load_session, providers=providers)
        self._session = load(path, wanted, threads=threads)

    def __call__(self, batch: PairBatch) -> NDArray[np.float32]:
        """Return logits ``[B, tasks]``."""
        (logits,) = self._session.run(["logits"], vars(batch))
        return np.asarray(logits, np.float32)


def load_session(
    path: Path,
    inputs: set[str],
    /,
    *,
    threads: int | None = None,
    parallel: int = 1,
    providers: list[str] | None = None,
) -> Any:
    """Load an `onnxruntime.InferenceSession`, optimised in an earlier process or now; for arguments see `LoadModel`.

    Raises:
        CheckpointError: the file is not an ONNX model, or has other inputs.
    """
    import onnxruntime

    def make_options() -> Any:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads or available_processors()
        # Batches come in all lengths; a memory plan for each shape would grow and rarely be used again.
        options.enable_mem_pattern = False
        # Idle threads wait instead of spinning, which takes the processor from other work, such as another session's.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return options

    try:
        session = open_session(path, make_options, providers)
    except Exception as error:  # ONNX Runtime has no specific error for this
        raise CheckpointError(f"{path} cannot be loaded as an ONNX model: {error}") from error
    _check_inputs(path, {value.name for value in session.get_inputs()}, inputs)
    _sessions.add(session)
    return session


def _check_inputs(path: Path, names: set[str], wanted: set[str]) -> None:
    if names != wanted:
        raise CheckpointError(
            f"{path} is not this PairRanker: its inputs are {', '.join(sorted(names))}. "
            "Write it again with `blend export`."
        )


class OpenVinoModel:
    """Model in ONNX that OpenVINO runs on the CPU; `LoadModel` describes the arguments.

    Args:
        precision: of the computation, ``f32`` or ``bf16``.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """

    def __init__(
        self, path: Path, inputs: set[str], /, *, threads: int | None = None, parallel: int = 1, precision: str = "f32"
    ) -> None:
        try:
            import openvino
        except ModuleNotFoundError as error:
            raise MissingExtraError("The openvino backend", "openvino") from error
        with _first_use:  # two threads that map an element type for the first time wait for each other for ever
            openvino.Type.i64.to_dtype()
        options = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": parallel * (threads or available_processors()),
            "NUM_STREAMS": parallel,
        }
        try:
            model = openvino.Core().compile_model(path, "CPU", options)
        except RuntimeError as error:
            raise CheckpointError(f"{path} cannot be loaded as an ONNX model: {error}") from error
        _check_inputs(path, {value.any_name for value in model.inputs}, inputs)
        self._model, self._requests = model, threading.local()

    def run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]], /) -> list[NDArray[Any]]:
        """Return these outputs; each thread has a request of its own."""
        request = getattr(self._requests, "request", None)
        if request is None:
            request = self._requests.request = self._model.create_infer_request()
        found = request.infer(inputs, share_inputs=True)
        return [found[name].copy() for name in outputs]


_first_use = threading.Lock()
# Closing a session waits for its threads, which a forked process lacks: there, sessions are never closed.
_sessions: weakref.WeakSet[Any] = weakref.WeakSet()
_of_parent: list[Any] = []
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=lambda: _of_parent.extend(_sessions))


class TorchBackend:
    """PyTorch backend, on one or several devices.

    Args:
        folder: the checkpoint, with its weights.
        config: of the checkpoint.
        device: e.g. ``cpu``, ``cuda:1``, ``mps``, or several devices (``cuda:0,cuda:1``, or a list), each with a copy
            of the model and a part of the batches; None takes CUDA if available, else the CPU.
        dtype: ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        MissingExtraError: torch is not installed.
        InputError: there is no such device or dtype.
        CheckpointError: the weights are missing or do not fit the model.
    """

    def __init__(self, folder: Path, config: PairRankerConfig, *, device: Any = None, dtype: str = "float32") -> None:
        self.model, self._replicas = load_torch(folder, config, device, dtype)
        self.parallel, self.ahead = self._replicas.parallel, self._replicas.ahead

    def __call__(self, batch: PairBatch) -> ArrayLike:
        """Return logits ``[B, tasks]``, computed by the first free device."""
        return self._replicas(batch.input_ids, batch.attention_mask, batch.segment_ids)


def load_torch(folder: Path, config: PairRankerConfig, device: Any, dtype: str) -> tuple[AnyPairRanker, Replicas]:
    """Load a checkpoint's module and its `Replicas`; for the arguments see `TorchBackend`.

    Raises:
        MissingExtraError: torch is not installed.
        InputError: there is no such device or dtype.
        CheckpointError: the weights are missing or do not fit the model.
    """
    try:
        from llm_blender.rankers._torch import Replicas, load_module
        from llm_blender.rankers.pair_ranker.modeling import make_model

        model = load_module(folder, lambda: make_model(config))
    except ModuleNotFoundError as error:
        raise MissingExtraError("The torch backend", "torch") from error
    return model, Replicas(model, device=device, dtype=dtype)


def torch_loading(backend: str | None, device: Any, dtype: Any, max_tokens: int | None) -> Loading | None:
    """Check the options of the torch backend; None where neither they nor `backend` choose it.

    Raises:
        MissingExtraError: torch is not installed.
        InputError: an option is unknown or for another backend, or there is no such device.
    """
    for name, value in (("device", device), ("dtype", dtype)):
        if value is not None and backend not in (None, "torch"):
            raise InputError(f"The {name} {value!r} is for the torch backend: omit it, or use that backend.")
    check_max_tokens(max_tokens)
    if backend != "torch" and device is None and dtype is None:
        return None
    try:
        from llm_blender.rankers._torch import Loading
    except ModuleNotFoundError as error:
        raise MissingExtraError("The torch backend", "torch") from error
    return Loading.of(device=device, dtype=dtype, max_tokens=max_tokens)


def one_at_a_time(backend: str) -> InputError:
    """Make the error for batches where a backend computes one text or pair at a time."""
    return InputError(f"The {backend} backend computes one text at a time: max_tokens needs a device, or torch.")


def available_processors() -> int:
    """Return the number of processors available to this process, or ``OMP_NUM_THREADS``, as torch does.

    Ray sets it for each of its actors.
    """
    limit = os.environ.get("OMP_NUM_THREADS", "")
    if limit.isdecimal() and int(limit) > 0:
        return int(limit)
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS or Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class PairComparer:
    """Comparisons of the candidates of one call; pairs with the same sequence are computed once.

    Args:
        backend: runs the model.
        texts: of the call.
        pad_id: of the tokenizer.
        max_tokens: of a batch.
    """

    def __init__(self, backend: Backend, texts: FittedTexts, pad_id: int, max_tokens: int) -> None:
        self.texts = texts
        self._backend, self._pad_id, self._max_tokens = backend, pad_id, max_tokens

    def __call__(self, pool: Pool, advance: Advance) -> NDArray[np.float64]:
        """Return the logits of a pool of ordered pairs, of any number and order."""
        places: dict[tuple[int, int, int], list[int]] = {}
        for number, pair in enumerate(pool):
            places.setdefault(self.texts.key(*pair), []).append(number)
        rows_of = list(places.values())
        lengths = [self.texts.length(*pool[first]) for first, *_ in rows_of]
        batches = list(token_batches(lengths, self._max_tokens))
        costs = [lengths[batch[0]] * len(batch) for batch in batches]  # tokens: the first is the longest
        logits = np.empty(len(pool))

        def begin(number: int) -> Callable[[], int]:
            rows = [rows_of[row] for row in batches[number]]
            padded = PairBatch.pad([self.texts.sequence(*pool[first]) for first, *_ in rows], self._pad_id)
            values = self._backend(padded)

            def end() -> int:
                for same, logit in zip(rows, np.asarray(values).mean(axis=-1), strict=True):
                    logits[same] = logit
                return number

            return end

        for number in side_by_side(begin, range(len(batches)), self._backend.parallel, self._backend.ahead):
            advance(len(pool) * costs[number] / sum(costs))
        return logits
