"""Load rankers by name, and what loading a ranker and a fuser share."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from llm_blender import rankers
from llm_blender._hub import find_folder, from_hub
from llm_blender.errors import DownloadError, InputError, MissingExtraError, unknown_name
from llm_blender.rankers.checkpoints import find_checkpoint, has_onnx, read_config
from llm_blender.rankers.pair_ranker import PairRanker
from llm_blender.rankers.published import is_published

from ..gen_fuser.config import GenFuserConfig
from ..pair_ranker.config import RankerConfig

if TYPE_CHECKING:
    from llm_blender.rankers.pointwise import PointwiseRanker

__all__ = ["changed_fields", "check_fields", "find", "load", "with_device"]

_Config = TypeVar("_Config", RankerConfig, GenFuserConfig)
_POINTWISE = {"summareranker": "SummaReranker", "simcls": "SimCLS", "dual": "SimCLS"}
_SOURCE_SPECIALS = 3  # [CLS], marker, [SEP]: 0.0.2 counts them as part of the text


def load(
    name: str | os.PathLike[str], device: Any, default_device: Any, **fields_of_config: Any
) -> tuple[PairRanker | PointwiseRanker, RankerConfig]:
    """Load a ranker; arguments and errors as for `Blender.loadranker`.

    Raises:
        DownloadError: the checkpoint could not be downloaded to the cache directory.
    """
    check_fields(RankerConfig, fields_of_config)
    folder = find(name, fields_of_config.get("cache_dir"), "ranker")
    values = read_config(folder) if (folder / "config.json").is_file() else {}
    config = replace(RankerConfig.from_dict(values), **{"load_checkpoint": str(name), **fields_of_config})
    config = with_device(config, device, default_device)
    lengths = fields_of_config.get("source_maxlength"), fields_of_config.get("candidate_maxlength")
    if not is_published(values) and "format_version" not in values:
        _no_lengths(lengths)
        return rankers.load_ranker(folder, device=_device(config.device)), config
    if "cand1_prefix_id" in values:  # PairRM-hf
        config.ranker_type = "pairranker"
    place = None if config.device is None and has_onnx(folder) else _device(config.device)
    options: dict[str, Any] = {
        "device": place,
        "dtype": "float16" if _is_half(place, config.fp16, explicit="fp16" in fields_of_config) else None,
        "backbone": fields_of_config.get("model_name"),
    }
    if config.ranker_type in _POINTWISE:
        _no_lengths(lengths)
        return getattr(rankers, _POINTWISE[config.ranker_type]).from_pretrained(folder, **options), config
    ranker = PairRanker.from_pretrained(folder, **options).with_lengths(*lengths)
    config.source_maxlength = ranker.config.source_max_length + _SOURCE_SPECIALS
    config.candidate_maxlength = (ranker.config.max_length - config.source_maxlength) // 2
    return ranker, config


def check_fields(kind: type[RankerConfig | GenFuserConfig], given: Mapping[str, Any]) -> None:
    """Refuse fields that a configuration does not have.

    Raises:
        InputError: a field is unknown; the message names the nearest one.
    """
    known = [field.name for field in fields(kind)]
    for field in given:
        if field not in known:
            raise unknown_name(f"field of {kind.__name__}", field, known)


def with_device(config: _Config, device: Any, default_device: Any) -> _Config:
    """Set the first device that is not None, of `device`, the configuration's and `default_device`."""
    places = (device, config.device, default_device)
    chosen = next((place for place in places if place is not None), None)
    return replace(config, device=chosen.lower() if isinstance(chosen, str) else chosen)


def changed_fields(config: RankerConfig | GenFuserConfig) -> dict[str, Any]:
    """Select the fields that differ from their defaults; the others are left to the checkpoint."""
    defaults = type(config)()
    return {name: value for name, value in config.to_dict().items() if value != getattr(defaults, name)}


def find(name: str | os.PathLike[str], cache_dir: Any, kind: str) -> Path:
    """Find the folder of a ranker or a fuser, or download it to the cache directory.

    Args:
        name: a folder, a folder in the cache directory, or a Hub name; for a ranker also ``bundled``.
        cache_dir: None takes the cache of the Hub's client.
        kind: ``ranker`` or ``fuser``.

    Raises:
        InputError: the name is empty or not a string.
        NotFoundError: the checkpoint does not exist; the message lists the places searched.
        DownloadError: the checkpoint could not be downloaded.
    """
    if not isinstance(name, str | os.PathLike) or not os.fspath(name):
        raise InputError(f"A {kind} is loaded by the name of a folder or a Hub repository, not by {name!r}.")
    if cache_dir is None or Path(name).expanduser().is_dir():
        return find_checkpoint(name) if kind == "ranker" else find_folder(kind, name)
    below = Path(cache_dir).expanduser() / name
    if below.is_dir() or os.fspath(name).count("/") != 1 or Path(name).is_absolute():
        return find_folder(kind, below if below.is_dir() else name)
    from_hub(kind, os.fspath(name), files=["config.json"])  # fails early without such a model or without the Hub
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    unfinished = below.with_name(below.name + ".part")  # an interrupted download is resumed, and never loaded
    try:
        snapshot_download(os.fspath(name), local_dir=unfinished)
        return unfinished.rename(below)
    except (OSError, HfHubHTTPError, httpx.HTTPError) as error:
        raise DownloadError(f"{os.fspath(name)} could not be fetched to {below}: {error}") from error


def _no_lengths(lengths: tuple[Any, Any]) -> None:
    if any(lengths):
        raise InputError("source_maxlength and candidate_maxlength can be changed of a PairRanker only.")


def _device(device: Any) -> Any:
    """Replace None by CUDA if available, else by the CPU."""
    if device is not None:
        return device
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingExtraError("This ranker", "torch") from error
    return "cuda" if torch.cuda.is_available() else "cpu"


def _is_half(device: Any, fp16: bool, *, explicit: bool) -> bool:
    """Tell whether to compute in half precision.

    0.0.2 used it on ``cuda`` and ``mps``, spelled exactly so, and float32 on ``cuda:0`` or a `torch.device`. The
    results there stay the same, unless the caller sets `fp16` explicitly.
    """
    if device is None or not fp16 or str(device).startswith("cpu"):
        return False
    return explicit or (isinstance(device, str) and device in ("cuda", "mps"))
