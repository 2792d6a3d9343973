"""SQLite cache of what a bench computes, since rankings and metrics cost minutes to hours."""

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
from llm_blender.errors import InputError, unknown_name
from llm_blender.metrics import METRICS
from llm_blender.ranking import Advance, Compare, PairwiseRanker, Pool, has_position_bias
from llm_blender.types import Instruction, OnProgress, Ranker, Ranking, instruction_text

_BLOCK = 128  # pairs between two writes: seconds of work to lose, and still well-filled batches
_PROBES = 4  # cached pairs that are compared anew
_TOLERANCE = 0.01  # logits; int8 kernels of different processors differ by less, checkpoints by far more


class _Cache:
    """Numbers by key in one table of a SQLite file, all of them in memory too; without a path, in memory only.

    The file may hold other tables. The columns are those of the key and of the value.

    Raises:
        InputError: the file cannot be used.
    """

    def __init__(self, path: str | Path | None, table: str, columns: tuple[str, str]) -> None:
        self.path, self._table = path, table
        key, value = columns
        self.values: dict[bytes, float] = {}
        if path is not None:
            with self._transaction() as database:
                database.execute(f"CREATE TABLE IF NOT EXISTS {table} ({key} BLOB PRIMARY KEY, {value} REAL NOT NULL)")
                self.values.update(database.execute(f"SELECT {key}, {value} FROM {table}"))

    def add(self, values: Mapping[bytes, float]) -> None:
        """Store numbers in one transaction."""
        if self.path is not None:
            with self._transaction() as database:
                database.executemany(f"INSERT OR REPLACE INTO {self._table} VALUES (?, ?)", values.items())
        self.values |= values

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.closing(sqlite3.connect(str(self.path))) as database, database:
                yield database
        except sqlite3.Error as error:
            raise InputError(f"{self.path} cannot keep {self._table} ({error}): name another file.") from error


def _hash(*parts: str) -> bytes:
    return hashlib.sha256(json.dumps(parts).encode()).digest()


class CachedRanker(PairwiseRanker):
    """Ranker whose comparisons are stored in a file and never made twice.

    Strategies, benches and runs share them, and an interrupted run continues where it stopped. `Ranking.comparisons`
    counts cached comparisons too. Before stored comparisons are used, a few of them are made anew, to detect a ranker
    that was trained further under the same name.

    Args:
        ranker: makes the missing comparisons, each pair in both orders.
        path: SQLite file, created if it is not there; it may hold the comparisons of many rankers.
        name: of this ranker in the file.

    Raises:
        InputError: the file cannot be used.
    """

    def __init__(self, ranker: Ranker, path: str | Path, name: str) -> None:
        self._ranker, self._name = ranker, name
        self._cache = _Cache(path, "comparisons", ("pair", "logit"))
        self._trusted, self._temperature = False, 1.0
        self.position_bias = has_position_bias(ranker)
        self.evidence_weights = evidence_weights(ranker)  # applied anew: the cache holds the model's own logits

    def _comparer(self, instructions: Sequence[Instruction], candidates: Sequence[Sequence[str]]) -> Compare:
        prompts = [instruction_text(instruction) for instruction in instructions]

        def compare(pool: Pool, advance: Advance) -> list[float]:
            pairs = [TextPair(prompts[i], candidates[i][left], candidates[i][right]) for i, left, right in pool]
            self._complete(pairs, advance)
            return [self._cache.values[self._key(pair)] for pair in pairs]

        return compare

    def _finish(self, rankings: list[Ranking], compare: Compare) -> list[Ranking]:
        return [replace(ranking, temperature=self._temperature) for ranking in rankings]

    def _complete(self, pairs: Sequence[TextPair], advance: Advance) -> None:
        """Make the comparisons that are not cached yet."""
        wanted = set(pairs)
        cached = [pair for pair in pairs if self._key(pair) in self._cache.values]
        if cached and not self._trusted:
            self._probe(cached[:_PROBES])
        self._trusted = True
        advance(len(cached))
        missing = list(dict.fromkeys(pair.sorted() for pair in pairs if self._key(pair) not in self._cache.values))
        for start in range(0, len(missing), _BLOCK):
            block = missing[start : start + _BLOCK]
            self._cache.add(self._compare(block))
            advance(sum((pair in wanted) + (pair.swapped() in wanted) for pair in block))

    def _compare(self, pairs: Sequence[TextPair]) -> dict[bytes, float]:
        logits = {}
        for pair, ranking in zip(pairs, rank_pairs(self._ranker, pairs), strict=True):
            logits[self._key(pair)] = float(ranking.logits[0, 1])
            logits[self._key(pair.swapped())] = float(ranking.logits[1, 0])
            self._temperature = ranking.temperature
        return logits

    def _probe(self, pairs: Sequence[TextPair]) -> None:
        for key, logit in self._compare(pairs).items():
            cached = self._cache.values.get(key, logit)
            if abs(cached - logit) > _TOLERANCE:
                raise InputError(
                    f"{self._cache.path} holds comparisons of another ranker named {self._name!r} (a logit of "
                    f"{cached:.4f} is {logit:.4f} now): remove the file or name another one."
                )

    def _key(self, pair: TextPair) -> bytes:
        return _hash(self._name, *pair)


class CachedMetrics:
    """Values of text metrics, which are stored in a file and never computed twice.

    Args:
        path: SQLite file, created if it is not there; that of a `CachedRanker` is one too. None stores nothing.
        block: texts between two writes; the default is seconds of work to lose, and still well-filled batches.

    Raises:
        InputError: the file cannot be used.
    """

    def __init__(self, path: str | Path | None, *, block: int = 256) -> None:
        self._cache, self._block = _Cache(path, "metrics", ("text", "value")), block

    def measure(
        self,
        metric: str,
        settings: Mapping[str, Any],
        pairs: Sequence[tuple[str, str]],
        *,
        progress: OnProgress | None = None,
    ) -> list[float]:
        """Measure pairs of a text and its reference; all settings of the metric but the device are part of the key.

        Raises:
            InputError: the metric is unknown.
            LLMBlenderError: as the metric raises.
        """
        if metric not in METRICS:
            raise unknown_name("metric", metric, METRICS)
        named = json.dumps([metric, {key: settings[key] for key in sorted(settings) if key != "device"}])
        keys = [_hash(named, *pair) for pair in pairs]
        cached = self._cache.values
        missing = list({key: pair for key, pair in zip(keys, pairs, strict=True) if key not in cached}.items())
        for start in range(0, len(missing), self._block):
            block = missing[start : start + self._block]
            texts, references = [text for _, (text, _) in block], [reference for _, (_, reference) in block]
            scores = METRICS[metric](texts, references, **settings)
            self._cache.add({key: float(value) for (key, _), value in zip(block, scores.values, strict=True)})
            if progress is not None:
                progress(len(pairs) - len(missing) + start + len(block), len(pairs))
        return [self._cache.values[key] for key in keys]
