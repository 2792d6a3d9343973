"""Who may ask, how much, and how often."""

from __future__ import annotations

import hashlib
import socket
import threading
import time

import httpx
import pytest

from llm_blender.config import ServerConfig, is_loopback
from llm_blender.ensemble import Ensemble, Member
from llm_blender.errors import ConfigError
from llm_blender.llms.openai_compatible import Backoff, OpenAICompatibleLLM
from llm_blender.server import serve as run
from llm_blender.server.auth import Keys
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
    file.write_text(f"\ufeff{sha('filed')}\n", encoding="utf-8")  # as Windows writes it
    assert Keys.of(ServerConfig(keys_file="keys"), {}, tmp_path).owner(b"Bearer filed")
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


@pytest.mark.parametrize("blank", ["", "\n", "\r\n", " ", "\t", " \n"])
def test_the_hash_of_no_key_is_refused(tmp_path, blank):
    (tmp_path / "keys").write_text(f"{sha('good')}\n{sha(blank)}\n")
    with pytest.raises(ConfigError, match="line 2: this is the SHA-256 of no key"):
        Keys.of(ServerConfig(keys_file="keys"), {}, tmp_path)


def raw(url, *lines):
    """Send a request with these header lines as they are, and return the status."""
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=20) as connection:
        request = ["GET /v1/models HTTP/1.1", *lines, "Connection: close", "", ""]
        connection.sendall("\r\n".join(request).encode())
        return int(connection.makefile("rb").readline().split()[1])


def test_a_blank_key_and_two_keys_never_match(serve):
    url = serve(keys=Keys([sha(""), sha("one")])).url
    good = "Authorization: Bearer one"
    for lines in (
        ["Authorization: Bearer"],
        ["Authorization: Bearer "],
        ["Authorization: Bearer \t "],
        ["Authorization:"],
    ):
        assert raw(url, "Host: x", *lines) == 401
    for lines in (["Authorization: Bearer two", good], [good, "Authorization: Bearer two"], [good, good]):
        assert raw(url, "Host: x", *lines) == 401
    assert raw(url, "Host: x", good) == 200


def test_a_path_outside_the_api_needs_no_key(serve):
    running = serve(keys=Keys([sha("one")]))
    statuses = {
        path: running.http.get(path).status_code
        for path in ("/favicon.ico", "/robots.txt", "/v1/nowhere", "/v2/rerank", "/rerank", "/metrics", "/openapi.json")
    }
    assert [path for path, status in statuses.items() if status == 404] == ["/favicon.ico", "/robots.txt"]
    assert set(statuses.values()) == {401, 404}


BODY = b'{"model": "blend", "messages": [{"role": "user", "content": "Go."}]}'
JSON = {"content-type": "application/json"}
CHAT = "/v1/chat/completions"


def test_without_keys_pages_of_others_are_refused(serve):
    llm = FakeLLM("a")
    running = serve(llm)
    own = running.url
    refused = [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "CROSS-SITE"},
        {"origin": "https://evil.example", "sec-fetch-site": "same-origin"},
    ]
    for headers in refused:
        response = running.http.post(CHAT, content=BODY, headers={**JSON, **headers})
        assert (response.status_code, response.json()["error"]["code"]) == (403, "wrong_origin")
        assert running.http.get("/v1/models", headers=headers).status_code == 403
    assert running.http.get("/", headers={"sec-fetch-site": "cross-site"}).status_code == 200  # a link to the page
    assert not llm.calls
    for headers in ({"origin": own}, {"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none"}, {}):
        assert running.http.post(CHAT, content=BODY, headers={**JSON, **headers}).status_code == 200


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonx", "x/json"]
)
def test_only_json_is_a_body(serve, kind):
    llm = FakeLLM("a")
    running = serve(llm)
    headers = {} if kind is None else {"content-type": kind}
    response = running.http.post(CHAT, content=BODY, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_value")
    assert "application/json" in response.json()["error"]["message"]
    assert not llm.calls
    for right in ("application/json; charset=utf-8", "Application/JSON", "application/x+json"):
        assert running.http.post(CHAT, content=BODY, headers={"content-type": right}).status_code == 200
    packed = running.http.post(CHAT, content=BODY, headers={**JSON, "content-encoding": "gzip"})
    assert (packed.status_code, "Content-Encoding" in packed.json()["error"]["message"]) == (415, True)


def test_allowed_origins_may_read_the_answers(serve):
    page, other = "https://chat.example.com", "https://evil.example"
    running = serve(options={"origins": [page]})
    ask = {"origin": page, "access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    allowed = running.http.options(CHAT, headers=ask)
    assert allowed.status_code == 204
    assert allowed.headers["access-control-allow-origin"] == page
    assert allowed.headers["access-control-allow-headers"] == "content-type"
    assert "POST" in allowed.headers["access-control-allow-methods"]
    answer = running.http.post(CHAT, content=BODY, headers={**JSON, "origin": page})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, page)
    assert answer.headers["access-control-expose-headers"] == "x-request-id, retry-after"
    wrong = running.http.post(CHAT, content=b"{", headers={**JSON, "origin": page})
    assert (wrong.status_code, wrong.headers["access-control-allow-origin"]) == (400, page)
    assert running.http.post(CHAT, content=BODY, headers={**JSON, "origin": other}).status_code == 403
    assert "access-control-allow-origin" not in running.http.options(CHAT, headers={**ask, "origin": other}).headers
    assert running.http.options(CHAT, headers={**ask, "host": "evil.example"}).status_code == 403


def test_with_keys_a_preflight_needs_none_and_any_origin_can_be_allowed(serve):
    running = serve(keys=Keys([sha("one")]), options={"origins": ["*"]})
    ask = {"origin": "https://x.example", "access-control-request-method": "POST"}
    allowed = running.http.options(
        CHAT, headers={**ask, "access-control-request-headers": "authorization,x-stainless-os"}
    )
    assert (allowed.status_code, allowed.headers["access-control-allow-headers"]) == (
        204,
        "authorization,x-stainless-os",
    )
    refused = running.http.get("/v1/models", headers={"origin": "https://x.example"})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "https://x.example")
    with_key = {"origin": "https://x.example", "authorization": "Bearer one"}
    assert running.http.get("/v1/models", headers=with_key).status_code == 200


def test_origins_are_off_by_default_and_checked(serve):
    ask = {"origin": "https://x.example", "access-control-request-method": "POST"}
    assert serve(keys=Keys([sha("one")])).http.options(CHAT, headers=ask).status_code == 401
    with pytest.raises(ValueError, match="is no origin"):
        ServerConfig(origins=["https://x.example/chat"])
    with pytest.raises(ConfigError, match="with keys only"):
        serve(options={"origins": ["*"]})


def test_a_name_of_this_machine_in_capitals_is_one(plain):
    assert plain.http.get("/v1/models", headers={"host": "LOCALHOST:80"}).status_code == 200


def test_two_hosts_are_refused(plain):
    assert raw(plain.url, "Host: localhost", "Host: evil.example") in (400, 403)
    assert raw(plain.url, "Host: evil.example", "Host: localhost") in (400, 403)


def test_two_origins_are_refused(serve):
    running = serve(options={"origins": ["https://chat.example.com"]})
    good, bad = "Origin: https://chat.example.com", "Origin: https://evil.example"
    host = f"Host: {running.http.base_url.netloc.decode()}"
    assert [raw(running.url, host, *lines) for lines in ([good], [good, bad], [bad, good])] == [200, 403, 403]


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/v1/models", "/metrics"])
def test_head_is_get_without_a_body(plain, path):
    response = plain.http.head(path)
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-type"] == plain.http.get(path).headers["content-type"]
    assert plain.http.head("/v1/rank").status_code == 405


def test_every_response_has_the_id_of_its_request(serve, caplog):
    running = serve(FakeLLM("a", errors="auth"))
    ids = set()
    for response in (running.http.get("/"), running.http.get("/nowhere"), running.ask(), running.ask(stream=True)):
        ids.add(response.headers["x-request-id"])
    assert len(ids) == 4
    assert running.http.get("/healthz", headers={"x-request-id": "own-1.a_B"}).headers["x-request-id"] == "own-1.a_B"
    for wrong in ("x" * 65, "a b", "<script>", ""):
        assert running.http.get("/healthz", headers={"x-request-id": wrong}).headers["x-request-id"] != wrong
    with caplog.at_level("WARNING"):
        running.http.post(CHAT, content=BODY, headers={**JSON, "x-request-id": "one-to-find"})
    assert "request one-to-find: No LLM gave an answer" in caplog.text


def test_an_unexpected_error_has_an_id_too(serve, caplog):
    running = serve(FakeLLM("a", errors=ValueError("/secret/path")))
    response = running.ask()
    assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "secret" not in response.text
    assert f"request {response.headers['x-request-id']}: unexpected error" in caplog.text


@pytest.mark.parametrize("path", [CHAT, "/v1/rank"])
def test_a_client_that_goes_away_amid_its_body_is_no_error_of_the_service(serve, caplog, path):
    running = serve()
    with socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2])), timeout=20) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n"
        connection.sendall(f'{head}\r\n{{"model'.encode())
    line = f'blend_requests_total{{route="{path}",status="499"}} 1.0'
    end = time.monotonic() + 5
    while line not in running.http.get("/metrics").text and time.monotonic() < end:
        time.sleep(0.01)
    assert line in running.http.get("/metrics").text
    assert "unexpected" not in caplog.text


def test_too_many_messages_or_characters_are_refused_before_they_are_read(serve):
    running = serve()
    many = b'{"model": "blend", "messages": [' + b",".join([b'{"role": "user", "content": "a"}'] * 100_000) + b"]}"
    parts = b'{"model": "blend", "messages": [{"role": "user", "content": ['
    parts += b",".join([b'{"type": "text", "text": "a"}'] * 100_000) + b"]}]}"
    keys = b"{" + b",".join([b'"k%d": 1' % number for number in range(300_000)]) + b"}"
    long = "x" * 1_000_001
    began = time.monotonic()
    for content in (many, parts, keys):
        response = running.http.post(CHAT, content=content, headers=JSON)
        assert (response.status_code, response.json()["error"]["code"]) == (400, "too_many")
    assert time.monotonic() - began < 3
    for path, body in (
        (CHAT, {"model": "blend", "messages": [{"role": "user", "content": long[:600_000]}] * 2}),
        ("/v1/rank", {"instruction": long, "candidates": ["a", "b"]}),
        ("/v1/rank", {"instruction": "Go.", "candidates": ["a", long]}),
        ("/v1/fuse", {"instruction": [{"role": "user", "content": long}], "candidates": ["a", "b"]}),
        ("/v1/compare", {"instruction": long, "a": "a", "b": "b"}),
        ("/rerank", {"query": long, "documents": ["a", "b"]}),
    ):
        response = running.http.post(path, json=body)
        assert response.status_code == 400
        assert response.json()["error"]["code"] in ("too_long", "no_fuser")
