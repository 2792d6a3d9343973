"""The prompt that people type, with piped text and files; the schema of an answer, and the code in it."""

from __future__ import annotations

import io
import json
import os
import re
import select
import stat
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_blender.cli._options import STDIO, read_file, read_text
from llm_blender.cli._output import note
from llm_blender.errors import InputError, WorkError

if TYPE_CHECKING:
    from llm_blender.ensemble import Ensemble, Form, Member

_PATIENCE = 3.0  # seconds after which a pipe that gives nothing is named
_FENCED = re.compile(r"^([ \t]*)(`{3,}|~{3,})[^\n`]*\n(.*?)(?:^[ \t]*\2[`~]*[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)


def read_prompt(prompt: str | None, files: Sequence[Path]) -> str:
    """Read a prompt: the argument (see `read_text`), then the text of a pipe, then files under their names.

    Raises:
        InputError: there is no text at all, or a file is not text.
        NotFoundError: there is no such file.
    """
    parts = [] if prompt is None else [read_text(prompt)]
    if prompt != STDIO and _is_piped():
        parts.append(read_text(STDIO))
    parts += [_read_file(path) for path in files]
    if prompt is None and not any(part.strip() for part in parts):
        raise InputError("Missing argument 'PROMPT'; see `blend ask --help`.")
    text = "\n\n".join(part for part in parts if part.strip())
    if not text:
        raise InputError("The prompt is empty: give the text that the LLMs should answer.")
    return text


def _is_piped() -> bool:
    """Return whether standard input is a pipe or a file; name a pipe that gives nothing for some seconds."""
    try:
        number = sys.stdin.fileno()
        mode = os.fstat(number).st_mode
    except (OSError, ValueError, AttributeError, io.UnsupportedOperation):  # closed, or replaced by an object
        return sys.stdin is not None and not sys.stdin.closed and not sys.stdin.isatty()
    piped = stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)
    if piped and os.name != "nt" and not select.select([number], [], [], _PATIENCE)[0]:
        note("waiting for the end of standard input; `< /dev/null` gives none")
    return piped


def _read_file(path: Path) -> str:
    text = read_file(str(path))
    if "\0" in text:
        raise InputError(f"{path} is not text (byte {text.index(chr(0))} is zero): -f reads text files.")
    if not text.strip():
        note(f"{path} is empty")
    fence = "`" * max([3, *(len(ticks) + 1 for ticks in re.findall("`{3,}", text))])
    return f"{path}:\n{fence}\n{text}\n{fence}"


def code_block(text: str) -> str:
    """Return the first fenced code block of a Markdown text, without its fence and its indent.

    Raises:
        WorkError: there is none.
    """
    blocks = _FENCED.findall(text)
    if not blocks:
        raise WorkError("The answer has no fenced code block; without -x it is printed whole.")
    if len(blocks) > 1:
        note(f"the first of {len(blocks)} code blocks")
    code: str = blocks[0][2]
    return textwrap.dedent(code) if blocks[0][0] else code


def require_schema(ensemble: Ensemble, argument: str) -> tuple[Form | None, list[Member]]:
    """Read the JSON schema that answers must satisfy, and hand it to the LLMs.

    Args:
        ensemble: the ensemble, which must pick: a fused text is not checked.
        argument: JSON, or the name of a file.

    Returns:
        The form of the answers, and the members to ask, whose LLMs are given the schema.

    Raises:
        InputError: it is no schema, the mode is another one, or no LLM takes a schema.
        NotFoundError: there is no such file.
    """
    from dataclasses import replace

    from llm_blender.calls import WrappedLLM
    from llm_blender.ensemble import Form
    from llm_blender.llms import OpenAICompatibleLLM
    from llm_blender.types import Candidate, Message, OnText, Sampling

    if ensemble.settings.mode != "pick":
        raise InputError("--schema works in the mode pick only: a fused text is not checked.")
    try:
        schema = json.loads(argument if argument.lstrip().startswith("{") else read_file(argument))
    except ValueError as error:
        raise InputError(f"--schema {argument[:40]}: this is not JSON ({error}).") from None
    response_format = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    try:
        form = Form.of(response_format=response_format)
    except InputError as error:
        raise InputError(str(error).replace("response_format.json_schema.schema", "--schema")) from None

    class Shaped(WrappedLLM):
        """An LLM that is given the schema."""

        @property
        def identity(self) -> Mapping[str, Any]:
            return {**super().identity, "response_format": response_format}

        async def generate(
            self, messages: Sequence[Message], sampling: Sampling = Sampling(), *, on_text: OnText | None = None
        ) -> Candidate:
            sampling = replace(sampling, extra={"response_format": response_format})
            return await super().generate(messages, sampling, on_text=on_text)

    able = [member for member in ensemble.members if isinstance(member.llm, OpenAICompatibleLLM)]
    others = ", ".join(member.llm.name for member in ensemble.members if member not in able)
    if not able:
        raise InputError(f"--schema: {others} takes none; only LLMs behind an API do.")
    if others:
        note(f"left out: {others}, as only LLMs behind an API take a --schema")
    return form, [replace(member, llm=Shaped(member.llm)) for member in able]
