"""Estimate of a job before it begins: counted over all rows, measured on a sample of them."""

from __future__ import annotations

import json
import math
import pickle
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from statistics import NormalDist
from typing import Any, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from llm_blender.errors import WorkError
from llm_blender.jobs.backends import Row, Stage
from llm_blender.types import OnProgress

_T = TypeVar("_T")

ACTORS = (1, 4, 16)
"""Numbers of actors for which a plan gives the hours."""
FAST_GROUP = 32
"""Rows of a sample that are timed together where each takes little time."""
_FAST = 0.02  # seconds of such a row
_LEAST = 4  # values for an interval
_A_SIZE = 6  # values for each size of a regression


@dataclass(frozen=True)
class Range:
    """An estimate; None is unknown.

    Attributes:
        expected: best estimate.
        low: lower end of its 95 % interval, as far as the draw of the sample is concerned.
        high: upper end.
        maximum: upper bound.
    """

    expected: float | None = None
    low: float | None = None
    high: float | None = None
    maximum: float | None = None

    @staticmethod
    def exactly(value: float) -> Range:
        """Make the estimate of a number that is known."""
        return Range(value, value, value, value)

    def within(self, maximum: float | None) -> Range:
        """Return the estimate with an upper bound, which no part of it exceeds."""
        if maximum is None:
            return self
        expected, low, high = (
            None if part is None else min(part, maximum) for part in (self.expected, self.low, self.high)
        )
        return Range(expected, low, high, maximum)

    def plus(self, seconds: float) -> Range:
        """Return the estimate with a known number added."""
        return Range(*(None if part is None else part + seconds for part in vars(self).values()))

    def times(self, factor: float) -> Range:
        """Return the estimate in another unit."""
        return Range(*(None if part is None else part * factor for part in vars(self).values()))


@dataclass(frozen=True)
class Plan:
    """Estimate of a job.

    Attributes:
        work: kind of the job: ``rank``, ``fuse`` or ``run``.
        settings_sha256: hash of its settings, see `settings_digest`.
        rows: well-formed rows.
        skipped: malformed rows.
        candidates: their candidates; None for ``run``, which makes them.
        characters: of the prompts and candidates.
        calls: maximum calls of each LLM, by name.
        tokens: tokens of all calls: ``prompt`` and ``completion``.
        comparisons: of the ranker.
        dollars: that the LLMs cost.
        hours: ``cpu``, of all threads together, ``wall``, with one actor, and ``gpu``, with one accelerator.
        actors: wall hours by number of actors, if each has what this process had; None where LLMs behind an API work.
        sample: measured ``rows``, and the ``seconds`` and ``dollars`` that they took.
        unknown: reasons why parts are unknown, by their names.
    """

    work: str
    settings_sha256: str
    rows: int
    skipped: int
    candidates: int | None
    characters: int
    calls: Mapping[str, int] = field(default_factory=dict)
    tokens: Mapping[str, Range] = field(default_factory=dict)
    comparisons: Range = Range()
    dollars: Range = Range()
    hours: Mapping[str, Range] = field(default_factory=dict)
    actors: Mapping[str, float] | None = None
    sample: Mapping[str, float] = field(default_factory=dict)
    unknown: Mapping[str, str] = field(default_factory=dict)

    @property
    def ranges(self) -> dict[str, Range]:
        """All estimates, by their names in `unknown`."""
        several = {"tokens": self.tokens, "hours": self.hours}
        parts = {f"{name}.{part}": one for name, group in several.items() for part, one in group.items()}
        return {**parts, "comparisons": self.comparisons, "dollars": self.dollars}

    def without(self, reason: str, *names: str) -> Self:
        """Return the plan with a reason why parts are unknown; without names, of all that no other reason names."""
        if not names:
            unknown = {name: one.expected is None for name, one in self.ranges.items()} | {
                "actors": self.actors is None
            }
            names = tuple(name for name, is_unknown in unknown.items() if is_unknown)
        return replace(self, unknown={**dict.fromkeys(names, reason), **self.unknown})

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, with null where something is unknown."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild a plan from the result of `to_dict`."""
        ranges = {name: Range(**values[name]) for name in ("comparisons", "dollars")}
        several = {name: {key: Range(**one) for key, one in values[name].items()} for name in ("tokens", "hours")}
        return cls(**{**values, **ranges, **several})

    def save(self, path: Path) -> None:
        """Write the plan to a file.

        Raises:
            WorkError: the file cannot be written.
        """
        try:
            path.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise WorkError(f"{path} cannot be written: {error.strerror}.") from error

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Read a plan; None if there is none, or the file holds another thing."""
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError):
            return None


class Reservoir(Generic[_T]):
    """A sample without replacement of items that come one by one (Vitter 1985, algorithm R).

    Args:
        size: of the sample.
        seed: of the draw.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        self._size, self._draw = size, random.Random(seed)
        self._kept: list[_T] = []
        self._seen = 0

    def add(self, item: _T) -> None:
        """Take note of an item."""
        self._seen += 1
        if len(self._kept) < self._size:
            self._kept.append(item)
        elif (place := self._draw.randrange(self._seen)) < self._size:
            self._kept[place] = item

    def items(self) -> list[_T]:
        """Return the sample in random order, so that its first items are a sample, too."""
        return self._draw.sample(self._kept, len(self._kept))


def estimate_total(
    values: Sequence[float],
    sizes: Sequence[Sequence[float]],
    whole: Sequence[float],
    *,
    seed: int = 0,
    level: float = 0.95,
    resamples: int = 2000,
) -> Range:
    """Estimate the total of a value over all rows from a random sample.

    The regression estimator (Cochran 1977, chapter 7) takes a value as linear in sizes that are known for all rows, and
    so has less error than a mean a row where it grows with them. The interval is the percentile interval of the
    bootstrap over the sample, expanded for small ones (Hesterberg 2015): its levels are Φ(±t √(n / (n − p))), with
    Student's t of n − p degrees.

    Args:
        values: ``[n]``, of the rows, or of groups of rows.
        sizes: ``[n, p]``, of the same. A small sample uses the first one only.
        whole: ``[p]``, sizes of all rows together.
        seed: of the bootstrap.
        level: of the interval.
        resamples: number of draws.

    Returns:
        The estimate, not below zero; without an interval if n is below 4, unknown if it is 0.
    """
    n, p = len(values), len(whole)
    if not n:
        return Range()
    if n < _A_SIZE * p:
        p = 1
    x = np.asarray(sizes, np.float64).reshape(n, -1)[:, :p]
    x, y = x / (scale := np.maximum(x.mean(axis=0), 1e-12)), np.asarray(values, np.float64)
    total = np.asarray(whole[:p], np.float64) / scale

    def totals(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the total by least squares for each row of weights ``[resamples, n]`` of the sample."""
        squares = np.einsum("rn,np,nq->rpq", weights, x, x, optimize=True)
        inverse = np.linalg.pinv(squares, rcond=1e-9, hermitian=True)  # rows of equal sizes are no error
        slopes = np.einsum("rpq,rq->rp", inverse, weights * y @ x)
        return np.asarray(np.maximum(slopes @ total, 0.0))

    expected = float(totals(np.ones((1, n)))[0])
    if n < _LEAST:
        return Range(expected)
    drawn = np.random.default_rng(seed).multinomial(n, [1 / n] * n, size=resamples).astype(np.float64)
    tail = NormalDist().cdf(-_student((1 + level) / 2, n - p) * math.sqrt(n / (n - p)))
    low, high = np.quantile(totals(drawn), [tail, 1 - tail]).tolist()
    return Range(expected, min(low, expected), max(high, expected))


def _student(p: float, degrees: int) -> float:
    """Return a quantile of Student's t (Abramowitz, Stegun 1964, 26.7.5); within 0.3 % from three degrees on."""
    z = NormalDist().inv_cdf(p)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / degrees**power for power, term in enumerate(terms, 1))


@dataclass(frozen=True)
class SampledRow:
    """A row of a sample.

    Attributes:
        record: the row.
        characters: of its prompt and candidates.
        comparisons: maximum comparisons.
    """

    record: Row
    characters: int
    comparisons: int

    @property
    def sizes(self) -> tuple[float, ...]:
        """Sizes that costs grow with: one row, its characters, its comparisons."""
        return 1.0, self.characters, self.comparisons


@dataclass
class Measured:
    """The work of a stage on a sample.

    Attributes:
        rows: rows that were worked on.
        counts: what was counted in each of them; nothing in a row that failed.
        groups: number of rows of each group, which was timed.
        cpu: processor seconds of each group, of all threads of this process together.
        wall: seconds of each group.
    """

    rows: list[SampledRow] = field(default_factory=list)
    counts: list[Mapping[str, float]] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def count(self, name: str, whole: Sequence[float], *, seed: int = 0) -> Range:
        """Estimate the total of one of the counts for all rows, whose sizes sum up to `whole`."""
        values = [counts.get(name, 0.0) for counts in self.counts]
        return estimate_total(values, [row.sizes for row in self.rows], whole, seed=seed)

    def comparisons(self, most: int, *, seed: int = 0) -> Range:
        """Estimate the comparisons of all rows from their maximum, which is known for each."""
        if not most:
            return Range.exactly(0)
        rows = [
            (counts.get("comparisons", 0.0), row.comparisons)
            for counts, row in zip(self.counts, self.rows, strict=True)
        ]
        found = [row for row in rows if row[1]]
        return estimate_total([made for made, _ in found], [(bound,) for _, bound in found], (most,), seed=seed).within(
            most
        )

    def counted(self, name: str) -> float:
        """Return the sum of one of the counts over the sample."""
        return sum(counts.get(name, 0.0) for counts in self.counts)

    def seconds(self, whole: Sequence[float], *, seed: int = 0) -> tuple[Range, Range]:
        """Estimate the processor seconds and the seconds of all rows, whose sizes sum up to `whole`."""
        rows = iter(self.rows)
        sizes = [np.sum([row.sizes for row in islice(rows, count)], axis=0).tolist() for count in self.groups]
        cpu, wall = (estimate_total(values, sizes, whole, seed=seed) for values in (self.cpu, self.wall))
        return cpu, wall


def measure(
    stage: Stage,
    rows: Sequence[SampledRow],
    *,
    group: int | None = None,
    seconds: float | None = None,
    count: Callable[[Row], Mapping[str, float]] | None = None,
    cpu: Callable[[], float] = time.process_time,
    wall: Callable[[], float] = time.perf_counter,
    progress: OnProgress | None = None,
) -> Measured:
    """Work on the rows of a sample, and count and time what that takes.

    Args:
        stage: the work, with its models loaded.
        rows: the sample, in random order.
        group: rows to time together; None is one, or `FAST_GROUP` where a row takes less than 20 ms, so that a batch
            counts and not the call. That is found on the first row, which also warms the models up.
        seconds: time after which no further group begins; None works on all.
        count: counts what a row that came out holds; None takes that of the stage.
        cpu: clock of processor seconds.
        wall: clock of seconds.
        progress: called with the rows done and expected.

    Raises:
        LLMBlenderError: the work is impossible, see `Stage`.
    """
    measured, begun = Measured(), wall()
    if group is None:
        first = [row.record for row in rows[:1]]
        stage(first)
        again = wall()
        stage(first)
        group = FAST_GROUP if wall() - again < _FAST else 1
        cpu()
    for start in range(0, len(rows), group):
        some = rows[start : start + group]
        before = cpu(), wall()
        made = stage([row.record for row in some])
        pickle.dumps(made, pickle.HIGHEST_PROTOCOL)  # the job writes them, too; rows of tables hold more than JSON
        measured.cpu.append(cpu() - before[0])
        measured.wall.append(wall() - before[1])
        measured.groups.append(len(some))
        measured.rows += some
        measured.counts += [{} if stage.error(row) else (count or stage.count)(row) for row in made]
        if progress is not None:
            progress(len(measured.rows), len(rows))
        if seconds is not None and wall() - begun > seconds:
            break
    return measured
