"""What an ensemble records, and the priors that it learns from that."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from llm_blender.config import Config
from llm_blender.ensemble import Ensemble, Member
from llm_blender.ensemble.settings import EnsembleSettings
from llm_blender.ranking import Priors
from llm_blender.record import Record, models_of
from llm_blender.store import Store
from llm_blender.testing import FakeLLM, FakeRanker

TEXTS = {"short": "No.", "long": "A much longer answer.", "middle": "An answer."}


def made(store: Store | None, **settings: object) -> Ensemble:
    members = [Member(FakeLLM(name, text)) for name, text in TEXTS.items()]
    return Ensemble(members, FakeRanker(), store=store, **settings)


def test_each_prompt_is_recorded_once(store: Store) -> None:
    ensemble = made(store)
    for prompt in ("Why?", "Why?", "What?"):
        ensemble.ask(prompt)
    ensemble.ask("Why?", seed=1, cache=False)  # other answers, the same question
    assert len(Record(store)) == 2
    standings = ensemble.recorded().standings
    assert [standings[name].first for name in TEXTS] == [0, 2, 0]


def test_nothing_is_recorded_where_it_is_not_wished(store: Store) -> None:
    made(store, record=False).ask("Why?")
    assert len(Record(store)) == 0
    made(None).ask("Why?")


def test_one_llm_has_no_outcome(store: Store) -> None:
    Ensemble([Member(FakeLLM("a", ["Yes.", "No!"]), 2)], FakeRanker(), store=store).ask("Why?")
    assert len(Record(store)) == 0


def test_priors_leave_no_trace_in_the_record(store: Store) -> None:
    made(store).ask("Why?")
    models = models_of([member.llm for member in made(store).members])
    before = Record(store).learn(models)
    answer = made(store, priors=Priors({"short": 50.0, "long": -50.0})).ask("Why?")
    assert answer.candidates[answer.ranking.best].model == "short"
    assert len(Record(store)) == 1
    assert Record(store).learn(models) == before


def test_the_record_becomes_the_priors_once_it_is_large_enough(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_blender.record.LEAST", 5)
    ensemble = made(store, priors="auto")
    plain = ensemble.ask("Why?")
    assert plain.ranking.evidence is None or "priors" not in plain.ranking.evidence.parts
    for i in range(4):
        ensemble.ask(f"Prompt {i}.")
    assert ensemble.ask("Why?").ranking.lead == plain.ranking.lead  # not before it learns again
    assert ensemble.learn().usable is not None
    informed = ensemble.ask("Why?").ranking
    assert informed.evidence is not None
    assert np.argmax(informed.evidence.parts["priors"]) == list(TEXTS).index("long")
    assert informed.probability(1, 0) > plain.ranking.probability(1, 0)
    assert made(store, priors="auto").ask("Why?").ranking.evidence == informed.evidence  # a new process


def test_a_store_that_fails_costs_no_answer(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    ensemble = made(store, priors="auto")
    ensemble.ask("Why?")
    with sqlite3.connect(store.path) as file:
        file.execute("DROP TABLE rankings")
    assert made(store, priors="auto").ask("What?", cache=False).text == TEXTS["long"]
    assert "the ranking was not recorded" in caplog.text
    assert "the record was not read" in caplog.text


def test_the_configuration_chooses(tmp_path: Path) -> None:
    text = '[ranker]\npriors = "auto"\nrecord = false\n'
    config = Config.from_toml(text, tmp_path / "blend.toml")
    settings = EnsembleSettings.from_config(config)
    assert (settings.priors, settings.record, config.priors_path) == ("auto", False, None)
    assert EnsembleSettings.from_config(Config()).record
