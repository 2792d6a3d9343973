"""Detect the format of files and read their rows; each record becomes part of a row, or is counted with a reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from llm_blender.data.files import Records
from llm_blender.data.records import InputFile, Inputs, SkipRecord, find_inputs
from llm_blender.data.rows import read_chosen_rejected
from llm_blender.datasets.alpaca_eval import AlpacaEval
from llm_blender.datasets.pair_formats import (
    ANSWER_KEYS,
    ANSWERS,
    LABEL_KEYS,
    SCORES,
    is_vote,
    read_labelled_pair,
    read_scored_responses,
    unclear_labels,
)
from llm_blender.errors import InputError, RowError, unknown_name
from llm_blender.types import Example, OnProgress


@dataclass(frozen=True)
class Format:
    """Public format of preferences.

    Attributes:
        name: name for ``--format``.
        keys: description of its keys.
        fits: predicate of the keys of a record in this format.
    """

    name: str
    keys: str
    fits: Callable[[frozenset[str]], bool]


def _is_alpaca_eval(keys: frozenset[str]) -> bool:
    judged = {"output_1", "output_2", "preference"} <= keys and keys & {"generator", "generator_1", "generator_2"}
    return bool(judged) or {"instruction", "output", "generator"} <= keys


def _is_labelled_pair(keys: frozenset[str]) -> bool:
    labelled = any(key in LABEL_KEYS or is_vote(key) for key in keys)
    return labelled and any(set(pair) <= keys for pair in ANSWER_KEYS)


def _is_scored(keys: frozenset[str]) -> bool:
    return "completions" in keys or (bool(keys.intersection(ANSWERS)) and bool(keys.intersection(SCORES)))


FORMATS = {
    found.name: found
    for found in (
        Format(
            "alpaca_eval",
            "output_1, output_2, generator_1, preference; or instruction, output, generator",
            _is_alpaca_eval,
        ),
        Format("chosen_rejected", "chosen, rejected", lambda keys: {"chosen", "rejected"} <= keys),
        Format("labelled_pairs", "response1, response2 (or the like), label or annotator1, …", _is_labelled_pair),
        Format("scored_responses", "completions; or generations, ratings (or the like)", _is_scored),
    )
}
"""Known formats by name."""


def find_format(path: Path, wanted: str | None = None) -> Format:
    """Find the format of a file.

    Args:
        path: path of the file.
        wanted: name of the format; None detects it by the keys of the first record.

    Raises:
        NotFoundError: there is no such file.
        InputError: the name is unknown, or the file is empty or in no known format.
        RowError: its first record is malformed.
    """
    if wanted is not None:
        if wanted not in FORMATS:
            raise unknown_name("format", wanted, FORMATS)
        return FORMATS[wanted]
    _, first = next(iter(Records(path)), (0, None))
    if first is None:
        raise InputError(f"{path} is empty: a file of records is wanted.")
    if isinstance(first, RowError):
        raise first
    for known in FORMATS.values():
        if known.fits(frozenset(first)):
            return known
    described = "; ".join(f"{known.name} ({known.keys})" for known in FORMATS.values())
    raise InputError(f"{path} is in no known format. Its keys: {', '.join(first)}. Known: {described}.")


@dataclass(frozen=True)
class ImportPlan:
    """Settings of an import.

    Attributes:
        inputs: files of one format, or folders of AlpacaEval's results.
        format: name in `FORMATS`; None detects it.
        name: name of the source, for the card and the rows' `source` and `id`; by default that of the first input.
        url: URL of the source, for the card.
        licence: licence of the source, for the card.
        models: AlpacaEval models to keep; empty means all.
        annotators: AlpacaEval annotators to keep; empty means all.
        reference: AlpacaEval model whose answers become the rows' references.
        judge: name of the judge, if the file names none.
        labels: labels of a file for the first answer, the second, and (optional) neither.
        exclude: files of rows whose prompts are left out.
        split: shares by name, see `parse_split`; empty makes one file.
        seed: seed of all draws.
        skip_bad: skip and count malformed records instead of raising.
    """

    inputs: tuple[Path, ...]
    format: str | None = None
    name: str = ""
    url: str = ""
    licence: str = ""
    models: tuple[str, ...] = ()
    annotators: tuple[str, ...] = ()
    reference: str = ""
    judge: str = ""
    labels: tuple[str, ...] = ()
    exclude: tuple[Path, ...] = ()
    split: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    skip_bad: bool = False

    @property
    def source(self) -> str:
        """Name of the source."""
        return self.name or self.inputs[0].absolute().name.partition(".")[0]


_BAD = "bad row"


@dataclass
class Reading:
    """Rows and counts of the files of an import.

    Attributes:
        format: format of the files.
        inputs: files read.
        records: number of records.
        skipped: number of records that are part of no row, by reason.
        bad: errors of malformed records.
        remarks: further notes for the user.
        rows: rows made of the other records.
    """

    format: str
    inputs: Inputs
    records: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    bad: list[RowError] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    rows: list[Example] = field(default_factory=list)


def read_inputs(plan: ImportPlan, progress: OnProgress | None = None) -> Reading:
    """Read all files of a plan.

    Raises:
        RowError: the first malformed record, unless the plan skips them.
        InputError: a file or an option is wrong, or the files are in different formats.
    """
    inputs = find_inputs(plan.inputs, models=plan.models, annotators=plan.annotators)
    reading = Reading(_format(plan, inputs), inputs)
    _check_options(plan, reading.format)
    if reading.format == "alpaca_eval":
        _read_alpaca_eval(plan, reading, progress)
    else:
        _read_rows(plan, reading, progress)
    return reading


def _format(plan: ImportPlan, inputs: Inputs) -> str:
    if inputs.are_results:
        if plan.format not in (None, "alpaca_eval"):
            raise InputError(f"A folder holds AlpacaEval's results, not {plan.format}: give the files themselves.")
        return "alpaca_eval"
    found = {find_format(file.path, plan.format).name: file for file in inputs.files}
    if len(found) > 1:
        described = ", ".join(f"{file.path} is {name}" for name, file in found.items())
        raise InputError(f"The files are in different formats ({described}): import them one by one.")
    return next(iter(found))


def _check_options(plan: ImportPlan, format: str) -> None:
    belongs: dict[str, tuple[Any, tuple[str, ...]]] = {
        "models": (plan.models, ("alpaca_eval",)),
        "annotators": (plan.annotators, ("alpaca_eval",)),
        "reference": (plan.reference, ("alpaca_eval",)),
        "labels": (plan.labels, ("labelled_pairs",)),
        "judge": (plan.judge, ("labelled_pairs", "chosen_rejected")),
    }
    for name, (value, formats) in belongs.items():
        if value and format not in formats:
            raise InputError(f"--{name} is for {' and '.join(formats)}, and this is {format}: leave it out.")


def _read_alpaca_eval(plan: ImportPlan, reading: Reading, progress: OnProgress | None) -> None:
    gathered = AlpacaEval(
        reading.inputs.annotators,
        models=plan.models,
        annotators=plan.annotators,
        reference=plan.reference,
        seed=plan.seed,
    )
    for file in reading.inputs.files:
        others = Counter[str]()

        def take(record: Mapping[str, Any], file: InputFile = file, others: Counter[str] = others) -> None:
            named = record.get("annotator")
            if file.annotator and isinstance(named, str) and named != file.annotator:
                others[named] += 1
            gathered.add(record, model=file.model, annotator=file.annotator)

        for _ in _records(plan, reading, file, take, progress):
            pass
        if others:
            names = ", ".join(f"{name} ({count:,})" for name, count in sorted(others.items()))
            reading.remarks.append(f"{file.name} names other annotators than its folder, which counts: {names}")
    reading.rows = list(gathered.examples())
    if gathered.equal:
        reading.remarks.append(f"{gathered.equal:,} judgements of answers that read the same are scores and no pairs")
    if plan.reference and (missing := sum(1 for row in reading.rows if row.reference is None)):
        reading.remarks.append(f"{missing:,} rows have no answer by {plan.reference}, hence no reference")


def _read_rows(plan: ImportPlan, reading: Reading, progress: OnProgress | None) -> None:
    parse: Callable[[Mapping[str, Any]], Example]
    if reading.format == "chosen_rejected":
        parse = partial(read_chosen_rejected, judge=plan.judge, seed=plan.seed)
    elif reading.format == "labelled_pairs":
        parse = partial(read_labelled_pair, judge=plan.judge, labels=plan.labels)
    else:
        parse = read_scored_responses
    for file in reading.inputs.files:
        labels = set[object]()

        def take(record: Mapping[str, Any], labels: set[object] = labels) -> Example:
            row = parse(record)
            labels.update(str(value) for key, value in record.items() if key in LABEL_KEYS or is_vote(key))
            return row

        for row in _records(plan, reading, file, take, progress):
            if len(reading.inputs.files) > 1:
                row.extra["meta"]["file"] = file.name
            reading.rows.append(row)
        if reading.format == "labelled_pairs" and not plan.labels and unclear_labels(labels):
            raise InputError(
                f"The labels of {file.path} are 0 and 1 alone: give --labels 0,1 if 0 means the first answer, or "
                "--labels 1,2,0 if 0 means a tie."
            )


def _records(
    plan: ImportPlan,
    reading: Reading,
    file: InputFile,
    take: Callable[[Mapping[str, Any]], Any],
    progress: OnProgress | None,
) -> Iterator[Any]:
    """Yield what `take` makes of each record of a file; count the others."""
    records = Records(file.path)
    for number, record in records:
        reading.records += 1
        if progress is not None:
            progress(reading.records, 0)
        try:
            if isinstance(record, RowError):
                raise ValueError(record.reason)
            yield take(record)
        except SkipRecord as skipped:
            reading.skipped[str(skipped)] += 1
        except ValueError as error:
            bad = records.error(number, str(error))
            if not plan.skip_bad:
                raise bad from None
            reading.bad.append(bad)
            reading.skipped[_BAD] += 1
