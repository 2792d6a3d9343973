"""Import rows: read, deduplicate, exclude, split, write, and document it in a card."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_blender._hub import file_sha256
from llm_blender.data.files import RowWriter, input_sha256
from llm_blender.data.records import fraction, short_names
from llm_blender.data.rows import normalized_key, read_rows
from llm_blender.datasets.formats import ImportPlan, read_inputs
from llm_blender.errors import InputError, WorkError
from llm_blender.types import Example, OnProgress


def parse_split(value: str) -> dict[str, float]:
    """Parse shares by name, such as ``train=0.8,dev=0.1,test=0.1``.

    Raises:
        InputError: it has another form, a name occurs twice, or the shares do not add up to 1.
    """
    shares: dict[str, float] = {}
    for part in value.split(","):
        name, _, share = (piece.strip() for piece in part.partition("="))
        if not re.fullmatch(r"[\w-]+", name) or name in shares or not _is_share(share):
            raise InputError(f"{value!r} is no split: write it like train=0.8,dev=0.1,test=0.1, each name once.")
        shares[name] = float(share)
    if not math.isclose(total := sum(shares.values()), 1, abs_tol=1e-6):
        raise InputError(f"The shares of {value!r} add up to {total:g}, not to 1: no row may fall between them.")
    return shares


def _is_share(value: str) -> bool:
    try:
        return 0 < float(value) <= 1
    except ValueError:
        return False


def split_of(key: str, shares: Mapping[str, float], seed: int) -> str:
    """Choose the split of a normalised prompt by the hash of prompt and seed.

    The shares are therefore met on average, not exactly, and a prompt falls into the same split in every file.
    """
    drawn = fraction(seed, "split", key)
    ends = itertools.accumulate(shares.values())
    return next((name for name, end in zip(shares, ends, strict=True) if drawn < end), next(reversed(list(shares))))


@dataclass(frozen=True)
class WrittenFile:
    """File of rows.

    Attributes:
        path: path of the file.
        split: name of the split; empty without a split.
        rows: number of rows.
        candidates: number of answers.
    """

    path: str
    split: str
    rows: int
    candidates: int


@dataclass(frozen=True)
class Written(WrittenFile):
    """File that an import wrote.

    Attributes:
        pairs: number of judged pairs.
        ties: number of ties among the pairs.
        sha256: hash of the file; empty for standard output or a device.
        card: path of the card; empty for standard output or a device.
    """

    pairs: int
    ties: int
    sha256: str = ""
    card: str = ""


@dataclass(frozen=True)
class Imported:
    """Result of an import: each record is skipped or part of a row; each row is left out or written.

    Attributes:
        plan: settings of the import.
        format: format of the files.
        inputs: sha256 of each input file, by name.
        excluded: sha256 of each file of excluded prompts, by name.
        records: number of records read.
        skipped: number of records that are part of no row, by reason.
        bad: error of the first malformed record; empty without one.
        rows: number of rows made of the other records.
        left_out: number of rows not written, by reason.
        written: files.
        remarks: further notes for the user.
    """

    plan: ImportPlan
    format: str
    inputs: dict[str, str]
    excluded: dict[str, str]
    records: int
    skipped: dict[str, int]
    bad: str
    rows: int
    left_out: dict[str, int]
    written: tuple[Written, ...]
    remarks: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "format": self.format,
            "files": len(self.inputs),
            "records": self.records,
            "skipped": self.skipped,
            "first_bad": self.bad or None,
            "rows": self.rows,
            "left_out": self.left_out,
            "written": [dict(vars(file)) for file in self.written],
            "remarks": list(self.remarks),
        }


def data_card(imported: Imported, written: Written) -> str:
    """Write the card of a file that an import wrote, as Markdown."""
    plan = imported.plan
    parts = [
        f"# {plan.source}",
        markdown_table(
            ("", ""),
            [
                ("source", plan.source),
                ("url", plan.url or "unknown"),
                ("licence", plan.licence or "unknown"),
                ("format", imported.format),
                ("made by", "`blend data import`"),
            ],
        ),
        "## This file",
        markdown_table(
            ("file", "split", "rows", "answers", "judged pairs", "ties among them", "sha256"),
            [
                (
                    f"`{Path(written.path).name}`",
                    written.split or "all",
                    *(f"{count:,}" for count in (written.rows, written.candidates, written.pairs, written.ties)),
                    f"`{written.sha256}`",
                )
            ],
        ),
        "## How it was made",
        markdown_table(("setting", "value"), _settings(imported)),
        markdown_table(("what became of it", "count"), _counts(imported)),
    ]
    if imported.remarks:
        parts.append("\n".join(f"- {remark}." for remark in imported.remarks))
    parts += ["## What it was made of", hash_table(imported.inputs)]
    if imported.excluded:
        parts += ["Rows with a prompt of these files are left out:", hash_table(imported.excluded)]
    return "\n\n".join(parts) + "\n"


def _settings(imported: Imported) -> list[tuple[str, str]]:
    plan = imported.plan
    shares = ", ".join(f"{name} {share:g}" for name, share in plan.split.items())
    values = {
        "models": ", ".join(plan.models),
        "annotators": ", ".join(plan.annotators),
        "reference": plan.reference,
        "judge": plan.judge,
        "labels": ", ".join(plan.labels),
        "split, by the hash of the normalised prompt": shares,
        "seed": str(plan.seed),
    }
    return [(name, value) for name, value in values.items() if value]


def _counts(imported: Imported) -> list[tuple[str, str]]:
    return [
        ("records read", f"{imported.records:,}"),
        *((f"records left out: {reason}", f"{count:,}") for reason, count in sorted(imported.skipped.items())),
        ("rows made of the others", f"{imported.rows:,}"),
        *((f"rows left out: {reason}", f"{count:,}") for reason, count in sorted(imported.left_out.items())),
        *((f"rows written: {file.split or 'all'}", f"{file.rows:,}") for file in imported.written),
    ]


def hash_table(files: Mapping[str, str]) -> str:
    """Draw a Markdown table of files and their sha256."""
    return markdown_table(("file", "sha256"), [(f"`{name}`", f"`{digest}`") for name, digest in files.items()])


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Draw a Markdown table of one-line cells."""
    cells = ([" ".join(cell.split()).replace("|", r"\|") for cell in row] for row in rows)
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


_SPLIT = "{split}"


def import_rows(plan: ImportPlan, out: str, *, progress: OnProgress | None = None) -> Imported:
    """Convert other projects' files to rows.

    The same input, plan and seed give the same bytes.

    Args:
        plan: settings of the import.
        out: output file, in the format of its extension, or ``-``; with a split, its path contains ``{split}``. The
            card is ``OUT.md``.
        progress: called with the number of records read, and 0.

    Raises:
        RowError: the first malformed record, unless the plan skips them.
        InputError: a file or an option is wrong, or no row is left.
    """
    paths = _paths(out, plan)
    with contextlib.ExitStack() as stack:
        writers = {split: stack.enter_context(RowWriter(path)) for split, path in paths.items()}
        excluded = {
            normalized_key(row): name
            for path, name in zip(plan.exclude, short_names(plan.exclude), strict=True)
            for row in read_rows(path)
        }
        reading = read_inputs(plan, progress)
        kept, left_out = _kept(reading.rows, excluded)
        if not kept:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in (reading.skipped + left_out).most_common())
            raise InputError(f"No row is left of {reading.records:,} records: {reasons or 'the files are empty'}.")
        of_split: dict[str, list[Example]] = {split: [] for split in paths}
        for position, key, row in kept:
            split = split_of(key, plan.split, plan.seed) if plan.split else ""
            of_split[split].append(row)
            writers[split].write(_record(row, plan.source, position))
    imported = Imported(
        plan=plan,
        format=reading.format,
        inputs={file.name: file_sha256(file.path) for file in reading.inputs.files},
        excluded={name: input_sha256(path) for path, name in zip(plan.exclude, short_names(plan.exclude), strict=True)},
        records=reading.records,
        skipped=dict(sorted(reading.skipped.items())),
        bad=str(reading.bad[0]) if reading.bad else "",
        rows=len(reading.rows),
        left_out=dict(sorted(left_out.items())),
        written=tuple(_written(paths[split], split, rows) for split, rows in of_split.items()),
        remarks=tuple(reading.remarks),
    )
    for file in imported.written:
        if file.card:
            write_card(Path(file.card), data_card(imported, file))
    return imported


def write_card(path: Path, text: str) -> None:
    """Write the card of a file of rows.

    Raises:
        WorkError: the disk refuses it.
    """
    try:
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise WorkError(f"The rows are written, but not their card {path}: {error.strerror}.") from error


def _paths(out: str, plan: ImportPlan) -> dict[str, str]:
    if not plan.split:
        return {"": out}
    if _SPLIT not in out:
        raise InputError(
            f"With --split, the path of the output holds {_SPLIT}, such as rows.{_SPLIT}.jsonl; not {out}."
        )
    return {name: out.replace(_SPLIT, name) for name in plan.split}


def _kept(rows: list[Example], excluded: dict[str, str]) -> tuple[list[tuple[int, str, Example]], Counter[str]]:
    """Filter rows; return those to write, each with its position and key, and the counts of the others by reason."""
    kept: list[tuple[int, str, Example]] = []
    left_out, seen = Counter[str](), set[tuple[Any, ...]]()
    for position, row in enumerate(rows):
        key = normalized_key(row)
        if key in excluded:
            left_out[f"asked in {excluded[key]}"] += 1
        elif (content := _content(key, row)) in seen:
            left_out["duplicate"] += 1
        else:
            seen.add(content)
            kept.append((position, key, row))
    return kept, left_out


def _content(key: str, row: Example) -> tuple[Any, ...]:
    """Summarise a row for deduplication: prompt, answers, models, scores and judgements, regardless of order."""
    texts = [candidate.text.strip() for candidate in row.candidates]
    answers = sorted(
        (text, candidate.model or "", *sorted(candidate.scores.items()))
        for text, candidate in zip(texts, row.candidates, strict=True)
    )
    judgements = []
    for pair in row.pairs:
        both = sorted((texts[pair.a], texts[pair.b]))
        judgements.append((*both, "" if pair.label == "tie" else texts[pair.a if pair.label == "a" else pair.b]))
    return key, tuple(answers), tuple(sorted(judgements))


def _record(row: Example, source: str, position: int) -> dict[str, Any]:
    return {
        "id": f"{source}-{position}",
        "source": source,
        "instruction": row.instruction if isinstance(row.instruction, str) else list(row.instruction),
        "input": row.input,
        "reference": row.reference,
        "candidates": [
            {"model": candidate.model, "text": candidate.text, "scores": dict(candidate.scores)}
            for candidate in row.candidates
        ],
        "pairs": [pair.to_dict() for pair in row.pairs],
        "meta": row.extra.get("meta") or {},
    }


def _written(path: str, split: str, rows: Sequence[Example]) -> Written:
    is_file = Path(path).is_file()  # not standard output or a device
    return Written(
        path=path,
        split=split,
        rows=len(rows),
        candidates=sum(len(row.candidates) for row in rows),
        pairs=sum(len(row.pairs) for row in rows),
        ties=sum(1 for row in rows for pair in row.pairs if pair.label == "tie"),
        sha256=file_sha256(Path(path)) if is_file else "",
        card=f"{path}.md" if is_file else "",
    )
