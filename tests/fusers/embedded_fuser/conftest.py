"""LoRA adapters of a tiny Llama."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(autouse=True, scope="session")
def _extra() -> None:
    """Skip these tests where the extra `lora` is not installed."""
    pytest.importorskip("gguf")
    pytest.importorskip("peft")


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
