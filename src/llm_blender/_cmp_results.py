"""MixInstruct's ``cmp_results``: the judgements of the pairs of one row, one of four outcomes each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llm_blender.errors import InputError

OUTCOMES: dict[str, tuple[float, float]] = {
    "A is better": (1.0, -1.0),
    "B is better": (-1.0, 1.0),
    "Same good": (0.5, 0.5),
    "Same bad": (-0.5, -0.5),
}
"""The four outcomes, with the points of A and of B for each."""


def read_cmp_results(value: Mapping[str, str] | str | None) -> Mapping[str, str]:
    """Parse a row's ``cmp_results`` in any of MixInstruct's spellings.

    Args:
        value: ``{"modelA,modelB": outcome}``, or the same as a JSON text (as on the Hub); None, an empty text or
            ``null`` for a row without judgements.

    Returns:
        Outcomes by pair; empty for a row without judgements.

    Raises:
        InputError: the value is something else.
    """
    results: Any = value
    if isinstance(value, str):
        try:
            results = json.loads(value) if value.strip() else None
        except json.JSONDecodeError as error:
            raise InputError(f"`cmp_results` is a text but no JSON: {error}.") from None
    if results is None:
        return {}
    if not isinstance(results, Mapping):
        raise InputError(f"`cmp_results` must hold outcomes by pair of LLMs, not {type(results).__name__}.")
    return results


def resolve_pair(pair: str, models: Sequence[str]) -> tuple[int, int]:
    """Find the two candidates that ``"modelA,modelB"`` names; a name may contain commas.

    Args:
        pair: a key of ``cmp_results``.
        models: names of the candidates' LLMs, all different.

    Raises:
        InputError: the pair does not name two of the models, or is ambiguous.
    """
    halves = [(pair[:place], pair[place + 1 :]) for place, letter in enumerate(pair) if letter == ","]
    known = [(a, b) for a, b in halves if a in models and b in models]
    if len(known) > 1:
        raise InputError(f"The pair {pair!r} can be read as {' or '.join(f'{a!r} and {b!r}' for a, b in known)}.")
    if not known:
        raise InputError(f"The pair {pair!r} does not name two candidates of the row; their LLMs: {', '.join(models)}.")
    a, b = known[0]
    if a == b:
        raise InputError(f"The pair {pair!r} compares a candidate with itself.")
    return models.index(a), models.index(b)
