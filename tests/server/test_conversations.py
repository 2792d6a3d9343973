"""Service, library, files and adapters read the same conversation, and an LLM behind an API gets all of it."""

from __future__ import annotations

import json

import pytest

from llm_blender import Ensemble, InputError, Member
from llm_blender.data import read_instructions, read_rows
from llm_blender.fusers.base import fuser_rows
from llm_blender.history import History
from llm_blender.integrations.trl import PairwiseJudge, WinProbabilityReward
from llm_blender.llms.openai_compatible import Backoff, OpenAICompatibleLLM
from llm_blender.store import Store
from llm_blender.testing import FakeLLM, FakeOpenAIServer, FakeRanker

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}, "extra_content": {"s": "t"}}
SQL = {"name": "f", "input": "x"}
CALLED = '[{"name": "f", "arguments": {"x": 1}}]'
SYSTEM, USER = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Q"}
# Name: what is given, what an LLM behind an API gets, what a ranker reads.
CONVERSATIONS = {
    "plain": (
        [SYSTEM, USER, {"role": "assistant", "content": "A"}, USER],
        [SYSTEM, USER, {"role": "assistant", "content": "A"}, USER],
        "System: Be brief.\n\nUser: Q\n\nAssistant: A\n\nUser: Q",
    ),
    "developer": ([{**SYSTEM, "role": "developer"}, USER], [SYSTEM, USER], "System: Be brief.\n\nUser: Q"),
    "parts": (
        [{"role": "user", "content": [{"type": "text", "text": "Q"}, {"type": "input_text", "text": "?"}]}],
        [{"role": "user", "content": "Q?"}],
        "Q?",
    ),
    "turns of tools": (
        [
            {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
            {"role": "user", "content": [{"type": "text", "text": "Q"}]},
            {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "Hm.", "refusal": None},
            {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "42"}]},
        ],
        [
            SYSTEM,
            USER,
            {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "Hm."},
            {"role": "tool", "tool_call_id": "c1", "content": "42"},
        ],
        f"System: Be brief.\n\nUser: Q\n\nAssistant: {CALLED}\n\nUser: Result of a tool: 42",
    ),
    "function_call": (
        [
            USER,
            {"role": "assistant", "content": None, "function_call": CALL["function"]},
            {"role": "function", "name": "f", "content": "42"},
        ],
        [
            USER,
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "call_1_0", "type": "function", "function": CALL["function"]}],
            },
            {"role": "tool", "name": "f", "content": "42", "tool_call_id": "call_1_0"},
        ],
        f"User: Q\n\nAssistant: {CALLED}\n\nUser: Result of a tool: 42",
    ),
    "custom tool": (
        [
            USER,
            {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "custom": {"name": "f", "input": "x"}}]},
        ],
        [
            USER,
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}],
            },
        ],
        'User: Q\n\nAssistant: [{"name": "f", "arguments": "x"}]',
    ),
    "refusal": (
        [USER, {"role": "assistant", "content": None, "refusal": "No."}, USER],
        [USER, {"role": "assistant", "content": "No.", "refusal": "No."}, USER],
        "User: Q\n\nAssistant: No.\n\nUser: Q",
    ),
    "refusal part": (
        [USER, {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}, USER],
        [USER, {"role": "assistant", "content": "No."}, USER],
        "User: Q\n\nAssistant: No.\n\nUser: Q",
    ),
    "an empty turn": (
        [USER, {"role": "assistant", "content": None}, USER],
        [USER, {"role": "assistant", "content": ""}, USER],
        "User: Q\n\nAssistant: \n\nUser: Q",
    ),
}
IMAGE = [
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": ["Q", {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]},
]
ANSWERS = ["a", "bb"]


def by_service(serve, tmp_path, given):
    with FakeOpenAIServer() as server:
        llms = [
            OpenAICompatibleLLM(name, "fake", server.base_url, backoff=Backoff(attempts=1)) for name in ("one", "two")
        ]
        ranker = FakeRanker()
        running = serve(*llms, ranker=ranker)
        response = running.http.post("/v1/chat/completions", json={"model": "blend", "messages": given})
        assert response.status_code == 200, response.text
        sent = [request["messages"] for request in server.requests]
        assert sent[0] == sent[1]
        ranker.batches.clear()
        for path, body in (("rank", {"candidates": ANSWERS}), ("compare", {"a": ANSWERS[0], "b": ANSWERS[1]})):
            response = running.http.post(f"/v1/{path}", json={"instruction": given, **body})
            assert response.status_code == 200, response.text
        first, second = [batch[0][0] for batch in ranker.batches]
        assert first == second
        return sent[0], first


def by_library(serve, tmp_path, given):
    llm, ranker = FakeLLM("one", ANSWERS), FakeRanker()
    Ensemble([Member(llm, samples=2)], ranker).ask(given)
    assert ranker.rank(given, ANSWERS).best == 1
    (row,) = fuser_rows([given], [ANSWERS])
    assert row.prompt == ranker.batches[0][0][0] == ranker.batches[1][0][0]
    return list(llm.calls[0].messages), row.prompt


def by_file(serve, tmp_path, given):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"messages": given, "candidates": ANSWERS}))
    (row,), (prompt,) = read_rows(file), read_instructions(file)
    assert row.prompt == prompt.prompt
    llm = FakeLLM("one", ANSWERS)
    Ensemble([Member(llm, samples=2)], FakeRanker()).ask(prompt.instruction)
    return list(llm.calls[0].messages), row.prompt


def by_judge(serve, tmp_path, given):
    ranker = FakeRanker()
    assert PairwiseJudge(ranker).judge([given], [ANSWERS]) == [1]
    assert PairwiseJudge(ranker).judge([given], [[[{"role": "assistant", "content": text}] for text in ANSWERS]]) == [1]
    return None, ranker.batches[0][0][0]


def by_reward(serve, tmp_path, given):
    ranker = FakeRanker()
    small, large = WinProbabilityReward(ranker)([given] * 2, ANSWERS)
    assert small < large
    return None, ranker.batches[0][0][0]


@pytest.mark.parametrize("door", [by_service, by_library, by_file, by_judge, by_reward])
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_all_doors_read_the_same(serve, tmp_path, door, name):
    given, sent, text = CONVERSATIONS[name]
    llm_got, ranker_read = door(serve, tmp_path, given)
    assert llm_got in (sent, None)
    assert ranker_read == text


@pytest.mark.parametrize("door", [by_library, by_file, by_judge, by_reward])
def test_all_doors_refuse_an_image(serve, tmp_path, door):
    with pytest.raises(InputError, match="Message 1 of the instruction: images are not read: send text"):
        door(serve, tmp_path, IMAGE)


@pytest.mark.parametrize(
    ("messages", "param", "words"),
    [
        (IMAGE, "1.content", "images are not read: send text"),
        ([USER, {"role": "user", "content": [{"type": "input_audio"}]}], "1.content", "audio is not read: send text"),
        ([USER, {"role": "user", "content": 5}], "1.content", "a text or a list of parts is wanted, not int"),
        ([USER, {"role": "wizard", "content": "x"}], "1.role", "unknown role 'wizard'"),
        ([USER, {"role": "assistant", "tool_calls": [CALL, {}]}], "1.tool_calls.1", "a call needs the `name`"),
        ([USER, {"role": "user", "content": None}], "1", "it needs a text `role` and a text `content`"),
        ([USER, 5], "1", "it needs a text `role` and a text `content`"),
        ({}, "", "Input should be a valid list"),
        (None, "", "Input should be a valid list"),
    ],
)
def test_the_service_names_the_message_and_its_key(plain, messages, param, words):
    for path, key, body in (
        ("chat/completions", "messages", {"model": "blend"}),
        ("rank", "instruction", {"candidates": ANSWERS}),
    ):
        error = plain.http.post(f"/v1/{path}", json={key: messages, **body}).json()["error"]
        where = f"{key}.{param}".rstrip(".")
        assert (error["code"], error["param"]) == ("invalid_value", where)
        if param:
            assert error["message"].startswith(f"{where}: {words}")


def test_a_system_prompt_of_an_llm_yields_to_the_developers(serve):
    with FakeOpenAIServer() as server:
        llm = OpenAICompatibleLLM("one", "fake", server.base_url, system="House rules.", backoff=Backoff(attempts=1))
        given, sent, _ = CONVERSATIONS["turns of tools"]
        response = serve(llm).http.post("/v1/chat/completions", json={"model": "blend", "messages": given})
        assert response.status_code == 200
        assert server.requests[0]["messages"] == sent


def test_custom_tools_are_handed_on(serve):
    tool = {"type": "custom", "custom": {"name": "sql"}}
    with FakeOpenAIServer() as server:
        llm = OpenAICompatibleLLM("one", "fake", server.base_url, backoff=Backoff(attempts=1))
        running = serve(llm)
        assert running.ask(tools=[tool]).status_code == 200
        assert server.requests[0]["tools"] == [tool]
        assert running.ask(tools=[{"type": "custom"}]).json()["error"]["param"] == "tools.0.custom"


def test_the_history_keeps_turns_of_text(tmp_path):
    given, _, text = CONVERSATIONS["turns of tools"]
    with Store(tmp_path / "x.db") as store:
        history = History(store)
        history.keep("a", given, "A", {"candidates": []})
        kept = history.get("a")
    assert [message["role"] for message in kept.messages] == ["system", "user", "assistant", "user"]
    assert kept.example.prompt == text


@pytest.mark.parametrize("wrong", [5, None, {"image": "x"}, ["a"]])
def test_documents_are_texts_or_objects(plain, wrong):
    error = plain.http.post("/v1/rerank", json={"query": "Q", "documents": ["a", wrong]}).json()["error"]
    assert error["param"] == "documents.1"
    assert error["message"] == "documents.1: the document is neither a text nor an object with a `text`."


def test_candidates_are_texts_or_objects_as_in_files(plain):
    given = [{"text": "a", "model": "x", "finish_reason": "length", "scores": {"judge": 1}}, "bb"]
    for path in ("rank", "fuse"):
        body = {"instruction": "Q", "candidates": given}
        objects, texts = (
            plain.http.post(f"/v1/{path}", json={**body, "candidates": candidates}).json()
            for candidates in (given, ["a", "bb"])
        )
        assert (objects.get("ranking") or objects)["ranks"] == (texts.get("ranking") or texts)["ranks"] == [2, 1]
    assert (
        plain.http.post("/v1/compare", json={"instruction": "Q", "a": given[0], "b": given[1]}).json()["winner"] == "B"
    )
    for wrong in ({"model": "x"}, 5, None, {"text": 5}):
        error = plain.http.post("/v1/rank", json={"instruction": "Q", "candidates": ["a", wrong]}).json()["error"]
        assert error["param"] == "candidates.1"
        assert "neither a text nor an object with a `text`" in error["message"]
