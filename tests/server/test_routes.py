"""The routes besides chat."""

from __future__ import annotations

import socket

import pytest
from prometheus_client.parser import text_string_to_metric_families

from llm_blender.config import ServerConfig
from llm_blender.ensemble import Ensemble, Member
from llm_blender.errors import ConfigError, NotFoundError
from llm_blender.fusers import ConsensusFuser
from llm_blender.server import create_app
from llm_blender.server import serve as serve_until_a_signal
from llm_blender.testing import FakeLLM, FakeRanker

TEXTS = ["two words", "a", "these are three"]


def test_rank(plain):
    values = plain.http.post("/v1/rank", json={"instruction": "Go.", "candidates": TEXTS}).json()
    assert (values["best"], values["order"], values["ranks"]) == (2, [2, 0, 1], [2, 3, 1])
    assert (values["strategy"], values["comparisons"]) == ("full", 6)
    body = {"instruction": [{"role": "user", "content": "Go."}], "candidates": TEXTS, "strategy": "knockout"}
    knockout = plain.http.post("/v1/rank", json=body).json()
    assert (knockout["strategy"], knockout["comparisons"]) == ("knockout", 4)
    assert any(None in row for row in knockout["probabilities"])
    assert plain.http.post("/v1/rank", json={"instruction": " ", "candidates": TEXTS}).status_code == 400


def test_compare(plain):
    values = plain.http.post("/v1/compare", json={"instruction": "Go.", "a": "a", "b": "longer"}).json()
    assert (values["winner"], values["logit"]) == ("B", -5.0)
    assert values["probability"] < 0.01


def test_fuse(plain, serve):
    values = plain.http.post("/v1/fuse", json={"instruction": "Go.", "candidates": TEXTS}).json()
    assert (values["mode"], values["text"]) == ("fuse", "An answer that is made of both of them.")
    assert (values["fusion"]["reason"], values["ranking"]["best"]) == ("better", 2)
    nobody = serve().http.post("/v1/fuse", json={"instruction": "Go.", "candidates": TEXTS})
    assert (nobody.status_code, nobody.json()["error"]["code"]) == (400, "no_fuser")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/rerank", {"query": "Q", "documents": ["a", "b"], "top_n": None, "return_documents": None}),
        ("/v1/chat/completions", {"model": "blend", "messages": [{"role": "user", "content": "Q"}], "blend": None}),
        ("/v1/completions", {"model": "blend", "prompt": "Q", "max_tokens": -1, "blend": None}),
    ],
)
def test_null_is_absent(plain, path, body):
    assert plain.http.post(path, json=body).status_code == 200


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_rerank_as_cohere_and_jina(plain, path):
    body = {"model": "any", "query": "Go.", "documents": TEXTS, "top_n": 2, "return_documents": True}
    values = plain.http.post(path, json=body).json()
    assert [(result["index"], result["document"]["text"]) for result in values["results"]] == [
        (2, "these are three"),
        (0, "two words"),
    ]
    scores = [result["relevance_score"] for result in values["results"]]
    assert 1 >= scores[0] > scores[1] >= 0
    objects = {"query": "Go.", "documents": [{"text": text} for text in TEXTS]}
    assert len(plain.http.post(path, json=objects).json()["results"]) == 3


def test_many_documents_are_ranked_by_knockout(serve):
    ranker = FakeRanker()
    running = serve(ranker=ranker)
    values = running.http.post("/rerank", json={"query": "Go.", "documents": [f"{i:b}" for i in range(1000)]}).json()
    assert len(values["results"]) == 1000
    assert values["results"][0]["index"] >= 512  # one of the longest
    assert values["meta"] == {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}
    assert ranker.comparisons <= 2 * 999
    response = running.http.post("/rerank", json={"query": "Go.", "documents": ["a"] * 1001})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "too_many")


def test_rerank_as_tei(plain):
    values = plain.http.post("/rerank", json={"query": "Go.", "texts": TEXTS, "return_text": True}).json()
    assert [value["text"] for value in values] == ["these are three", "two words", "a"]
    raw = plain.http.post("/rerank", json={"query": "Go.", "texts": TEXTS, "raw_scores": True}).json()
    assert raw[0]["score"] > 1
    for body in ({"query": "Go."}, {"query": "Go.", "documents": [{"image": "x"}]}):
        assert plain.http.post("/rerank", json=body).status_code == 400


def test_metrics_are_prometheus_text(plain):
    plain.ask()
    page = plain.http.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(page.text)}
    calls = {(s.labels["llm"], s.labels["outcome"]): s.value for s in families["blend_llm_calls"].samples[::2]}
    assert calls["a", "answer"] >= 1
    routes = {sample.labels["route"] for sample in families["blend_requests"].samples}
    assert "/v1/chat/completions" in routes
    assert all(route != "/v1/models/nix" for route in routes)


def test_health_and_readiness(plain, serve):
    assert plain.http.get("/healthz").json() == {"status": "ok"}
    assert plain.http.get("/readyz").json() == {"status": "ready"}
    alone = serve(FakeLLM("a", errors="server"), options={"failures": 1})
    alone.ask()
    assert alone.http.get("/readyz").status_code == 503
    assert alone.http.get("/healthz").status_code == 200


def test_a_service_that_is_ready_has_loaded_its_fuser_in_any_mode(serve):
    loaded = []

    def load():
        loaded.append(ConsensusFuser())
        return loaded[-1]

    running = serve(fuser=load)
    assert running.http.get("/readyz").status_code == 200
    assert len(loaded) == 1
    body = {"instruction": "q", "candidates": [{"text": "one"}, {"text": "another"}], "mode": "fuse"}
    assert running.http.post("/v1/fuse", json=body).status_code == 200
    assert len(loaded) == 1


def test_a_fuser_that_cannot_be_loaded_ends_the_service_before_its_port_is_open():
    def load():
        raise NotFoundError("planted: no such fuser")

    ensemble = Ensemble([Member(FakeLLM())], FakeRanker(), fuser=load)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(NotFoundError, match="planted"):
            serve_until_a_signal(ensemble, ServerConfig(port=port))


def test_the_openapi_names_every_route(plain):
    page = plain.http.get("/openapi.json").json()
    assert {
        "/v1/chat/completions", "/v1/models", "/v1/models/{name}", "/v1/rank", "/v1/compare", "/v1/fuse", "/rerank",
        "/healthz", "/readyz", "/metrics", "/v1/ensemble", "/v1/history", "/v1/history/{id}",
        "/v1/history/{id}/earlier", "/v1/history/{id}/votes", "/v1/votes", "/v1/standings",
    } <= set(page["paths"])  # fmt: skip
    responses = page["paths"]["/v1/rank"]["post"]["responses"]
    assert {"200", "4XX", "5XX"} == set(responses)


def test_a_wrong_method_or_path(plain):
    response = plain.http.get("/v1/rank")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert plain.http.get("/v1/nowhere").json()["error"]["code"] == "http_404"


def test_an_llm_cannot_be_named_as_the_ensemble():
    with pytest.raises(ConfigError, match="named blend"):
        create_app(Ensemble([Member(FakeLLM("blend"))], FakeRanker()), ServerConfig())
