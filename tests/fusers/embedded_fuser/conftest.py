"""A tiny Llama as llama.cpp's file, and LoRA adapters of it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(autouse=True, scope="session")
def _extra() -> None:
    """Skip these tests where the extra `lora` is not installed."""
    pytest.importorskip("gguf")
    pytest.importorskip("peft")


def write_llama(folder: Path, target: Path) -> Path:
    """Write a Llama in transformers' layout as a GGUF file, in float32 and in the layout of llama.cpp's converter."""
    import gguf
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(folder))
    config = model.config
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(config.hidden_size // heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    written = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = sorted(written["model"]["vocab"].items(), key=lambda item: item[1])
    special = {token["content"] for token in written["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([token for token, _ in vocabulary])
    kinds = (gguf.TokenType.CONTROL, gguf.TokenType.NORMAL)
    writer.add_token_types([kinds[token not in special] for token, _ in vocabulary])
    writer.add_token_merges([" ".join(merge) for merge in written["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for key, weight in model.state_dict().items():
        values = weight.float().numpy()
        for part, count in (("q_proj", heads), ("k_proj", kv_heads)):
            if part in key:  # the pairs that RoPE turns stand side by side there
                half = values.shape[0] // count // 2
                rows = [h * 2 * half + i + p * half for h in range(count) for i in range(half) for p in range(2)]
                values = values[rows]
        writer.add_tensor(names.get_name(key, try_suffixes=(".weight",)), np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def make_adapter(base: Path, target: Path, *, size: float = 0.3, **options: Any) -> Path:
    """Make a LoRA adapter with random weights that float16 represents exactly."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(base))
    options = {"r": 4, "lora_alpha": 6, "target_modules": ALL, "task_type": "CAUSAL_LM", **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers for a name of before
        adapted = peft.get_peft_model(model, peft.LoraConfig(**options))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.copy_((torch.randn_like(weight) * size).half().float())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # peft looks on the Hub whether the base's vocabulary is its own
        adapted.save_pretrained(str(target))
    return target


@pytest.fixture(scope="session")
def tiny_gguf(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write `tiny_llama` as a GGUF file."""
    return write_llama(tiny_llama, tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="session")
def adapter(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a LoRA adapter of all matrices of `tiny_llama`, which tests must not change."""
    return make_adapter(tiny_llama, tmp_path_factory.mktemp("lora"))


@pytest.fixture(scope="session")
def new_adapter(tiny_llama: Path) -> Callable[..., Path]:
    """Return a maker of adapters of `tiny_llama`."""
    return lambda target, **options: make_adapter(tiny_llama, target, **options)


@pytest.fixture(scope="session")
def exported(adapter: Path, tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export `adapter` as an embedded fuser, which tests must not change."""
    from llm_blender.fusers.embedded_fuser.export import export_fuser

    target = tmp_path_factory.mktemp("fuser")
    export_fuser(
        adapter,
        target,
        model=str(tiny_gguf),
        base=tiny_gguf,
        max_length=400,
        candidate_max_length=40,
        max_new_tokens=24,
    )
    return target
