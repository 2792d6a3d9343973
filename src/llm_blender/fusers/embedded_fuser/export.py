"""Export of a trained LoRA adapter as an embedded fuser: adapter for llama.cpp, tokenizer, settings."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors import safe_open

from llm_blender.errors import CheckpointError, InputError
from llm_blender.fusers.embedded_fuser.fuser import ADAPTER, TOKENIZER, Base, Settings
from llm_blender.fusers.gen_fuser.loading import load_tokenizer
from llm_blender.fusers.gen_fuser.prompts import SETTINGS, Lengths

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_ARCHITECTURE = "llama"
_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<half>[AB])\.weight")
_REFUSED = {
    "use_dora": "is DoRA",
    "rank_pattern": "has ranks of several sizes (rank_pattern)",
    "alpha_pattern": "has several alphas (alpha_pattern)",
    "modules_to_save": "replaces whole modules (modules_to_save)",
    "fan_in_fan_out": "stores its weights transposed (fan_in_fan_out)",
    "layer_replication": "repeats layers (layer_replication)",
    "lora_bias": "has biases (lora_bias)",
    "target_parameters": "adapts bare parameters (target_parameters)",
}


@dataclass(frozen=True)
class Model:
    """Description of the model in a GGUF file.

    Attributes:
        blocks: number of layers.
        heads: number of query heads.
        kv_heads: number of key and value heads.
        shapes: inputs and outputs of each matrix, by name.
    """

    blocks: int
    heads: int
    kv_heads: int
    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def read(cls, path: Path) -> Model:
        """Read the description from a GGUF file.

        Raises:
            CheckpointError: the file is damaged, or not a Llama.
        """
        try:
            reader = gguf.GGUFReader(path)
            fields = {name: field.contents() for name, field in reader.fields.items() if field.name in _fields()}
            shapes = {tensor.name: tuple(map(int, tensor.shape)) for tensor in reader.tensors}
        except Exception as error:  # a damaged file raises any error
            raise CheckpointError(f"{path} cannot be read as a GGUF file: {error}") from error
        architecture = fields.get(gguf.Keys.General.ARCHITECTURE)
        if architecture != _ARCHITECTURE:
            raise CheckpointError(f"{path} has the architecture {architecture}: an embedded fuser needs a Llama.")
        blocks, heads, kv_heads = (int(fields[name]) for name in _fields()[1:])
        return cls(blocks, heads, kv_heads, shapes)


def write_gguf_adapter(adapter: Path, base: Model, target: Path) -> None:
    """Write a LoRA adapter for llama.cpp, its weights in float16.

    llama.cpp orders the rows of a Llama's query and key matrices unlike transformers, in the pairs that RoPE rotates
    (`_in_pairs`), so the rows of their ``B`` are brought into that order. It scales by alpha / rank; the
    alpha / sqrt(rank) of rank-stabilised LoRA is expressed by a larger alpha.

    Args:
        adapter: a folder with ``adapter_config.json`` and ``adapter_model.safetensors``.
        base: the model that llama.cpp will apply it to.
        target: the GGUF file.

    Raises:
        CheckpointError: a file is missing or damaged, llama.cpp does not support this kind of adapter, or the adapter
            is of another model than `base`.
    """
    config = _config(adapter)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, base.blocks)
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    for key, weight in _weights(adapter / _WEIGHTS).items():
        match = _KEY.fullmatch(key)
        name = match and names.get_name(f"{match['module']}.weight", try_suffixes=(".weight",))
        if match is None or name is None or name not in base.shapes:
            raise CheckpointError(f"{adapter} adapts {key}, which the base does not have as a matrix of its own.")
        if match["half"] == "B" and (heads := _heads(name, base)):
            weight = _in_pairs(weight, heads)
        with np.errstate(over="ignore"):
            half = weight.astype(np.float16)
        if not np.isfinite(half).all():
            raise CheckpointError(f"{key} of {adapter} has values beyond float16: train with a smaller learning rate.")
        tensors[f"{name}.lora_{match['half'].lower()}"] = half
    rank = _check_shapes(adapter, tensors, base)
    alpha = float(config["lora_alpha"]) * (math.sqrt(rank) if config.get("use_rslora") else 1.0)
    writer = gguf.GGUFWriter(target, _ARCHITECTURE)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    for name in sorted(tensors):
        writer.add_tensor(name, tensors[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _fields() -> tuple[str, ...]:
    names = (gguf.Keys.LLM.BLOCK_COUNT, gguf.Keys.Attention.HEAD_COUNT, gguf.Keys.Attention.HEAD_COUNT_KV)
    return (gguf.Keys.General.ARCHITECTURE, *(name.format(arch=_ARCHITECTURE) for name in names))


def _config(adapter: Path) -> dict[str, Any]:
    path = adapter / _CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind, bias = config["peft_type"], config.get("bias", "none")
        float(config["lora_alpha"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is missing, or describes no LoRA adapter: {error}") from error
    troubles = [trouble for name, trouble in _REFUSED.items() if config.get(name)]
    troubles += [f"is {kind}"] * (kind != "LORA") + ["has biases"] * (bias != "none")
    if troubles:
        raise CheckpointError(f"llama.cpp cannot apply {adapter}, which {' and '.join(troubles)}: train a plain LoRA.")
    return dict(config)


def _weights(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    try:
        with safe_open(path, framework="pt") as file:  # numpy knows no bfloat16
            return {key: file.get_tensor(key).float().numpy() for key in file.keys()}  # noqa: SIM118
    except Exception as error:  # whatever a damaged file raises
        raise CheckpointError(f"{path} is missing or damaged: {error}") from error


def _heads(name: str, base: Model) -> int | None:
    """Return the number of heads of a query or key matrix; None for other matrices."""
    return {"attn_q": base.heads, "attn_k": base.kv_heads}.get(name.split(".")[-2])


def _in_pairs(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Reorder the rows of each head, so that row i and row i + half, which RoPE pairs, are neighbours."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _check_shapes(adapter: Path, tensors: Mapping[str, np.ndarray[Any, Any]], base: Model) -> int:
    """Check that every matrix has both halves, in the base's size and of one rank; return the rank."""
    ranks = set()
    for name in {name.rpartition(".")[0] for name in tensors}:
        a, b = (tensors.get(f"{name}.lora_{half}") for half in "ab")
        if a is None or b is None:
            raise CheckpointError(f"{adapter} has only one half of its matrices for {name}.")
        if (a.shape[1], b.shape[0]) != base.shapes[name] or a.shape[0] != b.shape[1]:
            raise CheckpointError(
                f"{adapter} adapts {a.shape[1]} inputs and {b.shape[0]} outputs of {name}, and the base has "
                f"{' and '.join(map(str, base.shapes[name]))}: give the file of its own base (--base)."
            )
        ranks.add(a.shape[0])
    if len(ranks) != 1:
        raise CheckpointError(f"{adapter} has {'several ranks' if ranks else 'no weights'}: train a plain LoRA.")
    return int(ranks.pop())


_CARD = "README.md"
_CONTEXT = 4096  # of `llm_blender.llms.embedded.EmbeddedLLM`
_LENGTHS = Lengths(max_length=3584, candidate_max_length=512, max_new_tokens=512)
_PROBES = ("Below.\n\n### Task [0a1b]\nReply.", "a {x} b")


def export_fuser(
    adapter: Path,
    target: Path,
    *,
    model: str,
    base: Path,
    max_length: int | None = None,
    candidate_max_length: int | None = None,
    max_new_tokens: int | None = None,
) -> list[Path]:
    """Write the folder of an `EmbeddedFuser`: the adapter for llama.cpp, the tokenizer and the settings.

    Args:
        adapter: folder in peft's layout; the tokenizer is in it, or in the base that it names.
        target: folder to write to.
        model: name of the embedded model, for the settings.
        base: GGUF file of that model.
        max_length: most tokens of the prompt; None takes the one in the adapter's ``fuser.json``, else 3,584.
        candidate_max_length: most tokens of each candidate; None likewise, else 512.
        max_new_tokens: most tokens of the answer; None likewise, else 512.

    Returns:
        The files.

    Raises:
        CheckpointError: a file is missing or damaged, the adapter is of another base, llama.cpp does not support this
            kind of adapter, or its chat template is more than a text before and a text after the message.
        NotFoundError: the adapter has no tokenizer, and its base is not found.
        InputError: `target` is the adapter's own folder, or prompt and answer are longer than 4,096 tokens.
    """
    if target.resolve() == adapter.resolve():
        raise InputError(f"{target} is the adapter's own folder: give another one.")
    lengths = _lengths(adapter, max_length, candidate_max_length, max_new_tokens)
    described = Model.read(base)
    tokenizer = load_tokenizer(adapter)
    settings = Settings(base=Base.of(model, base), chat=_around(tokenizer), **lengths.model_dump())
    target.mkdir(parents=True, exist_ok=True)
    (target / SETTINGS).unlink(missing_ok=True)  # written last: without it, the folder is no fuser
    write_gguf_adapter(adapter, described, target / ADAPTER)
    tokenizer.backend_tokenizer.save(str(target / TOKENIZER))
    if (adapter / _CARD).is_file():
        shutil.copyfile(adapter / _CARD, target / _CARD)
    settings.save(target)
    return sorted(path for path in target.iterdir() if path.is_file())


def _lengths(adapter: Path, *given: int | None) -> Lengths:
    trained = Lengths.of_training(adapter) or _LENGTHS
    names = ("max_length", "candidate_max_length", "max_new_tokens")
    known = {name: number for name, number in zip(names, given, strict=True) if number is not None}
    lengths = trained.model_copy(update=known)
    if lengths.max_length + lengths.max_new_tokens > _CONTEXT:
        raise InputError(
            f"An embedded LLM reads and writes {_CONTEXT:,} tokens, not {lengths.max_length:,} and "
            f"{lengths.max_new_tokens:,}: lower max-length or max-new-tokens."
        )
    return lengths


def _around(tokenizer: Any) -> tuple[str, str] | None:
    """Return the text of the chat template before and after the user's message."""
    if not tokenizer.chat_template:
        return None
    try:
        rendered = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": probe}], tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
            for probe in _PROBES
        ]
    except Exception as error:  # a template raises any error it likes
        raise CheckpointError(f"The chat template of the adapter's tokenizer refuses a prompt: {error}") from error
    before, _, after = rendered[0].partition(_PROBES[0])
    if [f"{before}{probe}{after}" for probe in _PROBES] != rendered:
        raise CheckpointError("The chat template of the adapter's tokenizer changes the user's message.")
    return before, after
