"""One table of several metrics."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from llm_blender.errors import InputError
from llm_blender.metrics import METRICS, bertscore, bleu, evaluate, rouge
from llm_blender.ranking import bootstrap_interval


@pytest.fixture
def texts(golden):
    return golden["predictions"], golden["references"]


@pytest.fixture
def everything(encoder, seq2seq, rater):
    return {
        "bleu": {},
        "rouge1": {},
        "rouge2": {},
        "rougeL": {"stemmer": False},
        "rougeLsum": {"sentences": "lines"},
        "bertscore": {"model": encoder("bert"), "layer": 2},
        "bartscore": {"model": seq2seq("bart")},
        "bleurt": {"model": rater()},
    }


def test_all_metrics_are_those_of_their_functions(texts, everything):
    table = evaluate(*texts, everything)
    assert [row.metric for row in table] == list(everything) == list(METRICS)
    assert table.examples == 8
    for row in table:
        assert row.status == "ok"
        expected = METRICS[row.metric](*texts, **everything[row.metric])
        assert row.scores.metric == row.metric
        np.testing.assert_allclose(row.scores.values, expected.values, atol=1e-6)
        assert row.scores.settings == expected.settings
        assert row.mean == pytest.approx(expected.values.mean(), abs=1e-6)
        assert row.ci95 == bootstrap_interval(row.scores.values, seed=0)
        assert row.ci95.low < row.mean < row.ci95.high
    assert table["rougeL"].scores.values.tolist() == rouge(*texts, stemmer=False).values.tolist()
    assert table["bertscore"].scores.values.tolist() == bertscore(*texts, **everything["bertscore"]).values.tolist()


def test_names_alone(texts):
    table = evaluate(*texts, ["rouge2", "bleu"])
    assert [row.metric for row in table] == ["rouge2", "bleu"]
    assert table["bleu"].scores.values.tolist() == bleu(*texts).values.tolist()
    assert evaluate(*texts, "bleu")["bleu"].mean == table["bleu"].mean
    assert evaluate(*texts, {"bleu": None})["bleu"].mean == table["bleu"].mean


def test_what_cannot_be_had_is_named_and_the_rest_is_measured(texts, tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_BLENDER_OFFLINE", "1")
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    metrics = {
        "bertscore": {"model": "owner/nothing"},
        "rougeL": {},
        "bleurt": {"model": str(tmp_path)},
        "bleu": {},
    }
    calls = []
    table = evaluate(*texts, metrics, progress=lambda *call: calls.append(call))
    assert "No model 'owner/nothing'" in table["bertscore"].status
    assert "pip install 'llm-blender[metrics]'" in table["rougeL"].status
    assert str(tmp_path) in table["bleurt"].status
    for name in ("bertscore", "rougeL", "bleurt"):
        row = table[name]
        assert row.status.startswith("unavailable: ")
        assert (row.scores, row.ci95, row.mean) == (None, None, None)
        assert row.to_dict() == {"metric": name, "status": row.status}
    assert table["bleu"].status == "ok"
    assert calls[:4] == [(8, 32), (16, 32), (24, 32), (25, 32)]
    assert calls[-1] == (32, 32)


def test_the_default_names_every_model_that_it_lacks(texts, monkeypatch):
    monkeypatch.setenv("LLM_BLENDER_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/nowhere")
    table = evaluate(*texts)
    assert [row.metric for row in table if row.status == "ok"] == ["bleu", "rougeL"]
    for name, model in [
        ("bertscore", "google-bert/bert-base-multilingual-cased"),
        ("bartscore", "facebook/bart-large-cnn"),
        ("bleurt", "Elron/bleurt-base-128"),
    ]:
        assert f"No model '{model}'" in table[name].status


def test_groups_are_resampled_together(texts):
    groups = ["a", "a", "b", "b", "c", "c", "d", "d"]
    row = evaluate(*texts, ["bleu"], groups=groups, seed=3)["bleu"]
    assert row.ci95 == bootstrap_interval(row.scores.values, [0, 0, 1, 1, 2, 2, 3, 3], seed=3)
    assert row.ci95 != evaluate(*texts, ["bleu"], seed=3)["bleu"].ci95
    with pytest.raises(InputError, match="8 predictions need as many groups, not 2"):
        evaluate(*texts, ["bleu"], groups=["a", "b"])


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (["bleau"], "Unknown metric 'bleau': did you mean 'bleu'"),
        ([], "No metric is given"),
        ({"bertscore": {"modell": "x"}}, "Unknown setting of bertscore 'modell': did you mean 'model'"),
        ({"rougeL": {"variant": "rouge1"}}, "Unknown setting of rougeL 'variant'"),
        ({"bleu": {"progress": None}}, "Unknown setting of bleu 'progress'"),
    ],
)
def test_wrong_names_are_refused_before_anything_is_computed(texts, metrics, message, monkeypatch):
    monkeypatch.setitem(METRICS, "bleu", pytest.fail)
    with pytest.raises(InputError, match=message):
        evaluate(*texts, metrics)


def test_a_wrong_value_is_the_callers_mistake(texts, encoder):
    with pytest.raises(InputError, match="no layer 9"):
        evaluate(*texts, {"bertscore": {"model": encoder("bert"), "layer": 9}})


def test_a_metric_that_was_not_asked_for(texts):
    with pytest.raises(InputError, match=r"Unknown metric 'rougeL'\. Known: bleu"):
        evaluate(*texts, ["bleu"])["rougeL"]


def test_as_json_and_as_text(texts, everything):
    table = evaluate(*texts, {**everything, "bartscore": {"model": "/nowhere"}})
    values = json.loads(json.dumps(table.to_dict()))
    assert values["examples"] == 8
    by_name = {row["metric"]: row for row in values["metrics"]}
    assert by_name["bartscore"].keys() == {"metric", "status"}
    assert by_name["bleu"]["corpus"] == table["bleu"].scores.corpus
    assert by_name["bertscore"]["parts"]["recall"] == table["bertscore"].scores.parts["recall"].tolist()
    assert by_name["bertscore"]["truncated"] == 1
    assert by_name["rougeL"]["ci95"] == list(table["rougeL"].ci95)
    lines = str(table).splitlines()
    assert len(lines) == 8
    low, high = table["bleu"].ci95
    assert lines[0] == f"bleu       {table['bleu'].mean:.4g} ({low:.4g} to {high:.4g})"
    assert lines[6].startswith("bartscore  unavailable: No model '/nowhere'")


def test_nothing_is_imported_before_it_is_used():
    heavy = {"torch", "transformers", "sacrebleu", "rouge_score", "nltk", "scipy"}
    code = (
        "import sys\nfrom llm_blender.metrics import evaluate\n"
        f"heavy = {heavy!r}\n"
        "print(*sorted(heavy & set(sys.modules)))\n"
        "evaluate(['a'], ['a'], ['bleu'])\nprint(*sorted(heavy & set(sys.modules)))\n"
        "evaluate(['a'], ['a'], ['rougeL'])\nprint(*sorted({'torch', 'transformers'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["", "sacrebleu", ""]
