"""Jobs on files of rows: each chunk is done once, whatever is killed, appended or changed."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from typer.testing import Result

from llm_blender.cli._options import RowJobOptions
from llm_blender.cli._rows import _failure
from llm_blender.data.chunks import read_chunks
from llm_blender.data.files import Records, RowWriter
from llm_blender.errors import InputError
from llm_blender.fusers import LongestFuser
from llm_blender.jobs import Job, LocalBackend
from llm_blender.jobs.chunks import _names
from llm_blender.stages import FuseRows, RankRows
from llm_blender.testing import FakeRanker

Blend = Callable[..., Result]


def make(count: int, first: int = 0) -> list[dict[str, Any]]:
    draw = random.Random(first)
    return [
        {"id": i, "instruction": f"Q{i}", "candidates": ["x" * draw.randint(1, 30) for _ in range(3)]}
        for i in range(first, first + count)
    ]


def write(path: Path, rows: list[dict[str, Any]], mode: str = "w") -> None:
    with path.open(mode) as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def work(ranker: FakeRanker) -> int:
    """Return the number of chunks that were ranked since the last call."""
    count = len(ranker.batches)
    ranker.batches.clear()
    return count


def ranked(blend: Blend, *args: object) -> dict[str, Any]:
    result = blend("rank", *args, "--json")
    assert result.exit_code == 0, result.stderr
    summary: dict[str, Any] = json.loads(result.stdout)
    return summary


# Chunks


def test_lines_are_chunked_without_being_parsed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"a": 1}\n\n{"a": 2}\nnot json\n[1]\n{"a": 3}')
    chunks = [*read_chunks(str(path), 3)]
    assert [(chunk.key, chunk.size) for chunk in chunks] == [(":0", 3), (":3", 2)]
    (one, two, bad), (list_, last) = (chunk.records() for chunk in chunks)
    assert (one, two, last) == ((1, {"a": 1}), (3, {"a": 2}), (6, {"a": 3}))
    assert [str(error[1]).split(" (")[0] for error in (bad, list_)] == [
        f"{path}, line 4: not JSON",
        f"{path}, line 5: a JSON object is wanted, not list",
    ]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.jsonl.gz", "rows.parquet", "rows.csv"])
def test_a_digest_is_that_of_the_rows(tmp_path: Path, name: str) -> None:
    def digests(rows: list[dict[str, Any]]) -> list[str]:
        path = tmp_path / name
        text = json.dumps(rows) if name.endswith(".json") else "\n".join(map(json.dumps, rows))
        if name.endswith(".parquet"):
            parquet = pytest.importorskip("pyarrow.parquet")
            parquet.write_table(__import__("pyarrow").Table.from_pylist(rows), path)
        elif name.endswith(".csv"):
            path.write_text("n,text\n" + "".join(f"{row['n']},{row['text']}\n" for row in rows))
        elif name.endswith(".gz"):
            path.write_bytes(gzip.compress(text.encode()))
        else:
            path.write_text(text)
        return [chunk.digest for chunk in read_chunks(str(path), 2)]

    rows = [{"n": n, "text": f"é{n}"} for n in range(5)]
    before = digests(rows)
    assert len(set(before)) == 3
    assert digests(rows) == before
    assert digests([*rows, {"n": 9, "text": "more"}])[:2] == before[:2]
    rows[2]["text"] = "changed"
    assert [new == old for new, old in zip(digests(rows), before, strict=True)] == [True, False, True]


def test_a_stream_begins_with_one_row(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", make(20))
    assert [chunk.size for chunk in read_chunks(str(tmp_path / "rows.jsonl"), 8, first=1)] == [1, 2, 4, 8, 5]


def test_files_are_named_from_their_common_folder(tmp_path: Path) -> None:
    assert _names([f"{tmp_path}/a/x.jsonl", f"{tmp_path}/b/x.jsonl"]) == ["a/x.jsonl", "b/x.jsonl"]
    assert _names(["anywhere/x.jsonl"]) == ["x.jsonl"]  # as beside a shard that comes later


# Jobs


def test_a_finished_job_is_not_done_again_and_rows_may_be_appended(blend: Blend, ranker: FakeRanker) -> None:
    write(Path("rows.jsonl"), make(150))
    assert ranked(blend, "rows.jsonl", "-o", "out.jsonl")["resumed"] == 0
    assert work(ranker) == 3
    first = Path("out.jsonl").read_bytes()
    Path("out.jsonl").unlink()
    Path(".out.jsonl.k1lled.part").write_text("{}")
    assert ranked(blend, "rows.jsonl", "-o", "out.jsonl")["resumed"] == 150
    assert (work(ranker), Path("out.jsonl").read_bytes()) == (0, first)
    assert not [*Path().glob(".*.part")]
    write(Path("rows.jsonl"), make(100, 150), "a")
    assert ranked(blend, "rows.jsonl", "-o", "out.jsonl")["resumed"] == 128
    assert work(ranker) == 2
    assert [row["id"] for row in read(Path("out.jsonl"))] == [*range(250)]
    assert Path("out.jsonl").read_bytes().startswith(first)
    fresh = blend("rank", "rows.jsonl", "-o", "fresh.jsonl")
    assert fresh.exit_code == 0
    assert Path("fresh.jsonl").read_bytes() == Path("out.jsonl").read_bytes()


def count_work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the rows that are read, checked and written."""
    counts = Counter[str]()
    raw, parse, start = Records.raw, RankRows.parse, RowWriter.__enter__

    def read(self: Records) -> Iterator[Any]:
        for found in raw(self):
            counts["read"] += 1
            yield found

    def check(self: RankRows, record: Any) -> Any:
        counts["checked"] += 1
        return parse(self, record)

    def open_writer(self: RowWriter) -> RowWriter:
        counts["files"] += 1
        return start(self)

    monkeypatch.setattr(Records, "raw", read)
    monkeypatch.setattr(RankRows, "parse", check)
    monkeypatch.setattr(RowWriter, "__enter__", open_writer)
    return counts


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.zst", "csv", "parquet"])
def test_a_finished_job_reads_its_rows_once_and_leaves_its_output_alone(
    blend: Blend, ranker: FakeRanker, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    source, out = f"rows.{kind}", Path(f"out.{kind}")
    with RowWriter(source) as writer:
        for row in make(150):
            writer.write(row)
    ranked(blend, source, "-o", out)
    first = out.read_bytes()
    counts = count_work(monkeypatch)
    assert ranked(blend, source, "-o", out)["resumed"] == 150
    assert counts == {"read": 150}
    out.write_bytes(first[:-1] + b"?")  # of the same size
    assert ranked(blend, source, "-o", out)["resumed"] == 150
    assert (counts["read"], counts["files"], out.read_bytes()) == (300, 1, first)
    monkeypatch.setattr("llm_blender.jobs.job.version", lambda name: "0.0")  # it may write tables in another way
    ranked(blend, source, "-o", out)
    assert (counts["files"], out.read_bytes()) == (2, first)


def test_only_files_with_something_left_are_read_twice(
    blend: Blend, ranker: FakeRanker, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("in").mkdir()
    for i in range(3):
        write(Path(f"in/{i}.jsonl"), make(10, 10 * i))
    ranked(blend, "in", "-o", "out/")
    write(Path("in/1.jsonl"), make(5, 30), "a")
    counts = count_work(monkeypatch)
    assert ranked(blend, "in", "-o", "out/")["rows"] == 35
    assert (counts["read"], counts["files"]) == (10 + 2 * 15 + 10, 1)
    assert [len(read(Path(f"out/{i}.jsonl"))) for i in range(3)] == [10, 15, 10]


def test_values_of_tables_survive_a_job(blend: Blend, ranker: FakeRanker) -> None:
    parquet, pyarrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    now = datetime(2026, 11, 30, 12, tzinfo=UTC)
    values = {
        "day": now.date(),
        "here": now.astimezone(ZoneInfo("Europe/Berlin")),
        "there": now.astimezone(timezone(timedelta(hours=2))),
        "price": Decimal("1.20"),
        "data": b"\x00\xff",
    }
    parquet.write_table(pyarrow.Table.from_pylist([{**row, **values} for row in make(3)]), "rows.parquet")
    ranked(blend, "rows.parquet", "-o", "out.parquet")
    first = Path("out.parquet").read_bytes()
    Path("out.parquet").unlink()
    assert ranked(blend, "rows.parquet", "-o", "out.parquet")["resumed"] == 3
    assert Path("out.parquet").read_bytes() == first
    (row, *_) = parquet.read_table("out.parquet").to_pylist()
    assert {name: row[name] for name in values} == values


def test_a_cluster_reads_no_standard_input(blend: Blend, ranker: FakeRanker) -> None:
    done = blend("rank", "-", "-o", "out.jsonl", "--engine", "ray")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "give a file, not standard input" in done.stderr


def test_rows_of_a_job_run_no_code(blend: Blend, ranker: FakeRanker, monkeypatch: pytest.MonkeyPatch) -> None:
    class Planted:
        def __reduce__(self) -> tuple[Any, ...]:
            return exec, ("import os; os.environ['PLANTED'] = '1'",)

    pytest.importorskip("pyarrow")
    write(Path("rows.jsonl"), make(2))
    monkeypatch.setattr("llm_blender.jobs.chunks._pickled", lambda rows: pickle.dumps([Planted()]))
    done = blend("rank", "rows.jsonl", "-o", "out.parquet")
    assert done.exit_code == 2
    assert "hold builtins.exec, which is no value of a table: run with --restart." in done.stderr
    assert "PLANTED" not in os.environ


class Ahead(LocalBackend):
    """Backend that reads all chunks before it gives a result, and none where nothing is left, as a cluster may."""

    def map(self, stage: Any, chunks: Any, count: int, progress: Any = None) -> Iterator[list[dict[str, Any]]]:
        return super().map(stage, [*chunks] if count else [], count)


def test_a_backend_may_read_ahead(blend: Blend, ranker: FakeRanker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RowJobOptions, "backend", lambda self: Ahead())
    rows = make(64 * 4 + 7)
    write(Path("rows.jsonl"), rows)
    ranked(blend, "rows.jsonl", "-o", "out.jsonl")
    assert ranked(blend, "rows.jsonl", "-o", "out.jsonl")["resumed"] == len(rows)
    for changed in (70, 200):
        rows[changed]["instruction"] = "Changed"
    write(Path("rows.jsonl"), rows)
    assert ranked(blend, "rows.jsonl", "-o", "out.jsonl")["resumed"] == len(rows) - 2 * 64
    assert [row["id"] for row in read(Path("out.jsonl"))] == [*range(len(rows))]
    assert [row["id"] for row in read(Path("out.jsonl")) if row["instruction"] == "Changed"] == [70, 200]


def test_rows_that_come_or_go_during_the_work(
    blend: Blend, ranker: FakeRanker, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: list[Callable[[], object]] = []

    class Meanwhile(LocalBackend):
        def map(self, *given: Any) -> Iterator[list[dict[str, Any]]]:
            changes.pop()()
            return super().map(*given)

    monkeypatch.setattr(RowJobOptions, "backend", lambda self: Meanwhile())
    write(Path("rows.jsonl"), make(128))
    changes.append(lambda: write(Path("rows.jsonl"), make(64)))
    result = blend("rank", "rows.jsonl", "-o", "out.jsonl")
    assert (result.exit_code, Path("out.jsonl").exists()) == (2, False)
    assert "fewer rows than when they were checked: leave the files alone" in result.stderr
    changes.append(lambda: write(Path("rows.jsonl"), make(9, 64), "a"))
    assert ranked(blend, "rows.jsonl", "-o", "out.jsonl")["rows"] == 64
    changes.append(lambda: None)
    assert ranked(blend, "rows.jsonl", "-o", "out.jsonl")["resumed"] == 64
    assert [row["id"] for row in read(Path("out.jsonl"))] == [*range(73)]


def test_changed_rows_are_ranked_again_and_no_others(blend: Blend, ranker: FakeRanker) -> None:
    rows = make(200)
    write(Path("rows.jsonl"), rows)
    ranked(blend, "rows.jsonl", "-o", "out.jsonl")
    work(ranker)
    rows[70]["candidates"][0] = "y" * 99
    write(Path("rows.jsonl"), rows)
    assert ranked(blend, "rows.jsonl", "-o", "out.jsonl")["resumed"] == 200 - 64
    assert work(ranker) == 1
    assert read(Path("out.jsonl"))[70]["ranking"]["best"] == 0


def test_other_settings_are_another_job(blend: Blend, ranker: FakeRanker) -> None:
    write(Path("rows.jsonl"), make(5))
    ranked(blend, "rows.jsonl", "-o", "out.jsonl")
    other = blend("rank", "rows.jsonl", "-o", "out.jsonl", "--strategy", "single")
    assert other.exit_code == 2
    assert 'other settings (strategy: "auto" then, "single" now)' in other.stderr
    work(ranker)
    assert ranked(blend, "rows.jsonl", "-o", "out.jsonl", "--strategy", "single", "--restart")["resumed"] == 0
    assert work(ranker) == 1
    assert len(read(Path("out.jsonl"))) == 5
    assert len(Path("out.jsonl.job/rows.jsonl").read_text().splitlines()) == 5


def test_failed_rows_are_left_out_and_tried_again_when_wanted(
    blend: Blend, ranker: FakeRanker, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = FakeRanker._comparer

    def picky(self: FakeRanker, instructions: Any, candidates: Any) -> Any:
        if any(len(text) > 900 for row in candidates for text in row):
            raise ValueError("too long for this one")
        return whole(self, instructions, candidates)

    monkeypatch.setattr(FakeRanker, "_comparer", picky)
    write(Path("all.jsonl"), [{"id": 7, "instruction": "Q", "candidates": ["z" * 1_000, "a"]}])
    result = blend("rank", "all.jsonl", "-o", "none.jsonl")
    assert (result.exit_code, Path("none.jsonl").exists()) == (1, False)
    assert "No row has a result. The first: 7: ValueError: too long for this one" in result.stderr
    assert [row["id"] for row in read(Path("none.jsonl.failed.jsonl"))] == [7]
    rows = make(100)
    rows[3]["candidates"][1] = "z" * 1_000
    write(Path("rows.jsonl"), rows)
    result = blend("rank", "rows.jsonl", "-o", "out.jsonl", "--strict")
    assert result.exit_code == 3
    assert "1 row failed, the first: 3: ValueError: too long for this one; --retry-failed" in result.stderr
    assert len(read(Path("out.jsonl"))) == 99
    (failed,) = read(Path("out.jsonl.failed.jsonl"))
    assert failed == {**rows[3], "ranking": {"error": "ValueError: too long for this one"}}
    monkeypatch.setattr(FakeRanker, "_comparer", whole)
    work(ranker)
    assert ranked(blend, "rows.jsonl", "-o", "out.jsonl")["failed"] == 1
    assert work(ranker) == 0
    summary = ranked(blend, "rows.jsonl", "-o", "out.jsonl", "--retry-failed")
    assert (summary["failed"], summary["resumed"], work(ranker)) == (0, 36, 1)
    assert [row["id"] for row in read(Path("out.jsonl"))] == [*range(100)]
    assert not Path("out.jsonl.failed.jsonl").exists()


def test_rows_stay_if_all_fail_when_tried_again(
    blend: Blend, ranker: FakeRanker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*texts: str) -> Callable[..., Any]:
        def compare(self: FakeRanker, instructions: Any, candidates: Any) -> Any:
            if any(text in row for row in candidates for text in texts):
                raise InputError("not this one")
            return whole(self, instructions, candidates)

        return compare

    whole = FakeRanker._comparer
    rows = [{"instruction": "Q", "candidates": [text, "other"]} for text in ("good", "bad")]
    write(Path("rows.jsonl"), rows)
    monkeypatch.setattr(FakeRanker, "_comparer", failing("bad"))
    assert ranked(blend, "rows.jsonl", "-o", "out.jsonl")["rows"] == 1
    monkeypatch.setattr(FakeRanker, "_comparer", failing("good", "bad"))
    assert ranked(blend, "rows.jsonl", "-o", "out.jsonl", "--retry-failed")["rows"] == 1
    assert [row["candidates"][0] for row in read(Path("out.jsonl"))] == ["good"]


@pytest.mark.parametrize("ranking", [None, "an error", ["error"]])
def test_the_reason_of_a_failed_fusion_is_shown_whatever_ranking_the_row_held(ranking: object) -> None:
    assert _failure({"id": 1, "ranking": ranking, "fusion": {"error": "too long"}}) == "1: too long"


def test_shards_come_out_as_shards_or_as_one_file(blend: Blend, ranker: FakeRanker) -> None:
    Path("in").mkdir()
    for i in range(3):
        write(Path(f"in/{i}.jsonl"), make(10, 10 * i))
    assert ranked(blend, "in", "-o", "all.jsonl")["rows"] == 30
    assert [row["id"] for row in read(Path("all.jsonl"))] == [*range(30)]
    ranked(blend, "in", "-o", "out/")
    assert sorted(path.name for path in Path("out").iterdir()) == ["0.jsonl", "1.jsonl", "2.jsonl"]
    joined = b"".join(Path(f"out/{i}.jsonl").read_bytes() for i in range(3))
    assert joined == Path("all.jsonl").read_bytes()
    work(ranker)
    write(Path("in/3.jsonl"), make(10, 30))
    assert ranked(blend, "in/*.jsonl", "-o", "all.jsonl")["resumed"] == 30
    assert work(ranker) == 1


def test_a_second_shard_leaves_the_first_done(blend: Blend, ranker: FakeRanker) -> None:
    Path("in").mkdir()
    write(Path("in/0.jsonl"), make(3))
    ranked(blend, "in", "-o", "out/")
    write(Path("in/1.jsonl"), make(3, 3))
    assert ranked(blend, "in", "-o", "out/")["resumed"] == 3


def test_tables_keep_what_json_has_no_type_for(blend: Blend, ranker: FakeRanker) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from datetime import datetime

    rows = [{**row, "when": datetime(2026, 1, 1 + i)} for i, row in enumerate(make(3))]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), "rows.parquet")
    assert ranked(blend, "rows.parquet", "-o", "out.parquet")["rows"] == 3
    assert [row["when"] for row in pyarrow.parquet.read_table("out.parquet").to_pylist()] == [
        row["when"] for row in rows
    ]
    assert ranked(blend, "rows.parquet", "-o", "out.parquet")["resumed"] == 3
    assert ranked(blend, "rows.parquet", "-o", "out.jsonl")["rows"] == 3
    assert read(Path("out.jsonl"))[2]["when"] == "2026-01-03 00:00:00"


def test_malformed_rows_stay_out_in_each_run(blend: Blend, ranker: FakeRanker) -> None:
    rows = make(70)
    write(Path("rows.jsonl"), [*rows[:5], {"no": "row"}, *rows[5:]])
    for resumed in (0, 70):
        summary = ranked(blend, "rows.jsonl", "-o", "out.jsonl", "--skip-bad")
        assert (summary["rows"], summary["skipped"], summary["resumed"]) == (70, 1, resumed)
    assert [row["id"] for row in read(Path("out.jsonl"))] == [*range(70)]


def test_a_folder_of_other_files_is_refused_and_kept(blend: Blend, ranker: FakeRanker) -> None:
    write(Path("rows.jsonl"), make(3))
    Path("out.jsonl.job").mkdir()
    Path("out.jsonl.job/notes.txt").write_text("mine")
    assert blend("rank", "rows.jsonl", "-o", "out.jsonl").exit_code == 2
    assert Path("out.jsonl.job/notes.txt").read_text() == "mine"


def test_a_second_process_leaves_the_job_of_the_first_alone(blend: Blend, ranker: FakeRanker) -> None:
    write(Path("rows.jsonl"), make(3))
    with Job(Path("out.jsonl.job"), "rank", {}):  # checks its rows, and has kept nothing yet
        result = blend("rank", "rows.jsonl", "-o", "out.jsonl")
        assert "Another process works on out.jsonl.job" in result.stderr
        assert Path("out.jsonl.job/manifest.json").exists()


def test_a_job_that_kept_nothing_leaves_no_folder(blend: Blend, ranker: FakeRanker) -> None:
    Path("rows.jsonl").write_text("no row\n")
    assert blend("rank", "rows.jsonl", "-o", "out.jsonl").exit_code == 2
    assert not Path("out.jsonl.job").exists()


def test_appended_rows_may_lack_one_of_the_models(blend: Blend, ranker: FakeRanker) -> None:
    def rows(models: str, count: int) -> list[dict[str, Any]]:
        return [{"instruction": "Q", "candidates": [{"text": m, "model": m} for m in models]} for _ in range(count)]

    write(Path("rows.jsonl"), rows("ab", 64))
    unknown = blend("rank", "rows.jsonl", "-o", "out.jsonl", "--models", "a,z")
    assert (unknown.exit_code, "z" in unknown.stderr) == (2, True)
    ranked(blend, "rows.jsonl", "-o", "out.jsonl", "--models", "a,b")
    write(Path("rows.jsonl"), rows("a", 3), "a")
    assert ranked(blend, "rows.jsonl", "-o", "out.jsonl", "--models", "a,b")["resumed"] == 64


def test_an_output_is_not_read_again_as_a_shard(blend: Blend, ranker: FakeRanker) -> None:
    Path("in").mkdir()
    write(Path("in/0.jsonl"), make(3))
    assert ranked(blend, "in", "-o", "in/all.jsonl")["rows"] == 3
    again = blend("rank", "in", "-o", "in/all.jsonl")
    assert (again.exit_code, "in/all.jsonl is one of its 2 inputs" in again.stderr) == (2, True)
    assert len(read(Path("in/all.jsonl"))) == 3
    assert ranked(blend, "in/0.jsonl", "-o", "in/0.jsonl")["rows"] == 3  # one file may replace itself


def test_a_file_in_the_place_of_the_output_folder_is_refused_before_the_work(blend: Blend, ranker: FakeRanker) -> None:
    write(Path("rows.jsonl"), make(3))
    Path("out").touch()
    result = blend("rank", "rows.jsonl", "-o", "out/")
    assert (result.exit_code, "out/ is a file" in result.stderr, work(ranker)) == (2, True, 0)


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_damaged_results_are_made_again(blend: Blend, ranker: FakeRanker, name: str) -> None:
    write(Path("rows.jsonl"), make(200))
    ranked(blend, "rows.jsonl", "-o", name)
    first = Path(name).read_bytes()
    (kept,) = Path(f"{name}.job").glob("rows.*")
    data = bytearray(kept.read_bytes())
    data[len(data) // 2] ^= 1
    for damaged, resumed in ((data, 136), (data[: len(data) // 2], 64), (b"", 0), (None, 0)):
        kept.unlink() if damaged is None else kept.write_bytes(damaged)
        assert ranked(blend, "rows.jsonl", "-o", name)["resumed"] == resumed
        assert Path(name).read_bytes() == first


def test_shards_of_other_formats_may_come_and_go(blend: Blend, ranker: FakeRanker) -> None:
    Path("in").mkdir()
    write(Path("in/0.jsonl"), make(3))
    write(Path("in/1.jsonl"), make(3, 3))
    Path("in/2.csv").write_text("instruction,candidate_1,candidate_2\nQ,a,bb\n")
    for pattern in ("in/*.jsonl", "in/*", "in/*.jsonl"):
        ranked(blend, pattern, "-o", "out/")
        assert [row["id"] for row in read(Path("out/0.jsonl"))] == [0, 1, 2]
        assert [row["id"] for row in read(Path("out/1.jsonl"))] == [3, 4, 5]


@pytest.mark.skipif(os.name == "nt", reason="/dev")
def test_no_job_stays_beside_a_device(blend: Blend, ranker: FakeRanker, monkeypatch: pytest.MonkeyPatch) -> None:
    write(Path("rows.jsonl"), make(3))
    Path("sink").symlink_to("/dev/null")
    for strategy in ("full", "single"):
        assert ranked(blend, "rows.jsonl", "-o", "sink", "--strategy", strategy)["resumed"] == 0
    assert sorted(path.name for path in Path().iterdir()) == ["rows.jsonl", "sink"]


def test_a_fuser_that_was_trained_again_is_another_job(
    blend: Blend, ranker: FakeRanker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FuseRows, "using", lambda self, load: setattr(self, "_fuser", LongestFuser))
    write(Path("rows.jsonl"), make(3))
    Path("mine").mkdir()
    Path("mine/model.safetensors").write_bytes(b"first")
    for _ in range(2):
        assert blend("fuse", "rows.jsonl", "-o", "out.jsonl", "--fuser", "./mine").exit_code == 0
    Path("mine/model.safetensors").write_bytes(b"later")
    result = blend("fuse", "rows.jsonl", "-o", "out.jsonl", "--fuser", "./mine")
    assert (result.exit_code, "other settings (fuser_checkpoint)" in result.stderr) == (2, True)


SLOW = """
import sys, time
import llm_blender.rankers
from llm_blender.testing import FakeRanker

class Slow(FakeRanker):
    def _rank_many(self, *given):
        time.sleep(0.01)
        with open("work.log", "a") as log:
            log.write("chunk\\n")
        return super()._rank_many(*given)

llm_blender.rankers.load_ranker = lambda *args, **options: Slow()
from llm_blender.cli import main
main()
"""


def start(*args: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", SLOW, *args], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_killed_twenty_times_the_rows_are_the_same_and_little_is_done_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("rows.jsonl"), make(64 * 150 + 7))
    assert start("rank", "rows.jsonl", "-o", f"whole-{name}").wait() == 0
    chunks = len(Path("work.log").read_text().splitlines())
    Path("work.log").unlink()
    draw, kills = random.Random(0), 0
    while True:
        process = start("rank", "rows.jsonl", "-o", name)
        journal = Path(f"{name}.job/chunks.journal.jsonl")
        size = journal.stat().st_size if journal.exists() else 0
        if kills == 20:
            assert process.wait() == 0
            break
        until = time.monotonic() + 30
        while not journal.exists() or journal.stat().st_size == size:  # it has begun to work
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.001)
        time.sleep(draw.random() * 0.03)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        assert not Path(name).exists()
    assert Path(name).read_bytes() == Path(f"whole-{name}").read_bytes()
    again = len(Path("work.log").read_text().splitlines()) - chunks
    assert 0 <= again <= 20


def test_standard_input_is_ranked_as_it_comes(tmp_path: Path) -> None:
    program = SLOW.replace('open("work.log", "a")', 'open("/dev/null", "a")')
    process = subprocess.Popen(
        [sys.executable, "-c", program, "rank", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        for row in make(3):
            process.stdin.write(json.dumps(row).encode() + b"\n")
            process.stdin.flush()
            if row["id"] == 0:
                assert json.loads(process.stdout.readline())["id"] == 0  # before the next one was written
        process.stdin.close()
        assert [json.loads(line)["id"] for line in process.stdout] == [1, 2]
    assert process.returncode == 0
