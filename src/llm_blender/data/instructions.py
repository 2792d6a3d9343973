"""Instructions to build a data set from: read from files or the Hub, filtered by length, without duplicates, drawn."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_blender._hub import file_sha256
from llm_blender.data.files import STDIO
from llm_blender.data.hub import hub_files, is_hub_name
from llm_blender.data.prompts import PROMPT_KEYS, read_prompt
from llm_blender.data.records import Records, SkipRecord, optional_text
from llm_blender.data.rows import normalized_key
from llm_blender.errors import InputError, NotFoundError, RowError
from llm_blender.types import Example

__all__ = [
    "NO_LENGTHS",
    "PAPER_LENGTHS",
    "Chosen",
    "Lengths",
    "choose_instructions",
    "coin",
    "fraction",
    "read_instructions",
    "source_files",
]


def fraction(seed: int, *texts: str) -> float:
    """A number from 0 up to 1, the same for the same seed and texts on every machine."""
    digest = hashlib.sha256("\0".join([str(seed), *texts]).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def coin(seed: int, *texts: str) -> bool:
    """Heads or tails, likewise."""
    return fraction(seed, *texts) < 0.5


_REFERENCES = ("reference", "output", "response", "answer", "completion")
_LICENCES = ("licence", "license")


@dataclass(frozen=True)
class Lengths:
    """How many tokens a row may have, both ends included; None is no limit.

    Attributes:
        prompt: of instruction and input together.
        reference: of the reference; where there is a limit, a row without a reference is left out.
    """

    prompt: tuple[int | None, int | None] = (None, None)
    reference: tuple[int | None, int | None] = (None, None)


NO_LENGTHS = Lengths()
"""No filter."""
PAPER_LENGTHS = Lengths(prompt=(5, 127), reference=(11, 127))
"""The filter by which MixInstruct was made; there, tokens are those of a LLaMA tokenizer."""


@dataclass(frozen=True)
class Chosen:
    """The instructions that a data set is built from.

    Attributes:
        rows: at least one, without candidates; `Example.id` is set and different for each.
        read: rows that were read.
        left_out: of these, rows that were not taken, by reason.
        first_bad: what is wrong with the first bad one; empty where there is none.
        sources: name and sha256 of each file.
        licences: rows taken, by what they say of their licence.
    """

    rows: tuple[Example, ...]
    read: int
    left_out: dict[str, int]
    first_bad: str
    sources: dict[str, str]
    licences: dict[str, int] = field(default_factory=dict)


def source_files(sources: Sequence[str]) -> list[tuple[str, Path]]:
    """The files that sources mean, with the names by which cards and identifiers call them.

    Args:
        sources: files, or data sets on the Hub: ``owner/name``, or ``owner/name:split``.

    Raises:
        NotFoundError: there is no such file, data set or split.
    """
    found: list[tuple[str, Path]] = []
    for source in sources:
        name, _, split = source.partition(":")
        if Path(source).is_file():
            found.append((Path(source).name, Path(source)))
        elif is_hub_name(name):
            found += [(f"{name}/{path.name}", path) for path in hub_files(name, split or None)]
        else:
            raise NotFoundError(
                f"There is no file {source} (looked in {Path.cwd()}), and it is no data set on the Hub (owner/name, "
                f"or owner/name:split)."
            )
    return found


def read_instructions(
    path: str | Path, name: str = "", *, on_bad: Callable[[RowError], None] | None = None
) -> Iterator[Example]:
    """The instructions of a file, one at a time; candidates that stand there are left.

    Args:
        path: JSON Lines, a JSON list or Parquet, whose records hold ``instruction``, ``prompt``, ``question`` or
            ``messages``, and perhaps ``input``, ``system``, ``id`` and a reference; or ``.txt``, a prompt a line.
        name: stands before the number of a row without an ``id``; by default the file's name.
        on_bad: called with each row that cannot be used, which is then left out; without it the first one raises.

    Raises:
        RowError: file, line and reason of the first bad row.
        NotFoundError: there is no such file.
    """
    path = Path(path)
    name = name or path.name.partition(".")[0]
    for number, record in _records(path):
        row: Example | RowError
        if isinstance(record, RowError):
            row = record
        else:
            try:
                row = _example(record, f"{name}-{number}")
            except (ValueError, SkipRecord) as error:
                row = RowError(path, number, str(error))
        if not isinstance(row, RowError):
            yield row
        elif on_bad is None:
            raise row
        else:
            on_bad(row)


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any] | RowError]]:
    if path.suffix != ".txt":
        yield from Records(path)
        return
    if not path.is_file():
        raise NotFoundError(f"There is no file {path} (looked in {Path.cwd()}).")
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield number, {"instruction": line.decode("utf-8-sig").strip()}
                except UnicodeDecodeError as error:
                    yield number, RowError(path, number, f"not UTF-8 (byte {error.start}); convert the file")


def _example(record: Mapping[str, Any], name: str) -> Example:
    prompt = read_prompt(record)
    if prompt is None:
        raise ValueError(f"there is no prompt: one of {', '.join(f'`{key}`' for key in PROMPT_KEYS)} is wanted")
    reference = next((text for key in _REFERENCES if (text := _reference(record, key))), None)
    meta = record.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    licence = next((str(place[key]) for place in (record, meta) for key in _LICENCES if place.get(key)), None)
    source = record.get("source")
    return Example(
        instruction=prompt.instruction,
        input=prompt.input,
        reference=reference,
        id=name if record.get("id") is None else str(record["id"]),
        extra={
            key: value
            for key, value in (("source", source if isinstance(source, str) else None), ("licence", licence))
            if value is not None
        },
    )


def _reference(record: Mapping[str, Any], key: str) -> str:
    return optional_text(record, key) if isinstance(record.get(key), str) else ""


def choose_instructions(
    files: Sequence[tuple[str, Path]],
    *,
    lengths: Lengths = NO_LENGTHS,
    count_tokens: Callable[[str], int] | None = None,
    exclude: Sequence[Path] = (),
    n: int | None = None,
    seed: int = 0,
    skip_bad: bool = False,
) -> Chosen:
    """Read, filter, deduplicate and draw.

    Which rows are drawn depends on the seed and on what the rows ask, not on the order of the files. What asks the
    same (case and white space aside) stands there once, the first one that passes the filter.

    Args:
        files: of `source_files`.
        lengths: see there.
        count_tokens: of a text; wanted where there are `lengths`.
        exclude: files of rows; what asks the same as one of them is left out.
        n: how many are drawn; None takes all.
        seed: of the draw.
        skip_bad: leave bad rows out and count them, instead of stopping at the first.

    Raises:
        RowError: the first bad row.
        InputError: none is left.
    """
    excluded = {normalized_key(row): path.name for path in exclude for row in read_instructions(path)}
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
        sources={name: file_sha256(path) for name, path in files if str(path) != STDIO},
        licences=dict(sorted(Counter(str(row.extra["licence"]) for row in taken if "licence" in row.extra).items())),
    )


def _unfit(row: Example, lengths: Lengths, count_tokens: Callable[[str], int] | None) -> str:
    """Why the row is left out; empty where it is not."""
    for what, text, (low, high) in (
        ("prompt", row.prompt, lengths.prompt),
        ("reference", row.reference or "", lengths.reference),
    ):
        if low is None and high is None:
            continue
        if not text.strip():
            return f"no {what}"
        if count_tokens is None:
            raise InputError("Lengths are counted in tokens: say how, with `count_tokens`.")
        tokens = count_tokens(text)
        if low is not None and tokens < low:
            return f"{what} below {low} tokens"
        if high is not None and tokens > high:
            return f"{what} above {high} tokens"
    return ""


def _with_own_ids(rows: list[Example]) -> tuple[Example, ...]:
    """The rows, of which those whose id an earlier one bears get a longer one."""
    seen: set[str] = set()
    named = []
    for row in rows:
        name = row.id or ""
        if name in seen:
            name = f"{name}-{hashlib.sha256(normalized_key(row).encode('utf-8', 'replace')).hexdigest()[:8]}"
        seen.add(name)
        named.append(Example(row.instruction, row.input, row.reference, id=name, extra=row.extra))
    return tuple(named)
