from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
from tokenizers import Tokenizer

from llm_blender.errors import CheckpointError, InputError, NotFoundError
from llm_blender.rankers import load_ranker
from llm_blender.types import Ranker

TEXTS = [
    "blue light scatters most .",
    "because the sky is blue, the sea is blue too",
    "the",
    "a bird sings in the tree ; why ?",
]


@pytest.fixture(scope="module")
def bert(tiny_encoder, tmp_path_factory):
    """A masked language model with random weights, large enough that tokens differ."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    folder = tmp_path_factory.mktemp("bert-mlm")
    shutil.copytree(tiny_encoder, folder, dirs_exist_ok=True)
    torch.manual_seed(0)
    values = json.loads((tiny_encoder / "config.json").read_text())
    model = BertForMaskedLM(BertConfig(**{**values, "initializer_range": 0.2}))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def roberta(tiny_encoder, llama_shape, tmp_path_factory):
    """Positions that begin behind the padding token's, and RoBERTa's names of special tokens."""
    import torch
    from transformers import RobertaConfig, RobertaForMaskedLM

    folder = tmp_path_factory.mktemp("roberta-mlm")
    names = {"[PAD]": "<pad>", "[CLS]": "<s>", "[SEP]": "</s>", "[MASK]": "<mask>"}
    values = json.loads((tiny_encoder / "tokenizer.json").read_text())
    values["model"]["vocab"] = {names.get(token, token): i for token, i in values["model"]["vocab"].items()}
    for token in values["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    values["post_processor"] = None
    (folder / "tokenizer.json").write_text(json.dumps(values))
    torch.manual_seed(1)
    config = RobertaConfig(
        vocab_size=len(values["model"]["vocab"]),
        **llama_shape,
        max_position_embeddings=42,
        pad_token_id=0,
        initializer_range=0.3,
    )
    RobertaForMaskedLM(config).save_pretrained(folder)
    return folder


def by_hand(folder, kind, text, mask, begin, end, length=10**6):
    """One token after the other, by the definition."""
    import torch

    model = kind.from_pretrained(folder).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = tokenizer.encode(text, add_special_tokens=False).ids[: length - 2]
    ids = [tokenizer.token_to_id(begin), *ids, tokenizer.token_to_id(end)]
    logs = []
    for t in range(1, len(ids) - 1):
        masked = torch.tensor([ids])
        masked[0, t] = tokenizer.token_to_id(mask)
        with torch.no_grad():
            logits = model(input_ids=masked).logits
        logs.append(float(logits[0, t].log_softmax(-1)[ids[t]]))
    return logs


@pytest.mark.parametrize("max_tokens", [1, 2048])
def test_the_score_is_the_pseudo_log_likelihood(bert, max_tokens):
    from transformers import BertForMaskedLM

    from llm_blender.rankers.mlm_scoring import MLMScoring

    ranker = MLMScoring.from_pretrained(bert, device="cpu", max_tokens=max_tokens)
    assert isinstance(ranker, Ranker)
    logs = [by_hand(bert, BertForMaskedLM, text, "[MASK]", "[CLS]", "[SEP]") for text in TEXTS]
    (sums,) = ranker.scores(["Why?"], [TEXTS])
    assert sums == pytest.approx([sum(part) for part in logs], abs=1e-3)
    (means,) = MLMScoring.from_pretrained(bert, device="cpu", reduction="mean").scores(["Why?"], [TEXTS])
    assert means == pytest.approx([np.mean(part) for part in logs], abs=1e-4)
    assert len({round(score, 1) for score in sums}) == len(TEXTS)  # the scores differ


def test_the_same_for_roberta(roberta):
    from transformers import RobertaForMaskedLM

    from llm_blender.rankers.mlm_scoring import MLMScoring

    ranker = MLMScoring.from_pretrained(roberta, device="cpu")
    logs = [by_hand(roberta, RobertaForMaskedLM, text, "<mask>", "<s>", "</s>") for text in TEXTS]
    (sums,) = ranker.scores(["Why?"], [TEXTS])
    assert sums == pytest.approx([sum(part) for part in logs], abs=1e-3)
    assert ranker.max_length == 42 - 1


def test_ranking(bert):
    from llm_blender.rankers.mlm_scoring import MLMScoring

    ranker = MLMScoring.from_pretrained(bert, device="cpu")
    ranking = ranker.rank("Why?", TEXTS)
    (scores,) = ranker.scores(["Why?"], [TEXTS])
    assert ranking.order == tuple(np.argsort(-scores))
    assert (ranking.strategy, ranking.comparisons, ranking.truncated) == ("mlm", 0, 0)
    assert ranking.logit(0, 1) == pytest.approx(scores[0] - scores[1], abs=2e-3)


def test_scores_depend_on_the_candidate_alone(bert):
    from llm_blender.rankers.mlm_scoring import MLMScoring

    ranker = MLMScoring.from_pretrained(bert, device="cpu")
    together = ranker.rank_many(["Why?", "How?"], [TEXTS, TEXTS[::-1] + TEXTS[:1]])
    alone = [ranker.rank("Other", [text]).scores[0] for text in TEXTS]
    assert together[0].scores == tuple(alone)
    assert together[1].scores == (*alone[::-1], alone[0])


def test_many_texts_are_masked_in_portions(bert):
    from transformers import BertForMaskedLM

    from llm_blender.rankers.mlm_scoring import MLMScoring

    ranker = MLMScoring.from_pretrained(bert, device="cpu")
    whole = ranker.rank("Why?", [*TEXTS, ""]).scores
    small = MLMScoring(ranker.model, ranker.folder, ranker.input_format, ranker.max_length, copies=6)
    calls = []
    ranking = small.rank("Why?", [*TEXTS, ""], progress=lambda *call: calls.append(call))
    assert ranking.scores == whole
    assert calls == sorted(calls)
    tokens = sum(len(by_hand(bert, BertForMaskedLM, text, "[MASK]", "[CLS]", "[SEP]")) for text in TEXTS)
    assert calls[-1] == (tokens, tokens)


def test_what_is_too_long_loses_its_end_and_that_is_told(bert):
    from transformers import BertForMaskedLM

    from llm_blender.rankers.mlm_scoring import MLMScoring

    long = "the sky is blue and " * 4  # 20 tokens
    ranker = MLMScoring.from_pretrained(bert, device="cpu", max_length=12)
    ranking = ranker.rank("Why?", [long, "the sky"])
    logs = by_hand(bert, BertForMaskedLM, long, "[MASK]", "[CLS]", "[SEP]", length=12)
    assert len(logs) == 10
    assert ranking.scores[0] == pytest.approx(sum(logs), abs=2e-3)
    tokens = len(Tokenizer.from_file(str(bert / "tokenizer.json")).encode(long, add_special_tokens=False).ids)
    assert ranking.truncated == pytest.approx((tokens - 10) / (tokens + 2))
    assert MLMScoring.from_pretrained(bert, device="cpu").max_length == 160


def test_an_empty_text(bert):
    from llm_blender.rankers.mlm_scoring import MLMScoring

    total, mean = (
        MLMScoring.from_pretrained(bert, device="cpu", reduction=r).rank("Why?", ["", "the", " "])
        for r in ("sum", "mean")
    )
    assert (total.scores[0], total.scores[2], total.best) == (0, 0, 0)  # an empty text has the highest sum
    size = Tokenizer.from_file(str(bert / "tokenizer.json")).get_vocab_size()
    assert mean.scores[0] == mean.scores[2] == pytest.approx(-math.log(size), abs=1e-3)


def test_a_mask_that_is_spelled_is_text(bert):
    from llm_blender.rankers.mlm_scoring import MLMScoring

    ranker = MLMScoring.from_pretrained(bert, device="cpu")
    (spelled,) = ranker.input_format.tokenize(["the [MASK] is"], 160)
    assert ranker.input_format.mask not in spelled.ids
    assert spelled.whole > 4


def test_an_encoder_without_its_head(tiny_encoder):
    from llm_blender.rankers.mlm_scoring import MLMScoring

    with pytest.raises(CheckpointError, match="without its language-model head"):
        MLMScoring.from_pretrained(tiny_encoder, device="cpu")


def test_a_tokenizer_of_another_model(bert, roberta, tmp_path):
    from llm_blender.rankers.mlm_scoring import MLMScoring

    shutil.copytree(bert, tmp_path / "bert")
    values = json.loads((bert / "tokenizer.json").read_text())
    values["model"]["vocab"] |= {f"more{i}": 1000 + i for i in range(200)}
    (tmp_path / "bert" / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="not this model's"):
        MLMScoring.from_pretrained(tmp_path / "bert", device="cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reduction": "max"}, "Unknown reduction 'max'"),
        ({"max_length": 161}, "from 3 to 160"),
        ({"max_length": 2}, "3"),
    ],
)
def test_wrong_options(bert, options, message):
    from llm_blender.rankers.mlm_scoring import MLMScoring

    with pytest.raises(InputError, match=message):
        MLMScoring.from_pretrained(bert, device="cpu", **options)


def test_no_model(tmp_path):
    from llm_blender.rankers.mlm_scoring import MLMScoring

    with pytest.raises(NotFoundError, match="no folder"):
        MLMScoring.from_pretrained(tmp_path / "none")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        MLMScoring.from_pretrained(tmp_path)


def test_by_name(bert):
    from llm_blender.rankers.mlm_scoring import MLMScoring

    ranker = load_ranker(f"mlm:{bert}", device="cpu")
    assert isinstance(ranker, MLMScoring)
    assert (
        ranker.rank("Why?", TEXTS).scores == MLMScoring.from_pretrained(bert, device="cpu").rank("Why?", TEXTS).scores
    )
    with pytest.raises(InputError, match="only the torch backend"):
        load_ranker(f"mlm:{bert}", backend="onnx")
