"""Pushing checkpoints to the Hub, with a fake of `huggingface_hub.HfApi`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from llm_blender._hub import push_folder
from llm_blender.errors import InputError, WorkError
from llm_blender.rankers.pair_ranker import PairRanker


class FakeApi:
    """Records what is pushed; `error` is raised where a user is looked up."""

    pushed: dict[str, bytes]
    made: dict[str, Any]
    error: Exception | None = None

    def __init__(self, endpoint: str, token: str | None) -> None:
        FakeApi.token = token

    def whoami(self) -> dict[str, str]:
        if self.error is not None:
            raise self.error
        return {"name": "ann"}

    def create_repo(self, repo: str, *, private: bool | None, exist_ok: bool) -> huggingface_hub.RepoUrl:
        FakeApi.made = {"repo": repo, "private": private, "exist_ok": exist_ok}
        return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo}")

    def upload_folder(self, *, repo_id: str, folder_path: Path, allow_patterns: list[str], commit_message: str) -> None:
        from huggingface_hub.utils import filter_repo_objects

        files = [path.relative_to(folder_path).as_posix() for path in Path(folder_path).rglob("*") if path.is_file()]
        kept = filter_repo_objects(files, allow_patterns=allow_patterns)
        FakeApi.pushed = {name: (Path(folder_path) / name).read_bytes() for name in kept}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> type[FakeApi]:
    for name in ("LLM_BLENDER_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    monkeypatch.setattr(FakeApi, "error", None)
    FakeApi.pushed = {}
    return FakeApi


@pytest.fixture
def folder(tiny_ranker, tmp_path: Path) -> Path:
    shutil.copytree(tiny_ranker(), tmp_path / "mine")
    (tmp_path / "mine" / "README.md").write_text("# A card\n")
    for private in ("rows/train.jsonl", "trainer/one/checkpoint-1/model.safetensors", "notes.txt"):
        (tmp_path / "mine" / private).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / private).write_text("mine alone")
    return tmp_path / "mine"


FILES = {
    "README.md",
    "config.json",
    "model.safetensors",
    "onnx/model_fp32.onnx",
    "onnx/model_int8.onnx",
    "tokenizer.json",
}


def test_all_files_of_the_checkpoint_and_no_others(api, folder):
    url = PairRanker.from_pretrained(folder).push_to_hub("ann/mine", private=True)
    assert url == "https://huggingface.co/ann/mine"
    assert api.made == {"repo": "ann/mine", "private": True, "exist_ok": True}
    assert set(api.pushed) == FILES
    assert all((folder / name).read_bytes() == data for name, data in api.pushed.items())


def test_a_folder_is_pushed_without_what_else_is_in_it(api, folder):
    push_folder(folder, "ann/mine", token="hf_other")
    assert set(api.pushed) == FILES
    assert api.token == "hf_other"


def test_a_pointwise_ranker_can_be_pushed():
    from llm_blender.rankers.pointwise import PointwiseRanker

    assert PointwiseRanker.push_to_hub is PairRanker.push_to_hub


def test_without_a_token(api, folder, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(InputError, match="run `hf auth login`, or set HF_TOKEN"):
        push_folder(folder, "ann/mine")
    assert not api.pushed


def test_no_name_of_a_repository(api, folder):
    with pytest.raises(InputError, match="is no name on the Hub, such as owner/my-ranker"):
        push_folder(folder, "ann/mine/again")


def test_offline(api, folder, monkeypatch):
    monkeypatch.setenv("LLM_BLENDER_OFFLINE", "1")
    with pytest.raises(InputError, match="offline mode is on"):
        push_folder(folder, "ann/mine")


def test_without_a_network(api, folder, monkeypatch):
    monkeypatch.setattr(api, "error", ConnectionError("no route to host"))
    with pytest.raises(WorkError, match=r"not pushed to https://.*no route to host\). The checkpoint is in "):
        push_folder(folder, "ann/mine")


def test_a_token_that_may_not(api, folder, monkeypatch):
    import httpx

    response = httpx.Response(403, request=httpx.Request("POST", "https://huggingface.co"))
    monkeypatch.setattr(api, "error", huggingface_hub.errors.HfHubHTTPError("no", response=response))
    with pytest.raises(WorkError, match=r"refused ann/mine \(HTTP 403\)\. Use a token that may write"):
        push_folder(folder, "ann/mine")
