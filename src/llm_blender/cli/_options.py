"""Options that several commands share."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer

from llm_blender.errors import InputError, NotFoundError, unknown_name

__all__ = [
    "STDIO",
    "BackendOption",
    "DeviceOption",
    "FuserOption",
    "JsonOption",
    "PrecisionOption",
    "PriorsOption",
    "RankerOption",
    "metric_settings",
    "read_text",
    "with_options",
]

FuserOption = Annotated[
    str | None,
    typer.Option(
        "--fuser",
        metavar="NAME",
        help="`chat` (the first LLM), `chat:NAME`, `embedded` (the embedded LLM with the bundled adapter), "
        "`embedded:DIR`, a folder, a Hub repository, `consensus` (what the others agree on goes into the best "
        "candidate), or `longest` [default: as configured; where only the embedded LLM answers, embedded, else chat].",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RankerOption = Annotated[
    str, typer.Option("--ranker", metavar="NAME", help="`bundled`, a folder, or a Hub repository (owner/name).")
]
BackendOption = Annotated[
    Literal["onnx", "torch"] | None,
    typer.Option("--backend", help="What runs the ranker; torch is an extra.", show_default="onnx"),
]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps, …; chooses the torch backend.")
]
PrecisionOption = Annotated[Literal["int8", "fp32"], typer.Option("--precision", help="Of the onnx backend.")]
PriorsOption = Annotated[
    Path | None,
    typer.Option(
        "--priors",
        metavar="FILE",
        help="Add the strengths of the LLMs to the evidence; `blend priors fit` learns them.",
    ),
]


def with_options(group: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of a group, after its own.

    Args:
        group: a dataclass; each field is an option as a parameter of a command would be: annotated, with a default.

    Returns:
        A decorator for a command with a keyword parameter `options`, which gets the group as it was filled in.
    """
    hints = get_type_hints(group, include_extras=True)
    shared = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields(group)
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(*args: Any, **values: Any) -> None:
            options = group(**{option.name: values.pop(option.name) for option in shared})
            command(*args, **values, options=options)

        own = inspect.signature(command, eval_str=True).parameters.values()
        parameters = [*(parameter for parameter in own if parameter.name != "options"), *shared]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


STDIO = "-"
"""What stands for standard input and standard output."""


def read_text(argument: str) -> str:
    """The text that an argument means: itself, ``@file``, or ``-`` for standard input.

    Of a file or standard input the line ends at its end are left out, as ``$(cat file)`` does. A text that begins
    with @ is written with two.

    Raises:
        NotFoundError: there is no such file.
        InputError: it cannot be read, or is not UTF-8.
    """
    if argument == STDIO:
        return _decode(sys.stdin.buffer.read(), "Standard input").rstrip("\r\n")
    if argument.startswith("@") and not argument.startswith("@@"):
        return _decode(_read(argument[1:]), argument[1:]).rstrip("\r\n")
    # What was no UTF-8 on the command line is hidden in lone surrogates.
    return _decode(os.fsencode(argument.removeprefix("@")), "An argument")


def _read(name: str) -> bytes:
    try:
        return Path(name).expanduser().read_bytes()
    except FileNotFoundError:
        raise NotFoundError(f"There is no file {name!r}; a text that begins with @ is written @@.") from None
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}.") from None


def _decode(data: bytes, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{what} is not UTF-8 (byte {error.start}): convert it, e.g. with iconv.") from None


_BY_MODEL = ("bertscore", "bartscore", "bleurt")


def metric_settings(names: list[str], device: str | None) -> dict[str, dict[str, Any]]:
    """Settings by metric, as `llm_blender.metrics.evaluate` takes them.

    Args:
        names: each a metric, or a metric and its model: ``NAME=MODEL``.
        device: of the models.

    Raises:
        InputError: there is no such metric, or a model is named for one that has none.
    """
    from llm_blender.metrics import METRICS

    wanted: dict[str, dict[str, Any]] = {}
    for given in names:
        name, _, model = given.partition("=")
        if name not in METRICS:
            raise unknown_name("metric", name, METRICS)
        if model and name not in _BY_MODEL:
            raise InputError(f"--metric {given}: {name} takes no model; these do: {', '.join(_BY_MODEL)}.")
        own = {"device": device} if device and name in _BY_MODEL else {}
        wanted[name] = own | ({"model": model} if model else {})
    return wanted
