"""Load a fuser by name, and sample candidates from a model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llm_blender.errors import InputError
from llm_blender.fusers.gen_fuser import GenFuser

from ..gen_fuser.config import GenFuserConfig
from ._loading import changed_fields, check_fields, find, with_device

__all__ = ["SAMPLING_MODES", "generate_by_transformers", "generate_by_vllm", "load_gen_fuser"]


def load_gen_fuser(
    name: str | os.PathLike[str], device: Any, default_device: Any, **fields_of_config: Any
) -> tuple[GenFuser, GenFuserConfig]:
    """Load a fuser; arguments and errors as for `Blender.loadfuser`.

    The defaults are those of 0.0.2 for a sequence-to-sequence model, and those of `GenFuser.from_pretrained` for a
    causal LLM.
    """
    check_fields(GenFuserConfig, fields_of_config)
    folder = find(name, fields_of_config.get("cache_dir"), "fuser")
    config = replace(GenFuserConfig(), **{**fields_of_config, "model_name": os.fspath(name)})
    config = with_device(config, device, default_device)
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


SAMPLING_MODES: dict[str, dict[str, Any]] = {
    "top_k_sampling": {"do_sample": True, "top_k": 50, "temperature": 0.7},
    "top_p_sampling": {"do_sample": True, "top_p": 1.0, "temperature": 0.7},
}
"""Defaults of ``model.generate`` by mode."""

_ENDLESS = 10**9  # transformers marks an unknown limit by a larger number


def generate_by_transformers(
    model: Any, tokenizer: Any, prompts: list[str], n: int, sampling: Mapping[str, Any]
) -> list[list[str]]:
    """Sample `n` answers to each prompt from a transformers model, with options of ``model.generate``."""
    options = {**sampling, "num_return_sequences": n}
    if not options.keys() & {"max_new_tokens", "max_length"}:
        if tokenizer.model_max_length > _ENDLESS:
            raise InputError("The tokenizer has no maximum length: give max_new_tokens.")
        options["max_length"] = tokenizer.model_max_length
    if tokenizer.pad_token_id is None:
        raise InputError("The tokenizer has no padding token: set tokenizer.pad_token = tokenizer.eos_token.")
    # An encoder-decoder model returns the answer only; other models return it after the prompt, so that padding must be
    # on the left.
    alone = bool(model.config.is_encoder_decoder)
    side = {} if alone else {"padding_side": "left"}
    encoded = tokenizer(prompts, return_tensors="pt", padding=True, truncation=True, **side)
    given = {name: encoded[name].to(model.device) for name in ("input_ids", "attention_mask")}
    written = model.generate(**given, **options)
    answers = written if alone else written[:, given["input_ids"].shape[1] :]
    texts: list[str] = tokenizer.batch_decode(answers, skip_special_tokens=True)
    return [texts[start : start + n] for start in range(0, len(texts), n)]


def generate_by_vllm(model: Any, prompts: list[str], n: int, sampling: Mapping[str, Any]) -> list[list[str]]:
    """Sample `n` answers to each prompt from a ``vllm.LLM``, with the options that ``vllm.SamplingParams`` has."""
    from vllm import SamplingParams

    known = {name: value for name, value in sampling.items() if hasattr(SamplingParams(), name)}
    if "max_new_tokens" in sampling:
        known.setdefault("max_tokens", sampling["max_new_tokens"])
    outputs = model.generate(prompts, SamplingParams(**{**known, "n": n}))
    return [[answer.text for answer in output.outputs] for output in outputs]
