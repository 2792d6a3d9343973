"""PairRM checkpoint of a given size with random weights; runs in the environment of llm-blender 0.0.2.

    python _reference_checkpoint.py FOLDER < {"texts": […], "layers": 6, "hidden": 256, …}

FOLDER gets ``backbone`` and ``PairRM``.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from llm_blender.pair_ranker.config import RankerConfig
from llm_blender.pair_ranker.model_util import build_collator, build_ranker, build_tokenizer
from safetensors.torch import save_model
from transformers import DebertaV2Config, DebertaV2Model, DebertaV2TokenizerFast

_SPECIAL = {"pad": "[PAD]", "bos": "[CLS]", "eos": "[SEP]", "unk": "[UNK]"}
_LENGTHS = {"source_maxlength": 1_224, "candidate_maxlength": 412}  # PairRM's


def main() -> None:
    size: dict[str, Any] = json.load(sys.stdin)
    folder, texts = Path(sys.argv[1]), size.pop("texts")
    torch.manual_seed(0)
    make_backbone(folder / "backbone", texts, **size)
    make_ranker(folder / "PairRM", str(folder / "backbone"))


def make_backbone(
    folder: Path, texts: list[str], *, pieces: int, layers: int, hidden: int, intermediate: int, buckets: int
) -> None:
    folder.mkdir(parents=True)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="unigram",
        vocab_size=pieces,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
        **{f"{name}_id": i for i, name in enumerate(_SPECIAL)},
        **{f"{name}_piece": piece for name, piece in _SPECIAL.items()},
    )
    (folder / "spm.model").write_bytes(model.getvalue())
    tokenizer = DebertaV2TokenizerFast(str(folder / "spm.model"))
    tokenizer.save_pretrained(folder)
    config = DebertaV2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        intermediate_size=intermediate,
        initializer_range=0.08,  # for logits that differ by much more than the noise of floating point
        max_position_embeddings=512,
        norm_rel_ebd="layer_norm",
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        position_buckets=buckets,
        relative_attention=True,
        share_att_key=True,
        type_vocab_size=0,
    )
    DebertaV2Model(config).save_pretrained(folder)


def make_ranker(folder: Path, backbone: str) -> None:
    folder.mkdir()
    config = RankerConfig(ranker_type="pairranker", model_type="deberta", model_name=backbone, **_LENGTHS)
    tokenizer = build_tokenizer(backbone, cache_dir=None)
    build_collator("pairranker", tokenizer, *_LENGTHS.values())  # adds its tokens
    ranker = build_ranker("pairranker", "deberta", backbone, None, config, tokenizer)
    with torch.no_grad():
        for weight in ranker.head_layer.parameters():
            weight.copy_(torch.randn_like(weight) * (0.1 if weight.ndim < 2 else weight.shape[-1] ** -0.5))
        # Markers that are nearly alike: the texts decide then, not the side of a candidate.
        rows = ranker.pretrained_model.embeddings.word_embeddings.weight
        left, right = tokenizer.convert_tokens_to_ids(["<|candidate1|>", "<|candidate2|>"])
        rows[right] = rows[left] + 0.05 * rows[right]
    tokenizer.save_pretrained(folder)
    save_model(ranker, str(folder / "model.safetensors"))
    (folder / "config.json").write_text(json.dumps(config.to_dict(), indent=2) + "\n")


if __name__ == "__main__":
    main()
