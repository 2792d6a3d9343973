"""From a checkpoint's name to a fuser and its configuration, and from lists of candidates to what it writes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from llm_blender.errors import InputError, unknown_name
from llm_blender.fusers.gen_fuser import GenFuser

from ..gen_fuser.config import GenFuserConfig
from ._loading import changed_fields, find
from ._progress import progress_bar
from ._texts import list_of, texts_of

__all__ = ["fuse_texts", "load_gen_fuser"]


def load_gen_fuser(
    name: str | os.PathLike[str], *, device: Any = None, default_device: Any = None, **fields_of_config: Any
) -> tuple[GenFuser, GenFuserConfig]:
    """Load a fuser.

    Args:
        name: a folder, a folder below ``cache_dir``, or a Hub name.
        device: None takes that of the configuration, and then `default_device`.
        default_device: None takes CUDA where there is one, else the CPU.
        **fields_of_config: values of `GenFuserConfig`; what is not given is 0.0.2's for a sequence-to-sequence model,
            and for a causal LLM what `GenFuser.from_pretrained` takes.

    Raises:
        InputError: a field or dtype is unknown, there is no such device, or bitsandbytes is not installed.
        NotFoundError: there is no such checkpoint; the message says where it was looked for.
        CheckpointError: it cannot be read.
        MissingExtraError: torch is not installed.
        DownloadError: it could not be fetched to the cache directory.
    """
    known = [field.name for field in fields(GenFuserConfig)]
    for field in fields_of_config:
        if field not in known:
            raise unknown_name("field of GenFuserConfig", field, known)
    folder = find(name, fields_of_config.get("cache_dir"), "fuser")
    config = replace(GenFuserConfig(), **{**fields_of_config, "model_name": os.fspath(name)})
    config.device = next((place for place in (device, config.device, default_device) if place is not None), None)
    if isinstance(config.device, str):
        config.device = config.device.lower()
    eight = config.load_in_8bit or config.torch_dtype == "int8"
    changed = changed_fields(config)
    fuser = GenFuser.from_pretrained(
        folder,
        device=config.device,
        dtype="bfloat16" if config.torch_dtype == "int8" else config.torch_dtype,
        bits=4 if config.load_in_4bit else 8 if eight else None,
        max_length=changed.get("max_length"),
        candidate_max_length=changed.get("candidate_maxlength"),
        max_new_tokens=changed.get("candidate_maxlength"),
    )
    return fuser, config


def fuse_texts(
    fuser: GenFuser,
    inputs: Sequence[str],
    candidates: Sequence[Sequence[str]],
    instructions: Sequence[str] | None,
    *,
    batch_size: int,
    shown: bool,
    **options: Any,
) -> list[str]:
    """A text for each input; arguments and errors as for `Blender.fuse`.

    Args:
        fuser: who writes.
        inputs: what the candidates answer.
        candidates: texts of each, best first.
        instructions: of the inputs.
        batch_size: inputs at a time.
        shown: show a progress bar.
        **options: of ``model.generate``, and ``candidate_max_length``.
    """
    read = texts_of(inputs, "inputs")
    before = [""] * len(read) if instructions is None else texts_of(instructions, "instructions", len(read))
    listed = list_of(candidates, "candidates", len(read))
    lists = [texts_of(texts, f"candidates[{i}]") for i, texts in enumerate(listed)]
    if (length := options.get("candidate_max_length")) is not None:
        options.setdefault("max_new_tokens", length)
    with progress_bar("Fusing", shown) as progress:
        fusions = fuser.fuse_many(before, lists, inputs=read, batch_size=batch_size, progress=progress, **options)
    for i, fusion in enumerate(fusions):
        if fusion.flaw == "too_small":
            raise InputError(f"inputs[{i}] and its candidates are not fused: {fusion.error}.")
    return [fusion.text for fusion in fusions]
