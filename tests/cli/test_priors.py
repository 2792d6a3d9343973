from __future__ import annotations

import json

import numpy as np
import pytest

from llm_blender.history import History
from llm_blender.ranking import Priors, ranking_from_scores
from llm_blender.record import Record
from llm_blender.store import Store


def row(prompt, *wins, texts=("aaa", "bb", "c"), models=("ann", "bob", "cy")):
    return {
        "instruction": prompt,
        "candidates": [
            {"text": text, "model": model, "scores": {"win": win}}
            for text, model, win in zip(texts, models, wins, strict=True)
        ],
        "pairs": [{"a": 2, "b": 0, "label": "a"}, {"a": 1, "b": 0, "label": "tie"}],
    }


@pytest.fixture(autouse=True)
def rows(tmp_path, ranker):
    train = [row(f"Train {i}.", 0, i % 2, 1) for i in range(20)]
    dev = [row(f"Dev {i}.", i % 3 == 0, 0, 1) for i in range(12)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, train)))
    (tmp_path / "dev.jsonl").write_text("\n".join(map(json.dumps, dev)))


def test_strengths_from_scores_need_no_ranker(blend, ranker, tmp_path):
    result = blend("priors", "fit", "train.jsonl", "--from", "scores", "--score", "win", "-o", "priors.json")
    assert result.exit_code == 0, result.stderr
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert lines[0] == ["LLM", "strength", "games"]
    assert [line[0] for line in lines[1:]] == ["cy", "bob", "ann"]
    assert "learned from scores win; weight 1.00" in result.stderr
    assert "--dev FILE fits it" in result.stderr
    priors = Priors.load(tmp_path / "priors.json")
    assert (priors.weight, priors.source, priors.games) == (1, "scores win", {"ann": 30, "bob": 20, "cy": 30})
    assert not ranker.comparisons


def test_the_weight_is_fitted_on_dev_rows(blend, ranker, tmp_path):
    args = ["train.jsonl", "--from", "scores", "--score", "win", "--dev", "dev.jsonl", "-o", "priors.json"]
    result = blend("priors", "fit", *args, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["rows"] == 20
    assert found["dev"]["pairs"] == 8 * 2 + 4 * 2
    assert found["dev"]["log_loss"] < found["dev"]["log_loss_without"]
    assert found["weight"] == found["dev"]["weight"] > 0
    assert found["weight_ci95"] == found["dev"]["ci95"]
    assert (found["ranker"], found["temperature"]) == ("bundled", found["dev"]["temperature"])
    assert ranker.comparisons == 12 * 6
    priors = Priors.load(tmp_path / "priors.json")
    assert priors.to_dict() == {key: found[key] for key in priors.to_dict()} | {"weight_ci95": priors.weight_ci95}


def test_strengths_from_labelled_pairs(blend, tmp_path):
    result = blend("priors", "fit", "train.jsonl", "dev.jsonl", "--from", "pairs", "-o", "priors.json")
    assert result.exit_code == 0, result.stderr
    assert Priors.load(tmp_path / "priors.json").games == {"ann": 32, "cy": 32}


def test_strengths_from_the_ranker_itself(blend, ranker, tmp_path):
    args = ["train.jsonl", "--from", "ranker", "--models", "ann, cy", "-o", "priors.json", "--comparisons", "kept.db"]
    result = blend("priors", "fit", *args)
    assert result.exit_code == 0, result.stderr
    priors = Priors.load(tmp_path / "priors.json")
    assert set(priors.strengths) == {"ann", "cy"}
    assert priors.strengths["ann"] > priors.strengths["cy"]  # longer
    assert priors.ranker == "bundled"
    made = ranker.comparisons
    assert made == 20 * 2
    assert blend("priors", "fit", *args).exit_code == 0
    assert ranker.comparisons - made <= 2 * 4  # probes only


def test_strengths_that_do_not_help_are_told(blend):
    args = ["train.jsonl", "--from", "ranker", "--dev", "dev.jsonl", "--score", "win", "-o", "priors.json"]
    result = blend("priors", "fit", *args)
    assert result.exit_code == 0, result.stderr
    assert "the weight is 0" in result.stderr


def test_rows_that_taught_cannot_weigh(blend):
    args = ["train.jsonl", "--from", "scores", "--score", "win", "--dev", "train.jsonl", "-o", "priors.json"]
    assert "20 instructions of --dev are in the other rows too" in blend("priors", "fit", *args).stderr


def test_show(blend, tmp_path):
    Priors({"ann": -0.5, "bob": 0.5}, {"ann": 1200}, 0.7, source="votes", ranker="bundled").save(tmp_path / "p.json")
    result = blend("priors", "show", "p.json")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == ["LLM\tstrength\tgames", "bob\t+0.50\t0", "ann\t-0.50\t1,200"]
    assert result.stderr == "learned from votes; weight 0.70, beside the ranker bundled\n"
    assert json.loads(blend("priors", "show", "p.json", "--json").stdout)["strengths"] == {"bob": 0.5, "ann": -0.5}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--from", "scores"], "--from scores needs --score"),
        (["--from", "pairs", "--score", "win"], "reads no score"),
        (["--from", "scores", "--score", "won"], "Unknown score 'won': did you mean 'win'?"),
        (["--from", "scores", "--score", "win", "--models", "ann,bop"], "Unknown model 'bop'"),
        (["--from", "scores", "--score", "win", "--dev", "none.jsonl"], "There is no file none.jsonl"),
        (["--from", "ranker", "--strategy", "ful"], "Unknown strategy 'ful': did you mean 'full'?"),
        (["--from", "ranker", "-o", "no/priors.json"], "There is no folder no"),
        (["--from", "votes"], "votes"),
    ],
)
def test_wrong_input(blend, ranker, args, message):
    result = blend("priors", "fit", "train.jsonl", "-o", "priors.json", *args)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not ranker.comparisons


def test_there_is_nothing_to_show(blend):
    result = blend("priors", "show", "none.json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "blend priors fit" in result.stderr


@pytest.fixture
def favour_cy(tmp_path):
    Priors({"cy": 9.0, "ann": -4.0}, ranker="other").save(tmp_path / "cy.json")


def test_rank_with_priors(blend, favour_cy):
    result = blend("rank", "train.jsonl", "--priors", "cy.json")
    assert result.exit_code == 0, result.stderr
    assert {json.loads(line)["ranking"]["best"] for line in result.stdout.splitlines()} == {2}
    assert "do not know bob" in result.stderr
    assert "fitted for the ranker other: their weight may not suit bundled" in result.stderr
    alone = blend("rank", "train.jsonl")
    assert {json.loads(line)["ranking"]["best"] for line in alone.stdout.splitlines()} == {0}
    assert "priors" not in alone.stderr


def test_rank_with_priors_of_other_llms(blend, tmp_path):
    Priors({"zoe": 1.0, "yan": -1.0}).save(tmp_path / "others.json")
    result = blend("rank", "train.jsonl", "--priors", "others.json")
    assert result.stdout == blend("rank", "train.jsonl").stdout
    assert "know none of these LLMs" in result.stderr


def test_rank_refuses_what_are_no_priors_before_the_work(blend, ranker):
    result = blend("rank", "train.jsonl", "--priors", "train.jsonl")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "is not a file of priors" in result.stderr
    assert not ranker.comparisons


def test_bench_select_shows_both(blend, ranker, favour_cy):
    args = ["train.jsonl", "--score", "win", "--strategy", "full", "--priors", "cy.json", "--json"]
    alone, informed, random, *_ = json.loads(blend("bench", "select", *args).stdout)
    assert (alone["method"], informed["method"]) == ("bundled, full", "bundled with priors, full")
    assert (alone["quality"], informed["quality"]) == (0, 1)
    assert informed["vs_random_ci95"][0] > 0
    assert informed["comparisons"] == alone["comparisons"] == ranker.comparisons
    assert random["method"] == "random"


MODELS = {"ann": "m1", "bob": "m2", "cy": "m3"}


def recorded(path, count=4, models=MODELS):
    scores = [2.0, 1.0, 0.0]
    ranking = ranking_from_scores("full", scores, np.subtract.outer(scores, scores))
    with Store(path) as store:
        for i in range(count):
            Record(store).keep(f"{i} {models}", models, ranking, list(models), ["x", "y", "z"])


def test_strengths_from_the_record_need_no_rows_and_no_ranker(blend, ranker, tmp_path):
    recorded(tmp_path / "blend.db")
    result = blend("priors", "fit", "--from", "record", "--store", "blend.db", "-o", "priors.json", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert (list(found["strengths"]), found["rows"], found["weight"]) == (["ann", "bob", "cy"], 4, 1)
    assert found["source"] == "4 recorded rankings"
    assert Priors.load(tmp_path / "priors.json").games == {"ann": 8, "bob": 8, "cy": 8}
    assert not ranker.comparisons
    some = ["--from", "record", "--store", "blend.db", "--models", "ann,cy", "-o", "two.json"]
    assert blend("priors", "fit", *some).exit_code == 0
    assert set(Priors.load(tmp_path / "two.json").strengths) == {"ann", "cy"}


def test_the_newest_model_of_a_name_counts(blend, tmp_path):
    recorded(tmp_path / "blend.db")
    recorded(tmp_path / "blend.db", 1, {"bob": "m2", "cy": "m3", "ann": "new"})
    result = blend("priors", "fit", "--from", "record", "--store", "blend.db", "-o", "priors.json")
    assert result.exit_code == 0, result.stderr
    priors = Priors.load(tmp_path / "priors.json")
    assert priors.games == {"ann": 2, "bob": 6, "cy": 6}  # two of the new ann, none of the old one
    assert priors.strengths["ann"] < priors.strengths["bob"]


def test_strengths_from_votes(blend, tmp_path):
    report = {
        "candidates": [{"text": t, "model": t} for t in ("ann", "bob")],
        "fusion": {"text": "F", "fuser": "chat:f"},
    }
    with Store(tmp_path / "blend.db") as store:
        for i in range(3):
            History(store).keep(str(i), [{"role": "user", "content": f"Q{i}"}], "ann", report)
            History(store).vote(str(i), 1)
    result = blend("priors", "fit", "--from", "votes", "--store", "blend.db", "-o", "priors.json", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert (list(found["strengths"]), found["rows"], found["source"]) == (["bob", "ann"], 3, "votes")
    assert found["games"] == {"bob": 3, "ann": 3}  # not of the fused text


def test_strengths_from_blind_votes(blend, tmp_path):
    report = {"candidates": [{"text": t, "model": t} for t in ("ann", "bob")]}
    with Store(tmp_path / "blend.db") as store:
        for i in range(5):
            History(store).keep(str(i), [{"role": "user", "content": f"Q{i}"}], "ann", report)
            History(store).vote(str(i), int(i < 2), blind=i < 2)  # blind ones for bob, open ones for ann
    args = ("priors", "fit", "--from", "votes", "--store", "blend.db", "-o", "priors.json", "--json")
    assert list(json.loads(blend(*args).stdout)["strengths"]) == ["ann", "bob"]
    found = json.loads(blend(*args, "--blind-only").stdout)
    assert (list(found["strengths"]), found["games"]) == (["bob", "ann"], {"bob": 2, "ann": 2})


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train.jsonl", "--from", "record"], "reads the store and no files: leave train.jsonl out"),
        (["--from", "pairs"], "reads files of rows: name one"),
        (["train.jsonl", "--from", "pairs", "--store", "x.db"], "reads no store: leave --store out"),
        (["--from", "votes", "--store", "none.db"], "There is no file none.db"),
        (["--from", "record", "--store", "full.db", "--blind-only"], "reads no votes: leave --blind-only out"),
        (["--from", "record", "--store", "empty.db"], "The record is empty"),
        (["--from", "votes", "--store", "empty.db"], "holds no vote"),
        (["--from", "record", "--store", "full.db", "--models", "an"], "ann"),
        (["--from", "record", "--store", "full.db", "--models", "ann"], "no comparison of two"),
    ],
)
def test_what_the_store_cannot_teach_is_named(blend, tmp_path, args, message):
    with Store(tmp_path / "empty.db") as store:
        assert len(Record(store)) == 0
    recorded(tmp_path / "full.db")
    result = blend("priors", "fit", *args, "-o", "priors.json")
    assert result.exit_code != 0
    assert message in result.stderr
