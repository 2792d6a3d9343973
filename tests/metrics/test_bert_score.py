"""BERTScore beside the package bert-score: its recorded numbers, and itself where it runs."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from llm_blender.errors import CheckpointError, InputError, MissingExtraError, NotFoundError
from llm_blender.metrics import bertscore
from llm_blender.metrics.bert_score import load_bert_scorer

FIXTURES = Path(__file__).parent / "fixtures"
CASES = json.loads((FIXTURES / "bert_score.json").read_text(encoding="utf-8"))["cases"]
BASELINE = str(FIXTURES / "baseline.tsv")


def references_of(case, golden):
    if not case["several"]:
        return golden["references"]
    return [list(pair) for pair in zip(golden["references"], golden["second_references"], strict=True)]


@pytest.mark.parametrize("max_tokens", [1, 60, 4_096])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['encoder']}-{case['layer']}")
def test_the_numbers_of_bert_score(case, golden, encoder, max_tokens):
    found = bertscore(
        golden["predictions"],
        references_of(case, golden),
        model=encoder(case["encoder"]),
        layer=case["layer"],
        idf=case["idf"],
        baseline=BASELINE if case["rescaled"] else None,
        max_tokens=max_tokens,
    )
    np.testing.assert_allclose(found.values, case["f1"], atol=2e-6)
    np.testing.assert_allclose(found.parts["precision"], case["precision"], atol=2e-6)
    np.testing.assert_allclose(found.parts["recall"], case["recall"], atol=2e-6)
    assert found.truncated == 1
    assert found.settings["layer"] == case["layer"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['encoder']}-{case['layer']}")
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning")
def test_bert_score_itself(case, golden, encoder):
    package = pytest.importorskip("bert_score", reason="bert-score is installed beside transformers 4.57 only")
    expected = package.score(
        golden["predictions"],
        references_of(case, golden),
        model_type=encoder(case["encoder"]),
        num_layers=case["layer"],
        idf=case["idf"],
        device="cpu",
        nthreads=0,
        batch_size=1,
        lang="en",
        rescale_with_baseline=case["rescaled"],
        baseline_path=BASELINE,
    )
    for name, column in zip(("precision", "recall", "f1"), expected, strict=True):
        np.testing.assert_allclose(case[name], column.numpy(), atol=2e-6)


class TestByDefinition:
    def test_a_text_beside_itself(self, golden, encoder):
        found = bertscore(golden["references"], golden["references"], model=encoder("bert"))
        np.testing.assert_allclose(found.values, 1, atol=1e-6)

    def test_swapped_texts_swap_precision_and_recall(self, golden, encoder):
        texts = [text for text in zip(golden["predictions"], golden["references"], strict=True) if text[0]]
        a, b = ([pair[side] for pair in texts] for side in (0, 1))
        one, other = bertscore(a, b, model=encoder("bert")), bertscore(b, a, model=encoder("bert"))
        np.testing.assert_allclose(one.parts["precision"], other.parts["recall"], atol=1e-6)
        assert np.abs(one.parts["precision"] - one.parts["recall"]).max() > 0.01

    def test_greedy_matching_by_hand(self, encoder):
        import torch
        from transformers import BertModel, PreTrainedTokenizerFast

        model = BertModel.from_pretrained(encoder("bert")).eval()
        tokenizer = PreTrainedTokenizerFast.from_pretrained(encoder("bert"))
        prediction, reference = "the bird sings", "birds sing in the tree"

        def states(text):
            with torch.inference_mode():
                output = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
            return output.hidden_states[2][0].numpy()

        def cosine(x, y):
            return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))

        a, b = states(prediction), states(reference)
        precision = np.mean([max(cosine(x, y) for y in b) for x in a[1:-1]])  # special tokens can be matched only
        recall = np.mean([max(cosine(x, y) for x in a) for y in b[1:-1]])
        found = bertscore([prediction], [reference], model=encoder("bert"), layer=2)
        assert found.parts["precision"][0] == pytest.approx(precision, abs=1e-6)
        assert found.parts["recall"][0] == pytest.approx(recall, abs=1e-6)
        assert found.values[0] == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-6)

    def test_many_pairs_go_in_portions(self, golden, encoder):
        texts = (golden["predictions"], golden["references"])
        whole = bertscore(*texts, model=encoder("bert"))
        scorer = load_bert_scorer(encoder("bert"))
        calls = []
        scores, _ = scorer.score(
            *texts, idf=False, max_tokens=2_048, progress=lambda *call: calls.append(call), portion=3
        )
        np.testing.assert_allclose(scores[:, 2], whole.values, atol=1e-6)
        assert calls[-1] == (len(texts[0]),) * 2

    def test_the_encoder_of_a_seq2seq_model(self, golden, seq2seq):
        import torch
        from transformers import BartModel, PreTrainedTokenizerFast

        folder, text = seq2seq("bart"), "the bird sings"
        model, tokenizer = BartModel.from_pretrained(folder).eval(), PreTrainedTokenizerFast.from_pretrained(folder)
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.inference_mode():
            states = model.encoder(ids, output_hidden_states=True).hidden_states[1]
        scorer = load_bert_scorer(str(folder), layer=1)
        (found,) = scorer._states(scorer._loaded.tokenize([text]).ids, 100)
        np.testing.assert_allclose(found, torch.nn.functional.normalize(states[0], dim=-1), atol=1e-6)
        assert bertscore([text], [text], model=folder).values[0] == pytest.approx(1, abs=1e-6)

    def test_one_word_that_every_reference_has_weighs_nothing(self, encoder):
        found = bertscore(["bird", "bird"], ["bird", "bird"], model=encoder("bert"), idf=True)
        assert found.values.tolist() == [0, 0]


class TestSettings:
    def test_the_layer_is_known_by_the_models_name(self, encoder, tmp_path):
        assert bertscore(["a"], ["a"], model=encoder("bert")).settings["layer"] == 3  # unknown: the last
        named = tmp_path / "deberta-v3-small"  # whose layer is 4
        shutil.copytree(encoder("bert"), named)
        with pytest.raises(InputError, match=r"layers 0 \(embeddings\) to 3, and no layer 4"):
            bertscore(["a"], ["a"], model=named)
        assert bertscore(["a"], ["a"], model=named, layer=1).settings["layer"] == 1

    @pytest.mark.parametrize("layer", [-1, 4])
    def test_no_such_layer(self, encoder, layer):
        with pytest.raises(InputError, match=f"no layer {layer}"):
            bertscore(["a"], ["a"], model=encoder("bert"), layer=layer)

    def test_baselines(self, encoder, tmp_path):
        texts = (["the bird sings"], ["birds sing"])
        with pytest.raises(NotFoundError, match="cannot be read"):
            bertscore(*texts, model=encoder("bert"), baseline=str(tmp_path / "none.tsv"))
        short = tmp_path / "short.tsv"
        short.write_text("LAYER,P,R,F\n0,0.1,0.1,0.1\n")
        with pytest.raises(InputError, match=r"no line of numbers for layer 3"):
            bertscore(*texts, model=encoder("bert"), baseline=str(short))
        raw = bertscore(*texts, model=encoder("bert"), layer=0).values[0]
        rescaled = bertscore(*texts, model=encoder("bert"), layer=0, baseline=str(short)).values[0]
        assert rescaled == pytest.approx((raw - 0.1) / 0.9)

    def test_length(self, encoder):
        texts = (["the bird sings " * 9], ["the bird sings " * 20])
        assert bertscore(*texts, model=encoder("bert")).truncated == 1
        assert bertscore(*texts, model=encoder("bert"), max_length=20).truncated == 1
        assert bertscore(["bird"], ["the bird"], model=encoder("bert"), max_length=20).truncated == 0
        with pytest.raises(InputError, match="reads from 4 to 40 tokens, not 41"):
            bertscore(*texts, model=encoder("bert"), max_length=41)
        assert load_bert_scorer(encoder("roberta"), layer=1)._loaded.max_length == 40

    def test_unknown_device_and_dtype(self, encoder):
        with pytest.raises(InputError, match="Unknown device 'gpu'"):
            bertscore(["a"], ["a"], model=encoder("bert"), device="gpu")
        with pytest.raises(InputError, match="did you mean 'float16'"):
            bertscore(["a"], ["a"], model=encoder("bert"), dtype="fp16")

    def test_half_precision_is_near(self, golden, encoder):
        texts = (golden["predictions"], golden["references"])
        half = bertscore(*texts, model=encoder("bert"), dtype="bfloat16").values
        np.testing.assert_allclose(half, bertscore(*texts, model=encoder("bert")).values, atol=0.03)


class TestLoading:
    @pytest.mark.parametrize("case", [CASES[1], CASES[6]], ids=lambda case: case["encoder"])
    def test_a_checkpoint_that_does_not_name_its_special_tokens(self, case, golden, encoder, tmp_path):
        folder = tmp_path / "old"
        shutil.copytree(encoder(case["encoder"]), folder)
        (folder / "special_tokens_map.json").unlink()
        (folder / "tokenizer_config.json").write_text('{"model_max_length": 40}')
        assert not case["idf"]  # else the special tokens weigh nothing anyway
        found = bertscore(golden["predictions"], golden["references"], model=folder, layer=case["layer"])
        np.testing.assert_allclose(found.values, case["f1"], atol=2e-6)

    def test_once(self, encoder, monkeypatch):
        import transformers

        first = bertscore(["a"], ["b"], model=encoder("bert"))
        monkeypatch.setattr(transformers.AutoModel, "from_pretrained", None)
        assert bertscore(["a"], ["b"], model=encoder("bert")).values == first.values
        with pytest.raises(CheckpointError):
            bertscore(["a"], ["b"], model=encoder("roberta"))

    def test_a_model_that_is_nowhere(self, tmp_path, monkeypatch):
        monkeypatch.setenv("LLM_BLENDER_OFFLINE", "1")
        with pytest.raises(NotFoundError, match=r"No model 'owner/nothing'.* offline mode is on"):
            bertscore(["a"], ["b"], model="owner/nothing")
        with pytest.raises(NotFoundError, match="no folder"):
            bertscore(["a"], ["b"], model=tmp_path / "none")

    def test_what_is_no_checkpoint(self, encoder, tmp_path):
        with pytest.raises(CheckpointError, match="is not read by AutoModel"):
            bertscore(["a"], ["b"], model=tmp_path)
        mixed = tmp_path / "mixed"
        shutil.copytree(encoder("bert"), mixed)
        for path in Path(encoder("roberta")).glob("tok*.json"):
            shutil.copy(path, mixed)
        with pytest.raises(CheckpointError, match="it is not this model's"):
            bertscore(["a"], ["b"], model=mixed)

    def test_an_encoder_without_its_pooler(self, golden, encoder, tmp_path):
        from safetensors.torch import load_file, save_file

        folder = tmp_path / "bert"
        shutil.copytree(encoder("bert"), folder)
        weights = load_file(folder / "model.safetensors")
        kept = {name: tensor for name, tensor in weights.items() if "pooler" not in name}
        assert len(kept) < len(weights)
        save_file(kept, folder / "model.safetensors", {"format": "pt"})
        texts = (golden["predictions"], golden["references"])
        assert (bertscore(*texts, model=folder).values == bertscore(*texts, model=encoder("bert")).values).all()
        del kept["encoder.layer.0.output.dense.weight"]
        save_file(kept, folder / "model.safetensors", {"format": "pt"})
        load_bert_scorer.cache_clear()
        with pytest.raises(CheckpointError, match=r"not whole: .*output.dense.weight is missing"):
            bertscore(*texts, model=folder)

    def test_without_torch_the_pip_line_is_said(self, encoder, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch", None)
        monkeypatch.delitem(sys.modules, "llm_blender.metrics._models", raising=False)
        with pytest.raises(MissingExtraError, match=r"pip install 'llm-blender\[metrics\]'"):
            bertscore(["a"], ["b"], model=encoder("bert"))


def test_progress(golden, encoder):
    calls = []
    bertscore(golden["predictions"], golden["references"], model=encoder("bert"), progress=lambda *c: calls.append(c))
    assert calls == [(n, 8) for n in range(1, 9)]
