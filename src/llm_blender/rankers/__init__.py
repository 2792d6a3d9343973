"""Rankers: pairwise and pointwise models, LLM judges and heuristics behind one interface."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, overload

from llm_blender.errors import CheckpointError, InputError, MissingExtraError, NotFoundError, nearest
from llm_blender.types import Ranker

if TYPE_CHECKING:
    from llm_blender.rankers.heuristics import Heuristic
    from llm_blender.rankers.pair_ranker import PairRanker
    from llm_blender.rankers.pointwise import PointwiseRanker

__all__ = ["as_ranker", "load_ranker"]

Backend = Literal["onnx", "openvino", "torch"]
Precision = Literal["int8", "fp32", "bf16"]

TORCH_RANKERS = {
    "MLMScoring": "mlm_scoring",
    "RewardModel": "reward_model",
    "SimCLS": "simcls",
    "SummaReranker": "summa_reranker",
}
"""Modules of the rankers that need the extra ``torch``, by class name."""

_MLM = "mlm:"
_CLASS_OF = {
    "summareranker": "SummaReranker",
    "simcls": "SimCLS",
    "reward model": "RewardModel",
    "masked language model": "MLMScoring",
}


class _LoadOptions(TypedDict, total=False):
    backend: Backend | None
    device: Any
    dtype: Any
    max_tokens: int | None
    precision: Precision | None
    evidence: bool


@overload
def load_ranker(name: os.PathLike[str], **options: Unpack[_LoadOptions]) -> PairRanker | PointwiseRanker: ...


@overload
def load_ranker(name: str = ..., **options: Unpack[_LoadOptions]) -> PairRanker | PointwiseRanker | Heuristic: ...


def load_ranker(
    name: str | os.PathLike[str] = "bundled",
    *,
    backend: Backend | None = None,
    device: Any = None,
    dtype: Any = None,
    max_tokens: int | None = None,
    precision: Precision | None = None,
    evidence: bool = True,
) -> PairRanker | PointwiseRanker | Heuristic:
    """Load a ranker by name; the checkpoint's ``config.json`` decides which class.

    Args:
        name: ``bundled``, a folder, or a Hub repository that holds a `PairRanker`, `SummaReranker`, `SimCLS` or
            reward model (a sequence classifier of transformers), in this package's layout or that of llm-blender
            0.0.2. Or a baseline: ``longest``, ``shortest``, ``consensus``, ``first``, ``random``, or ``mlm:``
            followed by the folder or repository of a masked language model. A folder with such a name is
            ``./longest``.
        backend: of a PairRanker; None takes ``torch`` if a device or a dtype is given or there is no ONNX model, else
            ``onnx``. The other rankers run on torch only, the baselines on none.
        device: of the ``torch`` backend: ``cpu``, ``cuda``, ``mps``, …, or several that share the work
            (``cuda:0,cuda:1``, or a list).
        dtype: of the ``torch`` backend: ``float32`` (None), ``bfloat16`` or ``float16``.
        max_tokens: of a batch; see `PairRanker.from_pretrained`.
        precision: of the ``onnx`` or the ``openvino`` backend; see `PairRanker.from_pretrained`.
        evidence: whether a PairRanker's evidence counts beside its model's logits.

    Raises:
        NotFoundError: there is no such checkpoint; the message lists the places searched.
        CheckpointError: it is no ranker, or lacks the files of the backend.
        MissingExtraError: ``torch`` or ``openvino`` is not installed.
        InputError: there is no such device; an option is unknown, or for another backend or ranker.
    """
    check_options(name, backend=backend, device=device, dtype=dtype, max_tokens=max_tokens, precision=precision)
    on_torch = {"device": device, "dtype": dtype, "max_tokens": max_tokens}
    from llm_blender.rankers.checkpoints import find_checkpoint, read_config
    from llm_blender.rankers.heuristics import HEURISTICS

    if isinstance(name, str) and name in HEURISTICS:
        return HEURISTICS[name]()
    if isinstance(name, str) and name.startswith(_MLM):
        kind, place = "masked language model", name.removeprefix(_MLM)
        return _load_on_torch(kind, name, place, backend, precision, on_torch)
    try:
        folder = find_checkpoint(name)
    except NotFoundError as error:
        if not isinstance(name, str) or "/" in name:
            raise
        known = ["bundled", *HEURISTICS]
        near = nearest(name, known)
        hint = "" if near is None else f"Did you mean {near!r}? "
        raise NotFoundError(f"{error} {hint}Known names: {', '.join(known)}.") from None
    kind = _kind(folder, read_config(folder))
    if kind == "pairranker":
        from llm_blender.rankers.pair_ranker import PairRanker

        return PairRanker.from_pretrained(folder, backend=backend, precision=precision, evidence=evidence, **on_torch)
    return _load_on_torch(kind, folder, folder, backend, precision, on_torch)


def check_options(
    name: str | os.PathLike[str],
    *,
    backend: Backend | None = None,
    device: Any = None,
    dtype: Any = None,
    max_tokens: int | None = None,
    precision: Precision | None = None,
) -> None:
    """Check options of `load_ranker`, as far as they can be before anything is downloaded or loaded.

    Raises:
        MissingExtraError: they need ``torch``, which is not installed.
        InputError: see `load_ranker`.
    """
    if not runs_model(name):
        options = {
            "backend": backend,
            "device": device,
            "dtype": dtype,
            "max_tokens": max_tokens,
            "precision": precision,
        }
        given = [option for option, value in options.items() if value is not None]
        if given:
            raise InputError(f"The ranker {name!r} runs no model, and has no {' or '.join(given)}: leave that out.")
        return
    from llm_blender.rankers.checkpoints import BUNDLED
    from llm_blender.rankers.pair_ranker.backends import one_at_a_time, torch_loading

    loading = torch_loading(backend, device, dtype, max_tokens)
    if name == BUNDLED and loading is None and max_tokens is not None:
        raise one_at_a_time(backend or "onnx")


def runs_model(name: str | os.PathLike[str]) -> bool:
    """Return whether the ranker of this name runs a model, unlike the baselines."""
    from llm_blender.rankers.heuristics import HEURISTICS

    return name not in HEURISTICS


def _load_on_torch(
    kind: str,
    name: object,
    place: str | Path,
    backend: str | None,
    precision: str | None,
    options: Mapping[str, Any],
) -> PointwiseRanker:
    if backend in ("onnx", "openvino"):
        raise InputError(f"{name} is a {kind}, which only the torch backend runs.")
    if precision not in (None, "fp32"):
        raise InputError(f"{name} is a {kind}, which has no precision {precision!r}: give a dtype.")
    ranker: PointwiseRanker = __getattr__(_CLASS_OF[kind]).from_pretrained(place, **options)
    return ranker


def as_ranker(ranker: Ranker | str | os.PathLike[str]) -> Ranker:
    """Return a ranker unchanged, or load it by name.

    Args:
        ranker: any `Ranker`, or a name for `load_ranker`: ``bundled``, a folder, a Hub repository.

    Raises:
        InputError: the value is neither; see also `load_ranker`.
    """
    if isinstance(ranker, str | os.PathLike):
        return load_ranker(ranker)
    if not isinstance(ranker, Ranker):
        raise InputError(f"A {type(ranker).__name__} is no ranker: give one with `rank_many`, or a name.")
    return ranker


def _kind(folder: Path, values: Mapping[str, Any]) -> str:
    """Return the kind of ranker that a ``config.json`` describes."""
    from llm_blender.rankers.checkpoints import is_classifier

    names = {"pairranker": "pairranker", "summareranker": "summareranker", "simcls": "simcls", "dual": "simcls"}
    kind = "pairranker" if "cand1_prefix_id" in values else names.get(str(values.get("ranker_type")))
    if kind is None and is_classifier(values):
        return "reward model"
    if kind is None:
        found = {name: values[name] for name in ("ranker_type", "architectures", "model_type") if name in values}
        description = ", ".join(f"{name} {value!r}" for name, value in found.items()) or "nothing of its kind"
        raise CheckpointError(
            f"{folder / 'config.json'} says {description}: no known ranker. Known are PairRanker, SummaReranker and "
            "SimCLS, this package's or llm-blender 0.0.2's, and sequence classifiers of transformers (reward models)."
        )
    return kind


def __getattr__(name: str) -> Any:
    """Import a ranker that runs on torch at its first use.

    Raises:
        MissingExtraError: ``torch`` is not installed.
    """
    if name not in TORCH_RANKERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    try:
        return getattr(import_module(f"{__name__}.{TORCH_RANKERS[name]}"), name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(name, "torch") from error
