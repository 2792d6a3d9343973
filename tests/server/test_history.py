"""Answers that are kept, and votes on them, over HTTP."""

from __future__ import annotations

import hashlib
import json
import sqlite3

import pytest

from llm_blender.server.auth import Keys
from llm_blender.store import Store
from llm_blender.testing import FakeLLM

KEEP = {"keep": True}
VOTE = {"a": 0, "b": 1, "label": "a", "blind": False, "bad": False}


@pytest.fixture
def running(serve, tmp_path):
    return serve(store=Store(tmp_path / "blend.db"))


def kept(running, **body):
    blend = {**KEEP, **body.pop("blend", {})}
    return running.ask("Why?", blend=blend, **body)


def test_an_answer_is_kept_where_it_is_wished(running):
    assert "kept" not in running.ask().json()["blend"]
    answer = kept(running).json()
    assert answer["blend"]["kept"] is True
    found = running.http.get(f"/v1/history/{answer['id']}").json()
    assert found["messages"] == [{"role": "user", "content": "Why?"}]
    assert (found["text"], found["votes"]) == ("A longer answer.", [])
    assert {**found["blend"], "kept": True} == answer["blend"]
    listed = running.http.get("/v1/history").json()
    assert [(entry["id"], entry["prompt"], entry["votes"]) for entry in listed["data"]] == [(answer["id"], "Why?", 0)]
    assert listed["more"] is False


def test_the_list_tells_where_a_word_is_and_in_which_conversation(running):
    turns = [{"role": "user", "content": "Which bread?"}, {"role": "assistant", "content": "Rye, " + "and so on " * 40}]
    running.ask("And cheese?", messages=[*turns, {"role": "user", "content": "And cheese?"}], blend=KEEP)

    def found(q):
        (entry,) = running.http.get("/v1/history", params={"q": q}).json()["data"]
        return entry

    assert (found("")["first"], found("")["turn"], found("")["match"]) == ("Which bread?", 2, None)
    assert found("cheese longer")["match"] is None  # it is in the question, and in the answer
    assert found("CHEESE BREAD")["match"] == "Which bread?"
    assert found("short")["match"] == "Short."  # another candidate
    assert found("rye")["match"].startswith("Rye, and")
    assert len(found("rye")["match"]) == 201


def test_the_earlier_turns_of_a_conversation_are_found(running):
    def ask(*texts):
        roles = ("user", "assistant") * len(texts)
        messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
        return running.ask(messages=messages, blend=KEEP).json()["id"]

    def earlier(id):
        found = running.http.get(f"/v1/history/{id}/earlier").json()["data"]
        return [each and each["id"] for each in found]

    ids = [ask("Why?"), ask("Why?"), ask("Why?", "Short. ", "How?")]  # went on from the candidate that did not win
    last = ask("Why?", "Short. ", "How?", "A longer answer.", "And?")
    assert [earlier(id) for id in ids] == [[], [], [ids[1]]]
    assert earlier(last) == ids[1:]
    whole = running.http.get(f"/v1/history/{last}/earlier").json()["data"]
    assert whole == [running.http.get(f"/v1/history/{id}").json() for id in ids[1:]]
    assert earlier(ask("Why?", "Another text.", "And?")) == [None]
    assert earlier(ask("Who?", "Short.", "And?")) == [None]
    ask("Why?", "Short. ", "How?")  # later than the conversation went on
    running.http.delete(f"/v1/history/{ids[1]}")
    assert earlier(last) == [ids[0], ids[2]]
    assert running.http.get("/v1/history/none/earlier").status_code == 404


def test_a_stream_is_kept_with_all_its_texts(running):
    text = kept(running, stream=True, blend={"candidates": False}).text
    chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    assert chunks[-1]["blend"]["kept"] is True
    assert "text" not in chunks[-1]["blend"]["candidates"][0]
    found = running.http.get(f"/v1/history/{chunks[0]['id']}").json()
    assert [candidate["text"] for candidate in found["blend"]["candidates"]] == ["Short.", "A longer answer."]


def test_votes(running):
    id = kept(running).json()["id"]
    path = f"/v1/history/{id}/votes"
    assert running.http.post(path, json={"preferred": 0}).json()["votes"] == [VOTE]
    tie = running.http.post(path, json={"preferred": 1, "over": [0], "tie": True})
    assert tie.json()["votes"] == [{**VOTE, "label": "tie"}]
    bad = running.http.post(path, json={"bad": True, "blind": True})
    assert bad.json()["votes"] == [{**VOTE, "label": "tie", "bad": True, "blind": True}]
    assert running.http.get("/v1/history").json()["data"][0]["votes"] == 1
    assert running.http.delete(path).json()["votes"] == []


def test_what_is_deleted_can_be_restored(running):
    id = kept(running).json()["id"]
    running.http.post(f"/v1/history/{id}/votes", json={"preferred": 0})
    assert running.http.delete(f"/v1/history/{id}").status_code == 204
    gone = running.http.get(f"/v1/history/{id}")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "not_found")
    assert running.http.get("/v1/votes").text == ""
    assert running.http.post(f"/v1/history/{id}/restore").json()["votes"] == [VOTE]
    assert running.http.get(f"/v1/history/{id}").status_code == 200
    assert running.http.post("/v1/history/nowhere/restore").status_code == 404


def test_search(running):
    id = running.ask("Why is the SKY blue? 100 %", blend=KEEP).json()["id"]
    running.ask("What is an ensemble?", blend=KEEP)
    for words, count in (("sky blue", 1), ("blue ensemble", 0), ("%", 1), ("_", 0), ("longer short", 2), ("", 2)):
        assert len(running.http.get("/v1/history", params={"q": words}).json()["data"]) == count
    found = running.http.get("/v1/history", params={"q": "is", "limit": 1, "offset": 1}).json()
    assert ([entry["id"] for entry in found["data"]], found["more"]) == ([id], False)
    first = running.http.get("/v1/history", params={"q": "is", "limit": 1}).json()
    assert first["more"] is True
    then = running.http.get("/v1/history", params={"q": "is", "before": first["data"][0]["id"]}).json()
    assert [entry["id"] for entry in then["data"]] == [id]
    assert running.http.get("/v1/history", params={"q": "x" * 501}).status_code == 400


def test_an_entry_shows_the_winner_and_keeps_the_settings(running):
    turns = [{"role": "system", "content": "Rhyme."}, {"role": "user", "content": "Why?"}]
    body = {"temperature": 0.5, "max_tokens": 9, "user": "ann", "blend": {**KEEP, "samples": 2, "watch": True}}
    answer = running.http.post("/v1/chat/completions", json={"model": "blend", "messages": turns, **body})
    id = answer.json()["id"]
    (entry,) = running.http.get("/v1/history").json()["data"]
    assert (entry["prompt"], entry["answer"], entry["llm"]) == ("Why?", "A longer answer.", "b")
    found = running.http.get(f"/v1/history/{id}").json()
    assert found["messages"] == turns
    assert found["settings"] == {"model": "blend", "temperature": 0.5, "max_tokens": 9, "blend": {"samples": 2}}
    again = {"messages": found["messages"], **found["settings"]}
    assert running.http.post("/v1/chat/completions", json=again).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"preferred": 2},
        {"preferred": 0, "over": []},
        {"preferred": -1},
        {"best": 0},
        {"blind": True},
        {"tie": True, "over": [1]},
    ],
)
def test_a_wrong_vote_is_refused(running, body):
    id = kept(running).json()["id"]
    response = running.http.post(f"/v1/history/{id}/votes", json=body)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_value")


def test_votes_are_exported(running):
    id = kept(running).json()["id"]
    running.http.post(f"/v1/history/{id}/votes", json={"preferred": 0})
    response = running.http.get("/v1/votes")
    assert response.headers["content-type"].startswith("application/jsonl")
    assert "attachment" in response.headers["content-disposition"]
    row = json.loads(response.text)
    assert (row["id"], row["pairs"]) == (id, [{"a": 0, "b": 1, "label": "a", "by": "human"}])
    record = json.loads(running.http.get("/v1/votes?format=standard").text)
    assert (record["chosen"], record["rejected_model"]) == ("Short.", "b")
    assert running.http.get("/v1/votes?blind_only=true").text == ""
    running.http.post(f"/v1/history/{id}/votes", json={"preferred": 1, "blind": True})
    row = json.loads(running.http.get("/v1/votes?blind_only=true").text)
    assert row["pairs"] == [{"a": 0, "b": 1, "label": "b", "by": "human-blind"}]
    assert running.http.get("/v1/votes?format=csv").status_code == 400


def test_pages(running):
    ids = [kept(running).json()["id"] for _ in range(3)]
    first = running.http.get("/v1/history?limit=2").json()
    assert ([entry["id"] for entry in first["data"]], first["more"]) == ([ids[2], ids[1]], True)
    second = running.http.get(f"/v1/history?limit=2&before={ids[1]}").json()
    assert ([entry["id"] for entry in second["data"]], second["more"]) == ([ids[0]], False)
    assert running.http.get("/v1/history?limit=0").status_code == 400
    assert running.http.get("/v1/history?before=nowhere").status_code == 404


def test_everybody_with_a_key_has_a_history_of_their_own(serve, tmp_path):
    keys = Keys([hashlib.sha256(key).hexdigest() for key in (b"ann", b"bob")])
    running = serve(store=Store(tmp_path / "blend.db"), keys=keys)
    ann, bob = ({"authorization": f"Bearer {name}"} for name in ("ann", "bob"))
    body = {"model": "blend", "messages": [{"role": "user", "content": "Why?"}], "blend": KEEP}
    id = running.http.post("/v1/chat/completions", json=body, headers=ann).json()["id"]
    assert len(running.http.get("/v1/history", headers=ann).json()["data"]) == 1
    assert running.http.get("/v1/history", headers=bob).json()["data"] == []
    for method, path in (("GET", ""), ("DELETE", ""), ("DELETE", "/votes"), ("POST", "/restore")):
        assert running.http.request(method, f"/v1/history/{id}{path}", headers=bob).status_code == 404
    assert running.http.post(f"/v1/history/{id}/votes", json={"preferred": 0}, headers=bob).status_code == 404
    assert running.http.get("/v1/history").status_code == 401


@pytest.mark.parametrize("without", ["a store", "the playground"])
def test_without_a_history_nothing_is_kept(serve, tmp_path, without):
    store = None if without == "a store" else Store(tmp_path / "blend.db")
    running = serve(store=store, options={"playground": without == "a store"})
    refused = kept(running)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "no_history")
    assert running.http.get("/v1/history").status_code == 404
    assert running.http.get("/v1/ensemble").json()["history"] is False
    assert running.http.get("/").status_code == (200 if without == "a store" else 404)


def test_an_answer_that_cannot_be_kept_is_reported(serve, tmp_path, caplog):
    running = serve(store=Store(tmp_path / "blend.db", patience=0.1))
    other = sqlite3.connect(tmp_path / "blend.db", isolation_level=None)
    assert running.http.get("/v1/history").json()["data"] == []  # makes the tables
    other.execute("BEGIN IMMEDIATE")
    answer = kept(running)
    other.close()
    assert (answer.status_code, answer.json()["blend"]["kept"]) == (200, False)
    assert answer.json()["choices"][0]["message"]["content"] == "A longer answer."
    assert "was not kept" in caplog.text


def test_who_answers(plain, serve):
    told = plain.http.get("/v1/ensemble").json()
    assert told["llms"] == [{"name": "a", "samples": 1}, {"name": "b", "samples": 1}]
    assert (told["mode"], told["modes"], told["history"]) == ("pick", ["pick", "fuse", "auto"], True)
    assert serve(FakeLLM("a")).http.get("/v1/ensemble").json()["modes"] == ["pick"]


def test_a_store_that_cannot_be_used_costs_no_answer_and_is_not_described(serve, tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    path = tmp_path / "file" / "blend.db"
    running = serve(store=Store(path))
    answer = running.ask(seed=1, blend={"keep": True})
    assert (answer.status_code, answer.json()["blend"]["kept"]) == (200, False)
    response = running.http.get("/v1/history")
    assert (response.status_code, response.json()["error"]["code"]) == (500, "work_failed")
    assert response.json()["error"]["message"] == "The service's store cannot be used; its log has the reason."
    assert str(path) in caplog.text
