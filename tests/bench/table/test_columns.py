import sqlite3

import numpy as np
import pytest

from llm_blender.bench.cache import CachedMetrics
from llm_blender.bench.table import measure_pool, paper_table, read_pool
from llm_blender.errors import InputError, NotFoundError
from llm_blender.metrics import METRICS, Scores
from llm_blender.types import Candidate, Example


@pytest.fixture
def measured(monkeypatch):
    """Collect the calls of a metric that counts letters."""
    seen = []

    def letters(predictions, references, *, model="plain", device=None, progress=None):
        seen.extend(zip(predictions, references, strict=True))
        return Scores("rouge1", np.array([float(len(text)) for text in predictions]))

    def broken(predictions, references, **settings):
        raise NotFoundError("No model 'x': give a folder.")

    monkeypatch.setitem(METRICS, "rouge1", letters)
    monkeypatch.setitem(METRICS, "bleurt", broken)
    return seen


@pytest.fixture
def pool(examples):
    unmeasured = Example(
        "no reference",
        candidates=(Candidate("x", "ann"), Candidate("y", "bob")),
        extra={"cmp_results": {"ann,bob": "A is better"}},
    )
    return read_pool("f", [*examples, unmeasured])


def test_missing_metrics_are_computed_for_candidates_and_fused_answers(pool, measured, tmp_path):
    reports = []
    cache = CachedMetrics(tmp_path / "kept.db")
    computed, unavailable = measure_pool(
        pool, {"rouge1": {}, "bleurt": {}}, cache, progress=lambda done, total: reports.append((done, total))
    )
    # three rows with a reference, three candidates and a fused answer each; two texts occur twice
    assert len(measured) == 3 * 4 - 2
    assert set(dict(measured).values()) == {"a b c"}
    assert reports[-1] == (12, 24)
    assert unavailable == {"bleurt": "No model 'x': give a folder."}
    table = paper_table(pool, [], computed=computed, unavailable=unavailable)
    # ann wrote a, aaa, aa
    assert (table.cell("ann", "rouge1").value, table.cell("ann", "rouge1").rows) == (2, 3)
    assert table.cell("LLM-Blender (top-3, gen)", "rouge1").value == len("fused 1")
    assert table.coverage.missing_scores == {"bertscore": 1, "rouge1": 1}
    assert any("bleurt is unavailable: No model 'x'" in remark for remark in table.coverage.remarks())


def test_values_are_kept_and_computed_once(pool, measured, tmp_path):
    for _ in range(2):
        computed, _ = measure_pool(pool, {"rouge1": {"device": "cpu"}}, CachedMetrics(tmp_path / "kept.db"))
    assert len(measured) == 10
    assert computed["rouge1"][0, "bob"] == 3
    measure_pool(pool, {"rouge1": {"model": "other"}}, CachedMetrics(tmp_path / "kept.db"))
    assert len(measured) == 20
    with sqlite3.connect(tmp_path / "kept.db") as database:
        assert database.execute("SELECT COUNT(*) FROM metrics").fetchone() == (20,)
    database.close()


def test_equal_texts_are_measured_once_and_nothing_is_kept_without_a_file(measured):
    cache = CachedMetrics(None, block=2)
    assert cache.measure("rouge1", {}, [("a", "r"), ("bb", "r"), ("a", "r"), ("ccc", "r")]) == [1, 2, 1, 3]
    assert measured == [("a", "r"), ("bb", "r"), ("ccc", "r")]


def test_what_was_measured_before_an_interruption_is_kept(measured, tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        CachedMetrics(tmp_path / "kept.db", block=1).measure("rouge1", {}, [("a", "r"), ("bb", "r")], progress=stop)
    assert CachedMetrics(tmp_path / "kept.db").measure("rouge1", {}, [("a", "r"), ("bb", "r")]) == [1, 2]
    assert measured == [("a", "r"), ("bb", "r")]


def test_stored_scores_go_first(examples, measured):
    pool = read_pool("f", examples)
    computed, _ = measure_pool(pool, {"bertscore": {}}, CachedMetrics(None))
    assert computed == {"bertscore": {}}


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "text").write_text("no database, but long enough to be read as one" * 20)
    with pytest.raises(InputError, match="cannot keep metrics"):
        CachedMetrics(tmp_path / "text")
