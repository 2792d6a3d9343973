"""Metric values that no row holds: computed once, and kept in a file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llm_blender.bench.table.judging import FUSED
from llm_blender.bench.table.pool import TablePool
from llm_blender.errors import CheckpointError, InputError, MissingExtraError, NotFoundError, WorkError, unknown_name
from llm_blender.metrics import METRICS
from llm_blender.types import OnProgress

__all__ = ["RecordedMetrics", "measure_pool"]

_Measured = tuple[str, str]
"""A text and its reference."""


class RecordedMetrics:
    """Values of text metrics, which are kept in a file and never computed twice.

    Args:
        path: SQLite file, made where there is none; the comparisons of `llm_blender.bench.RecordedRanker` may stand in
            it too. None keeps nothing.
        block: texts between two writes; the default is seconds of work to lose, and still well-filled batches.

    Raises:
        InputError: the file cannot be used.
    """

    def __init__(self, path: str | Path | None, *, block: int = 256) -> None:
        self._path, self._block = path, block
        self._values: dict[bytes, float] = {}
        if path is not None:
            with self._database() as database:
                database.execute("CREATE TABLE IF NOT EXISTS metrics (text BLOB PRIMARY KEY, value REAL NOT NULL)")
                self._values.update(database.execute("SELECT text, value FROM metrics"))

    def measure(
        self,
        metric: str,
        settings: Mapping[str, Any],
        pairs: Sequence[_Measured],
        *,
        progress: OnProgress | None = None,
    ) -> list[float]:
        """A value for each text beside its reference.

        Args:
            metric: one of `llm_blender.metrics.METRICS`.
            settings: its keywords. The device is no part of what is kept.
            pairs: texts and references.
            progress: called with texts done and to do.

        Raises:
            InputError: there is no such metric.
            LLMBlenderError: as the metric raises.
        """
        if metric not in METRICS:
            raise unknown_name("metric", metric, METRICS)
        named = json.dumps([metric, {key: settings[key] for key in sorted(settings) if key != "device"}])
        keys = [hashlib.sha256(json.dumps([named, *pair]).encode()).digest() for pair in pairs]
        missing = list({key: pair for key, pair in zip(keys, pairs, strict=True) if key not in self._values}.items())
        for start in range(0, len(missing), self._block):
            block = missing[start : start + self._block]
            texts, references = [text for _, (text, _) in block], [reference for _, (_, reference) in block]
            scores = METRICS[metric](texts, references, **settings)
            self._keep({key: float(value) for (key, _), value in zip(block, scores.values, strict=True)})
            if progress is not None:
                progress(len(pairs) - len(missing) + start + len(block), len(pairs))
        return [self._values[key] for key in keys]

    def _keep(self, values: Mapping[bytes, float]) -> None:
        self._values.update(values)
        if self._path is not None:
            with self._database() as database:
                database.executemany("INSERT OR REPLACE INTO metrics VALUES (?, ?)", values.items())

    @contextlib.contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it or nothing is in the file afterwards."""
        try:
            with contextlib.closing(sqlite3.connect(str(self._path))) as database, database:
                yield database
        except sqlite3.Error as error:
            raise InputError(f"{self._path} cannot keep metrics ({error}): name another file.") from error


def measure_pool(
    pool: TablePool,
    metrics: Mapping[str, Mapping[str, Any]],
    record: RecordedMetrics,
    *,
    progress: OnProgress | None = None,
) -> tuple[dict[str, dict[tuple[int, str], float]], dict[str, str]]:
    """The metrics of all candidates and fused answers that have not got them and whose row has a reference.

    Args:
        pool: n rows.
        metrics: settings by name.
        record: where values are kept.
        progress: called with texts times metrics done and to do.

    Returns:
        Values by metric, row and LLM, `FUSED` for the fused answer; and the metrics that could not be computed, with
        the reason.
    """
    found: dict[str, dict[tuple[int, str], float]] = {}
    unavailable: dict[str, str] = {}
    wanted = {metric: _missing(pool, metric) for metric in metrics}
    total = sum(map(len, wanted.values()))
    before = 0
    for metric, texts in wanted.items():

        def report(done: int, _: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done, total)

        try:
            values = record.measure(metric, metrics[metric], list(texts.values()), progress=report)
        except (NotFoundError, CheckpointError, MissingExtraError, WorkError) as error:
            unavailable[metric] = str(error)
        else:
            found[metric] = dict(zip(texts, values, strict=True))
        before += len(texts)
    return found, unavailable


def _missing(pool: TablePool, metric: str) -> dict[tuple[int, str], _Measured]:
    """By row and LLM, the texts without the metric and their references."""
    texts: dict[tuple[int, str], _Measured] = {}
    for number, row in enumerate(pool.rows):
        reference = row.reference or ""
        if not reference.strip():
            continue
        for model, candidate in row.candidates.items():
            if metric not in candidate.scores:
                texts[number, model] = candidate.text, reference
        if row.fused is not None and metric not in row.fused.scores:
            texts[number, FUSED] = row.fused.text, reference
    return texts
