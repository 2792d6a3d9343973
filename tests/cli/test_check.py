from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_blender.config import Config
from llm_blender.llms import local_servers, providers
from llm_blender.testing import FakeOpenAIServer, FakeReply

CALL = {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_BLENDER_STORE", str(tmp_path / "blend.db"))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")


def body(message: dict[str, Any], reason: str = "stop") -> FakeReply:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason}
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    return FakeReply(body=json.dumps({"choices": [choice], "usage": usage}).encode())


def able(request: dict[str, Any]) -> FakeReply:
    """Do all that a good server does."""
    if "tools" in request:
        return body({"content": None, "tool_calls": [CALL]}, "tool_calls")
    if "response_format" in request:
        return body({"content": '{"capital": "Paris"}'})
    return FakeReply(f"Seed {request.get('seed')}: a quiet harbour.", usage=(10, 20), drip=0.01)


def configure(*servers: FakeOpenAIServer, more: str = "") -> None:
    members = [
        f'[[llm]]\nname = "{name}"\nmodel = "fake"\nbase_url = "{server.base_url}"\n{more}'
        for name, server in zip("abc", servers, strict=False)
    ]
    Path("blend.toml").write_text("\n".join(members))


def test_all_that_a_good_server_does(blend):
    with FakeOpenAIServer(able) as server:
        configure(server, more="price = { input = 1.0, output = 10.0 }\n")
        result = blend("check", "--json")
        table = blend("check")
    (found,) = json.loads(result.stdout)["llms"]
    assert result.exit_code == 0
    kinds = ("works", "seed", "stream", "tools", "json")
    assert [found[kind] for kind in kinds] == [True] * 5
    assert found["calls"] == 4
    assert found["cost"] == pytest.approx((40 + 10 * 50) / 1e6)
    assert 0 < found["first_token"] < 5
    assert found["tokens_per_second"] > 1
    assert "this costs about $" in result.stderr
    assert "1 of 1 answer; $0.0005" in result.stderr
    head, row = (line.split("\t") for line in table.stdout.splitlines())
    assert dict(zip(head, row, strict=True))["tools"] == "yes"
    assert all(request["max_tokens"] <= 64 for request in server.requests)


def test_what_a_poor_server_does_not(blend, elsewhere):
    count = iter(range(100))

    def poor(request: dict[str, Any]) -> FakeReply:
        if "stream" in request:
            return body({"content": f"Text {next(count)}"})  # whole, although a stream was requested
        return FakeReply(f"Text {next(count)}")

    with FakeOpenAIServer(poor) as server:
        configure(server)
        result = blend("check", "--json")
    (found,) = json.loads(result.stdout)["llms"]
    assert result.exit_code == 0
    kinds = ("works", "seed", "stream", "tools", "json")
    assert [found[kind] for kind in kinds] == [True, False, False, False, False]
    assert found["cost"] is None
    assert result.stderr == "1 of 1 answer; $0.0000 and 4 calls of unknown price\n"


def test_refused_keys_of_the_request_are_no_fault(blend):
    def strict(request: dict[str, Any]) -> FakeReply:
        for key in ("seed", "tools", "response_format"):
            if key in request:
                return FakeReply(f"Unsupported parameter: '{key}' is not supported with this model.", status=400)
        return FakeReply("Text.")

    with FakeOpenAIServer(strict) as server:
        configure(server)
        result = blend("check", "--json")
    (found,) = json.loads(result.stdout)["llms"]
    assert (found["works"], found["tools"], found["json"]) == (True, False, False)


def test_quick_is_one_question(blend):
    with FakeOpenAIServer(able) as server:
        configure(server)
        result = blend("check", "--quick", "--json")
    assert len(server.requests) == 1
    (found,) = json.loads(result.stdout)["llms"]
    assert (found["works"], found["seed"], found["tools"]) == (True, None, None)


def test_an_llm_that_thinks_gets_more_tokens(blend):
    def thinks(request: dict[str, Any]) -> FakeReply:
        done = request["max_tokens"] > 64
        return FakeReply("Text." if done else "", reasoning="Hm. " * 5, finish_reason="stop" if done else "length")

    with FakeOpenAIServer(thinks) as server:
        configure(server)
        result = blend("check", "--quick", "--json")
    assert json.loads(result.stdout)["llms"][0]["works"]
    assert [request["max_tokens"] for request in server.requests] == [64, 1024]


def test_some_work(blend):
    with FakeOpenAIServer(able) as good, FakeOpenAIServer([FakeReply("broken", status=500)]) as bad:
        configure(good, bad)
        result = blend("check", "--quick")
    assert result.exit_code == 3
    assert "b: the server failed (500): broken" in result.stderr
    assert "1 of 2 answer" in result.stderr
    assert len(bad.requests) == 1  # no second attempt


def lines(entry: str) -> str:
    return f'[[llm]]\nname = "a"\n{entry}'


def fault(blend: Callable[..., Any], entry: str) -> str:
    Path("blend.toml").write_text(lines(entry))
    result = blend("check", "--json")
    assert result.exit_code == 1
    (found,) = json.loads(result.stdout)["llms"]
    assert not found["works"]
    assert found["problem"]
    assert f"fix: {found['fix']}" in result.stderr
    return str(found["fix"])


def test_a_wrong_model_name_has_the_names_of_the_server(blend):
    with FakeOpenAIServer(models=["llama3.2:3b", "phi4"]) as server:
        fix = fault(blend, f'model = "llama3.2"\nbase_url = "{server.base_url}"')
    assert fix == 'model = "llama3.2:3b"; the server has llama3.2:3b, phi4'


def test_a_wrong_model_of_ollama_can_be_pulled(blend, monkeypatch):
    with FakeOpenAIServer(models=["phi4"]) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.base_url.removesuffix("/v1"))
        result = blend("check", "--llm", "ollama:qwen3")
    assert result.exit_code == 1
    assert "fix: the server has phi4, or `ollama pull qwen3`" in result.stderr


def test_a_url_without_v1(blend):
    with FakeOpenAIServer() as server:
        fix = fault(blend, f'model = "fake"\nbase_url = "{server.base_url.removesuffix("/v1")}"')
    assert fix == f'base_url = "{server.base_url}"'


def test_a_refused_key_names_its_variable_and_stays_secret(blend, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "sk-secret-1234")
    with FakeOpenAIServer(api_key="right") as server:
        entry = f'model = "fake"\nbase_url = "{server.base_url}"\napi_key_env = "SOME_KEY"'
        fix = fault(blend, entry)
        result = blend("check")
    assert fix == "export SOME_KEY=… with a valid key"
    assert "sk-secret" not in result.stdout + result.stderr


def test_a_missing_key(blend, monkeypatch):
    monkeypatch.delenv("SOME_KEY", raising=False)
    assert "export SOME_KEY=" in fault(
        blend, 'model = "x"\nbase_url = "http://127.0.0.1:9/v1"\napi_key_env = "SOME_KEY"'
    )


def test_a_server_that_wants_a_key(blend):
    with FakeOpenAIServer(api_key="right") as server:
        assert "api_key_env = " in fault(blend, f'model = "fake"\nbase_url = "{server.base_url}"')


def test_nothing_listens(blend):
    result = blend("check", "--llm", "ollama:llama3.2", "--llm", "http://127.0.0.1:19/v1#x")
    assert result.exit_code == 1
    assert "fix: start it: ollama serve" in result.stderr
    assert "fix: start the server, or correct base_url" in result.stderr


def test_an_account_without_money(blend):
    with FakeOpenAIServer([FakeReply("Insufficient balance", status=402)]) as server:
        assert "credit" in fault(blend, f'model = "fake"\nbase_url = "{server.base_url}"')


def test_without_a_configuration(blend, refuse):
    refuse("check", message="`blend init` writes a blend.toml")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("olama:llama3.2", "did you mean 'ollama'?"),
        ("openai/gpt-4.1-mini", "did you mean 'openai:gpt-4.1-mini'?"),
        ("ollama:", "The model is missing"),
        ("http://127.0.0.1:9/v1", "#MODEL"),
        ("https://u:p@host/v1#m", "must not hold a user name"),
    ],
)
def test_wrong_names_of_llms(refuse, name, message):
    refuse("check", "--llm", name, message=message)
    refuse("ask", "Hello", "--llm", name, message=message)


def test_llms_by_name_answer_without_a_file(blend, ranker, monkeypatch):
    with (
        FakeOpenAIServer([FakeReply("Short.")], models=["a"]) as one,
        FakeOpenAIServer([FakeReply("A longer answer.")], models=["gpt-x"], api_key="key") as two,
    ):
        monkeypatch.setenv("OLLAMA_HOST", one.base_url.removesuffix("/v1"))
        monkeypatch.setenv("OPENAI_BASE_URL", two.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "key")
        result = blend(
            "ask", "Hello", "--llm", "ollama:a", "--llm", "openai:gpt-x", "--llm", f"{one.base_url}#a", "--json"
        )
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert answer["text"] == "A longer answer."
    assert [each["model"] for each in answer["candidates"]] == ["ollama:a", "openai:gpt-x", f"{one.base_url}#a"]


def test_the_configured_name_comes_first(blend, ranker):
    with FakeOpenAIServer([FakeReply("Mine.")]) as server:
        Path("blend.toml").write_text(
            f'[[llm]]\nname = "openai:mine"\nmodel = "fake"\nbase_url = "{server.base_url}"\n'
        )
        assert blend("ask", "Hello", "--llm", "openai:mine").stdout == "Mine.\n"


def test_every_provider_has_one_name_and_place():
    places = [providers._place(each.url) for each in providers.PROVIDERS.values()]
    assert len(set(places)) == len(places)
    assert local_servers.PORTS == {8080: "llama.cpp", 1234: "LM Studio", 8000: "vLLM"}


@pytest.mark.parametrize(
    ("model", "price", "billed"),
    [
        ("gpt-4.1-mini", "", True),
        ("openai/gpt-5.4", "", True),
        ("o3-mini", "", True),
        ("anthropic/claude-haiku-4-5", "", True),
        ("gemini-3.5-flash", "", True),
        ("grok-4.3", "", True),
        ("gpt-4.1-mini", "price = { input = 0, output = 0 }", False),  # the user says that it is free
        ("openai/gpt-oss-120b", "", False),
        ("gpt-oss:20b", "", False),
        ("llama3.2", "", False),
        ("gpt4all-falcon", "", False),
        ("olmo-2", "", False),
        ("google/gemma-3-4b-it", "", False),
        ("qwen3-distill-claude-4", "", False),
    ],
)
def test_what_a_proxy_to_a_cloud_may_bill(model, price, billed):
    text = f'[[llm]]\nname = "a"\nmodel = "{model}"\nbase_url = "http://localhost:4000/v1"\n{price}'
    assert providers.may_be_billed(Config.from_toml(text).llm[0]) is billed
    elsewhere = Config.from_toml(text.replace("localhost", "proxy.example.org")).llm[0]
    assert not providers.may_be_billed(elsewhere)  # its price is unknown, not zero


def test_an_llm_that_is_free_by_default_is_named_where_costs_are_limited(blend, ranker):
    line = "gateway counts as free, as it is on this machine: if it is a proxy to a cloud, give it a `price`\n"
    Path("in.jsonl").write_text('{"instruction": "Hello"}\n')
    limited = {
        ("check", "--quick"): (),
        ("ask", "Hello"): ("--max-cost", "0.1"),
        ("run", "in.jsonl", "-o", "a.jsonl"): ("--max-cost", "1"),
        ("data", "build", "in.jsonl", "--metrics", "none", "-o", "b.jsonl"): ("--max-cost", "1"),
    }
    with FakeOpenAIServer(lambda request: FakeReply("Yes."), models=["gpt-4.1-mini"]) as server:
        entry = f'[[llm]]\nname = "gateway"\nmodel = "gpt-4.1-mini"\nbase_url = "{server.base_url}"\nmax_tokens = 9\n'
        Path("blend.toml").write_text(entry)
        results = [blend(*command, *limit) for command, limit in limited.items()]
        assert [(result.exit_code, result.stderr.count(line)) for result in results] == [(0, 1)] * 4
        assert line not in blend("ask", "Hello").stderr
        Path("blend.toml").write_text(f"{entry}price = {{ input = 1, output = 1 }}\n")
        assert line not in blend("ask", "Hello", "--max-cost", "0.1").stderr


def test_run_takes_llms_by_name(blend, ranker, monkeypatch):
    Path("prompts.txt").write_text("Hello\n")
    with FakeOpenAIServer([FakeReply("Good day.")], models=["a"]) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.base_url.removesuffix("/v1"))
        result = blend("run", "prompts.txt", "-o", "out.jsonl", "--llm", "ollama:a")
    assert result.exit_code == 0
    assert json.loads(Path("out.jsonl").read_text())["text"] == "Good day."
