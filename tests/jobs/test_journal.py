from __future__ import annotations

import json

import pytest

from llm_blender.errors import WorkError
from llm_blender.jobs import Entry, Journal


def entries(n, start=0):
    return [Entry(f"row {i}", "done", {"text": f"ä{i}", "n": i}, cost=0.5) for i in range(start, start + n)]


def fill(path, given):
    with Journal(path) as journal:
        for entry in given:
            journal.add(entry)


def test_what_is_written_is_there_again(tmp_path):
    path = tmp_path / "j.jsonl"
    fill(path, [*entries(3), Entry("bad", "failed", None, "no connection", None)])
    with Journal(path) as journal:
        assert len(journal) == 4
        assert [journal.status(key) for key in ("row 1", "bad", "other")] == ["done", "failed", None]
        assert journal.value("row 2") == {"text": "ä2", "n": 2}
        assert (journal.value("bad"), journal.value("other"), journal.reason("bad")) == (None, None, "no connection")
        assert list(journal.values(["row 1", "row 0"])) == [{"text": "ä1", "n": 1}, {"text": "ä0", "n": 0}]
        assert (journal.cost, journal.unpriced) == (1.5, 1)


def test_a_value_is_there_before_the_file_is_closed(tmp_path):
    with Journal(tmp_path / "j.jsonl") as journal:
        journal.add(entries(1)[0])
        assert journal.value("row 0")["n"] == 0


def test_a_line_cut_off_anywhere_is_repaired(tmp_path):
    path = tmp_path / "j.jsonl"
    fill(path, entries(3))
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    last = len(whole) - len(lines[-1])
    for end in range(last, len(whole)):
        path.write_bytes(whole[:end])
        with Journal(path) as journal:
            assert len(journal) == 2
            journal.add(entries(1, start=2)[0])
        assert path.read_bytes() == whole


def test_zeros_that_a_power_loss_left_at_the_end_are_cut_off(tmp_path):
    path = tmp_path / "j.jsonl"
    fill(path, entries(2))
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0" * 50 + b"\n")
    with Journal(path) as journal:
        assert len(journal) == 2
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "line", ["not json", "[1]", '{"key": "x"}', '{"key": 3, "status": "done"}', '{"key": "x", "status": "?"}']
)
def test_damage_in_the_middle_is_told_with_its_line(tmp_path, line):
    path = tmp_path / "j.jsonl"
    fill(path, entries(2))
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{line}\n{second}\n")
    with pytest.raises(WorkError, match=r"j.jsonl, line 2: .*--restart"):
        Journal(path)


def test_the_last_entry_of_a_row_counts_and_all_costs_do(tmp_path):
    path = tmp_path / "j.jsonl"
    fill(path, [Entry("a", "failed", None, "late", 0.25), Entry("a", "partial", {"x": 1}, "one LLM", 0.5)])
    fill(path, [Entry("a", "done", {"x": 2}, "", 1.0)])
    with Journal(path) as journal:
        assert (journal.status("a"), journal.value("a"), journal.cost, len(journal)) == ("done", {"x": 2}, 1.75, 1)


def test_a_row_keeps_its_result_when_trying_again_fails(tmp_path):
    path = tmp_path / "j.jsonl"
    fill(path, [Entry("a", "partial", {"x": 1}, "one LLM failed"), Entry("a", "failed", None, "all failed")])
    with Journal(path) as journal:
        assert (journal.status("a"), journal.value("a"), journal.reason("a")) == ("partial", {"x": 1}, "all failed")


AWKWARD = [
    Entry(
        'a "key", \\ and\n', "partial", {"text": 'x", "reason": "y", "cost": 3}', "n": []}, 'why, "reason": "?"', 1e-06
    ),
    Entry("ä\u2028", "failed", {"reason": "x", "cost": 9.0}, '"} \\', None),
    Entry("", "done", [{"key": "k", "status": "done", "value": None, "reason": "r", "cost": 2.0}], "", 3),
    Entry("none", "done", None, "", -0.5),
]


@pytest.mark.parametrize("compact", [False, True])  # a line of another writer is read, too
def test_entries_that_look_like_other_entries(tmp_path, compact):
    path = tmp_path / "j.jsonl"
    fill(path, AWKWARD)
    if compact:
        lines = [json.dumps(json.loads(line), separators=(",", ":")) for line in path.read_text().split("\n")[:-1]]
        path.write_text("".join(f"{line}\n" for line in lines))
    with Journal(path) as journal:
        found = [Entry(e.key, journal.status(e.key), journal.value(e.key), journal.reason(e.key)) for e in AWKWARD]
        assert found == [Entry(e.key, e.status, e.value, e.reason) for e in AWKWARD]
        assert (journal.cost, journal.unpriced) == (1e-06 + 3 - 0.5, 1)


def test_a_value_that_is_damaged_is_told_when_it_is_read(tmp_path):
    path = tmp_path / "j.jsonl"
    fill(path, entries(3))
    path.write_bytes(path.read_bytes().replace(b'"n": 1', b'"n": [', 1))
    with Journal(path) as journal:
        assert journal.value("row 2")["n"] == 2
        with pytest.raises(WorkError, match=r"j.jsonl, byte \d+: .*--restart"):
            journal.value("row 1")


def test_zeros_inside_an_entry_are_found_at_once(tmp_path):
    path = tmp_path / "j.jsonl"
    fill(path, entries(3))
    path.write_bytes(path.read_bytes().replace(b'"n": 1', b"\0\0\0\0\0\0", 1))
    with pytest.raises(WorkError, match=r"j.jsonl, line 2: .*--restart"):
        Journal(path)


class FullDisk:
    """A file on a disk that has room for half of the next write."""

    def __init__(self, file):
        self._file, self._written = file, False

    def __getattr__(self, name):
        return getattr(self._file, name)

    def write(self, data):
        if self._written:
            raise OSError(28, "No space left on device")
        self._written = True
        return self._file.write(data[: len(data) // 2])


def test_a_full_disk_leaves_no_half_line(tmp_path):
    path = tmp_path / "j.jsonl"
    with Journal(path) as journal:
        journal.add(entries(1)[0])
        before = path.read_bytes()
        whole = journal._file
        journal._file = FullDisk(whole)
        with pytest.raises(WorkError, match="No space left on device; free disk space"):
            journal.add(entries(1, start=1)[0])
        journal._file = whole
        assert path.read_bytes() == before
        assert journal.status("row 1") is None
        journal.add(entries(1, start=1)[0])
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == ["row 0", "row 1"]


def test_a_file_that_cannot_be_opened(tmp_path):
    with pytest.raises(WorkError, match="cannot be opened"):
        Journal(tmp_path / "no" / "j.jsonl")
