"""Errors in the shape of OpenAI's: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pydantic_core
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from llm_blender.errors import FailureReason, InputError, LLMBlenderError, MissingExtraError, NoAnswerError

logger = logging.getLogger(__name__)

_UNEXPECTED = "The service had an unexpected error; see its log."


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


def error_response(error: Exception) -> JSONResponse:
    """Make the response for an error."""
    refusal, more = _refusal(error)
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if refusal.retry_after is not None:
        headers["retry-after"] = str(max(1, math.ceil(refusal.retry_after)))
    if refusal.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(_body(refusal, more), refusal.status, headers)


def error_body(error: Exception) -> dict[str, Any]:
    """Make the body of such a response alone, for a stream that has begun."""
    if not isinstance(error, LLMBlenderError):
        logger.error("unexpected error", exc_info=error)
    return _body(*_refusal(error))


def add_handlers(app: FastAPI) -> None:
    """Make the app answer every error in this shape."""

    async def handle(request: Request, error: Exception) -> JSONResponse:
        return error_response(error)

    for kind in (LLMBlenderError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, handle)


def _body(refusal: RefusedError, more: Mapping[str, Any]) -> dict[str, Any]:
    values = {"message": str(refusal), "type": _type(refusal.status), "param": refusal.param, "code": refusal.code}
    return {"error": values, **more}


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
    match error:
        case RefusedError():
            return error, {}
        case NoAnswerError():
            failures = [failure.to_dict() for failure in error.failures]
            reasons = {failure.reason for failure in error.failures}
            alone = reasons.pop() if len(reasons) == 1 else None
            status = error.http_status if alone is None else _STATUS.get(alone, error.http_status)
            again = 5.0 if status in (429, 503) else None
            refusal = RefusedError(status, f"all_{alone}" if alone else "no_answer", str(error), retry_after=again)
            return refusal, {"blend": {"failures": failures}}
        case LLMBlenderError():
            return RefusedError(error.http_status, _code(error), str(error)), {}
        case RequestValidationError():
            return _invalid(error), {}
        case HTTPException(status_code=405, headers={"Allow": allowed}):
            return RefusedError(405, "http_405", f"This path takes {allowed} only."), {}
        case HTTPException():
            code = "too_large" if error.status_code == 413 else f"http_{error.status_code}"
            return RefusedError(error.status_code, code, f"{error.detail}"), {}
    return RefusedError(500, "internal_error", _UNEXPECTED), {}


def _code(error: LLMBlenderError) -> str:
    if error.http_status == 404:
        return "not_found"
    if isinstance(error, MissingExtraError):
        return "missing_extra"
    return "invalid_value" if isinstance(error, InputError) else "work_failed"


def _invalid(error: RequestValidationError) -> RefusedError:
    """Describe the first error in the body."""
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"][1:])
    if first["type"] == "json_invalid":
        return RefusedError(400, "invalid_json", f"The body is not JSON: {first['ctx']['error']}.")
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    where = f"{path}: " if path else ""
    return RefusedError(400, "invalid_value", f"{where}{message}.", param=path or None)


class _Request(Request):
    async def json(self) -> Any:
        """Parse the body; NaN, lone surrogates and deep nesting are not JSON."""
        body = await self.body()
        try:
            return pydantic_core.from_json(body, allow_inf_nan=False)
        except ValueError as error:
            raise json.JSONDecodeError(str(error), "", 0) from None


class StrictRoute(APIRoute):
    """A route that parses its body strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the handler: its requests are strict ones."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(_Request(request.scope, request.receive))

        return handle
