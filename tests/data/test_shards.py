from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pytest

from llm_blender.data import (
    check_output,
    input_files,
    input_sha256,
    output_files,
    read_instructions,
    read_mix_instruct,
    read_records,
    read_rows,
    source_files,
)
from llm_blender.errors import InputError, NotFoundError, RowError


@pytest.fixture(autouse=True)
def shards(tmp_path, monkeypatch):
    """A folder of two shards, with what is no shard beside them."""
    monkeypatch.chdir(tmp_path)
    folder = Path("rows")
    (folder / "more").mkdir(parents=True)
    save(folder / "b.jsonl", [3])
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(line(1) + line(2)))
    save(folder / "more" / "c.jsonl", [4])
    for name in (".hidden.jsonl", ".b.jsonl.x.part", "b.jsonl.part", "b.jsonl.failed.jsonl", "b.jsonl.md", "LICENCE"):
        (folder / name).write_text("no row")
    return folder


def line(n: int) -> bytes:
    row = {"instruction": f"Question {n}?", "candidates": [{"text": "Yes.", "model": "m"}]}
    return json.dumps(row).encode() + b"\n"


def save(path: Path, numbers: list[int]) -> None:
    path.write_bytes(b"".join(map(line, numbers)))


class TestInput:
    @pytest.mark.parametrize("spec", ["rows", "rows/", Path("rows")])
    def test_the_files_of_a_folder_by_name(self, spec):
        assert input_files(spec) == ["rows/a.jsonl.gz", "rows/b.jsonl"]

    @pytest.mark.parametrize("spec", ["-", "rows/b.jsonl", "rows/LICENCE", "rows/.hidden.jsonl"])
    def test_a_file_is_itself(self, spec):
        assert input_files(spec) == [spec]

    @pytest.mark.parametrize(
        ("spec", "found"),
        [
            ("rows/*.jsonl*", None),
            ("rows/?.jsonl", ["rows/b.jsonl"]),
            ("rows/[ab].*l*", None),
            ("rows/*/*.jsonl", ["rows/more/c.jsonl"]),
            ("rows/m*/c.jsonl", ["rows/more/c.jsonl"]),
            ("**/[bc].jsonl", ["rows/b.jsonl", "rows/more/c.jsonl"]),
        ],
    )
    def test_the_matches_of_a_pattern(self, spec, found):
        for name in ("b.jsonl.part", "b.jsonl.failed.jsonl", "b.jsonl.md"):
            Path("rows", name).unlink()
        assert input_files(spec) == (found or ["rows/a.jsonl.gz", "rows/b.jsonl"])

    def test_a_file_whose_name_is_a_pattern(self):
        save(Path("[ab].jsonl"), [5])
        save(Path("a.jsonl"), [6])
        assert input_files("[ab].jsonl") == ["[ab].jsonl"]
        assert [row.instruction for row in read_rows("[ab].jsonl")] == ["Question 5?"]

    def test_every_extension_that_is_read(self):
        for name in ("a.csv", "a.CSV", "b.tsv.zst"):
            Path("rows/more", name).touch()
        Path("rows/more/c.jsonl").unlink()
        assert input_files("rows/more") == ["rows/more/a.CSV", "rows/more/a.csv", "rows/more/b.tsv.zst"]

    @pytest.mark.parametrize(
        ("spec", "error", "message"),
        [
            ("none", NotFoundError, "There is no file none (looked in "),
            ("none/", NotFoundError, "There is no file none/ (looked in "),
            ("none*", NotFoundError, "No file matches none* (looked in "),
            ("ro*", NotFoundError, "No file matches ro* (looked in "),
            ("empty", InputError, "The folder empty holds no file of rows: .jsonl, "),
            (
                "mixed",
                InputError,
                "The folder mixed holds several kinds of files, .jsonl, .txt: give a pattern, 'mixed/*.",
            ),
            ("rows/b*", InputError, "rows/b* matches rows/b.jsonl.md, which is no file of rows: narrow the pattern."),
        ],
    )
    def test_what_is_wrong_is_named(self, spec, error, message):
        Path("empty/sub").mkdir(parents=True)
        Path("mixed").mkdir()
        Path("mixed/README.txt").touch()
        save(Path("mixed/a.jsonl"), [1])
        with pytest.raises(error) as raised:
            input_files(spec)
        assert str(raised.value).startswith(message)

    def test_the_hash_is_that_of_all_bytes(self):
        save(Path("one.jsonl"), [1])
        assert input_sha256("one.jsonl") == hashlib.sha256(line(1)).hexdigest()
        save(Path("two.jsonl"), [2])
        assert input_sha256("*.jsonl") == hashlib.sha256(line(1) + line(2)).hexdigest()


class TestReading:
    @pytest.mark.parametrize("spec", ["rows", "rows/*l.gz", "rows/?.jsonl"])
    def test_the_rows_of_all_files(self, spec):
        wanted = [record for file in input_files(spec) for _, record in read_records(file)]
        assert [record for _, record in read_records(spec)] == wanted
        assert [row.instruction for row in read_rows(spec)] == [record["instruction"] for record in wanted]
        assert len(list(read_mix_instruct(spec))) == len(wanted)

    def test_a_bad_row_is_named_by_its_file_and_line(self):
        with Path("rows/b.jsonl").open("ab") as file:
            file.write(b'{"n"\n{"instruction": "Q"}\n')
        bad: list[RowError] = []
        assert len(list(read_rows("rows", on_bad=bad.append))) == 3
        assert [str(error).partition(":")[0] for error in bad] == ["rows/b.jsonl, line 2", "rows/b.jsonl, line 3"]
        with pytest.raises(RowError, match=r"rows/b\.jsonl, line 2: not JSON"):
            list(read_rows("rows"))

    def test_each_file_counts_in_its_own_unit(self):
        Path("lists").mkdir()
        Path("lists/a.json").write_bytes(b"[" + line(1) + b", 5]")
        Path("lists/b.jsonl").write_bytes(line(1) + b"5")
        bad: list[RowError] = []
        assert len(list(read_rows("lists", on_bad=bad.append))) == 2
        assert [str(error).partition(":")[0] for error in bad] == ["lists/a.json, row 2", "lists/b.jsonl, line 2"]

    def test_a_pointer_of_git_lfs_is_found_before_any_row_is_read(self):
        Path("rows/z.jsonl").write_text("version https://git-lfs.github.com/spec/v1\n")
        with pytest.raises(InputError, match=r"rows/z\.jsonl is a pointer of Git LFS"):
            next(read_records("rows"))

    def test_prompts_without_ids_are_named_by_their_file(self):
        assert [row.id for row in read_instructions("rows")] == ["a-1", "a-2", "b-1"]

    def test_sources_of_a_build(self):
        assert source_files(["rows", "rows/more/*.jsonl"]) == [
            ("a.jsonl.gz", Path("rows/a.jsonl.gz")),
            ("b.jsonl", Path("rows/b.jsonl")),
            ("c.jsonl", Path("rows/more/c.jsonl")),
        ]
        with pytest.raises(NotFoundError, match="no data set on the Hub"):
            source_files(["rows/none*"])


class TestOutput:
    def test_a_file(self):
        for out in ("out.jsonl", "new/out.csv", "-", "no_folder"):
            assert output_files(["rows/a.jsonl.gz", "rows/b.jsonl"], out) == [out]

    @pytest.mark.parametrize("out", ["new/", "rows/more", Path("rows/more")])
    def test_a_folder(self, out):
        assert output_files(input_files("rows"), out) == [str(Path(out, name)) for name in ("a.jsonl.gz", "b.jsonl")]
        assert not Path("new").exists()
        check_output(out)

    @pytest.mark.parametrize(
        ("name", "written"),
        [
            ("a.parquet", "a.parquet"),
            ("a.csv.gz", "a.csv.gz"),
            ("a.tsv", "a.tsv"),
            ("a.ndjson", "a.ndjson"),
            ("a", "a"),
            ("a.json", "a.jsonl"),
            ("a.b.json.zst", "a.b.jsonl.zst"),
            ("a.txt", "a.jsonl"),
            ("v1.2", "v1.2.jsonl"),
            ("-", "stdin.jsonl"),
        ],
    )
    def test_the_format_of_the_input_unless_it_is_not_written(self, name, written, tmp_path, monkeypatch):
        (output,) = output_files([name], "new/")
        assert output == f"new/{written}"
        monkeypatch.chdir(tmp_path)
        (tmp_path / "new").mkdir()
        check_output(output)

    def test_no_file_is_written_twice_or_over_its_input(self):
        with pytest.raises(InputError, match=r"x/a\.json and y/a\.jsonl would both be written to new/a\.jsonl"):
            output_files(["x/a.json", "y/a.jsonl"], "new/")
        with pytest.raises(InputError, match=r"rows/b\.jsonl would replace its input"):
            output_files(["rows/b.jsonl"], "./rows/")
