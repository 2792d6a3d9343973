"""BARTScore beside sums over tokens that are computed one at a time."""

from __future__ import annotations

import shutil
from functools import cache

import numpy as np
import pytest

from llm_blender.errors import CheckpointError, InputError, NotFoundError
from llm_blender.metrics import bartscore

PREDICTIONS = ["the sky is blue", "", "a bird sings early in the air and light", "drink water"]
REFERENCES = ["the sky", "a bird sings", "sleep early and drink water", "drink water and sleep early in the light"]


@cache
def loaded(folder):
    from transformers import AutoModelForSeq2SeqLM, PreTrainedTokenizerFast

    return AutoModelForSeq2SeqLM.from_pretrained(folder).eval(), PreTrainedTokenizerFast.from_pretrained(folder)


def mean_log_probability(folder, source, target):
    """Compute the mean log-probability of a target, token by token, given the source."""
    import torch

    model, tokenizer = loaded(folder)
    read, written = tokenizer(source)["input_ids"], tokenizer(target)["input_ids"]
    logs, before = [], [model.config.decoder_start_token_id]
    with torch.inference_mode():
        for token in written:
            output = model(input_ids=torch.tensor([read]), decoder_input_ids=torch.tensor([before]))
            logs.append(float(output.logits[0, -1].log_softmax(-1)[token]))
            before.append(token)
    return sum(logs) / len(logs)


@pytest.fixture(params=["bart", "t5"])
def folder(request, seq2seq):
    return seq2seq(request.param)


class TestByHand:
    @pytest.fixture
    def expected(self, folder):
        texts = list(zip(PREDICTIONS, REFERENCES, strict=True))
        recall = np.array([mean_log_probability(folder, a, b) for a, b in texts])
        precision = np.array([mean_log_probability(folder, b, a) for a, b in texts])
        assert np.ptp(recall) > 0.1
        return {"recall": recall, "precision": precision, "f1": (recall + precision) / 2}

    @pytest.mark.parametrize("max_tokens", [1, 16, 1_024])
    @pytest.mark.parametrize("direction", ["recall", "precision", "f1"])
    def test_each_direction_in_any_batch(self, folder, expected, direction, max_tokens):
        found = bartscore(PREDICTIONS, REFERENCES, model=folder, direction=direction, max_tokens=max_tokens)
        np.testing.assert_allclose(found.values, expected[direction], atol=1e-5)
        assert sorted(found.parts) == (["precision", "recall"] if direction == "f1" else [])
        for name, part in found.parts.items():
            np.testing.assert_allclose(part, expected[name], atol=1e-5)
        assert found.settings == {"model": str(folder), "direction": direction}

    def test_recall_is_the_default(self, folder, expected):
        np.testing.assert_allclose(
            bartscore(PREDICTIONS, REFERENCES, model=folder).values, expected["recall"], atol=1e-5
        )

    def test_the_best_reference_counts(self, folder, expected):
        several = [[reference, "blue"] for reference in REFERENCES]
        other = [mean_log_probability(folder, text, "blue") for text in PREDICTIONS]
        best = np.maximum(expected["recall"], other)
        assert (best != expected["recall"]).any()
        np.testing.assert_allclose(bartscore(PREDICTIONS, several, model=folder).values, best, atol=1e-5)


def test_half_precision_is_near(folder):
    half = bartscore(PREDICTIONS, REFERENCES, model=folder, dtype="bfloat16").values
    np.testing.assert_allclose(half, bartscore(PREDICTIONS, REFERENCES, model=folder).values, atol=0.5)


def test_what_is_too_long_is_cut_and_counted(seq2seq):
    long = "the sky is blue " * 30
    found = bartscore([long, "a bird", "a bird"], ["a bird", long, "a bird"], model=seq2seq("bart"))
    assert found.truncated == 2
    assert np.isfinite(found.values).all()
    shorter = bartscore([long + "and light"], ["a bird"], model=seq2seq("bart"))
    assert shorter.values[0] == pytest.approx(found.values[0], abs=1e-5)


def test_a_special_token_that_the_model_does_not_know(seq2seq, tmp_path):
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path / "bart"
    shutil.copytree(seq2seq("bart"), folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.add_special_tokens({"mask_token": "<hidden>"})
    assert len(tokenizer) == 301
    tokenizer.save_pretrained(folder)
    found = bartscore(["the sky", "<hidden>"], ["a bird", "a <hidden> bird"], model=folder).values
    assert found[0] == pytest.approx(bartscore(["the sky"], ["a bird"], model=seq2seq("bart")).values[0], abs=1e-5)
    assert found[1] == pytest.approx(mean_log_probability(folder, "<unk>", "a <unk> bird"), abs=1e-5)


def test_unknown_direction(seq2seq):
    with pytest.raises(InputError, match="did you mean 'recall'"):
        bartscore(["a"], ["b"], model=seq2seq("bart"), direction="recal")


def test_what_is_no_seq2seq_model(encoder, tmp_path):
    with pytest.raises(CheckpointError, match="AutoModelForSeq2SeqLM"):
        bartscore(["a"], ["b"], model=encoder("bert"))
    with pytest.raises(NotFoundError, match="no folder"):
        bartscore(["a"], ["b"], model=tmp_path / "none")


def test_progress_counts_both_directions(seq2seq):
    calls = []
    bartscore(
        PREDICTIONS,
        REFERENCES,
        model=seq2seq("t5"),
        direction="f1",
        max_tokens=1,
        progress=lambda *call: calls.append(call),
    )
    assert calls == [(n, 8) for n in range(1, 9)]
