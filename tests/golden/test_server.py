"""The service, in one process with the test: what each route answers, and its OpenAPI document."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("fastapi")

from llm_blender import ChatFuser, Priors
from llm_blender.testing import FakeLLM, FakeRanker

from .service import CHAT, Service, ask, converse, keep, two

TEXTS = ["two words", "a", "these are three"]
HISTORY = "/v1/history"
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def failing():
    return [*two(), FakeLLM("c", errors="auth")]


def turns():
    """The second writes when the first is done, so that their events have an order."""
    return [FakeLLM("a", "Short."), FakeLLM("b", "A longer answer.", delay=0.3)]


def all_fail(*reasons):
    return lambda: [FakeLLM(name, errors=reason) for name, reason in zip("abcd", reasons, strict=False)]


def costly():
    return [FakeLLM("a", "Short.", cost=0.4), FakeLLM("b", "A longer answer.", cost=0.4)]


def fuser(*, errors=()):
    return lambda: ChatFuser(FakeLLM("f", "An answer that is made of both of them.", errors=errors))


FUSING = {"fuser": fuser()}
STORED = {"store": True}
CASES = {
    "chat": Service([ask()]),
    "chat, a member fails": Service([ask()], failing),
    "chat, one LLM": Service([ask(model="a"), ask(blend={"llms": ["b"], "samples": 2})]),
    "chat, several choices": Service([ask(n=2), ask(n=3), ask(n=128)]),
    "chat, options": Service(
        [
            (
                "POST",
                CHAT,
                {
                    "model": "blend",
                    "messages": [
                        {"role": "developer", "content": "Rhyme."},
                        {"role": "user", "content": [{"type": "text", "text": "Sing."}]},
                    ],
                    "temperature": 0.5,
                    "top_p": 0.9,
                    "max_completion_tokens": 7,
                    "stop": ["x"],
                    "seed": 3,
                    "presence_penalty": 1.0,
                    "user": "ann",
                },
            )
        ]
    ),
    "chat, without candidates": Service([ask(blend={"candidates": False})]),
    "chat, blend options": Service(
        [ask(seed=1, blend={"strategy": "knockout", "budget": 4, "samples": 2, "quorum": 1, "deadline": 5})]
    ),
    "chat, priors": Service([ask()], more={"priors": Priors({"a": 20.0, "b": -20.0})}),
    "chat, stored": Service([ask(seed=5), ask(seed=5)], **STORED),
    "presets": Service([ask(model="blend-fast"), ask(model="blend-best")]),
    "presets, fused": Service([ask(seed=1, model="blend-fast"), ask(seed=1, model="blend-best")], **FUSING),
    "fused": Service(
        [ask(seed=1, blend={"mode": "fuse"}), ask(seed=1, n=2, blend={"mode": "fuse", "top_k": 2})], **FUSING
    ),
    "fused, guarded": Service(
        [ask(seed=1, blend={"mode": "fuse"}), ask(seed=1, blend={"mode": "fuse", "guard": False})],
        ranker=lambda: FakeRanker(lambda text: -len(text)), **FUSING,
    ),
    "fused, auto": Service([ask(seed=1, blend={"mode": "auto"})], **FUSING),
    "fused, the fuser fails": Service([ask(seed=1, blend={"mode": "fuse"})], fuser=fuser(errors="server")),
    "streamed": Service([ask(stream=True), ask(stream=True, n=2, stream_options={"include_usage": True})], turns),
    "streamed, a member fails": Service([ask(stream=True)], lambda: [FakeLLM("c", errors="auth"), turns()[1]]),
    "streamed, one LLM": Service([ask(stream=True)], lambda: [FakeLLM("a", "  One two\n\nthree. ")]),
    "streamed, watched": Service(
        [ask(stream=True, blend={"watch": True}), ask(seed=1, stream=True, blend={"watch": True, "mode": "fuse"})],
        turns, **FUSING,
    ),
    "streamed, all fail": Service([ask(stream=True)], all_fail("auth")),
    "errors 400": Service(
        [
            ask(blend={"llms": ["nobody"]}),
            ask(blend={"mdoe": "pick"}),
            ask(blend={"strategy": "best"}),
            ask(seed=1, blend={"mode": "fuse"}),
            ask(blend={"keep": True}),
            ask(" "),
            ask(messages=[]),
            ask(messages=[{"role": "user"}]),
            ask(temperature=3),
            ask(max_tokens="7"),
            ask(logprobs=True),
            ask(tools=[TOOL], blend={"mode": "fuse"}),
            ("POST", CHAT, {}),
            *[("POST", CHAT, body) for body in (b"{", b"[NaN]", b'{"model": "\\ud800"}', b"\xff", b"")],
            ("GET", "/v1/models", None, {"x-llm-blender-via": "a,b,c,d"}),
            ("GET", "/v1/models", None, {"host": "evil.example"}),
            ("POST", CHAT, b"{}", {"content-type": "text/plain", "origin": "https://evil.example"}),
        ]
    ),
    "errors 404 and 405": Service(
        [
            ask(model="gpt-9"), ("GET", "/v1/models/nix"), ("GET", "/v1/nowhere"), ("GET", "/v1/rank"),
            ("GET", HISTORY), ("GET", f"{HISTORY}/nix"),
        ]
    ),
    "errors 413": Service(
        [
            ask("x" * 3000),
            ("POST", "/v1/rank", {"instruction": "Go.", "candidates": ["a"] * 4}),
            ("POST", "/v1/rank", {"instruction": "Go.", "candidates": ["a", "b" * 101]}),
        ],
        server={"max_body": 2048, "max_chars": 100, "max_candidates": 3},
    ),
    **{
        f"all fail: {', '.join(reasons)}": Service([ask()], all_fail(*reasons))
        for reasons in (
            ("auth",), ("rate_limit",), ("rate_limit", "auth"), ("timeout",), ("server", "server"), ("bad_request",),
            ("connection",), ("empty",), ("bad_response",), ("budget",),
        )
    },
    "costs": Service(
        [ask(blend={"max_cost": 0.5}), ask(blend={"max_cost": 99}), ask(blend={"max_cost": 0.1})],
        costly, limits={"max_cost": 1},
    ),
    "deadline": Service([ask()], lambda: [FakeLLM("a", never_ends=True)], limits={"deadline": 0.3}),
    "set aside": Service(
        [ask(), ask(), ask(model="b"), ("GET", "/readyz")],
        lambda: [FakeLLM("a"), FakeLLM("b", errors="server")], server={"failures": 1, "set_aside": 60},
    ),
    "models": Service([("GET", "/v1/models"), ("GET", "/v1/models/b"), ("GET", "/v1/models/blend-best")]),
    "ensemble": Service([("GET", "/v1/ensemble")], **FUSING, **STORED),
    "ensemble without more": Service([("GET", "/v1/ensemble")]),
    "health": Service([("GET", "/healthz"), ("GET", "/readyz"), ask(), ("GET", "/metrics")], failing),
    "rank": Service(
        [
            ("POST", "/v1/rank", {"instruction": "Go.", "candidates": TEXTS}),
            (
                "POST",
                "/v1/rank",
                {
                    "instruction": [{"role": "user", "content": "Go."}],
                    "candidates": [*TEXTS, "x", "one more of them"],
                    "strategy": "knockout",
                    "seed": 3,
                },
            ),
            ("POST", "/v1/rank", {"instruction": "Go.", "candidates": TEXTS, "strategy": "active", "budget": 4}),
            ("POST", "/v1/rank", {"instruction": " ", "candidates": TEXTS}),
            ("POST", "/v1/rank", {"instruction": "Go.", "candidates": []}),
            ("POST", "/v1/rank", {"instruction": "Go.", "candidates": TEXTS, "strategy": "ful"}),
        ],
        ranker=lambda: FakeRanker(noise=1.0, order_bias=0.5),
    ),
    "compare": Service(
        [
            ("POST", "/v1/compare", {"instruction": "Go.", "a": "a", "b": "longer"}),
            ("POST", "/v1/compare", {"instruction": "Go.", "a": "a", "b": "b"}),
            ("POST", "/v1/compare", {"instruction": "Go.", "a": "a"}),
        ]
    ),
    "fuse": Service(
        [
            ("POST", "/v1/fuse", {"instruction": "Go.", "candidates": TEXTS}),
            ("POST", "/v1/fuse", {"instruction": "Go.", "candidates": TEXTS, "mode": "auto", "guard": False}),
            ("POST", "/v1/fuse", {"instruction": "Go.", "candidates": ["only"]}),
        ],
        **FUSING,
    ),
    "fuse, the fuser fails": Service(
        [("POST", "/v1/fuse", {"instruction": "Go.", "candidates": TEXTS})], fuser=fuser(errors="auth")
    ),
    "fuse without a fuser": Service([("POST", "/v1/fuse", {"instruction": "Go.", "candidates": TEXTS})]),
    "rerank": Service(
        [
            *[
                (
                    "POST",
                    path,
                    {"model": "any", "query": "Go.", "documents": TEXTS, "top_n": 2, "return_documents": True},
                )
                for path in ("/rerank", "/v1/rerank", "/v2/rerank")
            ],
            ("POST", "/rerank", {"query": "Go.", "documents": [{"text": text} for text in TEXTS]}),
            ("POST", "/rerank", {"query": "Go.", "texts": TEXTS, "return_text": True}),
            ("POST", "/rerank", {"query": "Go.", "texts": TEXTS, "raw_scores": True}),
            ("POST", "/rerank", {"query": "Go."}),
            ("POST", "/rerank", {"query": "Go.", "documents": [{"image": "x"}]}),
        ]
    ),
    "history": Service(
        [
            keep(),
            ("GET", HISTORY),
            ("GET", f"{HISTORY}/{{id}}"),
            ("POST", f"{HISTORY}/{{id}}/votes", {"preferred": 0}),
            ("GET", "/v1/votes"),
            ("GET", "/v1/votes?format=conversational"),
            ("GET", "/v1/votes?format=standard"),
            ("GET", "/v1/votes?format=csv"),
            ("POST", f"{HISTORY}/{{id}}/votes", {"preferred": 1, "over": [0], "tie": True}),
            *[("POST", f"{HISTORY}/{{id}}/votes", body) for body in ({}, {"preferred": 2}, {"best": 0})],
            ("GET", HISTORY),
            ("DELETE", f"{HISTORY}/{{id}}/votes"),
            ("DELETE", f"{HISTORY}/{{id}}"),
            ("GET", f"{HISTORY}/{{id}}"),
        ],
        **STORED,
    ),
    "history of a fusion": Service(
        [
            ask(seed=1, blend={"keep": True, "mode": "fuse"}),
            ("POST", f"{HISTORY}/{{id}}/votes", {"preferred": 2}),
            ("GET", "/v1/votes"),
        ],
        **FUSING, **STORED,
    ),
    "history of a stream": Service([keep(stream=True), ("GET", f"{HISTORY}/{{id}}")], turns, **STORED),
    "history, pages": Service(
        [
            keep(), keep(), keep(), ("GET", f"{HISTORY}?limit=2"), ("GET", f"{HISTORY}?limit=2&before={{id}}"),
            ("GET", f"{HISTORY}?limit=0"), ("GET", f"{HISTORY}?before=nowhere"),
        ],
        **STORED,
    ),
    "history without a playground": Service([keep(), ("GET", "/")], **STORED, server={"playground": False}),
    "openapi": Service([("GET", "/openapi.json")]),
    "page": Service(
        [("GET", path) for path in ("/", "/page/style.css", "/page/page.js", "/page/past.js", "/page/results.js",
                                    "/page/service.js", "/page/icon.svg", "/page/nix.js", "/docs")]
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_server(golden, case, tmp_path):
    golden({"responses": asyncio.run(converse(CASES[case], tmp_path / "service.db"))})
