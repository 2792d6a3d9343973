"""A job: a folder with its settings and its progress."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from llm_blender._hub import file_sha256
from llm_blender.errors import InputError, WorkError
from llm_blender.jobs.journal import Entry, Journal, Payments
from llm_blender.types import Candidate

_MANIFEST, _PART, _LOCK, _VERSION = "manifest.json", "manifest.part", "lock", 1
_SUFFIX = ".journal.jsonl"


def settings_digest(settings: Mapping[str, Any]) -> str:
    """Return the sha256, as hex, of settings that are plain JSON values."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


class Job:
    """The settings of a resumable work, and a journal for each of its parts.

    A job may be stopped at any moment and resumed with the same settings: rows that are done are found again. Other
    settings are refused, as their rows would not belong together. One process at a time works on a job.

    Args:
        folder: the job's folder; created if missing.
        kind: its kind of work, such as ``run``.
        settings: everything that its results depend on, as plain JSON values.
        restart: delete earlier progress and begin again.
        before: returns the settings of this work as they were with the rows of an earlier run, from its settings: rows
            may be appended, and the results of the earlier ones stay. None is for work whose rows do not change.

    Raises:
        InputError: by ``with``: the folder holds other files, or a job that has other settings or is running.
        WorkError: by ``with``: the folder cannot be written to.

    Examples:
        >>> with Job(Path("rows.job"), "run", {"seed": 0}) as job:
        ...     job.journal("rows").status("row-1")
    """

    def __init__(
        self,
        folder: Path,
        kind: str,
        settings: Mapping[str, Any],
        *,
        restart: bool = False,
        before: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
    ) -> None:
        self.folder, self.kind, self.settings = folder, kind, settings
        self._restart, self._before = restart, before
        self._journals: dict[str, Journal] = {}
        self._payments: Payments | None = None
        self._stack = contextlib.ExitStack()

    @property
    def digest(self) -> str:
        """Hash of the settings."""
        return settings_digest(self.settings)

    def __enter__(self) -> Self:
        from filelock import FileLock, Timeout

        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder} is a file, and a job needs a folder: move it away.")
        if self._holds_other_files():
            raise InputError(f"{self.folder} is not empty and holds no job: choose another output, or move it away.")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._stack.enter_context(FileLock(self.folder / _LOCK, timeout=0))
        except Timeout:
            raise InputError(f"Another process works on {self.folder}: wait for it, or stop it.") from None
        except OSError as error:
            raise WorkError(f"{self.folder} cannot be written to: {error.strerror}.") from error
        try:
            if self._restart:
                self._forget()
            self._open_manifest()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._journals.clear()
        self._payments = None
        self._stack.close()

    def paid(self, candidate: Candidate) -> None:
        """Record the cost of an answer as soon as it is here: its row may never be done.

        Raises:
            WorkError: the job's folder cannot be written to.
        """
        self._paid.add(candidate.model or "", candidate.cost)

    @property
    def cost(self) -> float:
        """Dollars of all answers that were paid for, as far as prices are known."""
        return max(self._paid.cost, sum(journal.cost for journal in self._journals.values()))

    @property
    def unpriced(self) -> int:
        """Answers of unknown cost."""
        return max(self._paid.unpriced, sum(journal.unpriced for journal in self._journals.values()))

    def cost_by_llm(self) -> dict[str, float | None]:
        """Return the dollars that the answers of each LLM cost; None where a price is unknown."""
        return dict(self._paid.by_llm)

    @property
    def _paid(self) -> Payments:
        if self._payments is None:
            self._payments = self._stack.enter_context(Payments(self._path("paid")))
        return self._payments

    def journal(self, name: str) -> Journal:
        """Return one of its journals, opened with the first use and closed at the end."""
        if name not in self._journals:
            self._journals[name] = self._stack.enter_context(Journal(self._path(name)))
        return self._journals[name]

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{_SUFFIX}"

    def _holds_other_files(self) -> bool:
        if not self.folder.is_dir() or (self.folder / _MANIFEST).exists():
            return False
        return any(path.name not in (_LOCK, _PART) for path in self.folder.iterdir())

    def _forget(self) -> None:
        for path in [*self.folder.glob(f"*{_SUFFIX}"), self.folder / _MANIFEST]:
            path.unlink(missing_ok=True)

    def _open_manifest(self) -> None:
        """Write the manifest, or compare an existing one."""
        path = self.folder / _MANIFEST
        begun_at = self._compare(path) if path.exists() else datetime.now(UTC).isoformat(timespec="seconds")
        if begun_at is None:
            return
        manifest = {
            "version": _VERSION,
            "kind": self.kind,
            "settings_sha256": self.digest,
            "settings": self.settings,
            "begun_at": begun_at,
        }
        part = self.folder / _PART
        try:
            part.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            part.replace(path)
        except OSError as error:
            raise WorkError(f"{path} cannot be written: {error.strerror}.") from error

    def _compare(self, path: Path) -> str | None:
        """Refuse the job of other settings; return when it was begun if its rows have become more, else None."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            version, kind, digest, settings = (found[key] for key in ("version", "kind", "settings_sha256", "settings"))
        except (ValueError, TypeError, KeyError):
            raise InputError(
                f"{path} is not the manifest of a job: start again with --restart, or choose another output."
            ) from None
        if version != _VERSION:
            raise InputError(f"{path} is of another version of llm-blender: start the job again with --restart.")
        if (kind, digest) == (self.kind, self.digest):
            return None
        before = self.settings if kind != self.kind or self._before is None else self._before(settings)
        if (kind, digest) == (self.kind, settings_digest(before)):
            return str(found.get("begun_at", ""))
        differing = [f"it was a `{kind}`"] if kind != self.kind else _differences(settings, before)
        raise InputError(
            f"{self.folder} was begun with other settings ({'; '.join(differing)}): use those, start again with "
            f"--restart, or choose another output. Paid answers are kept in the store."
        )


class Outputs:
    """The files that a job has written: one that is as it was written need not be written again.

    Args:
        job: the open job.
    """

    def __init__(self, job: Job) -> None:
        self._journal = job.journal("outputs")

    def find(self, path: str | Path, made_of: str) -> Any:
        """Return what `add` noted of a file; None if it was made of something else, or has been changed."""
        noted = self._journal.value(Path(path).name)
        if noted is None or noted["made_of"] != _made_of(made_of) or not Path(path).is_file():
            return None
        return noted["summary"] if file_sha256(Path(path)) == noted["sha256"] else None

    def add(self, path: str | Path, made_of: str, summary: Any) -> None:
        """Note a file that is written whole; a device or a pipe is not noted.

        Args:
            path: the file.
            made_of: hash of all that it is made of.
            summary: plain JSON values, which `find` returns; not None.

        Raises:
            WorkError: the job's folder cannot be written to.
        """
        if Path(path).is_file():
            noted = {"made_of": _made_of(made_of), "sha256": file_sha256(Path(path)), "summary": summary}
            self._journal.add(Entry(Path(path).name, "done", noted))


def _made_of(digest: str) -> str:
    """Return a hash together with the version, as another one may write the same rows differently."""
    return f"{digest} {version('llm-blender')}"


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], at: str = "") -> list[str]:
    """Describe the first few settings that differ, each as short as possible."""
    found: list[str] = []
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        name = f"{at}{key}"
        rows = key.removesuffix("_sha256")
        if rows != key and isinstance(old.get(rows), int):
            if old[rows] == new.get(rows):
                found.append(f"{at}{rows}: some of the first {old[rows]:,} have changed")
        elif isinstance(before, Mapping) and isinstance(after, Mapping):
            found += _differences(before, after, f"{name}.")
        else:
            shown = [json.dumps(value, ensure_ascii=False) for value in (before, after)]
            short = all(len(text) <= 40 for text in shown)
            found.append(f"{name}: {shown[0]} then, {shown[1]} now" if short else name)
    return found if len(found) <= 5 else [*found[:5], f"and {len(found) - 5} more"]
