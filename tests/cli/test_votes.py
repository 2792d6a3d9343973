from __future__ import annotations

import json

from llm_blender.data import read_rows
from llm_blender.history import History
from llm_blender.store import Store

REPORT = {"candidates": [{"text": "A.", "model": "a"}, {"text": "B.", "model": "b"}]}


def test_votes_are_exported(blend, tmp_path):
    with Store(tmp_path / "blend.db") as store:
        for owner in ("ann", "bob"):
            History(store).keep(owner, [{"role": "user", "content": "Why?"}], "A.", REPORT, owner=owner)
            History(store).vote(owner, 1, blind=owner == "bob", owner=owner)
    result = blend("votes", "export", "--store", "blend.db", "-o", "votes.jsonl", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, {"answers": 2, "votes": 2, "records": 2})
    assert [row.pairs[0].label for row in read_rows(tmp_path / "votes.jsonl")] == ["b", "b"]
    result = blend("votes", "export", "--store", "blend.db", "--format", "standard")
    assert json.loads(result.stdout.splitlines()[0])["chosen"] == "B."
    result = blend("votes", "export", "--store", "blend.db", "--blind-only")
    (row,) = map(json.loads, result.stdout.splitlines())
    assert (row["id"], row["pairs"]) == ("bob", [{"a": 0, "b": 1, "label": "b", "by": "human-blind"}])


def test_the_store_is_that_of_the_environment(blend, tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_BLENDER_STORE", str(tmp_path / "other.db"))
    result = blend("votes", "export")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "0 votes on 0 answers" in result.stderr


def test_a_store_that_is_not_there(blend):
    result = blend("votes", "export", "--store", "nowhere.db")
    assert result.exit_code == 2
    assert "There is no file nowhere.db" in result.stderr
