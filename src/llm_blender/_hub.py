"""Checkpoints by name: in a folder, in the Hub's cache, or on the Hub if it answers soon."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote, urljoin

from llm_blender.errors import NotFoundError

if TYPE_CHECKING:
    import httpx

__all__ = [
    "ANSWER_SECONDS",
    "FILES",
    "PICKLED_FILES",
    "HubFile",
    "auth_headers",
    "endpoint",
    "file_url",
    "find_folder",
    "from_hub",
    "look_up",
    "sha256_of",
]

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
    "model*.safetensors",  # in parts, where it is large
    "model.safetensors.index.json",
    "onnx/*.onnx",
    "README.md",
]
"""What belongs to a checkpoint, but for pickled weights."""
_PATIENCE = 3  # seconds for the Hub's first answer


def find_folder(kind: str, name: str | os.PathLike[str], revision: str | None = None) -> Path:
    """The folder of a checkpoint; from the Hub it is fetched once.

    Args:
        kind: what it is, for the message: ``ranker``, ``model``, …
        name: a folder, or a Hub repository (``owner/name``).
        revision: branch, tag or commit on the Hub.

    Raises:
        NotFoundError: it is nowhere; the message says where it was looked for.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if os.fspath(name).count("/") != 1 or folder.is_absolute() or os.fspath(name).startswith("."):
        raise NotFoundError(f"No {kind} {os.fspath(name)!r}: {_looked(folder)}, and it is not a Hub name (owner/name).")
    return from_hub(kind, os.fspath(name), revision)


def from_hub(kind: str, name: str, revision: str | None = None, files: list[str] | None = None) -> Path:
    """The folder of a repository in the Hub's cache, fetched where it is not there yet.

    Args:
        kind: as for `find_folder`.
        name: of the repository.
        revision: branch, tag or commit.
        files: patterns of what is wanted; None is a whole checkpoint, with pickled weights only where there are no
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
            fetch(PICKLED_FILES)  # the older of two forms, where there is no other
            if local_only and not _has_weights(folder):
                raise LocalEntryNotFoundError(f"The cache holds {name} without its weights.")
        return folder

    return _patiently(f"No {kind} {name!r}: {_looked(Path(name).expanduser())}", name, snapshot)


class _Snapshot(Protocol):
    def __call__(self, *, local_only: bool) -> Path: ...


def _patiently(missing: str, name: str, snapshot: _Snapshot) -> Path:
    """From the Hub's cache, or from the Hub if it answers soon."""
    import httpx
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return snapshot(local_only=True)
    except HFValidationError as error:
        raise NotFoundError(f"{missing}, and it is not a Hub name ({error}).") from error
    except LocalEntryNotFoundError:
        pass
    if os.environ.get("LLM_BLENDER_OFFLINE") == "1" or constants.HF_HUB_OFFLINE:
        raise NotFoundError(f"{missing}, not in the Hub's cache, and offline mode is on.")
    try:
        # The Hub's own client waits and retries for much longer than a person does.
        httpx.head(f"{constants.ENDPOINT}/api/models/{name}", timeout=_PATIENCE, follow_redirects=True)
        return snapshot(local_only=False)
    except (OSError, httpx.HTTPError, httpx.InvalidURL, HfHubHTTPError, ValueError) as error:  # ValueError: no JSON
        raise NotFoundError(
            f"{missing}, not in the Hub's cache, and not fetched from {constants.ENDPOINT} "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no answer'})."
        ) from error


def _looked(folder: Path) -> str:
    return f"no folder {folder.absolute()}"


def _has_weights(folder: Path) -> bool:
    """Whether a checkpoint holds weights, in any form."""
    return any(any(folder.glob(pattern)) for pattern in ("onnx/*.onnx", "*.safetensors", "*.gguf", PICKLED_FILES[0]))


ANSWER_SECONDS = 3.0
"""How long the Hub may take to answer before another source is tried."""


@dataclass(frozen=True)
class HubFile:
    """A file that the Hub has.

    Attributes:
        url: where it is fetched from.
        sha256: as the Hub states it; None where the file does not lie in its large-file storage.
    """

    url: str
    sha256: str | None


def endpoint() -> str:
    """The Hub's address, ``$HF_ENDPOINT`` if set."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def file_url(repo: str, file: str, revision: str = "main") -> str:
    """Where the Hub keeps a file of a repository."""
    return f"{endpoint()}/{repo}/resolve/{quote(revision, safe='')}/{quote(file)}"


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def auth_headers() -> dict[str, str]:
    """The user's token as huggingface_hub finds it (``HF_TOKEN``, or its login), or nothing."""
    from huggingface_hub import get_token

    token = get_token()
    return {"Authorization": f"Bearer {token}"} if token else {}


def look_up(repo: str, file: str, revision: str = "main", *, seconds: float = ANSWER_SECONDS) -> HubFile | None:
    """Ask the Hub for a file; None if it does not answer in time.

    Raises:
        NotFoundError: the Hub answers that it has no such file, or not for this user.
    """
    url = file_url(repo, file, revision)
    answers: list[httpx.Response | None] = []
    # A thread of its own, because no time-out of the socket covers a name server that does not answer.
    thread = threading.Thread(target=lambda: answers.append(_head(url, seconds)), daemon=True)
    thread.start()
    thread.join(seconds)
    response = answers[0] if answers else None
    if response is None or response.status_code >= 500:
        return None
    if response.status_code in (401, 403, 404):
        raise NotFoundError(
            f"{endpoint()} has no {repo}/{file} for you (HTTP {response.status_code}): check the spelling; a"
            " gated or private repository needs HF_TOKEN and its licence accepted on the Hub."
        )
    stated = response.headers.get("X-Linked-Etag", "").strip('"')
    return HubFile(url, stated if re.fullmatch(r"[0-9a-f]{64}", stated) else None)


def _head(url: str, seconds: float) -> httpx.Response | None:
    import httpx

    try:
        with httpx.Client(timeout=seconds, headers=auth_headers()) as client:
            response = client.head(url)
            # A renamed repository redirects within the Hub; the redirect to the storage is the answer itself.
            for _ in range(3):
                location = response.headers.get("Location", "")
                if not (response.is_redirect and location.startswith("/")) or "X-Linked-Etag" in response.headers:
                    break
                response = client.head(urljoin(url, location))
            return response
    except (httpx.HTTPError, httpx.InvalidURL, OSError):
        return None
