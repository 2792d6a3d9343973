"""The outcomes of rankings that an ensemble keeps, and what it learns from them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llm_blender.errors import StoreError
from llm_blender.ranking import fit_priors, games_from_ranking, ranking_from_scores
from llm_blender.record import LEAST, Record, models_of
from llm_blender.store import Store
from llm_blender.testing import FakeLLM
from llm_blender.types import Evidence, Ranking

LLMS = {"a": "m-a", "b": "m-b", "c": "m-c"}
TEXTS = ("One.", "Two.", "Three.")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "blend.db"


@pytest.fixture
def record(path: Path) -> Iterator[Record]:
    with Store(path) as store:
        yield Record(store)


def ranked(scores: Sequence[float]) -> Ranking:
    return ranking_from_scores("full", scores, np.subtract.outer(scores, scores))


def fill(record: Record, count: int, scores: Sequence[float] = (1.0, 0.0, -1.0), **llms: str) -> None:
    asked = {**LLMS, **llms}
    for i in range(count):
        record.keep(f"prompt {i} {asked}", asked, ranked(scores), list(asked), TEXTS)


def test_strengths_are_those_of_the_same_games(record: Record) -> None:
    rng = np.random.default_rng(0)
    rankings = [ranked(rng.normal([0.5, 0, -0.5])) for _ in range(60)]
    for i, ranking in enumerate(rankings):
        record.keep(f"prompt {i}", LLMS, ranking, list(LLMS), TEXTS)
    learned = record.learn(LLMS)
    wanted = fit_priors([game for ranking in rankings for game in games_from_ranking(ranking, list(LLMS))])
    assert learned.priors is not None
    assert dict(learned.priors.strengths) == pytest.approx(dict(wanted.strengths), abs=2e-3)  # halves of floats
    assert learned.priors.games == wanted.games
    assert learned.rankings == len(record) == 60
    for name, standing in learned.standings.items():
        assert standing.strength == learned.priors.strengths[name]
        assert standing.ci95 is not None
        assert standing.ci95.low < standing.strength < standing.ci95.high
    firsts = np.bincount([ranking.best for ranking in rankings], minlength=3)
    assert [learned.standings[name].first for name in LLMS] == firsts.tolist()


def test_a_large_record_tells_llms_apart_and_a_small_one_does_not(record: Record) -> None:
    fill(record, 1)
    few = record.learn(LLMS).standings["a"].ci95
    fill(record, 200)
    many = record.learn(LLMS).standings["a"].ci95
    assert few is not None
    assert many is not None
    assert few.low < 0 < many.low
    assert many.high - many.low < few.high - few.low


def test_no_text_is_kept_and_an_entry_is_small(path: Path) -> None:
    with Store(path) as store:
        record = Record(store)
        names = {f"llm-{i}": f"model-{i}" for i in range(11)}
        record.keep("A secret question", names, ranked(range(11)), list(names), ["A secret answer"] * 11)
    with sqlite3.connect(path) as file:
        (row,) = file.execute("SELECT * FROM rankings").fetchall()
    values = b"".join(value if isinstance(value, bytes) else str(value).encode() for value in row)
    assert b"secret" not in values
    assert len(values) < 600


def test_the_same_prompt_counts_once_with_its_last_outcome(record: Record) -> None:
    record.keep("Why?", LLMS, ranked([1, 0, -1]), list(LLMS), TEXTS)
    record.keep([{"role": "user", "content": "Why?"}], LLMS, ranked([0, 1, -1]), list(LLMS), TEXTS)
    assert len(record) == 1
    assert [record.learn(LLMS).standings[name].first for name in LLMS] == [0, 1, 0]
    record.keep("Why?", LLMS, ranked([0, 1]), ["b", "c"], TEXTS[:2])  # tried again, one LLM of the same three fails
    assert len(record) == 1
    record.keep("Why not?", LLMS, ranked([1, 0, -1]), list(LLMS), TEXTS)
    assert len(record) == 2


def test_an_llm_with_another_model_is_another_llm(record: Record) -> None:
    fill(record, 20)
    changed = {**LLMS, "a": "m-new"}
    learned = record.learn(changed)
    assert learned.priors is not None
    assert set(learned.priors.strengths) == {"b", "c"}
    assert (learned.standings["a"].prompts, learned.standings["a"].strength) == (0, None)
    fill(record, 20, (-1.0, 0.0, 1.0), a="m-new")
    now = record.learn(changed).priors
    assert now is not None
    assert now.strengths["a"] < now.strengths["c"]
    assert record.models() == changed
    assert models_of([FakeLLM("x", "text")]) == {"x": "x"}


def test_only_decided_games_of_two_llms_count(record: Record) -> None:
    record.keep("one LLM", {"a": "m-a"}, ranked([1, 0, -1]), ["a"] * 3, TEXTS)
    record.keep("a tie", LLMS, ranked([0, 0, 0]), list(LLMS), TEXTS)
    record.keep("a winner without a name", LLMS, ranked([0, 2, 1, 3]), ["a", "b", "c", None], (*TEXTS, "Four."))
    assert len(record) == 0
    fill(record, 3)
    learned = record.learn({"a": "m-a", "z": "m-z"})
    assert (learned.rankings, learned.priors) == (0, None)
    assert learned.standings["a"].prompts == 3


def test_priors_wait_for_enough_rankings(record: Record) -> None:
    fill(record, LEAST - 2)
    learned = record.learn(LLMS)
    assert learned.priors is not None
    assert learned.usable is None
    assert learned.to_dict() == {"used": False, "rankings": LEAST - 2, "missing": 2}
    assert "2 more" in learned.message
    fill(record, LEAST)
    learned = record.learn(LLMS)
    assert learned.usable is learned.priors
    assert learned.message == f"priors from {LEAST} recorded rankings"


def test_kinds_of_prompts(record: Record) -> None:
    code = ("```\nx = 1\n```", "```\nx = 2\n```", "x")
    answers = replace(ranked([1, 0, -1]), evidence=Evidence(situation="agreeing", answers=("1", "2", "1")))
    record.keep("compute", LLMS, answers, list(LLMS), TEXTS)
    record.keep("write code", LLMS, ranked([0, 1, -1]), list(LLMS), code)
    record.keep("chat", LLMS, ranked([0, 1, -1]), list(LLMS), TEXTS)
    standings = record.learn(LLMS).standings
    assert standings["a"].kinds == {"answer": (1, 1), "code": (1, 0), "other": (1, 0)}
    assert standings["b"].kinds == {"answer": (1, 0), "code": (1, 1), "other": (1, 1)}


def test_the_oldest_leave_a_full_record(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_blender.record._MOST", 5)
    fill(record, 8)
    assert len(record) == 5
    for _ in range(9):  # asking the newest again and again makes no other leave
        record.keep(f"prompt 7 {LLMS}", LLMS, ranked([1, 0, -1]), list(LLMS), TEXTS)
    assert len(record) == 5


def test_five_thousand_rankings_are_learned_quickly(record: Record, path: Path) -> None:
    names = {f"llm-{i}": f"model-{i}" for i in range(11)}
    record.keep("first", names, ranked(np.arange(11.0) / 10), list(names), ["text"] * 11)
    with sqlite3.connect(path) as file:
        file.executemany(
            "INSERT INTO rankings (key, kind, llms, best, wins) SELECT ?, kind, llms, best, wins FROM rankings LIMIT 1",
            [(i.to_bytes(16),) for i in range(1, 5000)],
        )
    record.learn(names)
    began = time.process_time()
    learned = record.learn(names)
    assert time.process_time() - began < 0.25  # 0.03 on an idle machine
    assert learned.rankings == 5000


def test_a_damaged_record_is_named(record: Record, path: Path) -> None:
    fill(record, 1)
    with sqlite3.connect(path) as file:
        file.execute("UPDATE rankings SET wins = x'00'")
    with pytest.raises(StoreError, match="damaged"):
        record.learn(LLMS)
