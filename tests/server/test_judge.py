"""A judge of close calls behind the service."""

from __future__ import annotations

from typing import Any

from llm_blender.ensemble import Judge, Limits
from llm_blender.errors import LLMError
from llm_blender.fusers.chat_fuser import ChatFuser
from llm_blender.rankers.llm_judge import LLMJudge
from llm_blender.ranking import EvidenceWeights, Weights
from llm_blender.testing import FakeLLM, FakeRanker

STRENGTHS = {"first": 0.3, "second": 0.2}
CANDIDATES = [{"text": text} for text in STRENGTHS]


def judge(**options: Any) -> Judge:
    def second(messages: Any, sampling: Any) -> str:
        content = messages[-1]["content"]
        return "A" if content.find("second") < content.find("first") else "B"

    return Judge("strong", LLMJudge(FakeLLM("strong", second, cost=0.5, **options)))


def test_candidates_of_a_client_are_judged_and_the_cost_is_counted(serve):
    service = serve(ranker=FakeRanker(STRENGTHS), judge=judge())
    ranked = service.http.post("/v1/rank", json={"instruction": "Which?", "candidates": CANDIDATES}).json()
    assert ranked["order"] == [1, 0]
    assert ranked["evidence"]["judging"]["verdicts"] == [{"a": 0, "b": 1, "value": -1.0}]
    compared = service.http.post(
        "/v1/compare", json={"instruction": "Which?", "a": CANDIDATES[0], "b": CANDIDATES[1]}
    ).json()
    assert compared["winner"] == "B"
    assert "blend_cost_dollars_total 2.0" in service.http.get("/metrics").text


def test_documents_are_not_judged(serve):
    service = serve(ranker=FakeRanker(STRENGTHS), judge=judge())
    found = service.http.post("/rerank", json={"query": "Which?", "documents": list(STRENGTHS)}).json()
    assert [result["index"] for result in found["results"]] == [0, 1]


def test_documents_do_not_vote_for_each_other(serve):
    ranker = FakeRanker({"x y": 2.0, "a b": 0.0, "a b c": 1.0})
    ranker.evidence_weights = EvidenceWeights(several=Weights(consensus=100))
    service, documents = serve(ranker=ranker), ["a b", "a b c", "x y"]
    ranked = service.http.post("/v1/rank", json={"instruction": "Which?", "candidates": documents}).json()
    reranked = service.http.post("/rerank", json={"query": "Which?", "documents": documents}).json()
    assert (ranked["best"], reranked["results"][0]["index"]) == (1, 2)


def test_clients_read_no_address_in_the_failure_of_a_judge(serve):
    secret = LLMError("strong", "connection", "no connection to http://10.0.0.1:9/v1", public="no connection")
    service = serve(
        FakeLLM("a", "first"), FakeLLM("b", "second"), ranker=FakeRanker(STRENGTHS), judge=judge(errors=secret)
    )
    answers = [
        service.ask(blend={"candidates": True}).json()["blend"]["ranking"],
        service.http.post("/v1/rank", json={"instruction": "Which?", "candidates": CANDIDATES}).json(),
    ]
    for ranking in answers:
        failure = ranking["evidence"]["judging"]["failure"]
        assert (failure["reason"], failure["message"]) == ("connection", "strong: no connection")


def test_a_slow_judge_leaves_the_fuser_its_time(serve):
    fuser = ChatFuser(FakeLLM("f", "The first and the second.", delay=0.2))
    service = serve(
        FakeLLM("a", "first"),
        FakeLLM("b", "second"),
        ranker=FakeRanker(STRENGTHS),
        judge=judge(delay=60),
        fuser=fuser,
        limits=Limits(deadline=2.0),
    )
    fused = service.http.post(
        "/v1/fuse", json={"instruction": "Which?", "candidates": CANDIDATES, "guard": False}, timeout=30
    )
    assert fused.status_code == 200, fused.text
    assert fused.json()["text"] == "The first and the second."
    assert fused.json()["ranking"]["evidence"]["judging"]["failure"]["reason"] == "timeout"
