"""Model files by name: a local folder, huggingface_hub's cache, or the Hub if it answers within three seconds."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import quote

from llm_blender.errors import InputError, NotFoundError, WorkError

_T = TypeVar("_T")

PICKLED_FILES = ["pytorch_model*.bin", "pytorch_model.bin.index.json"]
FILES = [
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter.gguf",
    "fuser.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "chat_template.*",
    "*.model",  # sentencepiece
    "model*.safetensors",  # in parts if it is large
    "model.safetensors.index.json",
    "onnx/*.onnx",
    "README.md",
]
"""Patterns of the files of a checkpoint, without pickled weights."""

ANSWER_SECONDS = 3.0
"""Time limit of the Hub's first answer. The Hub's own client waits and retries much longer."""

CONNECT_SECONDS = 10.0
"""Time limit of the Hub's answer to who the user is, before files are pushed."""


def offline() -> bool:
    """Return whether ``LLM_BLENDER_OFFLINE``, ``HF_HUB_OFFLINE`` or ``TRANSFORMERS_OFFLINE`` forbids network access."""
    return any(
        os.environ.get(name, "").strip().lower() in {"1", "true", "yes", "on"}
        for name in ("LLM_BLENDER_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def cache_dir() -> Path:
    """Return the folder of downloads and optimised models.

    It is ``$LLM_BLENDER_CACHE``, else the platform's user cache directory.
    """
    if chosen := os.environ.get("LLM_BLENDER_CACHE"):
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("llm-blender"))


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_folder(kind: str, name: str | os.PathLike[str], revision: str | None = None) -> Path:
    """Return the folder of a checkpoint; fetch it from the Hub if it is neither a folder nor in the Hub's cache.

    Args:
        kind: what the checkpoint is, for the message: ``ranker``, ``model``, …
        name: a folder, or a Hub repository (``owner/name``).
        revision: branch, tag or commit on the Hub.

    Raises:
        NotFoundError: there is no such checkpoint; the message lists where it was looked for.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if os.fspath(name).count("/") != 1 or folder.is_absolute() or os.fspath(name).startswith("."):
        raise NotFoundError(f"No {kind} {os.fspath(name)!r}: {_looked(folder)}, and it is not a Hub name (owner/name).")
    return from_hub(kind, os.fspath(name), revision)


def from_hub(kind: str, name: str, revision: str | None = None, files: list[str] | None = None) -> Path:
    """Return the folder of a repository in the Hub's cache; fetch it if it is not there yet.

    Args:
        kind: as for `find_folder`.
        name: of the repository.
        revision: branch, tag or commit.
        files: patterns of the files to fetch; None fetches a whole checkpoint, its pickled weights only if it has no
            others.

    Raises:
        NotFoundError: as for `find_folder`.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    def snapshot(*, local_only: bool) -> Path:
        def fetch(patterns: list[str]) -> Path:
            return Path(
                snapshot_download(name, revision=revision, allow_patterns=patterns, local_files_only=local_only)
            )

        folder = fetch(files or FILES)
        if files is None and not _has_weights(folder):
            fetch(PICKLED_FILES)
            if local_only and not _has_weights(folder):
                raise LocalEntryNotFoundError(f"The cache holds {name} without its weights.")
        return folder

    return _patiently(f"No {kind} {name!r}: {_looked(Path(name).expanduser())}", name, snapshot)


class _Snapshot(Protocol):
    def __call__(self, *, local_only: bool) -> Path: ...


def _patiently(missing: str, name: str, snapshot: _Snapshot) -> Path:
    """Take a snapshot from the Hub's cache, or from the Hub if it answers in time."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return snapshot(local_only=True)
    except HFValidationError as error:
        raise NotFoundError(f"{missing}, and it is not a Hub name ({error}).") from error
    except LocalEntryNotFoundError:
        pass
    if offline():
        raise NotFoundError(f"{missing}, not in the Hub's cache, and offline mode is on.")
    try:
        wait_for_hub(f"{constants.ENDPOINT}/api/models/{name}")
        return snapshot(local_only=False)
    except Exception as error:  # of requests, httpx or httpx2: the client differs by version of huggingface_hub
        raise NotFoundError(
            f"{missing}, not in the Hub's cache, and not fetched from {constants.ENDPOINT} "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no answer'})."
        ) from error


def wait_for_hub(address: str) -> None:
    """Wait for any answer of the Hub; its own client would wait and try again for much longer than a user does.

    Raises:
        Exception: there is none in `ANSWER_SECONDS`, or no connection (httpx's and `TimeoutError`).
    """
    import httpx

    _within(ANSWER_SECONDS, lambda: httpx.head(address, timeout=ANSWER_SECONDS, follow_redirects=True))


def _looked(folder: Path) -> str:
    return f"no folder {folder.absolute()}"


def _has_weights(folder: Path) -> bool:
    return any(any(folder.glob(pattern)) for pattern in ("onnx/*.onnx", "*.safetensors", "*.gguf", PICKLED_FILES[0]))


def check_push(repo: str, token: str | None = None) -> None:
    """Check what can be checked of a later `push_folder` before long work: name, token, offline mode.

    Raises:
        InputError: the name is none, there is no token, or offline mode is on.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # exported, but not listed

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise InputError(f"{repo!r} is no name on the Hub, such as owner/my-ranker ({error}).") from error
    if offline():
        raise InputError("Nothing can be pushed to the Hub: offline mode is on (LLM_BLENDER_OFFLINE, HF_HUB_OFFLINE).")
    if not (token or get_token()):
        raise InputError(
            f"Pushing to {repo} needs a token that may write: run `hf auth login`, or set HF_TOKEN "
            "(https://huggingface.co/settings/tokens)."
        )


def push_folder(folder: Path, repo: str, *, private: bool | None = None, token: str | None = None) -> str:
    """Push the files of a checkpoint, with its card, to a repository on the Hub, which is made if there is none.

    Args:
        folder: the checkpoint; other files in it are not pushed.
        repo: name of the repository, ``owner/name``.
        private: whether a new repository is private; None for the owner's default.
        token: of the user; None for ``HF_TOKEN`` or the login of huggingface_hub.

    Returns:
        URL of the repository.

    Raises:
        InputError: as for `check_push`.
        WorkError: the Hub cannot be reached, or refuses it.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    check_push(repo, token)
    api = HfApi(endpoint=endpoint(), token=token)
    try:
        _within(CONNECT_SECONDS, lambda: api.whoami())
        url = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=url.repo_id,
            folder_path=folder,
            allow_patterns=[*FILES, *PICKLED_FILES],
            commit_message="Checkpoint and its card",
        )
    except HfHubHTTPError as error:
        status = error.response.status_code
        hint = " Use a token that may write to it: `hf auth login`, or HF_TOKEN." if status in (401, 403) else ""
        raise WorkError(f"{endpoint()} refused {repo} (HTTP {status}).{hint} The checkpoint is in {folder}.") from error
    except Exception as error:  # of requests, httpx or httpx2: the client differs by version of huggingface_hub
        words = str(error).splitlines()[0] if str(error) else "no answer"
        raise WorkError(
            f"{repo} was not pushed to {endpoint()} ({type(error).__name__}: {words}). The checkpoint is in {folder}."
        ) from error
    return str(url)


@dataclass(frozen=True)
class HubFile:
    """A file on the Hub.

    Attributes:
        url: its address.
        sha256: as the Hub reports it; None if the file is not in its large-file storage.
    """

    url: str
    sha256: str | None


def endpoint() -> str:
    """Return the Hub's address: ``$HF_ENDPOINT``, or huggingface.co if that is not set."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def file_url(repo: str, file: str, revision: str = "main") -> str:
    """Return the address of a file of a repository on the Hub."""
    return f"{endpoint()}/{repo}/resolve/{quote(revision, safe='')}/{quote(file)}"


def auth_headers() -> dict[str, str]:
    """Return the header with the user's token (``HF_TOKEN``, or the login of huggingface_hub), if there is one."""
    from huggingface_hub import get_token

    token = get_token()
    return {"Authorization": f"Bearer {token}"} if token else {}


def look_up(repo: str, file: str, revision: str = "main", *, seconds: float = ANSWER_SECONDS) -> HubFile | None:
    """Look for a file on the Hub; return None if the Hub does not answer in time.

    Raises:
        NotFoundError: the Hub has no such file, or denies this user access to it.
    """
    from huggingface_hub import get_hf_file_metadata, get_token
    from huggingface_hub.errors import HfHubHTTPError

    url = file_url(repo, file, revision)
    try:
        found = _within(seconds, lambda: get_hf_file_metadata(url, token=get_token(), timeout=seconds))
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403, 404):
            raise NotFoundError(
                f"{endpoint()} has no {repo}/{file} for you (HTTP {status}): check the spelling; a"
                " gated or private repository needs HF_TOKEN and its licence accepted on the Hub."
            ) from error
        return None if status >= 500 else HubFile(url, None)
    except Exception:  # of requests, httpx or httpx2: the client differs by version of huggingface_hub
        return None
    # The etag of a small file is its git hash.
    return HubFile(url, found.etag if re.fullmatch(r"[0-9a-f]{64}", found.etag or "") else None)


def _within(seconds: float, work: Callable[[], _T]) -> _T:
    """Return the result of `work`, or raise TimeoutError after some seconds.

    The work runs in a thread of its own, since no time-out of a socket covers a name server that does not answer.
    """
    result: Future[_T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return result.result(seconds)
