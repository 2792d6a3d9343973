"""Ask the Hugging Face Hub, or a mirror of it, for one file without waiting on a firewall."""

from __future__ import annotations

import os
import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin

from llm_blender.errors import NotFoundError

if TYPE_CHECKING:
    import httpx

__all__ = ["ANSWER_SECONDS", "HubFile", "auth_headers", "endpoint", "file_url", "look_up"]

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
