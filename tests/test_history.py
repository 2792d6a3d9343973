"""What the playground keeps."""

from __future__ import annotations

import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from llm_blender.data import parse_row, vote_records
from llm_blender.errors import InputError, NotFoundError, StoreError
from llm_blender.history import UNDO_SECONDS, History, Vote, _delete
from llm_blender.store import _MIGRATIONS, Store
from llm_blender.types import Candidate, Message, Usage

QUESTION: list[Message] = [{"role": "user", "content": "Why?"}]
REPORT: dict[str, Any] = {
    "mode": "pick",
    "candidates": [
        {"text": "A.", "model": "a", "rank": 1},
        {"text": "B. ", "model": "b"},
        {"text": "C.", "model": "c"},
    ],
    "ranking": {"best": 0},
}


@pytest.fixture
def history(tmp_path: Path) -> History:
    history = History(Store(tmp_path / "blend.db"))
    history.keep("one", QUESTION, "A.", REPORT)
    return history


def labels(history: History, id: str = "one") -> list[tuple[int, int, str]]:
    return [(vote.a, vote.b, vote.label) for vote in history.get(id).votes]


def test_an_answer_comes_back_as_it_was(history: History) -> None:
    kept = history.get("one")
    assert (kept.messages, kept.text, kept.report, kept.votes) == (tuple(QUESTION), "A.", REPORT, ())
    assert datetime.now(UTC) - kept.created_at < timedelta(minutes=1)
    assert [candidate.text for candidate in kept.candidates] == ["A.", "B. ", "C."]


def test_what_was_fused_is_the_last_candidate_unless_it_copies_one(history: History) -> None:
    for id, text, count in (("new", "A and B.", 4), ("copy", "B.", 3), ("none", "", 3)):
        history.keep(id, QUESTION, "A.", {**REPORT, "fusion": {"text": text, "fuser": "chat:f"}})
        assert len(history.get(id).candidates) == count
    assert history.get("new").candidates[-1] == Candidate("A and B.", model="chat:f")


def test_votes_are_pairs_and_the_last_word_counts(history: History) -> None:
    history.vote("one", 1)
    assert labels(history) == [(0, 1, "b"), (1, 2, "a")]
    history.vote("one", 0, [1])
    history.vote("one", 2, [0, 0], tie=True)
    assert labels(history) == [(0, 1, "a"), (0, 2, "tie"), (1, 2, "a")]
    assert history.take_back("one").votes == ()


def test_a_tie_without_a_preferred_one_is_on_all_pairs(history: History) -> None:
    history.vote("one", tie=True)
    assert labels(history) == [(0, 1, "tie"), (0, 2, "tie"), (1, 2, "tie")]
    assert not any(vote.bad for vote in history.get("one").votes)
    history.vote("one", bad=True)
    assert [(vote.label, vote.bad) for vote in history.get("one").votes] == [("tie", True)] * 3
    history.vote("one", 2)
    assert [(vote.label, vote.bad) for vote in history.get("one").votes] == [("tie", True), ("b", False), ("b", False)]
    with pytest.raises(InputError, match="needs the index of the `preferred`"):
        history.vote("one")
    with pytest.raises(InputError, match="needs the index of the `preferred`"):
        history.vote("one", over=[1], tie=True)


def test_blind_votes_are_told_from_others(history: History) -> None:
    history.vote("one", 0, [1], blind=True)
    history.vote("one", 0, [2])
    history.keep("seen", QUESTION, "A.", REPORT)
    history.vote("seen", 0)
    assert [(vote.b, vote.blind) for vote in history.get("one").votes] == [(1, True), (2, False)]
    assert [pair.by for pair in history.get("one").example.pairs] == ["human-blind", "human"]
    (answer,) = history.voted(blind_only=True)
    assert [(vote.a, vote.b) for vote in answer.votes] == [(0, 1)]
    history.vote("one", 1, [0])  # after the names were shown
    assert list(history.voted(blind_only=True)) == []


@pytest.mark.parametrize(
    ("preferred", "over", "message"),
    [(3, None, "no candidate 3: an index is from 0 to 2"), (0, [1, -1], "no candidate -1"), (1, [1], "to itself")],
)
def test_a_wrong_vote_changes_nothing(history: History, preferred: int, over: list[int] | None, message: str) -> None:
    history.vote("one", 1, [0])
    with pytest.raises(InputError, match=message):
        history.vote("one", preferred, over)
    assert labels(history) == [(0, 1, "b")]


def test_an_only_answer_has_no_rival(history: History) -> None:
    history.keep("alone", QUESTION, "A.", {**REPORT, "candidates": REPORT["candidates"][:1]})
    with pytest.raises(InputError, match="needs two candidates"):
        history.vote("alone", 0)


def test_what_is_deleted_takes_its_votes_along(history: History) -> None:
    history.vote("one", 0)
    history.forget("one")
    with pytest.raises(NotFoundError, match="no answer 'one'"):
        history.get("one")
    assert list(history.voted()) == []
    history.keep("one", QUESTION, "A.", REPORT)
    assert labels(history) == []


def test_what_is_removed_can_be_restored_for_a_while(history: History, tmp_path: Path) -> None:
    history.vote("one", 0)
    history.remove("one")
    history.keep("newer", QUESTION, "A.", REPORT)
    history.remove("newer")
    assert history.latest(9, before="newer") == []
    assert (history.latest(9), history.search(["why"], 9), list(history.voted())) == ([], [], [])
    for change in (history.get, history.take_back, history.remove, lambda id: history.vote(id, 0)):
        with pytest.raises(NotFoundError):
            change("one")
    with pytest.raises(NotFoundError):
        history.restore("one", owner="ann")
    assert len(history.restore("one").votes) == 2
    assert [kept.id for kept in history.latest(9)] == ["one"]
    assert history.restore("one").id == "one"  # it was not removed
    history.remove("one")
    with sqlite3.connect(tmp_path / "blend.db") as other:
        past = datetime.now(UTC) - timedelta(seconds=UNDO_SECONDS + 1)
        other.execute("UPDATE deleted SET deleted_at = ?", (past.isoformat(),))
    with pytest.raises(NotFoundError, match="no answer 'one'"):
        history.restore("one")
    assert [other.execute(f"SELECT count(*) FROM {name}").fetchone() for name in ("answers", "votes")] == [(0,), (0,)]
    other.close()


def test_a_later_answer_deletes_what_was_removed(history: History, tmp_path: Path) -> None:
    history.remove("one")
    with sqlite3.connect(tmp_path / "blend.db") as other:
        other.execute("UPDATE deleted SET deleted_at = '2025-01-01T00:00:00+00:00'")
    history.keep("two", QUESTION, "A.", REPORT)
    assert other.execute("SELECT id FROM answers").fetchall() == [("two",)]
    other.close()


def test_search(history: History) -> None:
    for id, question in (("100", "Is 100 % of it ÜBER?"), ("per", "Is it a per_cent?"), ("last", "Is it last?")):
        history.keep(id, [{"role": "user", "content": question}], "A.", REPORT)
    ids = {words: [kept.id for kept in history.search(words.split(), 9)] for words in ("is IT", "%", "_", "über", "c.")}
    assert ids == {
        "is IT": ["last", "per", "100"],
        "%": ["100"],
        "_": ["per"],
        "über": ["100"],
        "c.": ["last", "per", "100", "one"],  # of a candidate
    }
    assert [kept.id for kept in history.search(["it"], 1, offset=1)] == ["per"]
    assert [kept.id for kept in history.search(["it"], 1, before="per")] == ["100"]
    assert [kept.id for kept in history.search([], 2, offset=1)] == ["per", "100"]
    assert history.search(["role"], 9) == []


def test_clients_do_not_see_each_other(history: History) -> None:
    history.keep("hers", QUESTION, "A.", REPORT, owner="ann")
    history.vote("hers", 0, owner="ann")
    assert [kept.id for kept in history.latest(9, owner="ann")] == ["hers"]
    assert [kept.id for kept in history.latest(9, owner="")] == ["one"]
    assert [kept.id for kept in history.latest(9)] == ["hers", "one"]
    assert [kept.id for kept in history.voted(owner="")] == []
    for change in (history.vote, lambda id, _, owner: history.forget(id, owner=owner)):
        with pytest.raises(NotFoundError):
            change("hers", 0, owner="bob")


def test_pages_of_the_list(history: History) -> None:
    for number in range(5):
        history.keep(str(number), QUESTION, "A.", REPORT)
    assert [kept.id for kept in history.latest(2)] == ["4", "3"]
    assert [kept.id for kept in history.latest(2, before="3")] == ["2", "1"]
    with pytest.raises(NotFoundError):
        history.latest(2, before="nowhere")


def test_votes_become_rows_and_preferences(history: History) -> None:
    history.vote("one", 1, [0])
    history.vote("one", 1, [2], tie=True)
    history.keep("unvoted", QUESTION, "A.", REPORT)
    examples = [kept.example for kept in history.voted()]
    (row,) = vote_records(examples)
    assert parse_row(row) == examples[0]
    assert row["pairs"] == [
        {"a": 0, "b": 1, "label": "b", "by": "human"},
        {"a": 1, "b": 2, "label": "tie", "by": "human"},
    ]
    (record,) = vote_records(examples, "standard")
    assert (record["prompt"], record["chosen"], record["rejected"]) == ("Why?", "B. ", "A.")
    assert (record["margin"], record["probability"], record["chosen_model"]) == (0.0, None, "b")
    (record,) = vote_records(examples, "conversational")
    assert (record["prompt"], record["chosen"]) == (QUESTION, [{"role": "assistant", "content": "B. "}])
    with pytest.raises(InputError, match="Unknown format"):
        list(vote_records(examples, "dpo"))  # type: ignore[arg-type]


def test_a_conversation_stays_one(history: History) -> None:
    turns: list[Message] = [{"role": "system", "content": "Be brief."}, *QUESTION]
    history.keep("two", turns, "A.", REPORT)
    history.vote("two", 0)
    (row,) = vote_records(kept.example for kept in history.voted())
    assert row["instruction"] == turns
    assert parse_row(row).prompt == "System: Be brief.\n\nUser: Why?"


def test_threads_share_it(history: History) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda i: history.keep(f"t{i}", QUESTION, "A.", REPORT), range(40)))
        list(threads.map(lambda i: history.vote(f"t{i}", i % 3), range(40)))
    assert sum(len(kept.votes) for kept in history.voted()) == 80


def test_a_damaged_answer(history: History, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "blend.db")
    with other:
        other.execute("UPDATE answers SET report = '[1'")
    other.close()
    with pytest.raises(StoreError, match="the kept answer one is damaged"):
        history.get("one")
    history.forget("one")


def test_votes_of_an_old_store_are_not_blind(tmp_path: Path) -> None:
    path = tmp_path / "blend.db"
    old = sqlite3.connect(path)
    with old:
        for statement in _MIGRATIONS[:4]:
            old.execute(statement)
        old.execute(
            "INSERT INTO answers (id, owner, created_at, messages, text, report) VALUES (?, ?, ?, ?, ?, ?)",
            ("one", "", "2025-01-01T00:00:00+00:00", json.dumps(QUESTION), "A.", json.dumps(REPORT)),
        )
        old.execute("INSERT INTO votes VALUES (1, 0, 1, 'b', '2025-01-01T00:00:00+00:00')")
        old.execute("PRAGMA user_version = 4")
    old.close()
    with Store(path) as store:
        kept = History(store).get("one")
        assert (kept.votes, kept.settings) == ((Vote(0, 1, "b"),), {})
        assert not kept.votes[0].blind
        History(store).vote("one", 2, [0], blind=True)
        assert [vote.blind for vote in History(store).get("one").votes] == [False, True]


def test_answers_of_an_old_store_are_found(tmp_path: Path) -> None:
    path, fused = tmp_path / "blend.db", {**REPORT, "fusion": {"text": "Both, FUSED.", "fuser": "f"}}
    old = sqlite3.connect(path)
    with old:
        for statement in _MIGRATIONS[:8]:
            old.execute(statement)
        for id, report in ("one", json.dumps(fused)), ("bad", "{damaged"), ("half", json.dumps({"text": 1})):
            old.execute(
                "INSERT INTO answers (id, owner, created_at, messages, text, report) VALUES (?, ?, ?, ?, ?, ?)",
                (id, "", "2025-01-01T00:00:00+00:00", json.dumps(QUESTION), f"Über {id}.", report),
            )
        old.execute("PRAGMA user_version = 8")
    old.close()
    with Store(path) as store:
        history = History(store)
        for word in ("WHY", "über", "b.", "fused"):
            assert [kept.id for kept in history.search([word, "one"], 9)] == ["one"]
        with pytest.raises(StoreError, match="the kept answer bad is damaged"):
            history.search(["bad"], 9)


def test_an_answer_of_an_older_version_that_still_runs_is_listed(history: History) -> None:
    with history._store.connection() as connection:
        connection.execute("DELETE FROM search_texts")  # it writes none
    assert [kept.id for kept in history.latest(9)] == ["one"]
    assert history.search(["why"], 9) == []


def test_a_text_that_is_no_unicode_is_kept_and_found(history: History) -> None:
    history.keep("half", QUESTION, "A.", {**REPORT, "candidates": [{"text": "Half a \ud83d pair."}]})
    assert [kept.id for kept in history.search(["PAIR."], 9)] == ["half"]


def test_a_store_of_the_first_version_keeps_its_answers(tmp_path: Path) -> None:
    path = tmp_path / "blend.db"
    old = sqlite3.connect(path)
    with old:
        old.execute(
            "CREATE TABLE calls (key TEXT PRIMARY KEY, candidate TEXT NOT NULL, created_at TEXT NOT NULL) WITHOUT ROWID"
        )
        row = ("a", json.dumps(Candidate("Paid for.").to_dict()), "2025-01-01T00:00:00+00:00")
        old.execute("INSERT INTO calls VALUES (?, ?, ?)", row)
        old.execute("PRAGMA user_version = 1")
        old.execute("PRAGMA journal_mode = WAL")
    old.close()
    with Store(path) as store:
        assert store.get("a") == Candidate("Paid for.")
        History(store).keep("one", QUESTION, "A.", REPORT)
        assert len(store) == 1
    other = sqlite3.connect(path)
    assert other.execute("PRAGMA user_version").fetchone() == (len(_MIGRATIONS),)
    assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    other.close()


def call(text: str, seconds: float, tokens: int) -> Candidate:
    return Candidate(text, "fake", usage=Usage(3, tokens), seconds=seconds)


def details(*candidates: Candidate, **more: object) -> dict[str, object]:
    return {"mode": "pick", "ranking": {"best": 0}, "candidates": [each.to_dict() for each in candidates], **more}


@pytest.mark.parametrize("how", ["forget", "remove"])
def test_the_texts_of_its_calls_are_deleted_with_an_answer(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "blend.db")
    history = History(store)
    own, fused = call("Only “here”.", 1.5, 7), call("Both, fused.\n", 2.25, 9)
    shared, same_text = call("Shared.", 0.75, 4), call("Only “here”.", 3.5, 7)
    for key, candidate in {"own": own, "fused": fused, "shared": shared, "same text": same_text}.items():
        store.put(key, candidate)
    fusion = {"text": "Both, fused.", "usage": {"prompt_tokens": 3, "completion_tokens": 9}, "seconds": 4.0}
    history.keep("mine", QUESTION, "Both, fused.", details(own, shared, fusion=fusion))
    history.keep("other", QUESTION, "Shared.", details(shared))
    if how == "forget":
        history.forget("mine")
    else:
        history.remove("mine")
        assert len(store) == 4  # it can be restored
        monkeypatch.setattr("llm_blender.history.UNDO_SECONDS", -1)
        history.keep("later", QUESTION, "A.", REPORT)
    assert {stored.key for stored in store} == {"shared", "same text"}
    history.forget("other")
    assert {stored.key for stored in store} == {"same text"}


def test_what_is_deleted_is_in_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect

    def careless(*arguments: object, **options: object) -> sqlite3.Connection:
        connection = connect(*arguments, **options)  # type: ignore[call-overload]
        connection.execute("PRAGMA secure_delete = OFF")  # whatever this SQLite was built with
        return connection

    monkeypatch.setattr(sqlite3, "connect", careless)
    with Store(tmp_path / "blend.db") as store:
        history = History(store)
        for number in range(20):
            store.put(f"key {number}", call(f"a secret answer {number}", number + 0.5, number))
            report = details(call(f"a secret answer {number}", number + 0.5, number))
            history.keep(str(number), [{"role": "user", "content": "a secret question"}], "a secret answer", report)
        for number in range(20):
            history.forget(str(number))
        for file in tmp_path.iterdir():
            assert b"a secret" not in file.read_bytes(), file.name


@pytest.mark.parametrize("how", ["forget", "purge"])
def test_no_other_process_writes_while_an_answer_is_deleted(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number could be that of a new answer by then."""
    numbers: list[int] = []

    def delete(connection: sqlite3.Connection, number: int) -> None:
        other = sqlite3.connect(tmp_path / "blend.db", timeout=0, isolation_level=None)
        with closing(other), pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        numbers.append(number)
        _delete(connection, number)

    monkeypatch.setattr("llm_blender.history._delete", delete)
    with Store(tmp_path / "blend.db") as store:
        history = History(store)
        history.keep("1", QUESTION, "Because.", {})
        if how == "forget":
            history.forget("1")
        else:
            history.remove("1")
            monkeypatch.setattr("llm_blender.history.UNDO_SECONDS", -1)
        history.keep("2", QUESTION, "So.", {})
        assert [answer.id for answer in history.latest(9)] == ["2"]
    assert numbers == [1]
