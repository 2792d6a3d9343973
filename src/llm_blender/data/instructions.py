"""Choose the instructions of a data set: read files or the Hub, filter by length, deduplicate and draw."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from llm_blender._hub import file_sha256
from llm_blender.conversations import PROMPT_KEYS
from llm_blender.data.files import STDIO, input_files
from llm_blender.data.hub import hub_files, is_hub_name
from llm_blender.data.prompts import read_prompt
from llm_blender.data.records import SkipRecord, fraction
from llm_blender.data.rows import normalized_key, parse_records
from llm_blender.errors import InputError, NotFoundError, RowError
from llm_blender.types import Example

_REFERENCES = ("reference", "output", "response", "answer", "completion")
_LICENCES = ("licence", "license")


@dataclass(frozen=True)
class Lengths:
    """Limits of a row's length in tokens, as (minimum, maximum), both included; None means no limit.

    Attributes:
        prompt: limits of instruction and input together.
        reference: limits of the reference; with one, rows without a reference are left out.
    """

    prompt: tuple[int | None, int | None] = (None, None)
    reference: tuple[int | None, int | None] = (None, None)


NO_LENGTHS = Lengths()
"""No filter."""
PAPER_LENGTHS = Lengths(prompt=(5, 127), reference=(11, 127))
"""Filter of MixInstruct, in tokens of a LLaMA tokenizer."""


@dataclass(frozen=True)
class Chosen:
    """Instructions of a data set, and where they come from.

    Attributes:
        rows: at least one row, without candidates; each `Example.id` is unique.
        read: number of rows read.
        left_out: number of rows left out, by reason.
        first_bad: error of the first malformed row; empty without one.
        sources: sha256 of each file, by name.
        licences: number of chosen rows, by the licence that they state.
    """

    rows: tuple[Example, ...]
    read: int
    left_out: dict[str, int]
    first_bad: str
    sources: dict[str, str]
    licences: dict[str, int] = field(default_factory=dict)


def source_files(sources: Sequence[str]) -> list[tuple[str, Path]]:
    """Find the files of sources, with their names in cards and identifiers.

    Args:
        sources: files, folders and patterns, as for `input_files`; or data sets on the Hub: ``owner/name``, or
            ``owner/name:split``.

    Raises:
        NotFoundError: there is no such file, data set or split.
    """
    found: list[tuple[str, Path]] = []
    for source in sources:
        name, _, split = source.partition(":")
        if is_hub_name(name) and not Path(source).is_file():
            found += [(f"{name}/{path.name}", path) for path in hub_files(name, split or None)]
            continue
        try:
            found += [(Path(file).name, Path(file)) for file in input_files(source)]
        except NotFoundError as error:
            raise NotFoundError(
                f"{str(error).rstrip('.')}, and it is no data set on the Hub (owner/name, or owner/name:split)."
            ) from None
    return found


def read_instructions(
    path: str | Path, name: str = "", *, on_bad: Callable[[RowError], None] | None = None
) -> Iterator[Example]:
    """Yield the instructions of a file, without candidates.

    Args:
        path: files that `read_records` reads, whose records hold ``instruction``, ``prompt``, ``question`` or
            ``messages``, and optionally ``input``, ``system``, ``id`` and a reference; or ``.txt``, a prompt a line.
        name: prefix of the ids of rows without an ``id``; by default the name of the row's file.
        on_bad: called with the error of each malformed row, which is then skipped; None raises the first error.

    Raises:
        RowError: the first malformed row.
        NotFoundError: there is no such file.
    """
    for file in input_files(path):
        parse = partial(_example, name or Path(file).name.partition(".")[0])
        yield from parse_records(file, parse, on_bad=on_bad)


def _example(name: str, number: int, record: Mapping[str, Any]) -> Example:
    try:
        prompt = read_prompt(record)
    except SkipRecord as error:
        raise ValueError(str(error)) from None
    if prompt is None:
        raise ValueError(f"there is no prompt: one of {', '.join(f'`{key}`' for key in PROMPT_KEYS)} is wanted")
    references = (record.get(key) for key in _REFERENCES)
    meta = record.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    licence = next((str(place[key]) for place in (record, meta) for key in _LICENCES if place.get(key)), None)
    extra = {"source": record["source"]} if isinstance(record.get("source"), str) else {}
    return Example(
        instruction=prompt.instruction,
        input=prompt.input,
        reference=next((text for text in references if isinstance(text, str) and text), None),
        id=f"{name}-{number}" if record.get("id") is None else str(record["id"]),
        extra=extra if licence is None else {**extra, "licence": licence},
    )


def choose_instructions(
    files: Sequence[tuple[str, str | Path]],
    *,
    lengths: Lengths = NO_LENGTHS,
    count_tokens: Callable[[str], int] | None = None,
    exclude: Sequence[str | Path] = (),
    n: int | None = None,
    seed: int = 0,
    skip_bad: bool = False,
) -> Chosen:
    """Read, filter, deduplicate and draw instructions.

    The draw depends on the seed and the prompts, not on the order of the files. Of rows with the same prompt, case and
    white space aside, the first one that passes the filter is kept.

    Args:
        files: files from `source_files`.
        lengths: limits of prompt and reference.
        count_tokens: tokenizer's count of a text; required by `lengths`.
        exclude: files of rows whose prompts are left out.
        n: number of rows to draw; None takes all.
        seed: seed of the draw.
        skip_bad: skip and count malformed rows instead of raising.

    Raises:
        RowError: the first malformed row.
        InputError: no row is left.
    """
    excluded = {normalized_key(row): Path(path).name for path in exclude for row in read_instructions(path)}
    left_out, bad, read = Counter[str](), list[RowError](), 0
    kept: dict[str, Example] = {}
    for name, path in files:
        for row in read_instructions(path, Path(name).name.partition(".")[0], on_bad=bad.append if skip_bad else None):
            read += 1
            key = normalized_key(row)
            if key in excluded:
                left_out[f"asked in {excluded[key]}"] += 1
            elif key in kept:
                left_out["duplicate"] += 1
            elif reason := _unfit(row, lengths, count_tokens):
                left_out[reason] += 1
            else:
                kept[key] = row
    if bad:
        left_out["bad row"] = len(bad)
    read += len(bad)
    if not kept:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in left_out.most_common())
        raise InputError(f"No instruction is left of {read:,}: {reasons or 'the files are empty'}.")
    rows = list(kept.items())
    if n is not None and n < len(rows):
        left_out["not drawn"] = len(rows) - n
        drawn = {key for key, _ in sorted(rows, key=lambda entry: fraction(seed, "draw", entry[0]))[:n]}
        rows = [(key, row) for key, row in rows if key in drawn]
    taken = _with_own_ids([row for _, row in rows])
    return Chosen(
        rows=taken,
        read=read,
        left_out=dict(sorted(left_out.items())),
        first_bad=str(bad[0]) if bad else "",
        sources={name: file_sha256(Path(path)) for name, path in files if str(path) != STDIO},
        licences=dict(sorted(Counter(str(row.extra["licence"]) for row in taken if "licence" in row.extra).items())),
    )


def _unfit(row: Example, lengths: Lengths, count_tokens: Callable[[str], int] | None) -> str:
    """Return why a row is left out; empty if it is kept."""
    for part, text, (low, high) in (
        ("prompt", row.prompt, lengths.prompt),
        ("reference", row.reference or "", lengths.reference),
    ):
        if low is None and high is None:
            continue
        if not text.strip():
            return f"no {part}"
        if count_tokens is None:
            raise InputError("Lengths are counted in tokens: give `count_tokens`.")
        tokens = count_tokens(text)
        if low is not None and tokens < low:
            return f"{part} below {low} tokens"
        if high is not None and tokens > high:
            return f"{part} above {high} tokens"
    return ""


def _with_own_ids(rows: list[Example]) -> tuple[Example, ...]:
    """Make ids unique: a repeated id gets a hash of the prompt."""
    seen: set[str] = set()
    named = []
    for row in rows:
        name = row.id or ""
        if name in seen:
            name = f"{name}-{hashlib.sha256(normalized_key(row).encode('utf-8', 'replace')).hexdigest()[:8]}"
        seen.add(name)
        named.append(replace(row, id=name))
    return tuple(named)
