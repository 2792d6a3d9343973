"""Stages: rows in, rows out; what fails is a value in its row, and a stage can be pickled at any time."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from typing import Any

import pytest

import llm_blender.rankers
from llm_blender import Priors
from llm_blender.errors import InputError, NotFoundError, WorkError
from llm_blender.ranking import Compare
from llm_blender.stages import FuseRows, RankRows, Stage
from llm_blender.testing import FakeRanker
from llm_blender.types import Instruction

ROWS: list[dict[str, Any]] = [
    {"id": 1, "instruction": "Why?", "candidates": ["No.", {"text": "Because.", "model": "x"}], "mine": [1, None]},
    {"id": 2, "question": "How?", "candidates": ["a", "bbb", "cc"]},
    {"id": 3, "instruction": "Alone.", "candidates": ["only"]},
]


class Breaking(FakeRanker):
    """A ranker that cannot compare some texts."""

    def _comparer(self, instructions: Sequence[Instruction], candidates: Sequence[Sequence[str]]) -> Compare:
        texts = [text for row in candidates for text in row]
        if "break" in texts:
            raise InputError("It breaks.")
        if "bug" in texts:
            raise ZeroDivisionError("a bug")
        if "gone" in texts:
            raise WorkError("The device is gone.")
        return super()._comparer(instructions, candidates)


@pytest.fixture
def ranker(monkeypatch: pytest.MonkeyPatch) -> Breaking:
    ranker = Breaking()
    monkeypatch.setattr(llm_blender.rankers, "load_ranker", lambda *args, **options: ranker)
    return ranker


def row(*texts: str) -> dict[str, Any]:
    return {"instruction": "Q", "candidates": [*texts]}


STAGES: list[Stage[Any]] = [
    RankRows("longest"),
    RankRows("bundled", form="sorted", seed=3),
    RankRows("longest", form="best_of_n", priors=Priors({"x": 1.0})),
    FuseRows("consensus", "longest"),
]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: type(stage).__name__)
def test_a_stage_gives_the_same_rows_before_and_after_pickling_and_use(stage: Stage[Any]) -> None:
    before = pickle.dumps(stage)
    given = json.dumps(ROWS)
    first = stage(ROWS)
    assert json.dumps(ROWS) == given  # rows are not changed
    assert pickle.dumps(stage) == before  # models are not pickled, nor is it a trace of the use
    assert json.dumps(pickle.loads(before)(ROWS)) == json.dumps(first)
    alone = [stage([one])[0] for one in ROWS]
    assert json.dumps(alone) == json.dumps(first)  # nothing depends on the other rows
    assert json.loads(json.dumps(stage.settings)) == stage.settings


class Reading(FakeRanker):
    """A ranker that keeps the instructions of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[Any] = []

    def rank_many(self, instructions: Any, candidates: Any, **options: Any) -> Any:
        self.read += instructions
        return super().rank_many(instructions, candidates, **options)


@pytest.mark.parametrize("stage", [RankRows(), FuseRows("consensus")], ids=lambda stage: type(stage).__name__)
def test_rankers_read_a_conversation_as_one(stage: Stage[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    ranker = Reading()  # one that cuts a long conversation, or has a chat template, reads its turns
    monkeypatch.setattr(llm_blender.rankers, "load_ranker", lambda *args, **options: ranker)
    turns = [
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Why?"},
    ]
    texts = ["It is so. It rains.", "It is so. It snows.", "It rains. It snows."]
    with_an_input = {"instruction": turns, "input": "Say it.", "candidates": texts}
    stage([{"messages": turns, "candidates": texts}, with_an_input])
    assert len(ranker.read) == (4 if stage.key == "fusion" else 2)  # the guard reads them, too
    conversations = [instruction for instruction in ranker.read if not isinstance(instruction, str)]
    assert [list(turn) for turn in conversations] == [turns] * (len(ranker.read) // 2)
    assert [text for text in ranker.read if isinstance(text, str)] == [
        "User: Hi.\n\nAssistant: Hello.\n\nUser: Why?\nSay it."
    ] * (len(ranker.read) // 2)


def test_the_forms_of_a_ranked_row() -> None:
    (ranked,) = RankRows("longest")(ROWS[:1])
    assert {key: ranked[key] for key in ROWS[0]} == ROWS[0]
    assert (ranked["ranking"]["best"], ranked["ranking"]["ranks"]) == (1, [2, 1])
    (ordered,) = RankRows("longest", form="sorted")(ROWS[:1])
    assert ordered["candidates"] == [*reversed(ROWS[0]["candidates"])]
    assert (ordered["ranking"]["best"], ordered["ranking"]["ranks"]) == (0, [1, 2])
    (best,) = RankRows("longest", form="best_of_n")(ROWS[:1])
    assert {**best, "ranking": None} == {
        "id": 1, "instruction": "Why?", "output": "Because.", "model": "x", "ranking": None,
    }  # fmt: skip
    with pytest.raises(InputError, match="one of ranked, sorted, best_of_n, not 'best'"):
        RankRows("longest", form="best")  # type: ignore[arg-type]


def test_what_fails_is_a_value_in_its_row(ranker: Breaking) -> None:
    stage = RankRows("mine")
    rows = [row("a", "bb"), row("a", "break"), {"instruction": "no candidates"}, row("bug", "a"), row("ccc", "dd")]
    out = stage(rows)
    missing = (
        "`candidates` is missing: a list of texts or of {text, model} is wanted; in a table columns candidate:MODEL"
    )
    assert [stage.error(one) for one in out] == [None, "It breaks.", missing, "ZeroDivisionError: a bug", None]
    assert [one["ranking"].get("best") for one in out] == [1, None, None, None, 0]
    assert {**out[1], "ranking": None} == {**rows[1], "ranking": None}


def test_what_is_not_about_a_row_is_raised(ranker: Breaking) -> None:
    with pytest.raises(WorkError, match="The device is gone"):
        RankRows("mine")([row("a", "bb"), row("a", "gone")])
    with pytest.raises(ZeroDivisionError):  # all rows meet it
        RankRows("mine")([row("a", "bug"), row("b", "bug")])
    assert "a bug" in RankRows("mine")([row("a", "bug")])[0]["ranking"]["error"]


def test_a_ranker_that_is_nowhere_is_no_error_of_rows() -> None:
    with pytest.raises(NotFoundError):
        RankRows("./nowhere")(ROWS)


@pytest.mark.parametrize("make", [RankRows, lambda **options: FuseRows("consensus", **options)])
def test_a_wrong_setting_is_no_error_of_rows(make: Any) -> None:
    with pytest.raises(InputError, match="Unknown strategy 'bubbel': did you mean 'bubble'"):
        make(strategy="bubbel")
    with pytest.raises(InputError, match="The budget must be at least 2 comparisons"):
        make(strategy="active", budget=1)


def test_priors_and_models_count() -> None:
    rows = [{"instruction": "Q", "candidates": [{"text": "aaa", "model": "x"}, {"text": "bb", "model": "y"}, "cccc"]}]
    (kept,) = RankRows("longest", models=["x", "y"])(rows)
    assert (len(kept["candidates"]), kept["ranking"]["best"]) == (2, 0)
    (lifted,) = RankRows("longest", models=["x", "y"], priors=Priors({"x": -50.0, "y": 50.0}))(rows)
    assert lifted["ranking"]["best"] == 1


def test_fused_rows_keep_a_ranking_and_know_no_time(ranker: Breaking) -> None:
    ranked = RankRows("mine")(ROWS)
    out = FuseRows("longest", "mine")(ranked)
    assert [one["ranking"] for one in out] == [one["ranking"] for one in ranked]
    assert all("seconds" not in one["fusion"] for one in out)
    assert [one["fusion"]["reason"] for one in out] == ["copy", "copy", "one_candidate"]
    assert "ranking" in FuseRows("longest", "mine")(ROWS)[0]


def test_progress_is_that_of_the_ranker(ranker: Breaking) -> None:
    reports: list[tuple[int, int]] = []
    RankRows("mine", strategy="full")([row("a", "bb"), row("a", "bb", "ccc")], lambda *given: reports.append(given))
    assert reports[-1] == (8, 8)
