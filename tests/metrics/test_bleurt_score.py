"""BLEURT beside what transformers computes with the same checkpoint."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from llm_blender.errors import CheckpointError, InputError
from llm_blender.metrics import bleurt


def loaded(folder):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    return model, AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("max_tokens", [1, 90, 4_096])
def test_the_outputs_of_transformers(rater, golden, kind, max_tokens):
    import torch

    folder = rater(kind)
    model, tokenizer = loaded(folder)
    texts = [
        pair
        for pair in zip(golden["predictions"], golden["references"], strict=True)
        if pair[0] and len(tokenizer(*pair)["input_ids"]) <= 40
    ]
    assert len(texts) >= 2
    with torch.inference_mode():
        batches = [tokenizer(reference, text, return_tensors="pt") for text, reference in texts]
        assert all(("token_type_ids" in batch) == (kind == "bert") for batch in batches)
        expected = [float(model(**batch).logits) for batch in batches]
    predictions, references = zip(*texts, strict=True)
    found = bleurt(predictions, references, model=folder, max_tokens=max_tokens)
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    assert np.ptp(expected) > 0.01
    assert found.truncated == 0


def test_the_reference_is_read_first(rater):
    folder = rater()
    one, other = bleurt(["a bird"], ["the sky"], model=folder), bleurt(["the sky"], ["a bird"], model=folder)
    assert abs(one.values[0] - other.values[0]) > 0.001


def test_an_empty_prediction_is_a_text_of_no_tokens(rater):
    import torch

    folder = rater()
    model, tokenizer = loaded(folder)
    sky = tokenizer("the sky")["input_ids"]
    ids = torch.tensor([[*sky, tokenizer.sep_token_id]])
    types = torch.tensor([[0] * len(sky) + [1]])
    with torch.inference_mode():
        expected = float(model(input_ids=ids, attention_mask=torch.ones_like(ids), token_type_ids=types).logits)
    assert bleurt([""], ["the sky"], model=folder).values[0] == pytest.approx(expected, abs=1e-5)


def test_the_best_reference_counts(rater, golden):
    folder = rater()
    texts, keys = golden["predictions"], ("references", "second_references")
    alone = [bleurt(texts, golden[key], model=folder).values for key in keys]
    several = [list(pair) for pair in zip(*(golden[key] for key in keys), strict=True)]
    np.testing.assert_allclose(bleurt(texts, several, model=folder).values, np.maximum(*alone), atol=1e-5)


class TestLength:
    def test_the_longer_text_is_cut_first(self):
        from llm_blender.metrics._models import _shares

        def one_by_one(reference, prediction, room):
            while reference + prediction > room:
                if reference > prediction:
                    reference -= 1
                else:
                    prediction -= 1
            return reference, prediction

        for reference in range(12):
            for prediction in range(12):
                for room in range(1, 14):
                    assert _shares(reference, prediction, room) == one_by_one(reference, prediction, room)

    def test_of_what_is_too_long_the_beginning_is_read(self, rater):
        folder = rater()
        found = bleurt(["bird " * 60, "bird " * 61], ["the sky", "the sky"], model=folder)
        assert found.truncated == 2
        assert found.values[0] == pytest.approx(found.values[1], abs=1e-6)

    def test_by_the_models_name(self, rater, tmp_path):
        named = tmp_path / "bleurt-tiny-24"
        shutil.copytree(rater(), named)
        found = bleurt(["bird " * 20], ["the sky"], model=named)
        assert (found.settings["max_length"], found.truncated) == (24, 1)
        assert bleurt(["bird " * 20], ["the sky"], model=named, max_length=40).settings["max_length"] == 40
        assert bleurt(["bird"], ["the sky"], model=rater()).settings["max_length"] == 40
        with pytest.raises(InputError, match="reads from 4 to 40 tokens"):
            bleurt(["bird"], ["the sky"], model=named, max_length=128)


class TestWrongModels:
    def test_several_outputs(self, rater):
        with pytest.raises(CheckpointError, match="has 3 outputs: a BLEURT model has one"):
            bleurt(["a"], ["b"], model=rater(outputs=3))

    def test_an_encoder_alone(self, encoder):
        with pytest.raises(CheckpointError, match=r"not whole: classifier.bias, classifier.weight is missing"):
            bleurt(["a"], ["b"], model=encoder("bert"))

    def test_an_architecture_that_transformers_does_not_know(self, rater, tmp_path):
        folder = tmp_path / "ported"
        shutil.copytree(rater(), folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"model_type": "bleurt"}))
        with pytest.raises(CheckpointError, match="bleurt"):
            bleurt(["a"], ["b"], model=folder)


def test_progress(rater, golden):
    calls = []
    texts = (golden["predictions"], golden["references"])
    bleurt(*texts, model=rater(), max_tokens=1, progress=lambda *call: calls.append(call))
    assert calls == [(n, 8) for n in range(1, 9)]
