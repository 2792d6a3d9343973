"""Data sets on a Hub of loopback; no test reaches the real one."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from llm_blender.data import choose_instructions, read_mix_instruct, source_files
from llm_blender.data.hub import hub_files, is_hub_name
from llm_blender.errors import NotFoundError

NAME = "owner/set"
ROW = {"instruction": "Why?", "candidates": [{"model": "a", "text": "x"}, {"model": "b", "text": "y"}]}


def lines(*prompts):
    rows = ({**ROW, "instruction": prompt, "cmp_results": '{"a,b": "Same bad"}'} for prompt in prompts)
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


class Hub:
    """Files by revision and path, and what was fetched."""

    def __init__(self):
        self.files: dict[tuple[str, str], bytes] = {}
        self.fetched: list[str] = []

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        parts = unquote(urlsplit(path).path).strip("/").split("/")
        if parts[:2] == ["api", "datasets"]:
            if "/".join(parts[2:4]) != NAME:
                return 401, b"{}", {"X-Error-Code": "RepoNotFound"}
            return self._api(parts[4:])
        if parts[0] == "datasets" and parts[3] == "resolve":
            revision = "refs/convert/parquet" if parts[4] == "refs" else parts[4]
            file = "/".join(parts[7:] if parts[4] == "refs" else parts[5:])
            body = self.files.get((revision, file))
            if body is None:
                return 404, b"", {"X-Error-Code": "EntryNotFound"}
            self.fetched.append(file)
            return 200, body, {"ETag": f'"{hashlib.sha1(body).hexdigest()}"', "X-Repo-Commit": "0" * 40}
        return 404, b"", {}

    def _api(self, parts: list[str]) -> tuple[int, bytes, dict[str, str]]:
        if not parts:
            return 200, b"{}", {}
        revision = "/".join(parts[1:])
        listed = [
            {"type": "file", "path": file, "size": len(body), "oid": "0" * 40}
            for (at, file), body in self.files.items()
            if at == revision
        ]
        if not listed and revision != "main":
            return 404, b"{}", {"X-Error-Code": "RevisionNotFound"}
        return 200, json.dumps(listed).encode(), {"Content-Type": "application/json"}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    from huggingface_hub import constants

    fake = Hub()

    class Handler(BaseHTTPRequestHandler):
        def respond(self, body: bool) -> None:
            status, content, headers = fake.answer(self.path)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def do_GET(self) -> None:
            self.respond(True)

        def do_HEAD(self) -> None:
            self.respond(False)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.delenv("LLM_BLENDER_OFFLINE", raising=False)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.chdir(tmp_path)
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def mixinstruct(hub):
    for split, prompts in (("train", ("One?", "Two?")), ("val", ("Three?",)), ("test", ("Four?",))):
        hub.files["main", f"{split}_data_prepared.jsonl"] = lines(*prompts)
    hub.files["main", "README.md"] = b"# card"
    return hub


@pytest.mark.parametrize(("split", "prompts"), [("test", ["Four?"]), ("val", ["Three?"]), ("validation", ["Three?"])])
def test_a_split_of_a_data_set(mixinstruct, split, prompts):
    rows = list(read_mix_instruct(NAME, split))
    assert [row.prompt for row in rows] == prompts
    assert rows[0].extra["cmp_results"] == {"a,b": "Same bad"}


def test_all_splits_fetched_once(mixinstruct):
    assert {row.prompt for row in read_mix_instruct(NAME)} == {"One?", "Two?", "Three?", "Four?"}
    fetched = len(mixinstruct.fetched)
    paths = hub_files(NAME)
    assert [path.name for path in paths] == [f"{split}_data_prepared.jsonl" for split in ("test", "train", "val")]
    assert len(mixinstruct.fetched) <= 2 * fetched


def test_instructions_from_the_hub(mixinstruct):
    chosen = choose_instructions(source_files([f"{NAME}:train"]))
    assert [row.prompt for row in chosen.rows] == ["One?", "Two?"]
    assert list(chosen.sources) == [f"{NAME}/train_data_prepared.jsonl"]


def test_the_parquet_copy_where_there_is_nothing_else(hub, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    parquet.write_table(pyarrow.Table.from_pylist([{"prompt": "Five?", "output": "5"}]), tmp_path / "x.parquet")
    hub.files["main", "script.py"] = b""
    hub.files["refs/convert/parquet", "default/test/0000.parquet"] = (tmp_path / "x.parquet").read_bytes()
    chosen = choose_instructions(source_files([f"{NAME}:test"]))
    assert [(row.prompt, row.reference) for row in chosen.rows] == [("Five?", "5")]


def test_a_data_set_that_cannot_be_read(hub):
    hub.files["main", "script.py"] = b""
    with pytest.raises(NotFoundError, match="holds neither JSON nor Parquet"):
        hub_files(NAME)


def test_what_is_not_there(mixinstruct):
    with pytest.raises(NotFoundError, match=r"has no split 'dress'; its files: test_data_prepared\.jsonl, "):
        hub_files(NAME, "dress")
    with pytest.raises(NotFoundError, match="no data set owner/other on http://127"):
        hub_files("owner/other")


def test_without_a_hub_the_cache_is_looked_at(mixinstruct, monkeypatch):
    (fetched,) = hub_files(NAME, "test")
    for setting in (("HF_ENDPOINT", "http://127.0.0.1:9"), ("LLM_BLENDER_OFFLINE", "1")):
        monkeypatch.setenv(*setting)
        (cached,) = hub_files(NAME, "test")
        assert cached.read_bytes() == fetched.read_bytes()
        with pytest.raises(NotFoundError, match="it is not in the Hub's cache, and "):
            hub_files("owner/other")


def test_what_is_a_name_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_hub_name("llm-blender/mix-instruct")
    assert not any(
        map(
            is_hub_name,
            ("rows.jsonl", "dir/rows.csv", "dir/rows.tsv.gz", "dir/*", "a/b/c", "dir/rows.jsonl", "./x", "/a/b", "-"),
        )
    )
    Path("here").mkdir()
    (Path("here") / "file").touch()
    assert not is_hub_name("here/file")
