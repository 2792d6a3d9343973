"""Checkpoints by name: what happens without the Hub."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from llm_blender._hub import file_sha256, find_folder
from llm_blender.data.hub import hub_files
from llm_blender.errors import NotFoundError

OFFLINE = ("LLM_BLENDER_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


class BrokenError(Exception):
    """An error of an HTTP client that this package does not import."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Plan a Hub that breaks off during the download; return the addresses that it was called with."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    calls: list[str] = []

    def snapshot_download(name: str, *, local_files_only: bool, **options: Any) -> str:
        raise LocalEntryNotFoundError("not cached") if local_files_only else BrokenError("planted: cut\nmore")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr("httpx.head", lambda url, **options: calls.append(url))
    for name in OFFLINE:
        monkeypatch.delenv(name, raising=False)
    return calls


def test_a_download_that_breaks_off(hub: list[str]) -> None:
    with pytest.raises(NotFoundError, match=r"not fetched from http\S+ \(BrokenError: planted: cut\)\.$"):
        find_folder("model", "owner/name")
    assert [url.endswith("/api/models/owner/name") for url in hub] == [True]


@pytest.mark.parametrize("name", OFFLINE)
def test_offline_mode_calls_no_hub(hub: list[str], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "true")
    with pytest.raises(NotFoundError, match="not in the Hub's cache, and offline mode is on"):
        find_folder("model", "owner/name")
    with pytest.raises(NotFoundError, match="not in the Hub's cache, and offline mode is on"):
        hub_files("owner/name")
    assert hub == []


def test_the_sha256_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"bytes")
    assert file_sha256(tmp_path / "file") == hashlib.sha256(b"bytes").hexdigest()
