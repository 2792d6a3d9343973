"""Who is good at what, over HTTP."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from llm_blender.record import LEAST
from llm_blender.server import app as application
from llm_blender.server.auth import Keys
from llm_blender.store import Store
from llm_blender.testing import FakeLLM


def standings(running, **headers):
    found = running.http.get("/v1/standings", headers=headers)
    assert found.status_code == 200, found.text
    return found.json()


def test_first_places_and_votes(serve, tmp_path):
    running = serve(store=Store(tmp_path / "blend.db"))
    empty = standings(running)
    assert (empty["rankings"], empty["missing"], empty["used"]) == (0, LEAST, False)
    assert [each["strength"] for each in empty["data"]] == [None, None]
    id = running.ask("Why?", blend={"keep": True}).json()["id"]
    running.ask("What?")
    running.ask("What?", model="a")  # one LLM alone: nothing was compared
    running.http.post(f"/v1/history/{id}/votes", json={"preferred": 0})
    found = standings(running)
    assert (found["rankings"], found["missing"]) == (2, LEAST - 2)
    best, other = found["data"]
    assert (best["llm"], best["ranker"]) == ("b", {"count": 2, "won": 2})
    assert best["kinds"]["other"] == {"count": 2, "won": 2}
    assert (best["votes"], other["votes"]) == ({"count": 1, "won": 0.0}, {"count": 1, "won": 1.0})
    assert best["ci95"][0] < best["strength"] < best["ci95"][1]
    assert best["strength"] == pytest.approx(-other["strength"])


def test_votes_are_those_of_the_key(serve, tmp_path):
    keys = Keys([hashlib.sha256(key).hexdigest() for key in (b"ann", b"bob")])
    running = serve(store=Store(tmp_path / "blend.db"), keys=keys)
    assert running.http.get("/v1/standings").status_code == 401
    ann, bob = ({"authorization": f"Bearer {key}"} for key in ("ann", "bob"))
    body = {"model": "blend", "messages": [{"role": "user", "content": "Why?"}], "blend": {"keep": True}}
    id = running.http.post("/v1/chat/completions", json=body, headers=ann).json()["id"]
    running.http.post(f"/v1/history/{id}/votes", json={"preferred": 0}, headers=ann)
    assert [each["votes"]["count"] for each in standings(running, **ann)["data"]] == [1, 1]
    assert [each["votes"]["count"] for each in standings(running, **bob)["data"]] == [0, 0]


def test_without_a_store_there_are_none(serve):
    assert serve().http.get("/v1/standings").status_code == 404


def test_a_service_learns_again_while_it_runs(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(application, "_LEARN_EVERY", 0.02)
    monkeypatch.setattr("llm_blender.record.LEAST", 3)
    running = serve(store=Store(tmp_path / "blend.db"), priors="auto")
    for i in range(3):
        running.ask(f"Why {i}?")
    ensemble = running.service.ensemble
    asyncio.run(_until(lambda: ensemble._learned is not None and ensemble._learned.usable is not None))
    assert "priors" in running.ask("Why?").json()["blend"]["ranking"]["evidence"]["parts"]
    assert standings(running)["used"] is True


async def _until(true):
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.02)


def test_a_fused_text_has_no_standing(serve, tmp_path):
    store = Store(tmp_path / "blend.db")
    running = serve(FakeLLM("a", "One."), FakeLLM("b", "Two, longer."), store=store)
    report = {"candidates": [{"text": "One.", "model": "a"}, {"text": "Two.", "model": "b"}], "fusion": {"text": "F"}}
    history = running.service.history
    history.keep("id", [{"role": "user", "content": "Why?"}], "F", report)
    history.vote("id", 2)
    assert [each["votes"]["count"] for each in standings(running)["data"]] == [0, 0]
    history.vote("id", 1, [0], tie=True)
    assert [each["votes"] for each in standings(running)["data"]] == [{"count": 1, "won": 0.5}] * 2
