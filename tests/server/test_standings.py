"""Who is good at what, over HTTP."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from llm_blender.ranking import wilson_interval
from llm_blender.record import LEAST
from llm_blender.server import app as application
from llm_blender.server.auth import Keys
from llm_blender.store import Store
from llm_blender.testing import FakeLLM


def standings(running, **headers):
    found = running.http.get("/v1/standings", headers=headers)
    assert found.status_code == 200, found.text
    return found.json()


def counted(share):
    return share["count"], share["won"]


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
    assert (best["llm"], counted(best["ranker"])) == ("b", (2, 2))
    assert best["kinds"]["other"] == best["ranker"]
    assert best["ranker"]["ci95"] == pytest.approx((0.342, 1), abs=1e-3)
    assert best["kinds"]["code"] == {"count": 0, "won": 0, "ci95": None}
    assert (counted(best["votes"]), counted(other["votes"])) == ((1, 0.0), (1, 1.0))
    assert best["comparisons"] == 2
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
    assert [counted(each["votes"]) for each in standings(running)["data"]] == [(1, 0.5)] * 2


@pytest.mark.parametrize(
    ("share", "count", "ends"),
    [
        (81 / 263, 263, (0.2553, 0.3662)),  # Newcombe, Statistics in Medicine 17 (1998), table I
        (15 / 148, 148, (0.0624, 0.1605)),
        (0 / 20, 20, (0.0, 0.1611)),
        (1 / 29, 29, (0.0061, 0.1718)),
        (1.0, 1, (0.2065, 1.0)),
    ],
)
def test_the_interval_of_a_share(share, count, ends):
    assert wilson_interval(share, count) == pytest.approx(ends, abs=5e-5)


def test_blind_votes_are_counted_apart(serve, tmp_path):
    llms = [FakeLLM(name, text) for name, text in (("a", "One."), ("b", "Two."), ("c", "Three."), ("d", "Four."))]
    running = serve(*llms, store=Store(tmp_path / "blend.db"))
    ids = [running.ask(f"Why {i}?", blend={"keep": True}).json()["id"] for i in range(3)]
    for id, vote in zip(ids, ({"preferred": 0}, {"preferred": 0, "blind": True}, {"bad": True}), strict=True):
        assert running.http.post(f"/v1/history/{id}/votes", json=vote).status_code == 200
    assert standings(running)["voted"] == {"blind": 1, "open": 2}
    found = {each["llm"]: each for each in standings(running)["data"]}
    assert [counted(found["a"][kind]) for kind in ("votes", "blind", "open")] == [(9, 7.5), (3, 3.0), (6, 4.5)]
    assert [counted(found["d"][kind]) for kind in ("votes", "blind", "open")] == [(5, 1.5), (1, 0.0), (4, 1.5)]
    # Three votes on one prompt are one trial.
    assert found["a"]["blind"]["ci95"] == pytest.approx(wilson_interval(1.0, 1))
    assert found["d"]["votes"]["ci95"] == pytest.approx(wilson_interval(1.5 / 5, 25 / 11))
