"""All errors of the package, in one tree.

::

    LLMBlenderError
    ├── InputError              the user's input is wrong              exit 2   HTTP 400
    │   ├── RowError            a row of a file: path, line, reason
    │   ├── MessageError        a message of a conversation: position, key, reason
    │   ├── ConfigError         blend.toml, or an option
    │   ├── CheckpointError     a folder or file that is no checkpoint
    │   ├── NotFoundError       no file, model or row of that name              HTTP 404
    │   └── MissingExtraError   a pip extra is not installed                    HTTP 501
    │       └── MissingLibraryError   nor the library of an integration
    └── WorkError               the input was fine, the work failed    exit 1   HTTP 500
        ├── LLMError            one LLM failed: `llm`, `reason`                 HTTP 502
        ├── NoAnswerError       no LLM gave a usable answer                     HTTP 502
        ├── DownloadError       a file could not be fetched                     HTTP 502
        └── StoreError          the SQLite file cannot be used

Each message is one line: the problem and its fix.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

if TYPE_CHECKING:
    from pydantic import ValidationError

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DownloadError",
    "Failure",
    "FailureReason",
    "InputError",
    "LLMBlenderError",
    "LLMError",
    "MessageError",
    "MissingExtraError",
    "MissingLibraryError",
    "NoAnswerError",
    "NotFoundError",
    "RowError",
    "StoreError",
    "WorkError",
]

FailureReason = Literal[
    "timeout",
    "connection",
    "auth",
    "rate_limit",
    "bad_request",
    "server",
    "bad_response",
    "empty",
    "not_found",
    "wrong_form",
    "budget",
    "set_aside",
]
"""Reason why an LLM gave no answer; the same values in `Answer.failures`, on the command line and over HTTP.

``wrong_form``: there is an answer, without the form that the request requires (JSON, a schema, calls of its tools). For
the last two no call was made: it might have cost more than the rest of the budget, or too many calls before failed.
"""


@dataclass(frozen=True)
class Failure:
    """An LLM that gave no answer, with the reason.

    Attributes:
        model: name of the LLM in the configuration.
        reason: kind of failure.
        message: one line for the user who runs the ensemble.
        public: the message without URLs, names of variables and paths, for clients of a service; None if `message`
            has none.
        retry_after: seconds after which the LLM can be called again, where its server names them.
        text: the answer, for ``wrong_form``.
        own: whether the LLM or its server is at fault, and not the request, its deadline or a queue of ours.
    """

    model: str
    reason: FailureReason
    message: str
    public: str | None = None
    retry_after: float | None = None
    text: str | None = None
    own: bool = True

    @classmethod
    def of(cls, error: LLMError) -> Self:
        """Make the failure of an error."""
        return cls(error.llm, error.reason, str(error), error.public, error.retry_after, error.text, error.own)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, without `public` and `own`; fields that are None are left out."""
        values = {name: value for name, value in asdict(self).items() if name not in ("public", "own")}
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild a failure from the result of `to_dict`; unknown keys are ignored."""
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})


class LLMBlenderError(Exception):
    """Base of all errors raised by this package."""

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500


class InputError(LLMBlenderError):
    """The user's input is wrong; no work was done."""

    exit_code = 2
    http_status = 400


class RowError(InputError):
    """A row of a file cannot be used.

    Attributes:
        path: path of the file, or ``-`` for standard input.
        line: 1-based line (JSON Lines) or row (Parquet, a JSON list).
        reason: the problem.
        unit: what `line` counts, ``line`` or ``row``.
    """

    def __init__(self, path: str | PathLike[str], line: int, reason: str, *, unit: str = "line") -> None:
        self.path, self.line, self.reason, self.unit = fspath(path), line, reason, unit
        super().__init__(f"{self.path}, {unit} {line}: {reason}")


class MessageError(InputError):
    """A message of a conversation cannot be read.

    Attributes:
        position: 0-based position of the message.
        key: key of the message that is wrong, such as ``content``; empty for the message itself.
        reason: the problem.
    """

    def __init__(self, position: int, key: str, reason: str) -> None:
        self.position, self.key, self.reason = position, key, reason
        super().__init__(f"Message {position} of the instruction: {reason}.")


class ConfigError(InputError):
    """The configuration, or an option of a command, is wrong."""


class CheckpointError(InputError):
    """A folder or file is not a valid checkpoint."""


class NotFoundError(InputError):
    """A file, a model or a name does not exist; the message lists the places searched."""

    http_status = 404


class MissingExtraError(InputError):
    """An optional extra is not installed; the message contains the pip command."""

    http_status = 501

    def __init__(self, what: str, extra: str) -> None:
        self.extra = extra
        super().__init__(f"{what} needs an optional part: pip install 'llm-blender[{extra}]'")


class MissingLibraryError(MissingExtraError):
    """The library of an integration is not installed; the message contains the pip command."""

    def __init__(self, what: str, packages: str) -> None:
        super().__init__(what, packages)
        self.args = (f"{what} needs another library: pip install {packages}",)


class WorkError(LLMBlenderError):
    """The input was fine, but the work failed."""


class LLMError(WorkError):
    """One LLM gave no answer.

    Attributes:
        llm: name of the LLM in the configuration.
        reason: one of :data:`FailureReason`.
        public: the message without URLs, names of variables and paths, for clients of a service; None if it has none.
        retry_after: seconds after which the LLM can be called again, where its server names them.
        text: the answer, for ``wrong_form``.
        own: whether the LLM or its server is at fault, and not the request, its deadline or a queue of ours.

    Args:
        llm, reason, retry_after, text, own: see above.
        message: the problem and its fix.
        public: `message` without what a stranger must not read.
    """

    http_status = 502

    def __init__(
        self,
        llm: str,
        reason: FailureReason,
        message: str,
        *,
        public: str | None = None,
        retry_after: float | None = None,
        text: str | None = None,
        own: bool = True,
    ) -> None:
        self.llm, self.reason = llm, reason
        self.public = None if public is None else f"{llm}: {public}"
        self.retry_after, self.text, self.own = retry_after, text, own
        super().__init__(f"{llm}: {message}")


class NoAnswerError(WorkError):
    """No LLM gave a usable answer; the message lists the reason for each LLM.

    Attributes:
        failures: one per LLM.
    """

    http_status = 502

    def __init__(self, message: str, failures: Sequence[Failure] = ()) -> None:
        self.failures = tuple(failures)
        super().__init__(message)


class DownloadError(WorkError):
    """A file could not be downloaded, or its checksum is wrong."""

    http_status = 502


class StoreError(WorkError):
    """The SQLite file cannot be opened, read or written."""


def first_problem(error: ValidationError) -> str:
    """Describe the first error of a pydantic model in one line: the keys that lead to it, and the message."""
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))  # empty if it concerns several keys
    return f"{place}: {first['msg']}" if place else first["msg"]


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Make the error for an unknown `name`, with the nearest of the `known` names."""
    names = list(known)
    if not names:
        return InputError(f"Unknown {kind} {name!r}: there is none at all.")
    (nearest,) = get_close_matches(name, names, n=1, cutoff=0)
    return InputError(f"Unknown {kind} {name!r}: did you mean {nearest!r}? Known: {', '.join(names)}.")
