from __future__ import annotations

import errno
import gzip
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import pytest
import zstandard

from llm_blender.data import RowWriter, read_records, read_rows, tables
from llm_blender.errors import InputError, MissingExtraError, NotFoundError, RowError, WorkError

RECORDS = [{"instruction": f"Question {i}: قل شيئًا 👋", "candidates": ["a", "b" * i]} for i in range(3)]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()
FORMATS = ["rows.jsonl", "rows.jsonl.gz", "rows.jsonl.zst", "rows.parquet"]
WRITTEN = [*FORMATS, "rows.csv", "rows.tsv.zst"]


def records(path: Path | str) -> list:
    return [record for _, record in read_records(path)]


def reason(path: Path) -> str:
    (error,) = records(path)
    assert isinstance(error, RowError)
    return error.reason


def write(path: Path | str, rows: Iterable) -> None:
    with RowWriter(path) as writer:
        for row in rows:
            writer.write(row)


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rows.jsonl"


class TestReading:
    @pytest.mark.parametrize("name", FORMATS)
    def test_what_was_written_is_read(self, tmp_path, name):
        write(tmp_path / name, RECORDS)
        assert list(read_records(tmp_path / name)) == list(enumerate(RECORDS, 1))

    def test_the_name_decides_the_bytes(self, tmp_path):
        for name, magic in zip(FORMATS, (b'{"in', b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"), strict=True):
            write(tmp_path / name, RECORDS)
            assert (tmp_path / name).read_bytes().startswith(magic)

    def test_blank_lines_count_as_lines_but_not_as_rows(self, path):
        path.write_bytes(b'\n{"n": 1}\n  \r\n{"n": 2}')
        assert list(read_records(path)) == [(2, {"n": 1}), (4, {"n": 2})]

    def test_a_byte_order_mark_is_no_part_of_the_first_row(self, path):
        path.write_bytes(b"\xef\xbb\xbf" + LINES)
        assert records(path) == RECORDS

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
    def test_utf_16_with_a_byte_order_mark(self, path, encoding):
        mark = "\ufeff" if encoding == "utf-16-be" else ""
        path.write_bytes((mark + LINES.decode()).encode(encoding))  # as PowerShell writes it
        assert records(path) == RECORDS
        path.write_bytes(b"\xff\xfe{")
        with pytest.raises(InputError, match="is not UTF-16, as its byte order mark"):
            records(path)

    @pytest.mark.parametrize(
        ("begin", "words"),
        [(b"PK\x03\x04x", "Excel workbook"), (b"\x1f\x8bx", r"end in \.gz"), (b"PAR1x", r"end in \.parquet")],
    )
    def test_a_file_of_another_format_is_named(self, path, begin, words):
        path.write_bytes(begin)
        with pytest.raises(InputError, match=words):
            records(path)

    def test_standard_input(self, monkeypatch):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(LINES)))
        assert records("-") == RECORDS

    def test_standard_input_is_read_as_it_arrives(self):
        read = "from llm_blender.data import read_records\nfor n, row in read_records('-'): print(n, row, flush=True)"
        process = subprocess.Popen([sys.executable, "-c", read], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        with process as running:
            for number in (1, 2):
                running.stdin.write(b'{"n": %d}\n' % number)
                running.stdin.flush()
                assert running.stdout.readline() == b"%d {'n': %d}\n" % (number, number)
            running.stdin.close()
            assert running.stdout.read() == b""

    @pytest.mark.parametrize("indent", [None, 1])
    @pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf", b"\n \n"])
    def test_a_json_list(self, tmp_path, monkeypatch, indent, begin):
        data = begin + json.dumps(RECORDS, indent=indent).encode()
        for name in ("a.json", "a.jsonl"):
            (tmp_path / name).write_bytes(data)
        (tmp_path / "a.json.gz").write_bytes(gzip.compress(data))
        for name in ("a.json", "a.jsonl", "a.json.gz"):
            assert list(read_records(tmp_path / name)) == list(enumerate(RECORDS, 1))
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert records("-") == RECORDS

    def test_prompts_as_lines(self, tmp_path):
        (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfWhy?\n\n[1] or {2}?\n")
        assert list(read_records(tmp_path / "a.txt")) == [
            (1, {"instruction": "Why?"}),
            (3, {"instruction": "[1] or {2}?"}),
        ]

    def test_several_compressed_parts_are_one_file(self, tmp_path):
        (tmp_path / "a.zst").write_bytes(b"".join(zstandard.compress(line) for line in LINES.splitlines(True)))
        (tmp_path / "a.gz").write_bytes(b"".join(gzip.compress(line) for line in LINES.splitlines(True)))
        assert records(tmp_path / "a.zst") == records(tmp_path / "a.gz") == RECORDS

    def test_a_line_longer_than_a_buffer(self, tmp_path):
        long = [{"text": "word " * 1_000_000}, {"text": "short"}]
        write(tmp_path / "a.jsonl.zst", long)
        assert records(tmp_path / "a.jsonl.zst") == long


class TestBadRows:
    @pytest.mark.parametrize(
        ("line", "what"),
        [
            (b'{"a": "\xff"}', "not UTF-8 (byte 7)"),
            (b'{"a": 1', "not JSON"),
            (b"[1]", "a JSON object is wanted, not list"),
            (b"null", "not NoneType"),
            (b"[" * 100_000, "beyond what can be read"),
            (b'{"a": ' + b"1" * 5_000 + b"}", "beyond what can be read"),
            (b'{"a": "\\ud800"}', "surrogate"),
        ],
    )
    def test_each_says_why(self, path, line, what):
        path.write_bytes(line)
        assert what in reason(path)

    def test_others_are_read_and_the_line_is_named(self, path):
        path.write_bytes(LINES + b"{\n" + LINES)
        bad = []
        with pytest.raises(RowError, match=r"rows\.jsonl, line 4: not JSON"):
            list(read_rows(path))
        assert len(list(read_rows(path, on_bad=bad.append))) == 6
        assert [(error.path, error.line) for error in bad] == [(str(path), 4)]

    def test_of_a_json_list_the_row_is_named(self, tmp_path):
        (tmp_path / "a.json").write_text(json.dumps([*RECORDS, 5, {"instruction": "Q"}]))
        bad = []
        assert len(list(read_rows(tmp_path / "a.json", on_bad=bad.append))) == 3
        assert [str(error).removeprefix(f"{tmp_path}/") for error in bad] == [
            "a.json, row 4: a JSON object is wanted, not int",
            "a.json, row 5: `candidates` is missing: a list of texts or of {text, model} is wanted; in a table columns "
            "candidate:MODEL",
        ]

    def test_parquet_rows_are_numbered(self, tmp_path):
        write(tmp_path / "a.parquet", [*RECORDS, {"instruction": None, "candidates": ["a"]}])
        with pytest.raises(RowError, match=r"a\.parquet, row 4: `instruction` is missing"):
            list(read_rows(tmp_path / "a.parquet"))


class TestBadFiles:
    @pytest.mark.parametrize(
        ("line", "column"), [('{"prompt": "a"', 15), ('  {"prompt": "a"', 17), ('{"a": [1, 2', 12), ("{", 2)]
    )
    def test_an_open_bracket_is_a_fault_at_the_end_of_its_line(self, tmp_path, line, column):
        path = tmp_path / "a.jsonl"
        path.write_bytes(line.encode() + b"\r\n" + LINES)
        with pytest.raises(RowError, match=rf"line 1: not JSON .*column {column}\)"):
            list(read_rows(path))

    def test_none(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(NotFoundError, match=f"no file rows.jsonl .looked in {tmp_path}"):
            list(read_records("rows.jsonl"))

    @pytest.mark.parametrize("name", FORMATS[1:])
    def test_not_what_the_name_says(self, tmp_path, name):
        (tmp_path / name).write_bytes(LINES)
        with pytest.raises(InputError, match=name):
            list(read_records(tmp_path / name))

    @pytest.mark.parametrize(("name", "compress"), [("a.gz", gzip.compress), ("a.zst", zstandard.compress)])
    def test_cut_off_is_not_taken_for_whole(self, tmp_path, name, compress):
        (tmp_path / name).write_bytes(compress(LINES)[:-1])
        with pytest.raises(InputError, match="Is it complete"):
            list(read_records(tmp_path / name))

    def test_damaged_gzip(self, tmp_path):
        data = bytearray(gzip.compress(os.urandom(2_000).hex().encode()))
        data[10:40] = b"\xff" * 30
        (tmp_path / "a.gz").write_bytes(data)
        with pytest.raises(InputError, match=r"a\.gz cannot be read"):
            list(read_records(tmp_path / "a.gz"))

    @pytest.mark.parametrize("use", [lambda path: list(read_records(path)), lambda path: write(path, RECORDS)])
    def test_parquet_without_pyarrow(self, tmp_path, monkeypatch, use):
        write(tmp_path / "a.parquet", RECORDS)
        monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
        with pytest.raises(MissingExtraError, match=r"pip install 'llm-blender\[parquet\]'"):
            use(tmp_path / "a.parquet")


class TestWriting:
    @pytest.mark.parametrize("name", WRITTEN)
    def test_the_file_is_not_there_before_the_end(self, tmp_path, name):
        with RowWriter(tmp_path / name) as writer:
            writer.write(RECORDS[0])
            assert not (tmp_path / name).exists()
        assert left(tmp_path) == [name]

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    @pytest.mark.parametrize("name", WRITTEN)
    def test_work_cut_short_leaves_the_old_file_as_it_was(self, tmp_path, name, error):
        (tmp_path / name).write_text("old")

        def work():
            yield RECORDS[0]
            raise error

        with pytest.raises(error):
            write(tmp_path / name, work())
        assert left(tmp_path) == [name]
        assert (tmp_path / name).read_text() == "old"

    @pytest.mark.parametrize("name", WRITTEN)
    def test_a_full_disk(self, tmp_path, name, monkeypatch):
        class Full(io.RawIOBase):
            def writable(self):
                return True

            def write(self, data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def open_full(handle, mode):
            os.close(handle)
            return io.BufferedWriter(Full())

        monkeypatch.setattr(os, "fdopen", open_full)
        with pytest.raises(WorkError, match=r"Writing .* failed: No space left on device"):
            write(tmp_path / name, RECORDS)
        assert left(tmp_path) == []

    def test_others_may_read_it_as_the_umask_says(self, path):
        old = os.umask(0o027)
        try:
            write(path, RECORDS)
        finally:
            os.umask(old)
        assert path.stat().st_mode & 0o777 == 0o640

    def test_standard_output_line_by_line(self, capsys):
        with RowWriter("-") as writer:
            writer.write({"text": "é"})
            assert capsys.readouterr().out == '{"text": "é"}\n'

    def test_a_device_is_written_to_and_not_replaced(self):
        write("/dev/null", RECORDS)
        assert Path("/dev/null").is_char_device()

    def test_a_folder_is_refused_before_the_work(self, tmp_path):
        with pytest.raises(InputError, match="is a folder"), RowWriter(tmp_path):
            pytest.fail("the work began")

    def test_a_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(NotFoundError, match="no folder"), RowWriter(tmp_path / "none" / "rows.jsonl"):
            pytest.fail("the work began")

    @pytest.mark.parametrize("batch", [1, 1 << 20])
    def test_empty_objects_are_nulls_of_parquet(self, tmp_path, batch, monkeypatch):
        monkeypatch.setattr(tables, "_BATCH", batch)
        rows = [{"a": {}, "b": [{"text": "x", "scores": {}}]}, {"a": None, "b": []}, {"b": [{"scores": {"c": {}}}]}]
        write(tmp_path / "a.parquet", rows[:2])
        assert records(tmp_path / "a.parquet") == [
            {"a": None, "b": [{"text": "x", "scores": None}]},
            {"a": None, "b": []},
        ]
        write(tmp_path / "b.parquet", rows)
        first, _, last = (row["b"] for row in records(tmp_path / "b.parquet"))
        assert (first[0]["text"], last) == ("x", [{"text": None, "scores": {"c": None}}])

    @pytest.mark.parametrize("batch", [1, 1 << 20])
    def test_candidates_may_be_texts_and_objects_in_one_parquet_file(self, tmp_path, batch, monkeypatch):
        monkeypatch.setattr(tables, "_BATCH", batch)
        rows = [{"candidates": ["x", "y"]}, {"candidates": [{"model": "a", "text": "x"}, "y"]}, {"candidates": None}]
        write(tmp_path / "a.parquet", rows)
        first, second, third = (row["candidates"] for row in records(tmp_path / "a.parquet"))
        assert first == [{"model": None, "text": "x"}, {"model": None, "text": "y"}]
        assert second == [{"model": "a", "text": "x"}, {"model": None, "text": "y"}]
        assert third is None
        write(tmp_path / "b.parquet", [rows[0], rows[2]])
        assert [row["candidates"] for row in records(tmp_path / "b.parquet")] == [["x", "y"], None]

    @pytest.mark.parametrize("rows", [[{"a": 1}, {"a": "x"}], [{"a": {"b": 1}}, {"a": [1]}]])
    def test_rows_that_parquet_cannot_hold(self, tmp_path, rows):
        with pytest.raises(WorkError, match="Write JSON Lines instead"):
            write(tmp_path / "a.parquet", rows)
        assert left(tmp_path) == []

    def test_a_parquet_key_may_first_appear_in_the_last_row(self, tmp_path):
        write(tmp_path / "a.parquet", [{"a": 1}, {"a": 2, "b": "late"}])
        assert records(tmp_path / "a.parquet") == [{"a": 1, "b": None}, {"a": 2, "b": "late"}]

    @pytest.mark.parametrize(
        "rows", [[{"a": 1}] * 9 + [{"a": "x"}], [{"a": 2**70}], [{"a": [{"b": 1}]}, {"a": [{"b": "x"}]}]]
    )
    def test_rows_of_several_batches_that_parquet_cannot_hold(self, tmp_path, rows, monkeypatch):
        monkeypatch.setattr(tables, "_BATCH", 1)
        with pytest.raises(WorkError, match=r"These rows do not fit into Parquet: .* Write JSON Lines instead"):
            write(tmp_path / "a.parquet", rows)
        assert left(tmp_path) == []

    @pytest.mark.parametrize(
        "rows",
        [
            [],
            [{}, {}],
            [{"a": 1}, {"a": 2.5}, {"a": None}],
            [{"a": None}, {"a": None, "b": []}, {"b": [{"x": None}]}, {"b": [{"x": [1]}, {"w": True}]}],
            [{"a": {}}, {"a": {"z": 1}}, {"a": {"b": {"late": "x"}, "z": 0.5}}, {"c": "x"}],
            [{"scores": {"s": 1}}, {"scores": {"t": 0.5}}, {"scores": {}}, {}],
            [{"at": datetime(2026, 1, 2, 3, 4, 5)}, {"at": None}, {"raw": b"\xff"}],  # as rows of Parquet may have
        ],
    )
    def test_batches_of_parquet_have_the_types_of_the_whole(self, tmp_path, rows, monkeypatch):
        import pyarrow
        from pyarrow import parquet

        keys = dict.fromkeys(key for row in rows for key in row)
        whole = pyarrow.Table.from_pydict({key: [row.get(key) for row in rows] for key in keys})
        monkeypatch.setattr(tables, "_BATCH", 1)
        write(tmp_path / "a.parquet", rows)
        found = parquet.read_table(tmp_path / "a.parquet")

        def plain(kind: pyarrow.DataType) -> object:  # old versions sort the fields of a struct
            if pyarrow.types.is_struct(kind):
                return {kind.field(i).name: plain(kind.field(i).type) for i in range(kind.num_fields)}
            return [plain(kind.value_type)] if pyarrow.types.is_list(kind) else str(kind)

        assert {f.name: plain(f.type) for f in found.schema} == {f.name: plain(f.type) for f in whole.schema}
        assert found.to_pylist() == whole.to_pylist()
        assert parquet.ParquetFile(tmp_path / "a.parquet").num_row_groups == len(rows)

    def test_the_same_rows_give_the_same_bytes(self, tmp_path):
        for name in ("a.jsonl.gz", "b.jsonl.gz"):
            write(tmp_path / name, RECORDS)
        assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()
