"""Tiny checkpoints of the pointwise rankers, with random weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CHAT_TEMPLATE = (
    "[CLS]{% for message in messages %}{% if message.role == 'system' %}{{ raise_exception('no system messages') }}"
    "{% endif %}{{ message.role }}: {{ message.content }}[SEP]{% endfor %}"
)


@pytest.fixture(scope="session")
def tiny_pointwise(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Make a SummaReranker or SimCLS of two tasks in this package's layout; read-only."""
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer
    from transformers import AutoConfig

    from llm_blender.rankers.encoder_ranker import PointwiseConfig
    from llm_blender.rankers.simcls import SimCLSModel
    from llm_blender.rankers.summa_reranker import SummaRerankerModel

    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind in made:
            return made[kind]
        folder = made[kind] = tmp_path_factory.mktemp(kind)
        tokenizer = Tokenizer.from_file(str(tiny_encoder / "tokenizer.json"))
        if kind == "simcls":
            tokenizer.add_tokens(["<source>", "<candidate>"])
        tokenizer.save(str(folder / "tokenizer.json"))
        own = {
            "vocab_size": tokenizer.get_vocab_size(),
            "initializer_range": 0.1,
        }  # large weights, for scores that differ
        backbone = AutoConfig.from_pretrained(tiny_encoder).to_dict() | own
        config = PointwiseConfig(kind, backbone, 40, 32, ("first", "second"), temperature=0.5)  # type: ignore[arg-type]
        config.save(folder)
        torch.manual_seed(1)
        model = {"summareranker": SummaRerankerModel, "simcls": SimCLSModel}[kind](config)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "encoder" not in name and "pretrained_model" not in name:
                    weight.copy_(torch.randn_like(weight) * weight.shape[-1] ** -0.5)
        save_file(model.state_dict(), folder / "model.safetensors")
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_reward_model(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make a sequence classifier of transformers: ``bert``, ``deberta-v2`` or ``llama`` (with a chat template)."""
    import torch
    from tokenizers import Tokenizer, processors
    from transformers import AutoConfig, AutoModelForSequenceClassification

    made: dict[Any, Path] = {}

    def make(kind: str = "bert", labels: int = 1) -> Path:
        if (kind, labels) in made:
            return made[kind, labels]
        folder = made[kind, labels] = tmp_path_factory.mktemp(kind)
        tokenizer = Tokenizer.from_file(str(tiny_encoder / "tokenizer.json"))
        settings = json.loads((tiny_encoder / "tokenizer_config.json").read_text())
        settings["model_input_names"] = ["input_ids", "attention_mask", *(["token_type_ids"] if kind == "bert" else [])]
        if kind == "llama":
            settings["chat_template"] = CHAT_TEMPLATE
        else:
            cls, sep = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))
            tokenizer.post_processor = processors.BertProcessing(("[SEP]", sep), ("[CLS]", cls))
        tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 96}
        own: dict[str, Any] = {
            "bert": {"max_position_embeddings": 64},
            "llama": {"max_position_embeddings": 96, "num_key_value_heads": 2},
            "deberta-v2": {
                "relative_attention": True,
                "position_buckets": 8,
                "norm_rel_ebd": "layer_norm",
                "share_att_key": True,
                "pos_att_type": ["p2c", "c2p"],
                "position_biased_input": False,
                "type_vocab_size": 0,
                "max_position_embeddings": 32,
            },
        }[kind]
        torch.manual_seed(2)
        config = AutoConfig.for_model(
            kind,
            vocab_size=tokenizer.get_vocab_size(),
            pad_token_id=tokenizer.token_to_id("[PAD]"),
            num_labels=labels,
            initializer_range=0.2,
            **sizes,
            **own,
        )
        model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
        model.save_pretrained(folder)
        return folder

    return make


@pytest.fixture
def broken(tmp_path: Path) -> Callable[[Path], Path]:
    """Copy a checkpoint, for a test that breaks it."""

    def copy(folder: Path) -> Path:
        return Path(shutil.copytree(folder, tmp_path / "checkpoint"))

    return copy
