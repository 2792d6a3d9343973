"""Read and check MixInstruct's format: rows with candidates by LLM and a judge's ``cmp_results``.

Source of the format: arXiv 2306.02561 and the data set ``llm-blender/mix-instruct`` on the Hugging Face Hub.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from llm_blender._cmp_results import OUTCOMES, read_cmp_results, resolve_pair
from llm_blender.conversations import PROMPT_KEYS
from llm_blender.data.hub import hub_files, is_hub_name
from llm_blender.data.prompts import answered_prompt, read_prompt
from llm_blender.data.records import SkipRecord
from llm_blender.data.rows import normalized_key, parse_row, parse_rows
from llm_blender.errors import InputError, RowError
from llm_blender.types import Example, LabelledPair, Record

_PREFERENCE = frozenset({"chosen", "rejected"})

MIX_INSTRUCT = "llm-blender/mix-instruct"
"""Name of the paper's data set on the Hub, with splits ``train``, ``val`` and ``test``."""


def read_mix_instruct(
    source: str | Path, split: str | None = None, *, on_bad: Callable[[RowError], None] | None = None
) -> Iterator[Example]:
    """Yield the rows of MixInstruct, or of a file in its format; memory holds one row.

    Args:
        source: a file, a folder or a pattern, as for `read_records`, or the name of a data set on the Hub, such as
            `MIX_INSTRUCT`, which is downloaded once.
        split: split of a data set on the Hub, such as ``test``; None reads all splits. For a file, None.
        on_bad: called with the error of each malformed row, which is then skipped; None raises the first error.

    Yields:
        Rows as `parse_mix_instruct_row` makes them.

    Raises:
        RowError: the first malformed row.
        NotFoundError: there is no such file, data set or split.
    """
    return _parse_files(source, split, parse_mix_instruct_row, on_bad)


def read_any_rows(
    source: str | Path, split: str | None = None, *, on_bad: Callable[[RowError], None] | None = None
) -> Iterator[Example]:
    """Yield the rows of a file or a data set that any command reads; otherwise like `read_mix_instruct`.

    These are rows with candidates, rows with a prompt alone, and preferences (`chosen`, `rejected`); of a preference,
    the example has the prompt, and its answers are in `Example.extra`.
    """
    return _parse_files(source, split, _parse_any_row, on_bad)


def _parse_any_row(record: Mapping[str, Any]) -> Example:
    if record.get("candidates") is not None:
        return parse_mix_instruct_row(record) if record.get("cmp_results") else parse_row(record)
    try:
        if record.keys() >= _PREFERENCE:
            prompt, chosen, rejected = answered_prompt(record, "chosen", "rejected")
            answers = {"chosen": chosen, "rejected": rejected}
            return Example(prompt.instruction, prompt.input, extra=answers)
        read = read_prompt(record)
    except SkipRecord as error:
        raise ValueError(str(error)) from None
    if read is None:
        wanted = ", ".join(f"`{key}`" for key in PROMPT_KEYS)
        raise ValueError(f"there is no prompt: one of {wanted}; the keys are {', '.join(record) or 'none at all'}")
    return Example(read.instruction, read.input)


def _parse_files(
    source: str | Path,
    split: str | None,
    parse: Callable[[Mapping[str, Any]], Example],
    on_bad: Callable[[RowError], None] | None,
) -> Iterator[Example]:
    if is_hub_name(str(source)):
        paths: Sequence[str | Path] = hub_files(str(source), split)
    elif split is not None:
        raise InputError(f"{source} is a file, which has no splits: leave out the split {split!r}.")
    else:
        paths = [source]
    for path in paths:
        yield from parse_rows(path, parse, on_bad=on_bad)


def parse_mix_instruct_row(record: Mapping[str, Any]) -> Example:
    """Parse a row into an `Example`, more strictly than `llm_blender.data.parse_row`.

    Each candidate names its LLM, and no LLM is named twice. ``cmp_results`` may be an object or a JSON text, missing,
    null or empty; each of its pairs names two candidates and has one of the four outcomes. The example holds it as an
    object in ``extra["cmp_results"]``, and derives `Example.pairs` from it unless the row has ``pairs``: a pair in
    both orders counts once, and is a tie if the two orders contradict each other.

    Raises:
        ValueError: the row is malformed.
    """
    example = parse_row(record)
    models = _models(example)
    try:
        found = read_cmp_results(record.get("cmp_results"))
        # In a Parquet column of objects, each row has every pair of the file.
        results = {pair: outcome for pair, outcome in found.items() if outcome is not None}
        pairs = _pairs(results, models)
    except InputError as error:
        raise ValueError(str(error).rstrip(".")) from None
    extra = {**example.extra, "cmp_results": results} if "cmp_results" in record else example.extra
    return replace(example, pairs=example.pairs or pairs, extra=extra)


def _models(example: Example) -> list[str]:
    models = [candidate.model for candidate in example.candidates]
    if None in models:
        raise ValueError(f"candidate {models.index(None)} has no `model`")
    named = [model for model in models if model is not None]
    for model in named:
        if named.count(model) > 1:
            raise ValueError(f"{named.count(model)} candidates are by {model!r}: outcomes by name need one each")
    return named


def _pairs(results: Mapping[str, str], models: Sequence[str]) -> tuple[LabelledPair, ...]:
    """Combine the outcomes of each unordered pair, in the order of the candidates."""
    margins: dict[tuple[int, int], float] = {}
    for pair, outcome in results.items():
        if not isinstance(outcome, str) or outcome not in OUTCOMES:
            raise InputError(f"The outcome of {pair!r} is {outcome!r}; wanted is one of: {', '.join(OUTCOMES)}.")
        a, b = resolve_pair(pair, models)
        to_a, to_b = OUTCOMES[outcome]
        key = (min(a, b), max(a, b))
        margins[key] = margins.get(key, 0.0) + (to_a - to_b if a < b else to_b - to_a)
    return tuple(
        LabelledPair(i, j, "a" if margins[i, j] > 0 else "b" if margins[i, j] < 0 else "tie", "cmp_results")
        for i, j in combinations(range(len(models)), 2)
        if (i, j) in margins
    )


@dataclass(frozen=True)
class RowsReport(Record):
    """Counts of rows in MixInstruct's format.

    Attributes:
        rows: well-formed rows.
        bad: malformed rows.
        first_bad: error of the first malformed row; empty without one.
        duplicates: rows that repeat the prompt of an earlier row.
        models: candidates by LLM.
        incomplete: rows without a candidate of an LLM that other rows have.
        without_reference: rows without a reference.
        judged: rows with ``cmp_results``.
        pairs: judged ordered pairs.
        outcomes: judged ordered pairs by outcome.
        scores: candidates with a score, by its name.
        candidates: candidates of all rows.
        serves: rows that commands can use, by the commands.
    """

    rows: int
    bad: int
    first_bad: str
    duplicates: int
    models: dict[str, int]
    incomplete: int
    without_reference: int
    judged: int
    pairs: int
    outcomes: dict[str, int]
    scores: dict[str, int]
    candidates: int
    serves: dict[str, int]


def _scores_differ(row: Example) -> bool:
    """Return whether a score prefers one candidate to another."""
    names = {name for candidate in row.candidates for name in candidate.scores}
    return any(len({one.scores[name] for one in row.candidates if name in one.scores}) > 1 for name in names)


def _commands(row: Example) -> Iterator[str]:
    """Yield the commands that can use a row."""
    if row.extra.keys() >= _PREFERENCE and not row.candidates:
        yield "data import"
        yield "train ranker, bench pairs"
        return
    yield "run, data build"
    if row.candidates:
        yield "rank, fuse, data preferences"
    if row.pairs or _scores_differ(row):
        yield "train ranker, bench pairs"
    models = {candidate.model for candidate in row.candidates}
    if len(row.candidates) == len(models) > 1 and None not in models:
        yield "bench, priors"


def report_rows(rows: Iterable[Example], bad: list[RowError]) -> RowsReport:
    """Count rows in one pass; memory holds a hash of each prompt.

    Args:
        rows: rows from `llm_blender.data.read_mix_instruct` or `read_any_rows`.
        bad: errors of malformed rows, collected by its `on_bad`.
    """
    models, outcomes, scores, sizes = Counter[str](), Counter[str](), Counter[str](), Counter[int]()
    serves = Counter[str]()
    seen: set[bytes] = set()
    count = duplicates = without_reference = judged = 0
    for row in rows:
        count += 1
        key = hashlib.blake2b(normalized_key(row).encode("utf-8", "replace"), digest_size=16).digest()
        duplicates += key in seen
        seen.add(key)
        without_reference += not (row.reference or "").strip()
        results = row.extra.get("cmp_results") or {}
        judged += bool(results)
        outcomes.update(results.values())
        sizes[len(row.candidates)] += 1
        serves.update(_commands(row))
        for candidate in row.candidates:
            models[candidate.model or ""] += 1
            scores.update(list(candidate.scores))
    return RowsReport(
        rows=count,
        bad=len(bad),
        first_bad=str(bad[0]) if bad else "",
        duplicates=duplicates,
        models=dict(sorted(models.items())),
        incomplete=sum(rows for size, rows in sizes.items() if size < len(models)),
        without_reference=without_reference,
        judged=judged,
        pairs=outcomes.total(),
        outcomes=dict(outcomes.most_common()),
        scores=dict(sorted(scores.items())),
        candidates=models.total(),
        serves=dict(serves),
    )
