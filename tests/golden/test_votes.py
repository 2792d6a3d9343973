"""``blend votes export``, of answers that the service kept and clients voted on."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from .conftest import Case
from .service import Service, converse, keep

VOTED = [
    keep(),
    ("POST", "/v1/history/{id}/votes", {"preferred": 0}),
    keep(),
    ("POST", "/v1/history/{id}/votes", {"preferred": 1, "over": [0], "tie": True}),
    keep(),
]
CASES = {
    "rows": Case(["votes export", "votes export -o out.jsonl --json"]),
    "conversational": Case(["votes export --format conversational -o out.jsonl --json"]),
    "standard": Case(["votes export --format standard -o out.jsonl --json"]),
    "measured": Case(["votes export -o out.jsonl --json", "bench pairs out.jsonl --json"]),
    "none": Case(["votes export --store none.db --json"]),
}


@pytest.mark.parametrize("case", CASES)
def test_votes(run_case, case):
    asyncio.run(converse(Service(VOTED, store=True), Path(os.environ["LLM_BLENDER_STORE"])))
    run_case(CASES[case], {})
