"""Texts given on the command line."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from llm_blender.errors import InputError, NotFoundError

__all__ = ["STDIO", "read_text"]

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
