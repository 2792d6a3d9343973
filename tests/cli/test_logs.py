"""``blend logs``, and going on with the last conversation."""

from __future__ import annotations

import json
import sqlite3

import pytest

from llm_blender.history import History
from llm_blender.store import Store
from llm_blender.testing import FakeOpenAIServer, FakeReply

pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture
def asked(blend, ranker, servers):
    """Answer three prompts with two LLMs."""
    started = servers(
        FakeReply("short"), FakeReply("a longer one", usage=(3, 200)), more="price = {input = 1, output = 10}\n"
    )
    for prompt in ("Why is the sky blue?", "Straße\nnach Köln", "Why is water wet?"):
        assert blend("ask", prompt).exit_code == 0
    return started


def test_the_newest_answers_come_first(blend, asked):
    lines = [line.split("\t") for line in blend("logs").stdout.splitlines()]
    assert lines[0] == ["number", "time", "prompt", "winner", "cost"]
    assert [line[2] for line in lines[1:]] == ["Why is water wet?", "Straße nach Köln", "Why is the sky blue?"]
    assert {line[3] for line in lines[1:]} == {"b"}
    assert len(blend("logs", "-n", "1").stdout.splitlines()) == 2


def test_words_are_searched_in_prompts_and_answers(blend, asked):
    found = json.loads(blend("logs", "WHY", "sky", "--json").stdout)
    assert [each["prompt"] for each in found] == ["Why is the sky blue?"]
    assert [each["prompt"] for each in json.loads(blend("logs", "köln", "--json").stdout)] == ["Straße\nnach Köln"]
    assert len(json.loads(blend("logs", "longer", "--json").stdout)) == 3
    none = blend("logs", "nowhere")
    assert (none.exit_code, none.stdout, none.stderr) == (0, "", "no answers with nowhere\n")


def test_one_answer_whole(blend, asked):
    (first,) = json.loads(blend("logs", "sky", "--json").stdout)
    text = blend("logs", first["number"]).stdout
    assert "user: Why is the sky blue?\n" in text
    assert text.endswith("\n\na longer one\n")
    assert "score" not in text  # of no use to a reader
    assert [line.split()[:2] for line in text.splitlines() if line[:2] in ("1.", "2.")] == [["1.", "b"], ["2.", "a"]]
    whole = json.loads(blend("logs", first["number"], "--json").stdout)
    assert whole["messages"] == [{"role": "user", "content": "Why is the sky blue?"}]
    assert [candidate["text"] for candidate in whole["answer"]["candidates"]] == ["short", "a longer one"]


def test_an_answer_is_deleted(blend, refuse, asked):
    assert blend("logs", "2", "--delete").stderr == "deleted 2\n"
    assert [each["number"] for each in json.loads(blend("logs", "--json").stdout)] == [3, 1]
    refuse("logs", "2", message="The history holds no answer 2; `blend logs` lists them.")
    refuse("logs", "sky", "--delete", message="--delete needs the NUMBER of one answer")


def test_its_texts_leave_the_store_with_an_answer(blend, asked, tmp_path):
    store = Store(tmp_path / "blend.db")
    assert len(store) == 6
    blend("ask", "Why is the sky blue?")  # read from the store
    assert blend("logs", "4", "--delete").exit_code == 0
    assert len(store) == 6  # answer 1 has the same texts
    assert blend("logs", "1", "--delete").exit_code == 0
    assert len(store) == 4


def test_the_playground_is_listed_only_with_all(blend, asked, tmp_path):
    report = {"mode": "pick", "candidates": [{"text": "X.", "model": "x", "rank": 1}], "ranking": {"best": 0}}
    History(Store(tmp_path / "blend.db")).keep("other", [{"role": "user", "content": "Else?"}], "X.", report, owner="k")
    assert "Else?" not in blend("logs").stdout
    assert "Else?" in blend("logs", "--all").stdout
    assert blend("logs", "4").exit_code == 2
    assert blend("logs", "4", "--all").stdout.endswith("\nX.\n")


def test_nothing_is_kept_with_no_log(blend, ranker, servers):
    servers(FakeReply("yes"))
    assert blend("ask", "Secret?", "--no-log").exit_code == 0
    assert blend("logs").stderr == "no answers yet: `blend ask` keeps them\n"


def test_no_key_is_kept(blend, ranker, servers, tmp_path, monkeypatch):
    monkeypatch.setenv("THE_KEY", "sk-secret")
    with FakeOpenAIServer(api_key="sk-right") as locked:
        wrong = f'[[llm]]\nname = "l"\nmodel = "fake"\nbase_url = "{locked.base_url}"\napi_key_env = "THE_KEY"\n'
        servers(FakeReply("yes"), more=wrong)
        assert blend("ask", "Why?").exit_code == 0
    shown = blend("logs", "1").stdout
    assert [line.split() for line in shown.splitlines() if line.startswith("–")] == [["–", "l", "auth"]]
    with sqlite3.connect(tmp_path / "blend.db") as connection:
        assert "sk-secret" not in "\n".join(connection.iterdump())


def test_a_conversation_goes_on(blend, ranker, servers):
    (server,) = servers(FakeReply("First answer."))
    assert blend("ask", "One?", "-s", "@@Be brief.").exit_code == 0
    assert blend("ask", "Two?", "-c").exit_code == 0
    assert blend("ask", "Three?", "-c", "-s", "Be long.").exit_code == 0
    assert server.requests[1]["messages"] == [
        {"role": "system", "content": "@Be brief."},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "First answer."},
        {"role": "user", "content": "Two?"},
    ]
    assert server.requests[2]["messages"][0]["content"] == "Be long."
    assert len(server.requests[2]["messages"]) == 6
    assert json.loads(blend("logs", "3", "--json").stdout)["answer"]["system"] == "Be long."


def test_there_is_nothing_to_go_on_with(refuse, servers):
    servers(FakeReply("yes"))
    refuse("ask", "Two?", "-c", message="There is no conversation to go on with")


def test_a_store_that_cannot_be_written_costs_no_answer(blend, ranker, servers, tmp_path, monkeypatch):
    servers(FakeReply("yes"))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLM_BLENDER_STORE", str(tmp_path / "file" / "blend.db"))
    result = blend("ask", "Why?")
    assert (result.exit_code, result.stdout) == (0, "yes\n")
    assert "the answer is missing from `blend logs`" in result.stderr
