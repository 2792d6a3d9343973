"""LoRA adapters exported for llama.cpp give the same probabilities as on torch."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_blender.errors import CheckpointError
from llm_blender.llms._llama import Llama

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # raised within peft

PROMPTS = [[5, 17, 300, 42, 8, 8, 111], [1, 260, 33], list(range(40, 90))]
TOP, LETTER = 20, 70


def by_torch(base: Path, adapter: Path | None) -> list[dict[int, float]]:
    """Compute the log-probabilities of the likeliest next tokens on torch."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(str(base))
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    with torch.inference_mode():
        rows = [torch.log_softmax(model(torch.tensor([ids])).logits[0, -1], -1) for ids in PROMPTS]
    return [dict(zip(row.topk(TOP).indices.tolist(), row.topk(TOP).values.tolist(), strict=True)) for row in rows]


def by_llama_cpp(base: Path, adapters: list[Path], used: Path | None) -> list[dict[int, float]]:
    llama = Llama(base, context=256, parallel=1, threads=1, adapters=adapters)
    return [next_tokens(llama, ids, used) for ids in PROMPTS]


def next_tokens(llama: Llama, ids: list[int], adapter: Path | None) -> dict[int, float]:
    seen: dict[int, float] = {}

    def take(chunk: Any) -> bool:
        for choice in chunk.get("choices", ()):
            for token in (choice.get("logprobs") or {}).get("content", ()):
                seen.update({top["id"]: top["logprob"] for top in token["top_logprobs"]})
        return False

    # Written is a token that is a letter, whatever is likely: of half a character llama.cpp would say nothing yet.
    written = {"max_tokens": 1, "temperature": 0.0, "logit_bias": [[LETTER, 1000]]}
    llama.run({"prompt": ids, "logprobs": 2 * TOP, **written}, take, adapter)
    return seen


_ROUNDING = (
    0.05  # of log probabilities: llama.cpp keeps keys and values in float16; an adapter changes them by 1 or more
)


def largest_difference(ours: list[dict[int, float]], reference: list[dict[int, float]]) -> float:
    return max(
        abs(mine.get(token, -100.0) - value)
        for mine, row in zip(ours, reference, strict=True)
        for token, value in row.items()
    )


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"target_modules": ["q_proj", "k_proj"]}])
def test_llama_cpp_computes_what_torch_does(
    tiny_llama: Path, tiny_gguf: Path, new_adapter: Callable[..., Path], tmp_path: Path, options: dict[str, Any]
) -> None:
    from llm_blender.fusers.embedded_fuser.export import Model, write_gguf_adapter

    adapter, written = new_adapter(tmp_path / "lora", **options), tmp_path / "adapter.gguf"
    write_gguf_adapter(adapter, Model.read(tiny_gguf), written)
    bare, adapted = by_torch(tiny_llama, None), by_torch(tiny_llama, adapter)
    assert largest_difference(bare, adapted) > 1
    assert largest_difference(by_llama_cpp(tiny_gguf, [written], written), adapted) < _ROUNDING
    assert largest_difference(by_llama_cpp(tiny_gguf, [written], None), bare) < _ROUNDING


def test_several_adapters_of_one_model(
    tiny_llama: Path, tiny_gguf: Path, new_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    from llm_blender.fusers.embedded_fuser.export import Model, write_gguf_adapter

    written = []
    for rank in (2, 3):
        new_adapter(tmp_path / str(rank), r=rank)
        written.append(tmp_path / f"{rank}.gguf")
        write_gguf_adapter(tmp_path / str(rank), Model.read(tiny_gguf), written[-1])
    for rank, file in zip((2, 3), written, strict=True):
        reference = by_torch(tiny_llama, tmp_path / str(rank))
        assert largest_difference(by_llama_cpp(tiny_gguf, written, file), reference) < _ROUNDING


def test_an_adapter_of_the_size_asked_for(adapter: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    """Half the size of float32."""
    from safetensors.torch import load_file

    from llm_blender.fusers.embedded_fuser.export import Model, write_gguf_adapter

    write_gguf_adapter(adapter, Model.read(tiny_gguf), tmp_path / "adapter.gguf")
    numbers = sum(weight.numel() for weight in load_file(adapter / "adapter_model.safetensors").values())
    assert 2 * numbers < (tmp_path / "adapter.gguf").stat().st_size < 2 * numbers + 8192


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_dora": True}, "is DoRA: train a plain LoRA"),
        ({"modules_to_save": ["lm_head"]}, "replaces whole modules"),
        ({"rank_pattern": {"k_proj": 3}}, "ranks of several sizes"),
        ({"target_modules": ["embed_tokens"]}, "adapts base_model.*embed_tokens"),
    ],
)
def test_what_llama_cpp_cannot_apply(
    new_adapter: Callable[..., Path], tiny_gguf: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    from llm_blender.fusers.embedded_fuser.export import Model, write_gguf_adapter

    made = new_adapter(tmp_path / "lora", **options)
    with pytest.raises(CheckpointError, match=message):
        write_gguf_adapter(made, Model.read(tiny_gguf), tmp_path / "adapter.gguf")


def test_an_adapter_of_another_model(adapter: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    from llm_blender.fusers.embedded_fuser.export import Model, write_gguf_adapter

    base = Model.read(tiny_gguf)
    wide = dataclasses.replace(base, shapes={name: (64, *shape[1:]) for name, shape in base.shapes.items()})
    with pytest.raises(CheckpointError, match=r"inputs and .* outputs of .*--base"):
        write_gguf_adapter(adapter, wide, tmp_path / "adapter.gguf")
    shallow = dataclasses.replace(base, blocks=1)
    with pytest.raises(CheckpointError, match="which the base does not have"):
        write_gguf_adapter(adapter, shallow, tmp_path / "adapter.gguf")


def test_damaged_adapters(adapter: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from llm_blender.fusers.embedded_fuser.export import Model, write_gguf_adapter

    base, target = Model.read(tiny_gguf), tmp_path / "adapter.gguf"
    broken = shutil.copytree(adapter, tmp_path / "broken")
    weights = load_file(adapter / "adapter_model.safetensors")
    half, *_ = weights
    for changed, message in (
        ({**weights, half: weights[half] * 1e6}, "float16"),
        ({key: weight for key, weight in weights.items() if key != half}, "only one half"),
        ({}, "no weights"),
    ):
        save_file(changed, broken / "adapter_model.safetensors")
        with pytest.raises(CheckpointError, match=message):
            write_gguf_adapter(broken, base, target)
    (broken / "adapter_model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(CheckpointError, match="missing or damaged"):
        write_gguf_adapter(broken, base, target)
    (broken / "adapter_config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="describes no LoRA adapter"):
        write_gguf_adapter(broken, base, target)
    assert not target.exists()


def test_bases_that_are_none(tmp_path: Path) -> None:
    import gguf

    from llm_blender.fusers.embedded_fuser.export import Model

    (tmp_path / "cut.gguf").write_bytes(b"GGUF" + bytes(20))
    with pytest.raises(CheckpointError, match=r"GGUF file|architecture"):
        Model.read(tmp_path / "cut.gguf")
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "qwen2")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match="architecture qwen2"):
        Model.read(tmp_path / "other.gguf")
