"""MixInstruct itself, and files like it: rows with candidates by LLM and a judge's ``cmp_results``.

Source of the format: arXiv 2306.02561 and the data set ``llm-blender/mix-instruct`` on the Hugging Face Hub.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from llm_blender._cmp_results import OUTCOMES, read_cmp_results, resolve_pair
from llm_blender.data.hub import hub_files, is_hub_name
from llm_blender.data.rows import parse_row, parse_rows
from llm_blender.errors import InputError, RowError
from llm_blender.types import Example, LabelledPair

__all__ = ["MIX_INSTRUCT", "parse_mix_instruct_row", "read_mix_instruct"]

MIX_INSTRUCT = "llm-blender/mix-instruct"
"""The paper's data set on the Hub: splits ``train``, ``val``, ``test``."""


def read_mix_instruct(
    source: str | Path, split: str | None = None, *, on_bad: Callable[[RowError], None] | None = None
) -> Iterator[Example]:
    """The rows of MixInstruct, or of a file in its format, one at a time: memory holds one row.

    Args:
        source: a file (JSON Lines, ``.gz``, ``.zst``, Parquet, ``-``), or the name of a data set on the Hub, such as
            `MIX_INSTRUCT`, which is fetched once.
        split: of a data set on the Hub, such as ``test``; None reads all splits. Of a file, None.
        on_bad: called with each row that cannot be used, which is then left out; without it the first one raises.

    Yields:
        Rows as `parse_mix_instruct_row` makes them.

    Raises:
        RowError: file, line and reason of the first bad row.
        NotFoundError: there is no such file, data set or split.
    """
    if is_hub_name(str(source)):
        paths: Sequence[str | Path] = hub_files(str(source), split)
    elif split is not None:
        raise InputError(f"{source} is a file, which has no splits: leave out the split {split!r}.")
    else:
        paths = [source]
    for path in paths:
        yield from parse_rows(path, parse_mix_instruct_row, on_bad=on_bad)


def parse_mix_instruct_row(record: Mapping[str, Any]) -> Example:
    """One row as an `Example`; stricter than `llm_blender.data.parse_row`.

    Each candidate names its LLM, no two the same one. ``cmp_results`` may be an object or a JSON text, missing, null
    or empty; each of its pairs names two candidates and has one of the four outcomes. In the example it is an object
    under ``extra["cmp_results"]``, and its pairs are `Example.pairs` unless the row brings its own: a pair that is
    there in both orders counts once, and is a tie where the two contradict each other.

    Raises:
        ValueError: what is wrong with it.
    """
    example = parse_row(record)
    models = _models(example)
    try:
        found = read_cmp_results(record.get("cmp_results"))
        # As a column of objects in Parquet, each row has every pair of the file.
        results = {pair: outcome for pair, outcome in found.items() if outcome is not None}
        pairs = _pairs(results, models)
    except InputError as error:
        raise ValueError(str(error).rstrip(".")) from None
    return Example(
        instruction=example.instruction,
        input=example.input,
        reference=example.reference,
        candidates=example.candidates,
        pairs=example.pairs or pairs,
        id=example.id,
        extra={**example.extra, "cmp_results": results} if "cmp_results" in record else example.extra,
    )


def _models(example: Example) -> list[str]:
    models = [candidate.model for candidate in example.candidates]
    if None in models:
        raise ValueError(f"candidate {models.index(None)} does not say its `model`")
    named = [model for model in models if model is not None]
    for model in named:
        if named.count(model) > 1:
            raise ValueError(f"{named.count(model)} candidates are by {model!r}: outcomes by name need one each")
    return named


def _pairs(results: Mapping[str, str], models: Sequence[str]) -> tuple[LabelledPair, ...]:
    """What the outcomes say of each unordered pair, in the order of the candidates."""
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
