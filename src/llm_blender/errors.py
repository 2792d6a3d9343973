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

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self, get_args

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

    from llm_blender.types import Usage

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
    "describe_failures",
    "grouped_failures",
    "sentence",
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
        line: 1-based line (JSON Lines; CSV: where the row begins) or row (Parquet, a JSON list).
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
        usage: tokens of an answer that was paid for and cannot be used; None if there are none.
        cost: dollars of it; None if a price is unknown.

    Args:
        llm: see above.
        reason: see above.
        message: the problem and its fix.
        public: `message` without what a stranger must not read.
        retry_after: see above.
        text: see above.
        own: see above.
        usage: see above.
        cost: see above.
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
        usage: Usage | None = None,
        cost: float | None = 0.0,
    ) -> None:
        self.llm, self.reason = llm, reason
        self.usage, self.cost = usage, cost
        self.public = None if public is None else f"{llm}: {public}"
        self.retry_after, self.text, self.own = retry_after, text, own
        super().__init__(f"{llm}: {message}")


class NoAnswerError(WorkError):
    """No LLM gave a usable answer; the message lists the reasons of each LLM.

    Attributes:
        failures: one per call.
        cost: dollars of answers that were paid for and could not be used; None if a price is unknown.
        usage: tokens of these answers; None if there are none.
    """

    http_status = 502

    def __init__(
        self,
        message: str,
        failures: Sequence[Failure] = (),
        *,
        cost: float | None = 0.0,
        usage: Usage | None = None,
    ) -> None:
        self.failures = tuple(failures)
        self.cost, self.usage = cost, usage
        super().__init__(message)


class DownloadError(WorkError):
    """A file could not be downloaded, or its checksum is wrong."""

    http_status = 502


class StoreError(WorkError):
    """The SQLite file cannot be opened, read or written."""


def first_problem(error: ValidationError, model: type[BaseModel]) -> str:
    """Describe the first error of a pydantic model in a sentence: the place in the file, the key, and the problem.

    An unknown key comes first, as it often explains a missing one.
    """
    return problems(error, model)[0].words


class Problem(NamedTuple):
    """One error of a pydantic model: the keys and indices that lead to it, and a sentence that names its place."""

    keys: tuple[int | str, ...]
    words: str


def problems(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Describe all errors of a pydantic model, unknown keys first.

    A missing key that an unknown one was probably meant to be is left out.
    """
    found = sorted(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
    meant: set[tuple[int | str, ...]] = set()
    described = []
    for problem in found:
        keys = list(problem["loc"])  # empty if the problem concerns several keys
        while keys and isinstance(keys[-1], int):  # the index of a value in a list
            keys.pop()
        inner = _model_at(model, keys[:-1])
        if problem["type"] == "extra_forbidden" and (near := nearest(str(keys[-1]), field_names(inner))):
            meant.add((*keys[:-1], near))
        if problem["type"] == "missing" and tuple(keys) in meant:
            continue
        place = _place(keys[:-1])
        words = one_problem(problem, keys[-1:], inner)
        if problem["type"] in ("tuple_type", "list_type") and _model_at(model, keys) is not inner:
            words = f"write it as [[{keys[-1]}]], with two brackets and a table for each"
        words = (f"{place}: {words}" if place else words) + ("" if words.endswith("?") else ".")
        described.append(Problem(tuple(keys), words))
    return list(dict.fromkeys(described))


def field_names(model: type[BaseModel]) -> list[str]:
    """Return the keys that a model reads."""
    return [field.alias or name for name, field in model.model_fields.items()]


def one_problem(problem: ErrorDetails, key: Sequence[int | str], model: type[BaseModel]) -> str:
    """Describe an error of a pydantic model, without its place; `key` is empty if it concerns several keys."""
    if problem["type"] == "extra_forbidden":
        return unknown_key(str(key[0]), field_names(model))
    words = plain_words(problem["msg"])
    colon = "" if words.startswith(("should ", "must ", "is ")) else ":"
    return f'"{key[0]}"{colon} {words}' if key else words


def _place(keys: Iterable[int | str]) -> str:
    """Write the place of a key as TOML does: ``[[sources]] #1``."""
    parts: list[str] = []
    for key in keys:
        if isinstance(key, int) and parts:
            parts[-1] = f"[{parts[-1]}] #{key + 1}"
        else:
            parts.append(f"[{key}]")
    return ", ".join(parts)


def _model_at(model: type[BaseModel], keys: Iterable[int | str]) -> type[BaseModel]:
    """Return the model inside another one that keys and indices lead to."""
    for key in keys:
        if key in model.model_fields:
            model = _model_of(model.model_fields[str(key)].annotation) or model
    return model


def _model_of(kind: Any) -> type[BaseModel] | None:
    """Return the model in an annotation such as `tuple[Model, ...]`."""
    if hasattr(kind, "model_fields"):
        model: type[BaseModel] = kind
        return model
    return next(filter(None, map(_model_of, get_args(kind))), None)


_PLAIN = {
    "Value error, ": "",
    "Field required": "is missing",
    "Input should": "should",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
}


def plain_words(message: str) -> str:
    """Replace the words of pydantic in a message: the user wrote no `input` and knows no `value error`."""
    for theirs, ours in _PLAIN.items():
        message = message.replace(theirs, ours)
    message = re.sub(r"a valid dictionary or (instance|object).*", "a table", message)
    return message.replace("a valid tuple", "a list").partition(", unable to ")[0].rstrip(".")


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Describe an unknown key of a file, with the key that was probably meant."""
    names = sorted(known)
    near = nearest(key, names)
    return f'unknown key "{key}"; ' + (f'did you mean "{near}"?' if near else f"known: {', '.join(names)}")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Make the error for an unknown `name`, with the `known` names and the one of them that was probably meant."""
    names = list(known)
    if not names:
        return InputError(f"Unknown {kind} {name!r}: there is none at all.")
    near = nearest(name, names)
    hint = "." if near is None else f": did you mean {near!r}?"
    return InputError(f"Unknown {kind} {name!r}{hint} Known: {', '.join(names)}.")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is similar to a name, or contains it, whatever their case; None if there is none."""
    by_case = {each.lower(): each for each in known}
    near = get_close_matches(name.lower(), by_case, n=1, cutoff=0.54)
    near += [each for each in by_case if len(name) > 2 and name.lower() in each]
    return by_case[near[0]] if near else None


_WITH_DIGIT = re.compile(r"\S*\d\S*")


def grouped_failures(failures: Iterable[Failure], *, public: bool = False) -> list[list[Failure]]:
    """Group failures by LLM, reason and message; messages that differ only in numbers or ids are alike.

    Args:
        failures: the failures.
        public: group by the messages that clients of a service may read.
    """
    groups: dict[tuple[str, str, str], list[Failure]] = {}
    for failure in failures:
        key = (failure.model, failure.reason, _WITH_DIGIT.sub("#", _words(failure, public=public)))
        groups.setdefault(key, []).append(failure)
    return list(groups.values())


def describe_failures(failures: Iterable[Failure], *, public: bool = False) -> str:
    """Describe failures in one line: each LLM with its reasons, and a count where several calls failed alike.

    Args:
        failures: the failures.
        public: use the messages that clients of a service may read.

    Examples:
        >>> describe_failures([Failure("a", "server", "a: error 500"), Failure("a", "server", "a: error 502")])
        'a (2 times): error 500'
    """
    described = []
    for alike in grouped_failures(failures, public=public):
        count = f" ({len(alike)} times)" if len(alike) > 1 else ""
        described.append(f"{alike[0].model}{count}: {_words(alike[0], public=public)}")
    return "; ".join(described)


def sentence(text: str) -> str:
    """End a text with a full stop, unless it is empty or already ends like a sentence."""
    return text if not text or text.endswith((".", "?", "!", "…")) else f"{text}."


def _words(failure: Failure, *, public: bool) -> str:
    """Return a failure's message without the name of its LLM and a full stop."""
    message = failure.message if not public or failure.public is None else failure.public
    return message.removeprefix(f"{failure.model}: ").rstrip(".")
