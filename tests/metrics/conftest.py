"""Tiny models with random weights, whose tokenizers are those of `fixtures`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_blender.metrics import unload_models

FIXTURES = Path(__file__).parent / "fixtures"
_WORDS = "the sky is blue a bird sings sleep early drink water and light in air"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    """Return texts with their scores by bert-score."""
    return json.loads((FIXTURES / "bert_score.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def encoder() -> Callable[[str], str]:
    """Return the folder of an encoder of `fixtures`, ``bert`` or ``roberta``."""
    return lambda name: str(FIXTURES / name)


@pytest.fixture(scope="session")
def seq2seq(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Make a ``bart`` or ``t5`` of two layers, in a folder that tests must not change."""
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind)
            (_make_bart if kind == "bart" else _make_t5)(made[kind])
        return made[kind]

    return make


def _make_bart(folder: Path) -> None:
    import torch
    from transformers import BartConfig, BartForConditionalGeneration

    for name in _TOKENIZER:
        shutil.copy(FIXTURES / "roberta" / name, folder)
    torch.manual_seed(3)
    layers = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    size = {"vocab_size": 300, "d_model": 16, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    config = BartConfig(**size, **layers, max_position_embeddings=48, init_std=0.4)
    model = BartForConditionalGeneration(config)
    torch.nn.init.normal_(model.final_logits_bias)  # a fine-tuned one need not have zeros there
    model.save_pretrained(folder)


def _make_t5(folder: Path) -> None:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    words = ["<pad>", "</s>", "<unk>", *_WORDS.split()]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(4)
    size = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    T5ForConditionalGeneration(T5Config(vocab_size=32, decoder_start_token_id=0, **size)).save_pretrained(folder)


@pytest.fixture(scope="session")
def rater(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make a sequence classifier, ``bert`` or ``roberta``, in a folder that tests must not change."""

    def make(kind: str = "bert", outputs: int = 1) -> Path:
        import torch
        from transformers import AutoConfig, AutoModelForSequenceClassification

        folder = tmp_path_factory.mktemp(kind)
        for name in _TOKENIZER:
            shutil.copy(FIXTURES / kind / name, folder)
        torch.manual_seed(5)
        config = AutoConfig.from_pretrained(FIXTURES / kind, num_labels=outputs)
        AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
        return folder

    return make


@pytest.fixture(autouse=True)
def no_model_stays() -> Iterator[None]:
    """Unload models after each test."""
    yield
    unload_models()
