from __future__ import annotations

import functools
import json
import os
import stat
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from llm_blender.cli import init as init_module
from llm_blender.cli.init import Source, choose, family
from llm_blender.config import load_config
from llm_blender.llms import local_servers, providers
from llm_blender.llms.providers import PROVIDERS
from llm_blender.testing import FakeOpenAIServer, FakeReply


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide keys, servers and the store of this machine."""
    monkeypatch.setenv("LLM_BLENDER_STORE", str(tmp_path / "blend.db"))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    for provider in PROVIDERS.values():
        for name in (*provider.keys, *filter(None, [provider.url_env])):
            if name != "OLLAMA_HOST":
                monkeypatch.delenv(name, raising=False)
    find = functools.partial(local_servers.find_local_servers, ports={})
    monkeypatch.setattr(local_servers, "find_local_servers", find)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a function that starts servers on this machine, by their program."""
    find = local_servers.find_local_servers.func  # type: ignore[attr-defined]
    with ExitStack() as stack:

        def start(**models: list[str]) -> list[FakeOpenAIServer]:
            reply = FakeReply("Berlin is the capital of Germany.")
            servers = [stack.enter_context(FakeOpenAIServer([reply], models=its)) for its in models.values()]
            ports = {
                int(server.base_url.split(":")[-1].removesuffix("/v1")): PROVIDERS[name].title
                for server, name in zip(servers, models, strict=True)
            }
            monkeypatch.setattr(local_servers, "find_local_servers", functools.partial(find, ports=ports))
            return servers

        yield start


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a function that puts a server in the place of a cloud and its key into the environment."""
    with ExitStack() as stack:

        def start(name: str, models: list[str], *, key: str = "sk-secret-1234", given: str = "") -> FakeOpenAIServer:
            server = stack.enter_context(FakeOpenAIServer([FakeReply("Yes.")], models=models, api_key=key))
            changed = {**providers.PROVIDERS, name: replace(PROVIDERS[name], url=server.base_url)}
            monkeypatch.setattr(providers, "PROVIDERS", changed)
            monkeypatch.setenv(PROVIDERS[name].keys[0], given or key)
            return server

        yield start


def test_a_machine_with_one_server_needs_no_editor(blend, ranker, serve):
    (server,) = serve(llamacpp=["/models/Llama-3.2-3B-Instruct-Q4_K_M.gguf"])
    made = blend("init", "--yes")
    assert made.exit_code == 0
    assert "wrote blend.toml" in made.stderr
    (entry,) = load_config().llm
    assert (entry.name, entry.base_url) == ("Llama-3.2-3B-Instruct-Q4_K_M", server.base_url)
    assert entry.samples == 3  # an ensemble, even of one LLM
    asked = blend("ask", "Capital of Germany?")
    assert (asked.exit_code, asked.stdout) == (0, "Berlin is the capital of Germany.\n")
    assert blend("ask", "Capital of Germany?", "--max-cost", "1", "--max-tokens", "9").exit_code == 0  # it is free
    assert blend("check").exit_code == 0


def test_nothing_is_found(blend):
    started = time.perf_counter()
    result = blend("init", "--yes")
    assert time.perf_counter() - started < 2
    assert result.exit_code == 1
    assert "Ollama" in result.stderr
    assert "OPENAI_API_KEY" in result.stderr
    assert not Path("blend.toml").exists()


def test_five_families_of_many_models(blend, serve):
    models = ["nomic-embed-text:latest", "qwen3:8b", "qwen3:4b", "llama3.2:3b", "bge-m3", "gemma3:4b", "codellama:7b"]
    models += ["phi4:latest", "mistral-nemo", "ministral-3b", "deepseek-r1:7b", "whisper-1", "snowflake-arctic-embed"]
    serve(vllm=models)
    result = blend("init", "--yes", "--json")
    made = json.loads(result.stdout)
    names = [member["name"] for member in made["members"]]
    assert names == ["qwen3:8b", "llama3.2:3b", "gemma3:4b", "phi4", "mistral-nemo"]
    assert [member["model"] for member in made["members"]][3] == "phi4:latest"
    assert set(made["others"]["vllm"]) == {"qwen3:4b", "codellama:7b", "ministral-3b", "deepseek-r1:7b"}
    text = Path("blend.toml").read_text()
    assert made["toml"] == text
    assert '#   model = "qwen3:4b"' in text
    assert "embed" not in text
    assert [entry.name for entry in load_config().llm] == names


def test_keys_of_clouds(blend, cloud, serve):
    openai = cloud("openai", ["text-embedding-3-small", "gpt-9-pro", "gpt-9-mini", "gpt-9"])
    cloud("anthropic", ["claude-opus-4-1-20250805", "claude-haiku-4-5-20251001"])
    cloud("gemini", ["models/gemini-2.5-flash", "models/gemini-embedding-001"])
    serve(llamacpp=["qwen3"])
    result = blend("init", "--yes", "--json")
    assert result.exit_code == 0
    made = json.loads(result.stdout)["members"]
    assert [(entry["provider"], entry["model"]) for entry in made] == [
        ("openai", "gpt-9-mini"),
        ("anthropic", "claude-haiku-4-5"),
        ("gemini", "gemini-2.5-flash"),
        ("llamacpp", "qwen3"),
    ]
    assert (made[0]["base_url"], made[0]["api_key_env"]) == (openai.base_url, "OPENAI_API_KEY")
    assert made[3]["price"] == {"input": 0.0, "output": 0.0}
    assert "sk-secret" not in Path("blend.toml").read_text() + result.stdout + result.stderr
    assert blend("config", "show").exit_code == 0


def test_of_a_cloud_only_models_that_are_known_fill_up(blend, cloud):
    cloud("groq", ["odd-1", "strange-2", "llama-3.3-70b-versatile", "openai/gpt-oss-120b", "whisper-large-v3"])
    assert blend("init", "--yes").exit_code == 0
    assert [entry.model for entry in load_config().llm] == ["llama-3.3-70b-versatile", "openai/gpt-oss-120b"]


def test_a_lone_key_gives_two_llms(blend, cloud):
    cloud("openai", ["gpt-9-mini", "gpt-9-nano", "gpt-9"])
    assert blend("init", "--yes").exit_code == 0
    assert [entry.model for entry in load_config().llm] == ["gpt-9-mini", "gpt-9-nano"]


def test_a_refused_key_is_left_out(blend, cloud, serve):
    cloud("openai", ["gpt-9"], given="wrong-key-77")
    serve(vllm=["qwen3"])
    result = blend("init", "--yes")
    assert result.exit_code == 0
    assert "OpenAI refuses the key in OPENAI_API_KEY (401)" in result.stderr
    assert [entry.model for entry in load_config().llm] == ["qwen3"]
    assert "wrong-key" not in result.stdout + result.stderr + Path("blend.toml").read_text()


def test_offline_no_cloud_is_called(blend, cloud, monkeypatch):
    monkeypatch.setenv("LLM_BLENDER_OFFLINE", "1")
    server = cloud("openai", ["gpt-9"])
    assert blend("init", "--yes").exit_code == 0
    assert [entry.model for entry in load_config().llm] == list(PROVIDERS["openai"].models[:2])
    assert server.requests == []


def test_a_file_that_exists_is_kept(blend, serve):
    serve(vllm=["qwen3"])
    Path("blend.toml").write_text("# mine\n")
    kept = blend("init", "--yes")
    assert kept.exit_code == 2
    assert tomllib.loads(kept.stdout)["llm"][0]["model"] == "qwen3"  # what it would write
    assert "--force" in kept.stderr
    as_json = blend("init", "--yes", "--json")
    assert (as_json.exit_code, json.loads(as_json.stdout)["written"]) == (2, False)
    assert Path("blend.toml").read_text() == "# mine\n"
    assert blend("init", "--yes", "--force").exit_code == 0
    assert [entry.model for entry in load_config().llm] == ["qwen3"]


@pytest.mark.parametrize(("answer", "written"), [("y\n", True), ("\n", True), ("n\n", False)])
def test_a_terminal_gets_one_question(blend, serve, monkeypatch, answer, written):
    serve(vllm=["qwen3"])
    monkeypatch.setattr(init_module, "_can_answer", lambda: True)
    result = blend("init", stdin=answer)
    assert result.stderr.count("Write blend.toml?") == 1
    assert "qwen3" in result.stdout  # what was found
    assert Path("blend.toml").exists() == written
    assert result.exit_code == (0 if written else 1)


def test_a_server_that_hangs_costs_little_time(blend, monkeypatch):
    silent = FakeOpenAIServer()  # listens, and never answers
    with silent._server:
        monkeypatch.setenv("OLLAMA_HOST", silent.base_url.removesuffix("/v1"))
        monkeypatch.setattr(init_module, "_PATIENCE_HERE", 0.1)
        started = time.perf_counter()
        assert blend("init", "--yes").exit_code == 1
        assert time.perf_counter() - started < 1


def test_where_a_server_is():
    ollama = PROVIDERS["ollama"]
    assert Source(ollama, ()).where == "Ollama on this machine"
    assert Source(replace(ollama, url="http://gpu-box:11434/v1"), ()).where == "Ollama on gpu-box"
    assert Source(PROVIDERS["openai"], ()).where == "OpenAI"


def test_other_places(blend, serve):
    serve(vllm=["qwen3"])
    assert tomllib.loads(blend("init", "-o", "-").stdout)["llm"][0]["name"] == "qwen3"
    assert blend("init", "-o", "mine.toml").exit_code == 0
    assert load_config("mine.toml").llm
    assert blend("init", "-o", "no/folder.toml").exit_code == 2
    assert not Path("blend.toml").exists()


@pytest.mark.skipif(os.name == "nt" or not os.getuid(), reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(blend, serve, tmp_path):
    serve(vllm=["qwen3"])
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert blend("init", "--yes").exit_code == 2
    finally:
        tmp_path.chmod(stat.S_IRWXU)


def test_names_from_a_server_cannot_break_the_file(blend, serve):
    odd = ['a"\n[server]\nport = 1\n#', "b\x7f\u2028名 [x]", "C:\\models\\c.gguf", "qwen3", "qwen3:latest"]
    serve(vllm=odd, lmstudio=["qwen3"])
    assert blend("init", "--yes").exit_code == 0
    config = load_config()
    assert config.server.port == 8000
    assert {entry.model for entry in config.llm} <= set(odd)
    assert "c" in [entry.name for entry in config.llm]


def test_our_own_service_is_no_member(blend, serve, monkeypatch):
    serve(vllm=["blend"])
    body = {"data": [{"id": "blend", "owned_by": "llm-blender"}]}
    monkeypatch.setattr(
        "llm_blender.testing.openai_server._Handler.do_GET", lambda handler: handler._send_json(200, body)
    )
    assert blend("init", "--yes").exit_code == 1


def test_a_server_names_its_program(blend, serve, monkeypatch):
    serve(llamacpp=["x"])
    body = {"data": [{"id": "qwen3", "owned_by": "vllm"}]}
    monkeypatch.setattr(
        "llm_blender.testing.openai_server._Handler.do_GET", lambda handler: handler._send_json(200, body)
    )
    assert json.loads(blend("init", "--json").stdout)["members"][0]["provider"] == "vllm"


# Prices.


def test_without_the_library_of_prices_one_line_says_how(blend, cloud, monkeypatch):
    monkeypatch.setattr(providers, "has_prices", lambda: False)
    cloud("openai", ["gpt-9"])
    result = blend("init", "--yes")
    assert result.stderr.count("llm-blender[prices]") == 1
    (written,) = tomllib.loads(Path("blend.toml").read_text())["llm"]
    assert "price" not in written


def test_prices_of_the_library_are_written(blend, cloud, monkeypatch):
    seen = []

    def calc_price(usage: Any, model: str, *, provider_api_url: str) -> Any:
        seen.append((model, provider_api_url))
        if model == "gpt-9-nano":
            raise LookupError
        return SimpleNamespace(input_price=usage.input_tokens * 4e-7, output_price=usage.output_tokens * 16e-7)

    library = ModuleType("genai_prices")
    library.Usage = SimpleNamespace  # type: ignore[attr-defined]
    library.calc_price = calc_price  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "genai_prices", library)
    monkeypatch.setattr(providers, "has_prices", lambda: True)
    server = cloud("openai", ["gpt-9-mini", "gpt-9-nano"])
    result = blend("init", "--yes")
    assert "llm-blender[prices]" not in result.stderr
    priced, unpriced = tomllib.loads(Path("blend.toml").read_text())["llm"]
    assert priced["price"] == {"input": 0.4, "output": 1.6}
    assert "price" not in unpriced
    assert set(seen) == {("gpt-9-mini", server.base_url), ("gpt-9-nano", server.base_url)}


def test_the_real_library_of_prices():
    pytest.importorskip("genai_prices")
    price = providers.price_of("https://api.openai.com/v1", "gpt-4.1-mini")
    assert price is not None
    assert 0.01 < price.input < price.output < 10
    assert providers.price_of("https://api.openai.com/v1", "no-such-model") is None
    assert providers.price_of("http://127.0.0.1:9/v1", "gpt-4.1-mini") is None
    unpriced = [
        f"{each.name}:{model}"
        for each in PROVIDERS.values()
        for model in each.models
        if providers.price_of(each.url, model) is None
    ]
    assert unpriced == []


# The choice.


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("meta-llama/Llama-3.3-70B-Instruct", "llama"),
        ("/models/Llama-3.2-3B-Q4.gguf", "llama"),
        ("Ministral-8B", "mistral"),
        ("mixtral:8x7b", "mistral"),
        ("gpt-oss-120b", "gpt"),
        ("o3-mini", "gpt"),
        ("phi4:latest", "phi"),
        ("dolphin-2", "dolphin"),
        ("qwq-32b", "qwq"),
        ("123", "123"),
    ],
)
def test_families(model, expected):
    assert family(model) == expected


def test_each_source_has_a_member_before_one_has_two():
    sources = [Source(PROVIDERS[name], ("llama-a", "qwen-b", "phi-c")) for name in ("groq", "ollama", "vllm")]
    chosen = choose(sources)
    assert [(source.provider.name, model) for source, model in chosen] == [
        ("groq", "llama-a"),
        ("ollama", "qwen-b"),
        ("vllm", "phi-c"),
    ]
    many = [Source(PROVIDERS[name], ("llama-a",)) for name in list(PROVIDERS)[:7]]
    assert len(choose(many)) == 5
