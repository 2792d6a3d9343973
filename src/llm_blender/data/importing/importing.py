"""The import itself: read, leave out what is there already or must not be, divide, write, and say so in a card."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm_blender.data.files import RowWriter
from llm_blender.data.importing.card import data_card
from llm_blender.data.importing.imported import Imported, Written
from llm_blender.data.importing.inputs import short_names
from llm_blender.data.importing.plan import ImportPlan
from llm_blender.data.importing.reading import read_inputs
from llm_blender.data.importing.records import sha256
from llm_blender.data.importing.splits import split_of
from llm_blender.data.rows import normalized_key, read_rows
from llm_blender.errors import InputError, WorkError
from llm_blender.types import Example, OnProgress

__all__ = ["import_rows"]

_SPLIT = "{split}"


def import_rows(plan: ImportPlan, out: str, *, progress: OnProgress | None = None) -> Imported:
    """Make rows of other projects' files.

    The same input, plan and seed give the same bytes.

    Args:
        plan: what to import, and how.
        out: the file to write, in the format of its name, or ``-``; with a split, its path holds ``{split}``. Beside
            it comes its card, ``OUT.md``.
        progress: called with the records read, and 0.

    Raises:
        RowError: the first bad row, unless the plan leaves them out.
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
        inputs={file.name: sha256(file.path) for file in reading.inputs.files},
        excluded={name: sha256(path) for path, name in zip(plan.exclude, short_names(plan.exclude), strict=True)},
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
            _write_card(Path(file.card), data_card(imported, file))
    return imported


def _write_card(path: Path, text: str) -> None:
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
    """The rows to write, with their position among all and their key; and how many others there are, by reason."""
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
    """What two rows share that teach the same: prompt, answers, models, scores, judgements; not their order."""
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
    meta = row.extra.get("meta")
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
        "meta": meta or {},
    }


def _written(path: str, split: str, rows: Sequence[Example]) -> Written:
    is_file = Path(path).is_file()  # and not standard output or a device
    return Written(
        path=path,
        split=split,
        rows=len(rows),
        candidates=sum(len(row.candidates) for row in rows),
        pairs=sum(len(row.pairs) for row in rows),
        ties=sum(1 for row in rows for pair in row.pairs if pair.label == "tie"),
        sha256=sha256(Path(path)) if is_file else "",
        card=f"{path}.md" if is_file else "",
    )
