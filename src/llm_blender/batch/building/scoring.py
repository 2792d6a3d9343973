"""Metrics of every candidate against its row's reference."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from llm_blender.batch.engine import Item, OnRows, Result, work_through_batches
from llm_blender.batch.journal import Journal
from llm_blender.metrics import evaluate
from llm_blender.types import Candidate, Example

__all__ = ["Measured", "measure", "row_scores"]

_ROWS_AT_ONCE = 32  # seconds of work to lose, and still well-filled batches
_UNAVAILABLE = "unavailable: "


@dataclass(frozen=True)
class Measured:
    """Which metrics there are.

    Attributes:
        settings: of each that was measured, by name.
        unavailable: why the others were not, by name.
    """

    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)


class _NotAvailable(Exception):  # noqa: N818 - leaves this module no more than the reason does
    pass


def measure(
    rows: Sequence[tuple[Example, Sequence[Candidate]]],
    metrics: Sequence[str],
    journal: Journal,
    *,
    on_rows: Callable[[str], OnRows | None] = lambda metric: None,
) -> Measured:
    """Measure what is not measured yet. A metric whose model or library cannot be had is left out, with the reason.

    Args:
        rows: with their candidates; those without a reference have no scores.
        metrics: names.
        journal: of the scores.
        on_rows: what is told about each metric's rows.
    """
    settings: dict[str, dict[str, Any]] = {}
    unavailable: dict[str, str] = {}
    measurable = [(row, texts) for row, candidates in rows if (texts := _texts(candidates)) and _has_reference(row)]
    for metric in metrics if measurable else ():
        items = [Item(_key(metric, row, texts), (texts, row.reference or "")) for row, texts in measurable]

        def score(batch: Sequence[tuple[list[str], str]], metric: str = metric) -> list[Result]:
            predictions = [text for texts, _ in batch for text in texts]
            references = [reference for texts, reference in batch for _ in texts]
            row = evaluate(predictions, references, [metric])[metric]
            if row.scores is None:
                raise _NotAvailable(row.status.removeprefix(_UNAVAILABLE))
            values = iter(row.scores.values.tolist())
            about = {name: value for name, value in row.scores.settings.items() if _is_plain(value)}
            return [Result({"scores": [next(values) for _ in texts], "settings": about}) for texts, _ in batch]

        try:
            work_through_batches(journal, items, score, size=_ROWS_AT_ONCE, on_rows=on_rows(metric))
        except _NotAvailable as error:
            unavailable[metric] = str(error)
        else:
            settings[metric] = journal.value(items[0].key)["settings"]
    return Measured(settings, unavailable)


def row_scores(
    row: Example, candidates: Sequence[Candidate], metrics: Sequence[str], journal: Journal
) -> list[dict[str, float]]:
    """The scores of each candidate by metric, without those that are no number."""
    scores: list[dict[str, float]] = [{} for _ in candidates]
    for metric in metrics:
        found = journal.value(_key(metric, row, _texts(candidates)))
        if found is not None:
            for of_candidate, value in zip(scores, found["scores"], strict=True):
                if value is not None and math.isfinite(value):
                    of_candidate[metric] = round(value, 6)
    return scores


def _texts(candidates: Sequence[Candidate]) -> list[str]:
    return [candidate.text for candidate in candidates]


def _has_reference(row: Example) -> bool:
    return bool((row.reference or "").strip())


def _key(metric: str, row: Example, texts: Sequence[str]) -> str:
    """It holds the texts: where a candidate came later, the row is measured again."""
    digest = hashlib.sha256("\0".join(texts).encode("utf-8", "replace")).hexdigest()[:16]
    return f"{metric}\t{row.id}\t{digest}"


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | int | float | bool)
