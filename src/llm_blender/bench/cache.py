"""Comparisons that are kept in a file, since a bench costs minutes to hours of them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llm_blender.bench.judged_pairs import TextPair, evidence_weights, rank_pairs
from llm_blender.bench.table.pool import FUSED, TablePool
from llm_blender.errors import CheckpointError, InputError, MissingExtraError, NotFoundError, WorkError, unknown_name
from llm_blender.metrics import METRICS
from llm_blender.ranking import DEFAULT_BUDGET, Advance, Pool, rank_with
from llm_blender.types import Instruction, OnProgress, Ranker, Ranking, instruction_text

__all__ = ["RecordedMetrics", "RecordedRanker", "measure_pool"]

_BLOCK = 128  # pairs between two writes: seconds of work to lose, and still well-filled batches
_PROBES = 4  # recorded pairs that are compared anew
_TOLERANCE = 0.01  # logits; int8 kernels of different processors differ by less, checkpoints by far more


class RecordedRanker:
    """A ranker whose comparisons are kept in a file and never made twice.

    Strategies, benches and runs share them, and an interrupted run goes on where it stopped. Before the record is
    believed, a few of its pairs are compared anew: so a ranker is noticed that was trained on under the same name.

    Args:
        ranker: makes the comparisons that are missing, each pair in both orders.
        path: SQLite file, made where there is none; it may hold the comparisons of many rankers.
        name: of this ranker in the file.

    Raises:
        InputError: the file cannot be used.
    """

    def __init__(self, ranker: Ranker, path: str | Path, name: str) -> None:
        self._ranker, self._path, self._name = ranker, Path(path), name
        self._trusted, self._temperature = False, 1.0
        self.evidence_weights = evidence_weights(ranker)  # applied anew: what is recorded is the model's own
        with self._database() as database:
            database.execute("CREATE TABLE IF NOT EXISTS comparisons (pair BLOB PRIMARY KEY, logit REAL NOT NULL)")
            self._logits: dict[bytes, float] = dict(database.execute("SELECT pair, logit FROM comparisons"))

    def rank_many(
        self,
        instructions: Sequence[Instruction],
        candidates: Sequence[Sequence[str]],
        *,
        strategy: str = "auto",
        seed: int = 0,
        budget: int = DEFAULT_BUDGET,
        progress: OnProgress | None = None,
    ) -> list[Ranking]:
        """One ranking per instruction; `Ranking.comparisons` counts recorded ones like others.

        Raises:
            InputError: as `llm_blender.ranking.rank_with`, or the record is another ranker's.
        """
        if len(instructions) != len(candidates):
            raise InputError(
                f"{len(instructions)} instructions need as many lists of candidates, not {len(candidates)}."
            )
        prompts = [instruction_text(instruction) for instruction in instructions]

        def compare(pool: Pool, advance: Advance) -> list[float]:
            pairs = [TextPair(prompts[i], candidates[i][left], candidates[i][right]) for i, left, right in pool]
            self._complete(pairs, advance)
            return [self._logits[self._key(pair)] for pair in pairs]

        rankings = rank_with(
            candidates,
            compare,
            strategy=strategy,
            seed=seed,
            budget=budget,
            evidence_weights=self.evidence_weights,
            progress=progress,
        )
        return [replace(ranking, temperature=self._temperature) for ranking in rankings]

    def _complete(self, pairs: Sequence[TextPair], advance: Advance) -> None:
        """Make those of the comparisons that are not recorded yet."""
        asked = set(pairs)
        recorded = [pair for pair in pairs if self._key(pair) in self._logits]
        if recorded and not self._trusted:
            self._probe(recorded[:_PROBES])
        self._trusted = True
        advance(len(recorded))
        missing = list(dict.fromkeys(pair.sorted() for pair in pairs if self._key(pair) not in self._logits))
        for start in range(0, len(missing), _BLOCK):
            block = missing[start : start + _BLOCK]
            self._keep(self._compare(block))
            advance(sum((pair in asked) + (pair.swapped() in asked) for pair in block))

    def _compare(self, pairs: Sequence[TextPair]) -> dict[bytes, float]:
        logits = {}
        for pair, ranking in zip(pairs, rank_pairs(self._ranker, pairs), strict=True):
            logits[self._key(pair)] = float(ranking.logits[0, 1])
            logits[self._key(pair.swapped())] = float(ranking.logits[1, 0])
            self._temperature = ranking.temperature
        return logits

    def _probe(self, pairs: Sequence[TextPair]) -> None:
        for key, logit in self._compare(pairs).items():
            recorded = self._logits.get(key, logit)
            if abs(recorded - logit) > _TOLERANCE:
                raise InputError(
                    f"{self._path} holds comparisons of another ranker named {self._name!r} (a logit of {recorded:.4f} "
                    f"is {logit:.4f} now): remove the file or name another one."
                )

    def _keep(self, logits: dict[bytes, float]) -> None:
        with self._database() as database:
            database.executemany("INSERT OR REPLACE INTO comparisons VALUES (?, ?)", logits.items())
        self._logits |= logits

    def _key(self, pair: TextPair) -> bytes:
        return hashlib.sha256(json.dumps([self._name, *pair]).encode()).digest()

    @contextlib.contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it or nothing is in the file afterwards."""
        try:
            with contextlib.closing(sqlite3.connect(self._path)) as database, database:
                yield database
        except sqlite3.Error as error:
            raise InputError(f"{self._path} cannot keep comparisons ({error}): name another file.") from error


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
