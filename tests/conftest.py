"""Tiny encoders and rankers with random weights, for tests that need a model and not a good one."""

from __future__ import annotations

import string
from collections.abc import Callable
from pathlib import Path

import pytest

_WORDS = """
the a is are not why what how sky sea sun moon blue green red bright dark light answer question user assistant
good bad better worse best because scatter water air tree bird sing run sleep tip give three one two be it of
to
"""


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 2 layers x 128 in transformers' layout; its WordPieces are `_WORDS`, letters and punctuation."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = string.ascii_lowercase + string.digits
    pieces = [*specials, *_WORDS.split(), *letters, *(f"##{letter}" for letter in letters), *string.punctuation]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **dict(zip(names, specials, strict=True))).save_pretrained(
        folder
    )
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=256,
            max_position_embeddings=160,
        )
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_ranker(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The checkpoint folder of an untrained PairRanker with the given pooling; not to be written to."""
    import torch

    from llm_blender.training.checkpoints import new_pair_ranker, write_checkpoint
    from llm_blender.training.recipe import Recipe

    made: dict[str, Path] = {}

    def make(pooling: str = "mean") -> Path:
        if pooling not in made:
            recipe = Recipe.model_validate({"pooling": pooling, "max_length": 96, "source_max_length": 32})
            model, input_format, tokenizer = new_pair_ranker(recipe, str(tiny_encoder))
            with torch.no_grad():
                model.head_layer[-1].weight *= 20  # logits of the size of a trained one's
            made[pooling] = tmp_path_factory.mktemp(pooling)
            write_checkpoint(model, input_format.config, tokenizer, made[pooling])
        return made[pooling]

    return make
