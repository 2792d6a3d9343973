"""The service with keys, as a process of its own; and with more requests than it takes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import httpx
import pytest

pytest.importorskip("fastapi")

from llm_blender import Ensemble, Member
from llm_blender.config import ServerConfig
from llm_blender.server import create_app
from llm_blender.testing import FakeLLM, FakeRanker

from .service import CHAT, answered, ask

CASES = ("keys", "full queue")
SERVE = """
from llm_blender import Ensemble, Member, Store
from llm_blender.config import ServerConfig
from llm_blender.server import serve
from llm_blender.testing import FakeLLM, FakeRanker
llms = [FakeLLM("a", "Short."), FakeLLM("b", "A longer answer.")]
with Store() as store:
    ensemble = Ensemble([Member(llm) for llm in llms], FakeRanker(), store=store)
    serve(ensemble, ServerConfig(port=0), started=lambda url: print(url, flush=True))
"""
OPEN = ("/healthz", "/readyz", "/")
CLOSED = ("/metrics", "/v1/models", "/v1/history", "/openapi.json", "/nowhere")


def with_keys():
    """What strangers get, and two clients with keys: each has a history of its own."""
    ann, bob, eve = ({"authorization": f"Bearer {name}"} for name in ("ann", "bob", "eve"))
    environment = {**os.environ, "LLM_BLENDER_KEYS": " ann, bob "}
    process = subprocess.Popen([sys.executable, "-c", SERVE], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        with httpx.Client(base_url=process.stdout.readline().strip().removesuffix("/v1"), timeout=30) as http:
            found = {path: answered(http.get(path)) for path in (*OPEN, *CLOSED)}
            found["wrong key"] = answered(http.get("/v1/models", headers=eve))
            found["wrong scheme"] = answered(http.get("/v1/models", headers={"authorization": "Basic ann"}))
            body = {**ask()[2], "blend": {"keep": True}}
            found["no key"] = answered(http.post(CHAT, json=body))
            response = http.post(CHAT, json=body, headers=ann)
            found["key"] = answered(response)
            path = f"/v1/history/{response.json()['id']}"
            found["the other's"] = answered(http.get(path, headers=bob))
            found["own"] = answered(http.get(path, headers=ann))
            found["lists"] = [len(http.get("/v1/history", headers=who).json()["data"]) for who in (ann, bob)]
    finally:
        process.terminate()
        code = process.wait(30)
        process.stdout.close()
    return {**found, "exit": code}


def full_queue():
    async def run():
        llm = FakeLLM("a", delay=0.5)
        app = create_app(Ensemble([Member(llm)], FakeRanker()), ServerConfig(concurrency=1, queue=1))
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http,
        ):
            asked = [http.post(CHAT, json=ask()[2]) for _ in range(3)]
            responses = await asyncio.gather(*asked)
        return sorted(map(answered, responses), key=lambda response: response["status"])

    return asyncio.run(run())


@pytest.mark.parametrize("case", CASES)
def test_access(golden, case):
    golden(with_keys() if case == "keys" else full_queue())
