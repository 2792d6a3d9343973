"""A sample of rows estimates the work of all: without bias, with an interval that holds the truth in 95 of 100."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llm_blender.rankers
from llm_blender.jobs.plan import Plan, Range, Reservoir, SampledRow, _student, estimate_total, measure
from llm_blender.ranking import comparison_count
from llm_blender.stages import RankRows
from llm_blender.testing import FakeRanker


def make(count: int, seed: int = 3) -> list[SampledRow]:
    """Draw rows with a few very long texts, and one to eight candidates."""
    draw = random.Random(seed)

    def text() -> str:
        return "".join(draw.choices("abc ", k=max(1, int(draw.lognormvariate(3.5, 1)))))

    rows = []
    for _ in range(count):
        record: dict[str, Any] = {"instruction": "Why?", "candidates": [text() for _ in range(draw.randint(1, 8))]}
        characters = 4 + sum(map(len, record["candidates"]))
        rows.append(SampledRow(record, characters, comparison_count("auto", len(record["candidates"]))))
    return rows


class Work:
    """A stage on a fake ranker, whose clock counts characters and comparisons."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ranker = FakeRanker()
        monkeypatch.setattr(llm_blender.rankers, "load_ranker", lambda *args, **options: self.ranker)
        self.stage = RankRows("fake")
        self.done = 0.0

    def clock(self) -> float:
        self.done += sum(20 + len(prompt) + len(a) + len(b) for batch in self.ranker.batches for prompt, a, b in batch)
        self.ranker.batches.clear()
        return self.done


def sizes(rows: list[SampledRow]) -> tuple[float, ...]:
    return tuple(map(sum, zip(*(row.sizes for row in rows), strict=True)))


def test_the_interval_holds_the_truth_in_about_95_percent_of_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    work, rows = Work(monkeypatch), make(250)
    measured = measure(work.stage, rows, group=1, cpu=work.clock)
    cost, truth, whole = dict(zip(map(id, rows), measured.cpu, strict=True)), sum(measured.cpu), sizes(rows)
    inside, errors, by_rows = 0, [], []
    for seed in range(60):
        sample = Reservoir[SampledRow](48, seed)
        for row in rows:
            sample.add(row)
        drawn = sample.items()
        values = [cost[id(row)] for row in drawn]
        found = estimate_total(values, [row.sizes for row in drawn], whole, seed=seed, resamples=300)
        plain = estimate_total(values, [(1,)] * 48, whole[:1], resamples=1)
        assert None not in (found.expected, found.low, found.high, plain.expected)
        inside += found.low <= truth <= found.high
        errors.append(found.expected / truth - 1)
        by_rows.append(plain.expected / truth - 1)
    assert 52 <= inside <= 60
    assert abs(np.mean(errors)) < 0.02
    assert np.std(errors) < 0.6 * np.std(by_rows)  # characters and comparisons explain most of a cost


def test_costs_that_sizes_explain_are_estimated_exactly() -> None:
    rows = make(60)
    whole, costs = sizes(rows), [3 + 2 * row.characters + 5 * row.comparisons for row in rows]
    found = estimate_total(costs[:30], [row.sizes for row in rows[:30]], whole)
    assert (found.expected, found.low, found.high) == tuple([pytest.approx(sum(costs))] * 3)
    same = estimate_total([2.0] * 30, [(1, 7, 6)] * 30, (100, 700, 600))
    assert (same.expected, same.low, same.high) == tuple([pytest.approx(200)] * 3)


def test_small_samples() -> None:
    assert estimate_total([], [], (10, 10)) == Range()
    assert estimate_total([2.0, 4.0], [(1,), (1,)], (10,)) == Range(pytest.approx(30.0))
    found = estimate_total([2.0, 4.0, 2.0, 4.0], [(1, 100), (1, 1), (1, 50), (1, 3)], (10, 5))
    assert found.expected == pytest.approx(30)  # by rows: four values are no regression
    assert found.low is not None
    assert found.high is not None
    assert found.low < 25 < 35 < found.high


@pytest.mark.parametrize(("degrees", "quantile"), [(3, 3.182), (5, 2.571), (10, 2.228), (60, 2.000)])
def test_quantiles_of_students_t(degrees: int, quantile: float) -> None:
    assert _student(0.975, degrees) == pytest.approx(quantile, rel=0.004)


def test_each_row_is_drawn_equally_often() -> None:
    counts, firsts = Counter[int](), Counter[int]()
    for seed in range(1000):
        sample = Reservoir[int](3, seed)
        for i in range(10):
            sample.add(i)
        drawn = sample.items()
        assert len(set(drawn)) == 3
        counts.update(drawn)
        firsts[drawn[0]] += 1
    assert all(230 < counts[i] < 370 for i in range(10))
    assert all(60 < firsts[i] < 145 for i in range(10))


def test_a_sample_stops_in_time_and_counts_what_it_has_done(monkeypatch: pytest.MonkeyPatch) -> None:
    work, rows, now = Work(monkeypatch), make(20), [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    measured = measure(work.stage, rows, group=2, seconds=5, cpu=work.clock, wall=clock)
    assert (len(measured.rows), measured.groups, measured.wall) == (4, [2, 2], [1.0, 1.0])
    counted, most = measured.counted("comparisons"), sum(row.comparisons for row in rows[:4])
    assert 0 < counted <= most
    assert 90 < (measured.comparisons(100).expected or 0) <= 100
    assert measured.comparisons(0) == Range.exactly(0)


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "out.plan"
    plan = Plan(
        *("run", "00", 3, 0, None, 10, {"a": 3}, {"prompt": Range(1), "completion": Range()}),
        hours={"cpu": Range(0.5, 0.4, 0.6)},
    ).without("not measured")
    assert dict.fromkeys(plan.unknown, "not measured") == plan.unknown
    assert set(plan.unknown) == {"tokens.completion", "comparisons", "dollars", "actors"}
    plan.save(path)
    assert Plan.load(path) == plan
    assert Plan.load(tmp_path / "none") is None
    path.write_text("{}")
    assert Plan.load(path) is None
