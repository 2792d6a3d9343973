"""Loading of models, LoRA adapters and tokenizers for `GenFuser`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any, cast

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerFast,
)

from llm_blender._hub import find_folder
from llm_blender._torch import load_model, parse_devices, parse_dtype, quiet_loading
from llm_blender.errors import CheckpointError, InputError, MissingExtraError

ADAPTER = "adapter_config.json"
_KEPT = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id")


@dataclass(frozen=True)
class Loaded:
    """A fuser's model.

    Attributes:
        model: of transformers, on the CPU, or on the device that its quantisation chose.
        tokenizer: of transformers.
        seq2seq: True for a sequence-to-sequence model, False for a causal LLM.
        context: most tokens of prompt and answer together; None for no limit.
    """

    model: Any
    tokenizer: Any
    seq2seq: bool
    context: int | None


def load(folder: Path, *, dtype: Any, device: Any, base: str | None = None, bits: int | None = None) -> Loaded:
    """Load the model and the tokenizer of a checkpoint, or of a LoRA adapter and its base.

    Args:
        folder: the checkpoint.
        dtype: of the weights, by name; ``auto`` keeps the stored one; None takes ``bfloat16`` on CUDA, else
            ``float32``.
        device: on which the model will run.
        base: of an adapter, instead of the one that it names.
        bits: 4 or 8 quantises the weights with bitsandbytes.

    Raises:
        NotFoundError: the base is not found.
        CheckpointError: a file is missing or damaged, or the model writes no text.
        MissingExtraError: peft is needed and not installed.
        InputError: there is no such device or dtype, or bitsandbytes is not installed.
    """
    adapter = folder if (folder / ADAPTER).is_file() else None
    if adapter is not None:
        folder = _base(adapter, base)
    elif base is not None:
        raise InputError(f"{folder} is no adapter, so it takes no base: leave that out.")
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} is no fuser: it holds neither config.json nor {ADAPTER}.")
    places = parse_devices(device)
    with quiet_loading():
        try:
            config = cast(Any, AutoConfig).from_pretrained(str(folder), local_files_only=True)
        except Exception as error:  # of every layer below
            raise CheckpointError(f"{folder / 'config.json'} describes no model that is known: {error}") from error
        seq2seq = bool(config.is_encoder_decoder)
        kind: Any = AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM
        options = {"dtype": _dtype(dtype, places[0]), **_quantised(bits, places[0])}
        try:
            model, missing = load_model(kind, folder, **options)
        except Exception as error:
            if "Unrecognized configuration" in str(error):
                raise CheckpointError(
                    f"{folder} is a {config.model_type}, which writes no text: a fuser is a sequence-to-sequence model "
                    "or a causal LLM."
                ) from error
            raise CheckpointError(
                f"The weights in {folder} cannot be read (a .bin only if it holds tensors alone), or are not those "
                f"that its config.json describes: {shorten(str(error), 300)}"
            ) from error
        if missing:
            raise CheckpointError(f"The weights in {folder} are not whole: {', '.join(missing[:3])} is missing.")
        tokenizer = _tokenizer(adapter if adapter is not None and (adapter / "tokenizer.json").is_file() else folder)
        if adapter is not None:
            model = _adapted(model, adapter)
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise CheckpointError(
            f"The tokenizer of {folder if adapter is None else adapter} has {len(tokenizer):,} tokens and the model "
            f"knows {rows:,}: it is not this model's."
        )
    known = {name: getattr(model.generation_config, name, None) for name in _KEPT}
    known = {name: value for name, value in known.items() if value is not None}
    known.setdefault("eos_token_id", tokenizer.eos_token_id)
    known.setdefault("pad_token_id", _pad(tokenizer, known["eos_token_id"]))
    # Not the checkpoint's own, which may sample: a fuser is deterministic.
    model.generation_config = cast(Any, GenerationConfig)(**known)
    context = None if seq2seq else getattr(config, "max_position_embeddings", None)
    return Loaded(model.eval(), tokenizer, seq2seq, context)


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of a checkpoint; of a LoRA adapter its own, else its base's.

    Raises:
        NotFoundError: the base is not found.
        CheckpointError: a file is missing or damaged.
    """
    whole = (folder / "tokenizer.json").is_file() or not (folder / ADAPTER).is_file()
    return _tokenizer(folder if whole else _base(folder, None))


def _base(adapter: Path, given: str | None) -> Path:
    path = adapter / ADAPTER
    try:
        name = given or json.loads(path.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is not a JSON object.") from error
    if not name:
        raise CheckpointError(f"{path} does not name the model that it adapts: give it as `base`.")
    local = adapter / name
    return local if local.is_dir() else find_folder("base model", name)


def _adapted(model: Any, adapter: Path) -> Any:
    try:
        from peft import PeftModel
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"The LoRA adapter {adapter}", "lora") from error
    try:
        return PeftModel.from_pretrained(model, str(adapter), autocast_adapter_dtype=False).merge_and_unload()
    except Exception as error:  # other shapes, missing or damaged weights
        raise CheckpointError(f"The adapter {adapter} is not one of this model: {shorten(str(error), 300)}") from error


def _tokenizer(folder: Path) -> Any:
    try:
        # From tokenizer.json if there is one: AutoTokenizer of transformers 5 rebuilds it and loses parts.
        kind: Any = PreTrainedTokenizerFast if (folder / "tokenizer.json").is_file() else AutoTokenizer
        return kind.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # a damaged file raises any error
        raise CheckpointError(f"The tokenizer of {folder} cannot be read: {shorten(str(error), 300)}") from error


def _pad(tokenizer: Any, end: Any) -> int:
    if tokenizer.pad_token_id is not None:
        return int(tokenizer.pad_token_id)
    first = end[0] if isinstance(end, list) else end
    return 0 if first is None else int(first)


def _dtype(dtype: Any, place: torch.device) -> Any:
    if dtype == "auto":
        return dtype
    return parse_dtype(dtype or ("bfloat16" if place.type == "cuda" else "float32"))


def _quantised(bits: int | None, place: torch.device) -> dict[str, Any]:
    if bits is None:
        return {}
    if bits not in (4, 8):
        raise InputError(f"Weights are quantised to 4 or 8 bits, not {bits}.")
    from importlib.util import find_spec

    if find_spec("bitsandbytes") is None:
        raise InputError(f"Weights of {bits} bits need bitsandbytes: pip install bitsandbytes, or leave that out.")
    from transformers import BitsAndBytesConfig

    settings = cast(Any, BitsAndBytesConfig)(load_in_4bit=bits == 4, load_in_8bit=bits == 8)
    return {"quantization_config": settings, "device_map": {"": str(place)}}
