"""From files to rows, whatever the format: every record becomes part of a row, or is counted with a reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from llm_blender.data.importing.alpaca_eval import AlpacaEval
from llm_blender.data.importing.chosen_rejected import read_chosen_rejected
from llm_blender.data.importing.formats import find_format
from llm_blender.data.importing.inputs import InputFile, Inputs, find_inputs
from llm_blender.data.importing.labelled_pairs import LABEL_KEYS, is_vote, read_labelled_pair, unclear_labels
from llm_blender.data.importing.plan import ImportPlan
from llm_blender.data.importing.records import Records, SkipRecord
from llm_blender.data.importing.scored_responses import read_scored_responses
from llm_blender.errors import InputError, RowError
from llm_blender.types import Example, OnProgress

__all__ = ["Reading", "read_inputs"]

_BAD = "bad row"


@dataclass
class Reading:
    """What the files came to.

    Attributes:
        format: of the files.
        inputs: the files that were read.
        records: in them.
        skipped: records that became part of no row, by reason.
        bad: what is wrong with the bad ones among them.
        remarks: what else a user should know.
        rows: made of the others.
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
        RowError: the first bad row, unless the plan leaves them out.
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
        models=plan.models,
        annotators=plan.annotators,
        known_annotators=reading.inputs.annotators,
        reference=plan.reference,
        seed=plan.seed,
    )
    for file in reading.inputs.files:
        others = Counter[str]()

        def take(record: Mapping[str, Any], file: InputFile = file, others: Counter[str] = others) -> None:
            said = record.get("annotator")
            if file.annotator and isinstance(said, str) and said != file.annotator:
                others[said] += 1
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
                f"The labels of {file.path} are 0 and 1 alone: say with --labels 0,1 that 0 means the first answer, or "
                "with --labels 1,2,0 that 0 means a tie."
            )


def _records(
    plan: ImportPlan,
    reading: Reading,
    file: InputFile,
    take: Callable[[Mapping[str, Any]], Any],
    progress: OnProgress | None,
) -> Iterator[Any]:
    """What `take` makes of each record of a file; the others are counted."""
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
