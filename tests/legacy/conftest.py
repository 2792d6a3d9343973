"""A `Blender` with a tiny ranker of random weights."""

from __future__ import annotations

import pytest

from llm_blender import Blender, BlenderConfig, PairRanker
from llm_blender.rankers.published import _deberta_v3


@pytest.fixture(scope="session")
def published_ranker(tmp_path_factory: pytest.TempPathFactory):
    """The folder of a ranker in the layout of llm-blender/PairRM, and that of its encoder."""
    return make_published(tmp_path_factory.mktemp("legacy"))


@pytest.fixture
def blender(published_ranker):
    made = Blender(BlenderConfig(device="cpu"))
    made.loadranker(str(published_ranker / "ranker"), model_name=str(published_ranker / "encoder"))
    return made


@pytest.fixture
def counted(monkeypatch):
    """The ordered pairs of each call of `PairRanker.pair_logits`."""
    calls: list[list[tuple[int, int, int]]] = []
    original = PairRanker.pair_logits

    def noted(self, instructions, candidates, pairs, **options):
        calls.append(list(pairs))
        return original(self, instructions, candidates, pairs, **options)

    monkeypatch.setattr(PairRanker, "pair_logits", noted)
    return calls


def make_published(root):
    import json

    import torch
    from safetensors.torch import save_file
    from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

    from llm_blender.rankers.pair_ranker import PairRankerConfig
    from llm_blender.rankers.pair_ranker.modeling import PairRankerModel

    words = "[PAD] [CLS] [SEP] [UNK] [MASK] hello how are you hi i am fine thanks get out bye love hate too good guy"
    vocabulary = {word: number for number, word in enumerate([*words.split(), *"!?.,:'<>1234-", "user", "assistant"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"])
    names = ["<|source|>", "<|candidate1|>", "<|candidate2|>", "<|candidate|>"]
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in names])
    special = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", special)
    encoder = {
        **_deberta_v3(hidden=16, layers=1, intermediate=32),
        "vocab_size": tokenizer.get_vocab_size(with_added_tokens=True),
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "position_buckets": 16,
    }
    config = {"ranker_type": "pairranker", "model_type": "deberta", "model_name": "encoder", "n_tasks": 1}
    lengths = {"source_maxlength": 128, "candidate_maxlength": 64}
    for name, values in {"encoder": encoder, "ranker": {**config, **lengths, "fp16": True}}.items():
        (root / name).mkdir()
        (root / name / "config.json").write_text(json.dumps(values))
    tokenizer.save(str(root / "ranker" / "tokenizer.json"))
    torch.manual_seed(0)
    model = PairRankerModel(PairRankerConfig.load(root / "ranker", encoder))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.3)
    save_file(model.state_dict(), root / "ranker" / "model.safetensors")
    return root
