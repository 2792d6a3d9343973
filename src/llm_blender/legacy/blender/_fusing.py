"""Load a fuser by name, fuse lists of candidates, and sample candidates from a model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from llm_blender.errors import InputError, unknown_name
from llm_blender.fusers.gen_fuser import GenFuser

from ..gen_fuser.config import GenFuserConfig
from ._loading import changed_fields, check_fields, find, with_device
from ._ranking import list_of, progress_bar, texts_of

__all__ = ["SAMPLING_MODES", "fuse_texts", "generate", "load_gen_fuser"]


def load_gen_fuser(
    name: str | os.PathLike[str], *, device: Any = None, default_device: Any = None, **fields_of_config: Any
) -> tuple[GenFuser, GenFuserConfig]:
    """Load a fuser.

    Args:
        name: a folder, a folder in ``cache_dir``, or a Hub name.
        device: as for `load`.
        default_device: as for `load`.
        **fields_of_config: fields of `GenFuserConfig`; the defaults are those of 0.0.2 for a sequence-to-sequence
            model, and those of `GenFuser.from_pretrained` for a causal LLM.

    Raises:
        InputError: a field, the dtype or the device is unknown, or bitsandbytes is not installed.
        NotFoundError, CheckpointError, MissingExtraError, DownloadError: as for `load`.
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
    """Write one text for each input; arguments and errors as for `Blender.fuse`.

    Args:
        fuser: the loaded fuser.
        inputs: inputs that the candidates answer.
        candidates: texts for each input, best first.
        instructions: instruction of each input.
        batch_size: number of inputs a batch.
        shown: show a progress bar.
        **options: options of ``model.generate``, and ``candidate_max_length``.
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


SAMPLING_MODES: dict[str, dict[str, Any]] = {
    "top_k_sampling": {"do_sample": True, "top_k": 50, "temperature": 0.7},
    "top_p_sampling": {"do_sample": True, "top_p": 1.0, "temperature": 0.7},
}
"""Defaults of ``model.generate`` by mode."""

_ENDLESS = 10**9  # transformers marks an unknown limit by a larger number


def generate(
    model: Any,
    tokenizer: Any,
    inputs: Sequence[str],
    instructions: Sequence[str] | None,
    *,
    n: int,
    sampling_mode: str | None,
    batch_size: int,
    shown: bool,
    options: Mapping[str, Any],
) -> list[list[str]]:
    """Sample `n` answers to each input.

    Args:
        model: a transformers model, or a ``vllm.LLM``.
        tokenizer: tokenizer of the model.
        inputs: prompts.
        instructions: put before the inputs, on a line of their own.
        n: number of answers to each input.
        sampling_mode: one of `SAMPLING_MODES`; None leaves all settings to `options`.
        batch_size: number of inputs a batch.
        shown: show a progress bar.
        options: options of ``model.generate``, which override those of the mode; with vLLM, the ones that
            ``vllm.SamplingParams`` has.

    Returns:
        `n` texts for each input.

    Raises:
        InputError: lists differ in length, a text is not a string, a number is not above zero, the mode is unknown, or
            the tokenizer has no padding token or maximum length.
    """
    if sampling_mode is not None and sampling_mode not in SAMPLING_MODES:
        raise unknown_name("sampling_mode", sampling_mode, SAMPLING_MODES)
    if min(n, batch_size) < 1:
        raise InputError(f"n and batch_size must be above zero, not {n} and {batch_size}.")
    prompts = texts_of(inputs, "inputs")
    if instructions is not None:
        before = texts_of(instructions, "instructions", len(prompts))
        prompts = [f"{instruction}\n{text}" for instruction, text in zip(before, prompts, strict=True)]
    sampling = {**(SAMPLING_MODES[sampling_mode] if sampling_mode else {}), **options}
    if type(model).__module__.partition(".")[0] == "vllm":
        return _by_vllm(model, prompts, n, sampling)
    texts: list[list[str]] = []
    with progress_bar("Generating", shown) as progress:
        for start in range(0, len(prompts), batch_size):
            texts += _by_transformers(model, tokenizer, prompts[start : start + batch_size], n, sampling)
            if progress is not None:
                progress(len(texts), len(prompts))
    return texts


def _by_transformers(
    model: Any, tokenizer: Any, prompts: list[str], n: int, sampling: Mapping[str, Any]
) -> list[list[str]]:
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


def _by_vllm(model: Any, prompts: list[str], n: int, sampling: Mapping[str, Any]) -> list[list[str]]:
    from vllm import SamplingParams

    known = {name: value for name, value in sampling.items() if hasattr(SamplingParams(), name)}
    if "max_new_tokens" in sampling:
        known.setdefault("max_tokens", sampling["max_new_tokens"])
    outputs = model.generate(prompts, SamplingParams(**{**known, "n": n}))
    return [[answer.text for answer in output.outputs] for output in outputs]
