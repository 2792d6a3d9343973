"""From a checkpoint's name to a ranker and its configuration."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from llm_blender._hub import find_folder, from_hub
from llm_blender.errors import DownloadError, InputError, MissingExtraError, unknown_name
from llm_blender.rankers import load_ranker
from llm_blender.rankers.checkpoints import find_checkpoint, has_onnx, read_config
from llm_blender.rankers.pair_ranker import PairRanker
from llm_blender.rankers.published import is_published

from ..gen_fuser.config import GenFuserConfig
from ..pair_ranker.config import RankerConfig
from ._ranking import Pointwise

__all__ = ["changed_fields", "find", "load"]

_SOURCE_SPECIALS = 3  # [CLS], marker, [SEP]: 0.0.2 counts them with the text


def load(
    name: str | os.PathLike[str], *, device: Any = None, default_device: Any = None, **fields_of_config: Any
) -> tuple[PairRanker | Pointwise, RankerConfig]:
    """Load a ranker.

    Args:
        name: ``bundled``, a folder, a folder below ``cache_dir``, or a Hub name.
        device: None takes that of the configuration, and then `default_device`.
        default_device: None takes CUDA where there is one, else the CPU.
        **fields_of_config: what replaces values of the checkpoint's `RankerConfig`.

    Raises:
        InputError: a field is unknown, or there is no such device.
        NotFoundError: there is no such checkpoint; the message says where it was looked for.
        CheckpointError: it cannot be read.
        MissingExtraError: torch is needed and not installed.
        DownloadError: it could not be fetched to the cache directory.
    """
    known = [field.name for field in fields(RankerConfig)]
    for field in fields_of_config:
        if field not in known:
            raise unknown_name("field of RankerConfig", field, known)
    folder = find(name, fields_of_config.get("cache_dir"), "ranker")
    values = read_config(folder) if (folder / "config.json").is_file() else {}
    config = replace(RankerConfig.from_dict(values), **{"load_checkpoint": str(name), **fields_of_config})
    config.device = next((place for place in (device, config.device, default_device) if place is not None), None)
    if isinstance(config.device, str):
        config.device = config.device.lower()
    lengths = fields_of_config.get("source_maxlength"), fields_of_config.get("candidate_maxlength")
    if not is_published(values) and "format_version" not in values:
        _no_lengths(lengths)
        return load_ranker(folder, device=_device(config.device)), config
    if "cand1_prefix_id" in values:  # PairRM-hf
        config.ranker_type = "pairranker"
    place = None if config.device is None and has_onnx(folder) else _device(config.device)
    options: dict[str, Any] = {
        "device": place,
        "dtype": "float16" if _is_half(place, config.fp16, asked="fp16" in fields_of_config) else None,
        "backbone": fields_of_config.get("model_name"),
    }
    if config.ranker_type == "summareranker":
        from llm_blender.rankers.summa_reranker import SummaReranker

        _no_lengths(lengths)
        return SummaReranker.from_pretrained(folder, **options), config
    if config.ranker_type in ("simcls", "dual"):
        from llm_blender.rankers.simcls import SimCLS

        _no_lengths(lengths)
        return SimCLS.from_pretrained(folder, **options), config
    ranker = PairRanker.from_pretrained(folder, **options).with_lengths(*lengths)
    config.source_maxlength = ranker.config.source_max_length + _SOURCE_SPECIALS
    config.candidate_maxlength = (ranker.config.max_length - config.source_maxlength) // 2
    return ranker, config


def changed_fields(config: RankerConfig | GenFuserConfig) -> dict[str, Any]:
    """What a configuration says that is not a default: the rest is left to the checkpoint."""
    defaults = type(config)()
    return {name: value for name, value in config.to_dict().items() if value != getattr(defaults, name)}


def find(name: str | os.PathLike[str], cache_dir: Any, kind: str) -> Path:
    """The folder of a ranker or a fuser; with a cache directory, that below it, to which the Hub's files are fetched.

    Args:
        name: a folder, a folder below the cache directory, or a Hub name; of a ranker also ``bundled``.
        cache_dir: None leaves it to the Hub's client.
        kind: ``ranker`` or ``fuser``.

    Raises:
        InputError: the name is none.
        NotFoundError: there is no such checkpoint; the message says where it was looked for.
        DownloadError: it could not be fetched.
    """
    if not isinstance(name, str | os.PathLike) or not os.fspath(name):
        raise InputError(f"A {kind} is loaded by the name of a folder or a Hub repository, not by {name!r}.")
    if cache_dir is None or Path(name).expanduser().is_dir():
        return find_checkpoint(name) if kind == "ranker" else find_folder(kind, name)
    below = Path(cache_dir).expanduser() / name
    if below.is_dir() or os.fspath(name).count("/") != 1 or Path(name).is_absolute():
        return find_folder(kind, below if below.is_dir() else name)
    from_hub(kind, os.fspath(name), files=["config.json"])  # soon says so if there is no such model or no Hub
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    unfinished = below.with_name(below.name + ".part")  # half a checkpoint is not found, and gone on with
    try:
        snapshot_download(os.fspath(name), local_dir=unfinished)
        return unfinished.rename(below)
    except (OSError, HfHubHTTPError, httpx.HTTPError) as error:
        raise DownloadError(f"{os.fspath(name)} could not be fetched to {below}: {error}") from error


def _no_lengths(lengths: tuple[Any, Any]) -> None:
    if any(lengths):
        raise InputError("source_maxlength and candidate_maxlength can be changed of a PairRanker only.")


def _device(device: Any) -> Any:
    """The device, or CUDA where there is one, else the CPU."""
    if device is not None:
        return device
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingExtraError("This ranker", "torch") from error
    return "cuda" if torch.cuda.is_available() else "cpu"


def _is_half(device: Any, fp16: bool, *, asked: bool) -> bool:
    """Whether to calculate in half precision.

    0.0.2 did on ``cuda`` and ``mps``, spelled so, and stayed in float32 on ``cuda:0`` or a `torch.device`. Numbers
    that were computed there remain as they are; who asks for `fp16` there now gets it.
    """
    if device is None or not fp16 or str(device).startswith("cpu"):
        return False
    return asked or (isinstance(device, str) and device in ("cuda", "mps"))
