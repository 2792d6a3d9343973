"""The page's files: who may have them, and what their headers forbid. tests/browser does what people do with them."""

from __future__ import annotations

import hashlib
import re

import pytest

from llm_blender.server.auth import Keys
from llm_blender.server.playground import PATHS


@pytest.mark.parametrize("path", sorted(PATHS))
def test_files_need_no_key_and_load_nothing_from_elsewhere(serve, path):
    running = serve(keys=Keys([hashlib.sha256(b"key").hexdigest()]))
    response = running.http.get(path)
    assert response.status_code == 200
    headers = response.headers
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert (policy["default-src"], policy["script-src"], policy["style-src"]) == ("'none'", "'self'", "'self'")
    assert (policy["frame-ancestors"], policy["base-uri"], policy["form-action"]) == ("'none'",) * 3
    assert "unsafe" not in headers["content-security-policy"]
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", response.text) == []


def test_what_the_page_names_is_there_and_nothing_is_inline(plain):
    page = plain.http.get("/").text
    named = re.findall(r'(?:src|href)="(page/[^"]+)"', page)
    loads = r'(?:from |URL\()"\./([^"]+)"'
    imported = {name for path in PATHS for name in re.findall(loads, plain.http.get(path).text)}
    assert {f"/{name}" for name in named} | {f"/page/{name}" for name in imported} | {"/"} == PATHS
    assert not re.search(r"<style|style=|\son\w+=|<script(?![^>]*src=)", page)


def test_every_answer_says_what_it_is(plain):
    for path in ("/healthz", "/v1/models", "/nowhere"):
        assert plain.http.get(path).headers["x-content-type-options"] == "nosniff"


def test_another_page_in_the_browser_cannot_ask(plain):
    body = '{"model": "blend", "messages": [{"role": "user", "content": "Go."}]}'
    headers = {"content-type": "text/plain", "origin": "https://evil.example"}
    response = plain.http.post("/v1/chat/completions", content=body, headers=headers)
    assert response.status_code == 403
    assert "access-control-allow-origin" not in response.headers


def test_no_scripts_turn_texts_into_markup(plain):
    for path in PATHS:
        if path.endswith(".js"):
            assert not re.search(
                r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", plain.http.get(path).text
            )
