"""What ``blend data preferences`` writes is loaded by datasets and trained on by TRL."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from llm_blender.cli import app

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # the trainers' own, and those of what they import
]

PAGE = Path(__file__).parents[2] / "docs" / "preferences.md"
NOT_INSTALLED = "TRL is not installed: .ci/integrations runs this"
TEMPLATE = """\
{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if m.role == 'assistant' %}<end>{% endif %}{% endfor %}\
{% if add_generation_prompt %}<assistant>{% endif %}"""


@pytest.fixture
def trl(tmp_path, monkeypatch):
    trl = pytest.importorskip("trl", reason=NOT_INSTALLED)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return trl


@pytest.fixture
def tokenizer(trl):
    """Reads bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<pad>", "<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", chat_template=TEMPLATE
    )


@pytest.fixture
def llama(tokenizer, llama_shape, tmp_path):
    """Two layers x 32 with random weights: (class) -> model, from a folder, where DPO finds its reference again."""
    import torch
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        num_labels=1,
        **llama_shape,
    )

    def make(name):
        torch.manual_seed(0)
        kind = getattr(transformers, name)
        kind(config).save_pretrained(tmp_path / name)
        return kind.from_pretrained(tmp_path / name)

    return make


@pytest.fixture
def rows(tmp_path):
    """Eight rows, the last a conversation without id and models, so that columns are null in some rows."""
    rows = [
        {
            "id": str(n),
            "instruction": f"What is {n} and {n}?",
            "candidates": [
                {"text": "No.", "model": "a"},
                {"text": f"{n} and {n} make {2 * n}, since adding a number to itself doubles it.", "model": "b"},
                {"text": f"{n} and {n} is a question about numbers.", "model": "c"},
            ],
        }
        for n in range(7)
    ]
    turns = [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello."), ("user", "Tell me of Türkçe 👋.")]
    conversation = [{"role": role, "content": content} for role, content in turns]
    answer = "Turkish, Türkçe, is the language of more than 80 million people, most of them in Türkiye."
    rows.append({"instruction": conversation, "candidates": [answer, "What?"]})
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def preferences(rows, out, *options):
    result = CliRunner().invoke(app, ["data", "preferences", str(rows), "-o", str(out), "--json", *options])
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary["records"] >= 6, summary  # the ranker may contradict itself now and then
    return summary["records"]


def shown():
    """The names that the page's code defines."""
    names: dict[str, object] = {}
    (block,) = re.findall(r"^```python trl\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    exec(compile(block, PAGE.name, "exec"), names)
    return names


OPTIONS = {
    "per_device_train_batch_size": 4,
    "max_steps": 2,
    "learning_rate": 1e-2,
    "logging_steps": 1,
    "report_to": [],
    "save_strategy": "no",
    "use_cpu": True,
}


@pytest.mark.parametrize(("format", "file"), [("conversational", "p.jsonl"), ("standard", "p.jsonl.gz")])
def test_dpo_trains_on_what_was_written(trl, tokenizer, llama, rows, tmp_path, format, file):
    count = preferences(rows, tmp_path / file, "--format", format)
    model = llama("LlamaForCausalLM")
    before = [parameter.detach().clone() for parameter in model.parameters()]
    trainer = shown()["train_dpo"](
        model, tokenizer, str(tmp_path / file), output_dir=str(tmp_path / "run"), seed=0, **OPTIONS
    )

    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logged) == 2
    assert logged[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)  # the policy is still its own reference
    assert logged[1]["rewards/margins"] > 0  # of pairs it has not seen yet: the first step made long answers likelier
    assert any(not after.equal(old) for after, old in zip(trainer.model.parameters(), before, strict=True))

    read = trainer.train_dataset
    assert len(read) == count
    prompt, chosen, rejected = (
        tokenizer.batch_decode(list(read[f"{name}_ids"])) for name in ("prompt", "chosen", "rejected")
    )
    if format == "conversational":
        assert prompt[0] == "<user>What is 0 and 0?<assistant>"
    else:
        assert prompt[0] == "What is 0 and 0?"
    assert chosen[0] == "0 and 0 make 0, since adding a number to itself doubles it.<end>"
    assert rejected[0] == "No.<end>"
    assert len(chosen) == len(set(chosen))


def test_a_conversation_reaches_the_template_turn_by_turn(trl, tokenizer, llama, rows, tmp_path):
    preferences(rows, tmp_path / "p.jsonl")
    trainer = shown()["train_dpo"](
        llama("LlamaForCausalLM"), tokenizer, str(tmp_path / "p.jsonl"), output_dir=str(tmp_path / "run"), **OPTIONS
    )
    prompts = tokenizer.batch_decode(list(trainer.train_dataset["prompt_ids"]))
    assert prompts[-1] == "<system>Be kind.<user>Hi<assistant>Hello.<end><user>Tell me of Türkçe 👋.<assistant>"


def test_parquet_and_all_pairs_load_with_the_same_columns(trl, rows, tmp_path):
    from datasets import load_dataset

    loaded = []
    for name, kind in (("p.parquet", "parquet"), ("p.jsonl", "json")):
        count = preferences(rows, tmp_path / name, "--pairs", "all")
        loaded.append(load_dataset(kind, data_files=str(tmp_path / name), split="train"))
        assert len(loaded[-1]) == count
    assert loaded[0].to_list() == loaded[1].to_list()
    assert loaded[0].column_names == [
        "prompt",
        "chosen",
        "rejected",
        "margin",
        "probability",
        "chosen_model",
        "rejected_model",
        "id",
    ]


def test_a_reward_model_takes_the_margin_as_that_of_its_loss(trl, tokenizer, llama, rows, tmp_path):
    """As the page warns: with all rewards 0, the first loss is the mean of log(1 + exp(margin)), or else log 2."""
    from datasets import load_dataset

    preferences(rows, tmp_path / "p.jsonl")
    dataset = load_dataset("json", data_files=str(tmp_path / "p.jsonl"), split="train")
    margins = np.array(dataset["margin"])
    expected = {True: np.logaddexp(0, margins).mean(), False: math.log(2)}
    for kept, first in expected.items():
        model = llama("LlamaForSequenceClassification")
        model.score.weight.data.zero_()
        options = {**OPTIONS, "per_device_train_batch_size": len(dataset), "max_steps": 1}
        trainer = trl.RewardTrainer(
            model,
            args=trl.RewardConfig(output_dir=str(tmp_path / "run"), **options),
            train_dataset=dataset if kept else dataset.remove_columns("margin"),
            processing_class=tokenizer,
        )
        trainer.train()
        (loss,) = (entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
        assert loss == pytest.approx(first, abs=1e-3)
