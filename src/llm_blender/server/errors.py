"""Errors in the shape of OpenAI's: `{"error": {"message", "type", "param", "code"}}`.

A client reads no URL of an LLM's server, no name of an environment variable and no path; the log has the whole message,
with the id of the request.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import json
import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from typing import Any, get_type_hints
from urllib.parse import urlsplit

import pydantic_core
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from llm_blender.errors import (
    CheckpointError,
    ConfigError,
    Failure,
    FailureReason,
    InputError,
    LLMBlenderError,
    LLMError,
    MissingExtraError,
    NoAnswerError,
    StoreError,
    WorkError,
)
from llm_blender.types import Usage

logger = logging.getLogger(__name__)

REQUEST_ID: ContextVar[str] = ContextVar("llm_blender_request_id", default="-")
"""Id of the request that is being answered, for the log."""

_UNEXPECTED = "The service had an unexpected error; its log has the reason."
_FAILED = "The service failed to do this; its log has the reason."
_NO_STORE = "The service's store cannot be used; its log has the reason."
_FULL = "The service's disk is full, so nothing was changed: its operator has to make room."
_RETRY_AFTER = 5.0  # seconds, where nothing better is known
_UNREAD = object()
_JSON = re.compile(r"application/(?:[\w.+-]+\+)?json")
_FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT})


class RefusedError(LLMBlenderError):
    """A request that the service refuses, or gives up.

    Attributes:
        status: HTTP status.
        code: kind of the error, in a word.
        param: the key of the body that is wrong.
        retry_after: seconds after which the client may try again.
    """

    def __init__(
        self, status: int, code: str, message: str, *, param: str | None = None, retry_after: float | None = None
    ) -> None:
        self.status, self.code, self.param, self.retry_after = status, code, param, retry_after
        super().__init__(message)


# If all LLMs failed for the same reason, that reason decides the status.
_STATUS: Mapping[FailureReason, int] = {
    "timeout": 504,
    "rate_limit": 429,
    "bad_request": 400,
    "budget": 402,
    "set_aside": 503,
}


# What an LLM's server says may name hosts of its network and files of its machine.
_URL = re.compile(r"\b[a-z][a-z+]*://(?:\[[^\]\s]*\])?[^\s'\"<>)\]}]*", re.IGNORECASE)
_ADDRESS = re.compile(r"(?<![\w.])(?:localhost|(?:127|10|192\.168|172\.(?:1[6-9]|2\d|3[01]))(?:\.\d+){2,3})(?::\d+)?\b")
# Hosts without a scheme, as the errors of clients, gateways and clouds have them; keys that are not the LLM's own.
_HOST = re.compile(
    r"\b(?:[a-z0-9-]{1,63}\.){1,9}(?:[a-z]{2,9}:\d{2,5}\b|(?:local|internal|lan|svc|corp|home|localhost)\b(?![.\w]))"
    r"|(?<=host=['\"])[^'\"]+|\[(?=[0-9a-f:]{0,40}::|(?:[0-9a-f]{1,4}:){3})[0-9a-f:]{2,45}\](?::\d+)?|\barn:aws[\w:/*.-]+",
    re.IGNORECASE,
)
_SECRET = re.compile(
    r"\b(?:(?:sk|gsk|xai|pplx|nvapi|hf|r8)[-_][\w-]{12,}|AIza[\w-]{30,}|eyJ[\w-]{1,999}\.[\w-]{1,999}\.[\w-]+)"
)
_PATH = re.compile(r"(?<![\w:/.])(?:/(?!v\d)[\w.+@-]*\w){2,}|\b[A-Za-z]:\\[^\s'\"]+")
_PRIVATE = (".local", ".internal", ".lan", ".svc", ".corp", ".home", ".localhost")


def public_text(text: str) -> str:
    """Replace addresses of private hosts, absolute paths and keys in a text for clients."""
    text = _URL.sub(lambda found: "[address]" if _is_private(found[0]) else found[0], text)
    text = _HOST.sub("[address]", _ADDRESS.sub("[address]", _SECRET.sub("***", text)))
    return _PATH.sub("[path]", text)


def _is_private(url: str) -> bool:
    host = ""
    try:
        host = urlsplit(url).hostname or ""
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith(_PRIVATE)


def public_failure(failure: Failure) -> dict[str, Any]:
    """Render a failure of an LLM as a client may read it."""
    return {**failure.to_dict(), "message": public_text(failure.public or failure.message)}


def error_response(error: Exception) -> JSONResponse:
    """Make the response for an error, and log what the client does not read."""
    _log(error)
    refusal, more = _refusal(error)
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if refusal.retry_after is not None:
        headers["retry-after"] = str(_seconds(refusal.retry_after))
    if refusal.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(_body(refusal, more), refusal.status, headers)


def error_body(error: Exception) -> dict[str, Any]:
    """Make the body of such a response alone, for a stream that has begun."""
    _log(error)
    return _body(*_refusal(error))


def add_handlers(app: FastAPI) -> None:
    """Make the app answer every error in this shape."""

    async def handle(request: Request, error: Exception) -> JSONResponse:
        return error_response(error)

    for kind in (LLMBlenderError, RequestValidationError, HTTPException, ClientDisconnect, Exception):
        app.add_exception_handler(kind, handle)


def _body(refusal: RefusedError, more: Mapping[str, Any]) -> dict[str, Any]:
    values = {"message": str(refusal), "type": _type(refusal.status), "param": refusal.param, "code": refusal.code}
    again = {} if refusal.retry_after is None else {"retry_after": _seconds(refusal.retry_after)}
    return {"error": {**values, **again}, **more}


def _seconds(retry_after: float) -> int:
    return max(1, math.ceil(retry_after))


def _log(error: Exception) -> None:
    match error:
        case NoAnswerError() | LLMError():
            logger.warning("request %s: %s", REQUEST_ID.get(), error)
        case WorkError() | ConfigError() | CheckpointError() | MissingExtraError() | OSError():
            logger.error("request %s: %s", REQUEST_ID.get(), error)
        case LLMBlenderError() | RequestValidationError() | HTTPException() | ClientDisconnect():
            pass  # the client reads all of it, or is gone
        case _:
            logger.error("request %s: unexpected error", REQUEST_ID.get(), exc_info=error)


def _type(status: int) -> str:
    match status:
        case 401:
            return "authentication_error"
        case 402:
            return "insufficient_quota"
        case 429:
            return "rate_limit_error"
        case _:
            return "invalid_request_error" if status < 500 else "server_error"


def _refusal(error: Exception) -> tuple[RefusedError, dict[str, Any]]:
    refusal, more = _read(error)
    if refusal.retry_after is None and refusal.status in (429, 503):
        refusal.retry_after = _RETRY_AFTER
    return refusal, more


def _read(error: Exception) -> tuple[RefusedError, dict[str, Any]]:
    match error:
        case RefusedError():
            return error, {}
        case NoAnswerError():
            reasons = {failure.reason for failure in error.failures}
            alone = reasons.pop() if len(reasons) == 1 else None
            status = error.http_status if alone is None else _STATUS.get(alone, error.http_status)
            waits = [failure.retry_after for failure in error.failures if failure.retry_after is not None]
            refusal = RefusedError(
                status,
                f"all_{alone}" if alone else "no_answer",
                _no_answer(error),
                retry_after=min(waits, default=None),
            )
            paid = (
                {"cost": error.cost, "usage": error.usage.to_dict()} if error.usage and error.usage != Usage() else {}
            )
            return refusal, {"blend": {"failures": [public_failure(failure) for failure in error.failures], **paid}}
        case LLMError():
            message = public_text(error.public or str(error))
            return RefusedError(error.http_status, _code(error), message, retry_after=error.retry_after), {}
        case StoreError() | OSError() if _is_full(error):
            return RefusedError(507, "store_full", _FULL), {}
        case StoreError():
            return RefusedError(error.http_status, _code(error), _NO_STORE), {}
        case ConfigError() | CheckpointError():
            return RefusedError(500, "work_failed", _FAILED), {}
        case WorkError() | MissingExtraError():
            return RefusedError(error.http_status, _code(error), _FAILED), {}
        case LLMBlenderError():
            return RefusedError(error.http_status, _code(error), public_text(str(error))), {}
        case RequestValidationError():
            return _invalid(error), {}
        case ClientDisconnect():
            return RefusedError(499, "client_gone", "The client went away."), {}
        case HTTPException(status_code=405, headers={"Allow": allowed}):
            return RefusedError(405, "http_405", f"This path takes {allowed} only."), {}
        case HTTPException():
            code = "too_large" if error.status_code == 413 else f"http_{error.status_code}"
            return RefusedError(error.status_code, code, f"{error.detail}"), {}
    return RefusedError(500, "internal_error", _UNEXPECTED), {}


def _no_answer(error: NoAnswerError) -> str:
    """Word why there is no answer, once for each LLM and reason."""
    counts = Counter((failure.model, failure.reason) for failure in error.failures)
    firsts = {(failure.model, failure.reason): failure for failure in reversed(error.failures)}
    reasons = []
    for group, count in counts.items():
        times = f" ({count} times)" if count > 1 else ""
        reasons.append(f"{public_failure(firsts[group])['message'].rstrip('.')}{times}")
    return f"{': '.join([str(error).partition(':')[0], '; '.join(reasons)])}." if reasons else public_text(str(error))


def _is_full(error: Exception) -> bool:
    """Check whether an error of the store, or of a file, means a full disk."""
    for each in (error, error.__cause__):
        if getattr(each, "sqlite_errorname", "") == "SQLITE_FULL" or getattr(each, "errno", None) in _FULL_DISK:
            return True
    return False


def _code(error: LLMBlenderError) -> str:
    if error.http_status == 404:
        return "not_found"
    if isinstance(error, MissingExtraError):
        return "missing_extra"
    return "invalid_value" if isinstance(error, InputError) else "work_failed"


# Kinds of pydantic's errors, in words for a client.
_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is no key that is known here",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a number",
    "string_type": "must be a text",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "literal_error": "must be {expected}",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be above {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be below {lt}",
    "string_too_short": "must not be empty",
    "too_short": "must have at least {min_length} of them",
    "too_long": "must have at most {max_length} of them",
}


def _invalid(error: RequestValidationError) -> RefusedError:
    """Describe the first error in the body."""
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"][1:])
    if first["type"] == "json_invalid":
        return RefusedError(400, "invalid_json", f"The body is not JSON: {first['ctx']['error']}.")
    words = _WORDS.get(first["type"])
    if words is None:
        message = first["msg"].removeprefix("Value error, ").rstrip(".")
    else:
        message = words.format(**first.get("ctx", {}))
    where = f"{path}: " if path else "" if words is None else "The body "
    return RefusedError(400, "invalid_value", f"{where}{message}.", param=path or None)


_HUGE = re.compile(rb"[eE]\+?\d{3}|\d{200}")  # numbers that a float may not hold


def _finite(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise ValueError(f"the number {digits[:20]} is too large")
    return number


class _Request(Request):
    _values: Any = _UNREAD

    async def json(self) -> Any:
        """Parse the body; NaN, numbers that no float holds, lone surrogates and deep nesting are not JSON."""
        if self._values is _UNREAD:
            body = await self.body()
            try:
                values = pydantic_core.from_json(body, allow_inf_nan=False)
                if _HUGE.search(body):
                    json.loads(body, parse_float=_finite)
            except ValueError as error:
                raise json.JSONDecodeError(str(error), "", 0) from None
            self._values = values
        return self._values

    async def check(self) -> None:
        """Refuse a body that is not sent as JSON (any page may send such a body), or that is too large to validate.

        Raises:
            RefusedError: the body is refused.
        """
        if self.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            raise RefusedError(415, "invalid_value", "Send the body uncompressed, without `Content-Encoding`.")
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if not _JSON.fullmatch(kind) and await self.body():
            raise RefusedError(400, "invalid_value", "Send the body with `Content-Type: application/json`.")
        with contextlib.suppress(json.JSONDecodeError):  # the route refuses it, in its own words
            self.app.state.service.check_body(await self.json())


class StrictRoute(APIRoute):
    """A route that parses its body strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the handler: its requests are strict ones."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            strict = _Request(request.scope, request.receive)
            if self.body_field is not None:
                await strict.check()
            return await handler(strict)

        return handle


class BodyRoute(APIRoute):
    """A strict route whose function takes the `body`, a schema, and the `request`; it has no other parameters.

    It leaves out what the web framework does for a route of any parameters, a third of the time of a short request.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the function that validates the body of a request and answers it."""
        endpoint, schema = self.endpoint, get_type_hints(self.endpoint)["body"]

        async def handle(request: Request) -> Response:
            strict = _Request(request.scope, request.receive)
            await strict.check()
            try:
                body = schema.model_validate(await strict.json())
            except json.JSONDecodeError as error:
                words = f"The body is not JSON: {error.msg}." if await strict.body() else "The body is empty."
                code = "invalid_json" if await strict.body() else "invalid_value"
                raise RefusedError(400, code, words) from None
            except ValidationError as error:
                problems = [{**each, "loc": ("body", *each["loc"])} for each in error.errors(include_url=False)]
                raise RequestValidationError(problems) from None
            response: Response = await endpoint(body, strict)
            return response

        return handle
