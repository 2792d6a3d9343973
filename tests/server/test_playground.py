"""The page's files: who may have them, and what their headers forbid. tests/browser does what people do with them."""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files

from llm_blender.server.auth import Keys
from llm_blender.server.playground import PATHS


def test_files_need_no_key_and_load_nothing_from_elsewhere(serve):
    running = serve(keys=Keys([hashlib.sha256(b"key").hexdigest()]))
    for path in sorted(PATHS):
        response = running.http.get(path)
        assert response.status_code == 200
        headers = response.headers
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert (policy["default-src"], policy["script-src"], policy["style-src"]) == ("'none'", "'self'", "'self'")
        assert (policy["frame-ancestors"], policy["base-uri"], policy["form-action"]) == ("'none'",) * 3
        assert "unsafe" not in headers["content-security-policy"]
        assert policy["require-trusted-types-for"] == "'script'"
        assert policy["trusted-types"] == "dompurify"  # one policy, held by the sanitiser
        if path.startswith("/page/vendor/"):
            assert "immutable" in headers["cache-control"]
            assert re.search(r"-\d+\.\d+\.\d+\.min\.js$", path)  # or a browser would keep an old one
        else:
            assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", response.text) == [], path
        if path.endswith(".js"):
            assert headers["content-type"] == "text/javascript; charset=utf-8"


def test_libraries_are_those_that_are_recorded():
    folder = files("llm_blender.server") / "page" / "vendor"
    text = (folder / "LIBRARIES.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"][2:]
    recorded = {row[0]: row[6] for row in rows}
    assert recorded == {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir() if file.name[-3:] == ".js"
    }
    for name, library, version, licence, package, *_ in rows:
        assert version in name
        assert version in package
        assert f"## Licence of {library.split(',')[0]}" in text, licence


def test_what_the_page_names_is_there_and_nothing_is_inline(plain):
    page = plain.http.get("/").text
    named = re.findall(r'(?:src|href)="(page/[^"]+)"', page)
    own = [path for path in PATHS if "/vendor/" not in path]
    imports = r'(?:from |import |import\(|URL\()"\./([^"]+)"'
    imported = {name for path in own for name in re.findall(imports, plain.http.get(path).text)}
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
        if path.endswith(".js") and "/vendor/" not in path:
            text = plain.http.get(path).text
            assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|createPolicy", text)


def test_one_module_makes_elements(plain):
    paths = [path for path in PATHS if path.endswith(".js") and "/vendor/" not in path]
    makers = [path for path in paths if re.search(r"createElement|\.setAttribute\(name", plain.http.get(path).text)]
    assert makers == ["/page/elements.js"]
