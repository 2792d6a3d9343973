"""From a checkpoint's name to a ranker and its configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

from llm_blender._names import unknown_name
from llm_blender.errors import InputError, MissingExtraError
from llm_blender.rankers import load_ranker
from llm_blender.rankers.checkpoints import find_checkpoint, find_config, has_onnx, read_config
from llm_blender.rankers.pair_ranker import PairRanker
from llm_blender.rankers.published import is_published

from ..pair_ranker.config import RankerConfig
from ._reading import Pointwise

__all__ = ["changed_fields", "load"]

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
    """
    known = [field.name for field in fields(RankerConfig)]
    for field in fields_of_config:
        if field not in known:
            raise unknown_name("field of RankerConfig", field, known)
    folder = _find(name, fields_of_config.get("cache_dir"))
    values = read_config(folder) if (folder / "config.json").is_file() else {}
    config = replace(RankerConfig.from_dict(values), **{"load_checkpoint": str(name), **fields_of_config})
    config.device = next((place for place in (device, config.device, default_device) if place is not None), None)
    if isinstance(config.device, str):
        config.device = config.device.lower()
    if not _is_pair_ranker(values):
        return cast(Pointwise, load_ranker(folder, device=_device(config.device))), config
    config.ranker_type = "pairranker"
    place = config.device if config.device is None and has_onnx(folder) else _device(config.device)
    half = _is_half(place, config.fp16, asked="fp16" in fields_of_config)
    backbone = fields_of_config.get("model_name")
    ranker = PairRanker.from_pretrained(folder, device=place, dtype="float16" if half else None, backbone=backbone)
    ranker = ranker.with_lengths(fields_of_config.get("source_maxlength"), fields_of_config.get("candidate_maxlength"))
    config.source_maxlength = ranker.config.source_max_length + _SOURCE_SPECIALS
    config.candidate_maxlength = (ranker.config.max_length - config.source_maxlength) // 2
    return ranker, config


def changed_fields(config: RankerConfig) -> dict[str, Any]:
    """What a configuration says that is not a default: the rest is left to the checkpoint."""
    defaults = RankerConfig()
    return {name: value for name, value in config.to_dict().items() if value != getattr(defaults, name)}


def _find(name: str | os.PathLike[str], cache_dir: Any) -> Path:
    """The folder; with a cache directory, that below it, to which the Hub's files are fetched."""
    if not isinstance(name, str | os.PathLike) or not os.fspath(name):
        raise InputError(f"A ranker is loaded by the name of a folder or a Hub repository, not by {name!r}.")
    if cache_dir is None or Path(name).expanduser().is_dir():
        return find_checkpoint(name)
    below = Path(cache_dir).expanduser() / name
    if below.is_dir():
        return below
    if os.fspath(name).count("/") != 1 or Path(name).is_absolute():
        return find_checkpoint(name)
    find_config(os.fspath(name))  # soon says so if there is no such ranker or no Hub
    from huggingface_hub import snapshot_download

    wanted = ["config.json", "tokenizer.json", "*.safetensors", "pytorch_model.bin", "onnx/*.onnx", "README.md"]
    return Path(snapshot_download(os.fspath(name), local_dir=below, allow_patterns=wanted))


def _is_pair_ranker(values: Mapping[str, Any]) -> bool:
    ours = "format_version" in values
    return (ours or is_published(values)) and values.get("ranker_type", "pairranker") == "pairranker"


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
