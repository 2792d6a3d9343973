"""Tiny checkpoints with random weights, in the layouts of llm-blender 0.0.2, written by its own classes."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from fixture_texts import CORPUS
from llm_blender.pair_ranker.config import RankerConfig
from llm_blender.pair_ranker.model_util import build_collator, build_ranker, build_tokenizer
from llm_blender.pair_ranker.pairrm import DebertaV2PairRM
from safetensors.torch import save_model
from torch import nn
from transformers import (
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DebertaV2Model,
    DebertaV2TokenizerFast,
    PreTrainedTokenizerFast,
)

SEED = 20_230_605
PIECES = 560  # [MASK] follows them, as in deberta-v3; about the most that the corpus has
REWARD_MODEL = "OpenAssistant/reward-model-deberta-v3-large-v2"  # 0.0.2 knows it by the end of the path

_SPECIAL = {"pad": "[PAD]", "bos": "[CLS]", "eos": "[SEP]", "unk": "[UNK]"}
_MARKERS = {"source": "<|source|>", "cand1": "<|candidate1|>", "cand2": "<|candidate2|>", "cand": "<|candidate|>"}


def make_backbone(folder: Path) -> None:
    """Make the encoder of all rankers; for the published ones it is ``microsoft/deberta-v3-large``."""
    folder.mkdir(parents=True)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        model_type="unigram",
        vocab_size=PIECES,
        character_coverage=1.0,
        normalization_rule_name="nmt_nfkc",
        num_threads=1,
        minloglevel=2,
        **{f"{name}_id": i for i, name in enumerate(_SPECIAL)},
        **{f"{name}_piece": piece for name, piece in _SPECIAL.items()},
    )
    (folder / "spm.model").write_bytes(model.getvalue())
    DebertaV2TokenizerFast(str(folder / "spm.model")).save_pretrained(folder)
    torch.manual_seed(SEED)
    DebertaV2Model(_backbone_config()).save_pretrained(folder)


def make_checkpoints(root: Path) -> None:
    """Write every folder; `root` already holds ``backbone``."""
    base = root / "backbone"
    ranker, tokenizer, config = _build(base, "pairranker", source_maxlength=1224, candidate_maxlength=412)
    _save(root / "PairRM", ranker, tokenizer, config)
    _save_like_pair_ranker(root / "pair-ranker", ranker, tokenizer, config)
    _save_like_pairrm_hf(root / "PairRM-hf", ranker, tokenizer)
    small: dict[str, Any] = {"source_maxlength": 48, "candidate_maxlength": 32, "n_tasks": 3}
    _save(root / "SummaReranker", *_build(base, "summareranker", loss_type="MoE_BCE", **small))
    _save(root / "SimCLS", *_build(base, "dual", loss_type="simcls", **small))
    _make_reward_model(root / REWARD_MODEL, base)


def _backbone_config(**changes: Any) -> DebertaV2Config:
    return DebertaV2Config(
        vocab_size=PIECES + 8,  # more rows than tokens, as in deberta-v3; a ranker cuts them to its tokens
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        initializer_range=0.3,  # large, for logits that differ clearly
        layer_norm_eps=1e-7,
        max_position_embeddings=64,
        max_relative_positions=-1,
        norm_rel_ebd="layer_norm",
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        position_buckets=16,
        relative_attention=True,
        share_att_key=True,
        type_vocab_size=0,
        **changes,
    )


def _build(base: Path, kind: str, **values: Any) -> tuple[nn.Module, PreTrainedTokenizerFast, RankerConfig]:
    config = RankerConfig(
        ranker_type=kind,
        model_type="deberta",
        model_name=str(base),
        num_pos=5,
        num_neg=5,
        sub_sampling_ratio=0.4,
        **values,
    )
    tokenizer = build_tokenizer(str(base), cache_dir=None)
    build_collator(kind, tokenizer, config.source_maxlength, config.candidate_maxlength)  # adds its tokens
    torch.manual_seed(SEED + len(kind))
    ranker = build_ranker(kind, "deberta", str(base), None, config, tokenizer).eval()
    with torch.no_grad():
        for name, weight in ranker.named_parameters():
            if "pretrained_model" not in name and "encoder" not in name:
                weight.copy_(torch.randn_like(weight) * (0.1 if weight.ndim < 2 else weight.shape[-1] ** -0.5))
        if kind == "pairranker":
            # Nearly equal markers: then the texts decide, not the position of a candidate.
            rows = ranker.pretrained_model.embeddings.word_embeddings.weight
            left, right = tokenizer.convert_tokens_to_ids([_MARKERS["cand1"], _MARKERS["cand2"]])
            rows[right] = rows[left] + 0.05 * rows[right]
    return ranker, tokenizer, dataclasses.replace(config, model_name="backbone")


def _save(folder: Path, ranker: nn.Module, tokenizer: PreTrainedTokenizerFast, config: RankerConfig) -> None:
    """Save as 0.0.2's trainer does: its own configuration, no hyper-parameters of the encoder."""
    folder.mkdir()
    tokenizer.save_pretrained(folder)
    save_model(ranker, str(folder / "model.safetensors"))
    values = {name: value for name, value in dataclasses.asdict(config).items() if name != "device"}
    _write(folder / "config.json", values)


def _save_like_pair_ranker(
    folder: Path, ranker: nn.Module, tokenizer: PreTrainedTokenizerFast, config: RankerConfig
) -> None:
    """Save as ``llm-blender/pair-ranker``: pickled, other names of the lengths, and a buffer of older transformers."""
    _save(folder, ranker, tokenizer, config)
    values = json.loads((folder / "config.json").read_text())
    renamed = {name.replace("_maxlength", "_max_length"): value for name, value in values.items()}
    _write(folder / "config.json", {**renamed, "source_max_length": 128, "candidate_max_length": 128})
    (folder / "model.safetensors").unlink()
    positions = torch.arange(_backbone_config().max_position_embeddings).expand(1, -1)
    state = {"pretrained_model.embeddings.position_ids": positions, **ranker.state_dict()}
    torch.save(state, folder / "pytorch_model.bin")


def _save_like_pairrm_hf(folder: Path, ranker: nn.Module, tokenizer: PreTrainedTokenizerFast) -> None:
    """Save as ``llm-blender/PairRM-hf``: the same weights as a model of transformers."""
    ids = {f"{name}_prefix_id": tokenizer.convert_tokens_to_ids(marker) for name, marker in _MARKERS.items()}
    config = _backbone_config(n_tasks=1, drop_out=0.05, **ids)
    config.vocab_size = len(tokenizer)
    model = DebertaV2PairRM(config)
    model.load_state_dict(ranker.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _make_reward_model(folder: Path, base: Path) -> None:
    """Make a sequence classifier with one label, which 0.0.2 treats as a reward model."""
    torch.manual_seed(SEED)
    config = _backbone_config(num_labels=1)
    config.vocab_size = PIECES + 1
    DebertaV2ForSequenceClassification(config).save_pretrained(folder)
    for path in base.iterdir():
        if "token" in path.name or path.name == "spm.model":
            shutil.copy(path, folder)


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
