"""Who may ask, how much, and how often."""

from __future__ import annotations

import hashlib
import threading

import httpx
import pytest

from llm_blender.config import ServerConfig
from llm_blender.ensemble import Ensemble, Member
from llm_blender.errors import ConfigError
from llm_blender.llms.openai_compatible import Backoff, OpenAICompatibleLLM
from llm_blender.server import serve as run
from llm_blender.server.auth import Keys, is_loopback
from llm_blender.testing import FakeLLM, FakeRanker


def sha(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def test_a_key_is_wanted_where_there_are_some(serve):
    running = serve(keys=Keys([sha("one"), sha("two")]))
    for headers in ({}, {"authorization": "Bearer three"}, {"authorization": "one"}, {"authorization": "Basic one"}):
        response = running.http.get("/v1/models", headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")
        assert response.headers["www-authenticate"] == "Bearer"
    for key in ("one", "two"):
        assert running.http.get("/v1/models", headers={"authorization": f"bearer {key}"}).status_code == 200
    assert [running.http.get(path).status_code for path in ("/healthz", "/readyz", "/metrics")] == [200, 200, 401]


def test_keys_come_from_the_environment_or_a_file_of_hashes(tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"# clients\n{sha('filed')}  # for Ann\n\n")
    keys = Keys.of(ServerConfig(keys_file="keys"), {"LLM_BLENDER_KEYS": " one, two "}, tmp_path)
    known = [keys.owner(f"Bearer {key}".encode()) is not None for key in ("one", "two", "filed", "", sha("filed"))]
    assert known == [True, True, True, False, False]
    assert not Keys.of(ServerConfig(), {}, tmp_path)
    with pytest.raises(ConfigError, match="holds no key"):
        Keys.of(ServerConfig(), {"LLM_BLENDER_KEYS": " "}, tmp_path)
    file.write_text("filed\n")
    with pytest.raises(ConfigError, match="line 1: this is not a SHA-256"):
        Keys.of(ServerConfig(keys_file="keys"), {}, tmp_path)
    file.write_text("# nobody\n")
    with pytest.raises(ConfigError, match="holds no key"):
        Keys.of(ServerConfig(keys_file="keys"), {}, tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        Keys.of(ServerConfig(keys_file="nowhere"), {}, tmp_path)


def test_another_address_wants_a_key(monkeypatch):
    monkeypatch.delenv("LLM_BLENDER_KEYS", raising=False)
    ensemble = Ensemble([Member(FakeLLM())], FakeRanker())
    for host in ("0.0.0.0", "::", "example.com"):
        with pytest.raises(ConfigError, match=r"Other machines can reach .*, and there is no key"):
            run(ensemble, ServerConfig(host=host))
    assert [is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost")] == [True] * 5


def test_without_keys_only_loopback_is_a_host(serve):
    running = serve()
    codes = {
        host: running.http.get("/v1/models", headers={"host": host}).status_code
        for host in ("localhost:1", "[::1]:80", "[::1]", "127.0.0.1", "evil.example", "evil.example:8000", "")
    }
    assert [host for host, code in codes.items() if code == 200] == ["localhost:1", "[::1]:80", "[::1]", "127.0.0.1"]


def test_long_bodies_and_texts_are_refused(serve):
    running = serve(options={"max_body": 2048, "max_chars": 100, "max_candidates": 3})
    assert running.ask("x" * 3000).status_code == 413

    def slowly():
        yield from [b"x" * 1000] * 4

    chunked = running.http.post("/v1/rank", content=slowly(), headers={"content-type": "application/json"})
    assert (chunked.status_code, chunked.json()["error"]["code"]) == (413, "too_large")
    for candidates, code in ((["a"] * 4, "too_many"), (["a", "b" * 101], "too_long"), (["a", "b"], None)):
        response = running.http.post("/v1/rank", json={"instruction": "Go.", "candidates": candidates})
        assert response.json().get("error", {}).get("code") == code


def test_a_full_queue_says_so_at_once(serve):
    llm = FakeLLM("a", delay=1.0)
    running = serve(llm, options={"concurrency": 1, "queue": 1})
    codes = []

    def ask() -> None:
        with httpx.Client(base_url=running.url, timeout=20) as client:
            body = {"model": "blend", "messages": [{"role": "user", "content": "Go."}]}
            response = client.post("/v1/chat/completions", json=body)
            codes.append((response.status_code, response.headers.get("retry-after") is not None))

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert sorted(codes) == [(200, False), (200, False), (429, True), (429, True)]
    assert codes[:2] == [(429, True), (429, True)]  # before the first answer
    assert llm.most_at_once == 1


def test_an_ensemble_as_its_own_member_is_refused(serve):
    members = [FakeLLM("a"), OpenAICompatibleLLM("self", "blend", "http://127.0.0.1:9/v1", backoff=Backoff(attempts=1))]
    running = serve(*members)
    members[1].base_url = f"{running.url}/v1"
    for client in members[1]._sessions.values():  # opened before its port was known
        client.client.base_url = members[1].base_url
    blend = running.ask().json()["blend"]
    assert [(failure["model"], failure["reason"]) for failure in blend["failures"]] == [("self", "bad_request")]
    assert "one of its own LLMs" in blend["failures"][0]["message"]
    far = running.http.get("/v1/models", headers={"x-llm-blender-via": "a,b,c,d"})
    assert (far.status_code, far.json()["error"]["code"]) == (400, "loop")
