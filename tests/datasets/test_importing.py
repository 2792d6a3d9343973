"""What all formats share: detection, duplicates, exclusion, splits, the output and its card."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pytest

from llm_blender.data import normalized_key, read_records, read_rows
from llm_blender.datasets import FORMATS, ImportPlan, import_rows
from llm_blender.datasets.formats import find_format
from llm_blender.errors import InputError, NotFoundError, RowError, WorkError

SHARES = {"train": 0.6, "dev": 0.2, "test": 0.2}


def pair(n, **change):
    return {"prompt": f"Question {n}?", "chosen": f"Good {n}.", "rejected": f"Bad {n}.", **change}


def records(path):
    return [record for _, record in read_records(path)]


class TestDetection:
    @pytest.mark.parametrize(
        ("record", "name"),
        [
            ({"output_1": "", "output_2": "", "preference": None, "generator_1": ""}, "alpaca_eval"),
            ({"instruction": "", "output_1": "", "output_2": "", "preference": 1}, "labelled_pairs"),
            ({"instruction": "", "output": "", "generator": "", "dataset": ""}, "alpaca_eval"),
            ({"chosen": "", "rejected": ""}, "chosen_rejected"),
            ({"prompt": "", "messages": [], "chosen": [], "rejected": []}, "chosen_rejected"),
            ({"instruction": "", "input": "", "response1": "", "response2": "", "annotator1": 1}, "labelled_pairs"),
            ({"input": "", "output_1": "", "output_2": "", "label": 1}, "labelled_pairs"),
            ({"instruction": "", "completions": []}, "scored_responses"),
            ({"instruction": "", "generations": [], "ratings": []}, "scored_responses"),
        ],
    )
    @pytest.mark.parametrize("file", ["x.jsonl", "x.json"])
    def test_by_keys(self, write, record, name, file):
        assert find_format(write(file, [record])) is FORMATS[name]

    def test_unknown_keys(self, imported, write):
        with pytest.raises(InputError, match=r"in no known format. Its keys: text, label. Known: alpaca_eval \("):
            imported(write("x.jsonl", [{"text": "a", "label": 1}]))

    def test_a_format_that_was_asked_for(self, imported, write):
        path = write("x.jsonl", [{"prompt": "Hi", "chosen": "a"}])
        with pytest.raises(RowError, match="line 1: `rejected` is missing"):
            imported(path, format="chosen_rejected")
        with pytest.raises(InputError, match="Unknown format 'pairs': did you mean"):
            imported(path, format="pairs")

    def test_files_of_different_formats(self, imported, write):
        scored = write("y.jsonl", [{"prompt": "Q", "completions": []}])
        with pytest.raises(InputError, match=r"different formats .*x.jsonl is chosen_rejected, .*y.jsonl is scored"):
            imported(write("x.jsonl", [pair(0)]), scored)

    @pytest.mark.parametrize("option", ["models", "annotators", "reference", "labels"])
    def test_options_of_other_formats(self, imported, write, option):
        with pytest.raises(InputError, match=f"--{option} is for .*, and this is chosen_rejected"):
            imported(write("x.jsonl", [pair(0)]), **{option: "x" if option == "reference" else ("x",)})

    def test_a_judge_has_no_place_in_alpaca_eval(self, imported, write):
        with pytest.raises(InputError, match="--judge is for labelled_pairs and chosen_rejected"):
            imported(write("x.json", [{"instruction": "Q", "output": "a", "generator": "m"}]), judge="me")


class TestFiles:
    @pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.jsonl.gz", "x.json.gz", "x.jsonl.zst", "x.json.zst"])
    def test_lists_and_lines_packed_or_not(self, imported, tmp_path, name):
        import zstandard

        lines = "\n".join(json.dumps(pair(n)) for n in range(3))
        data = (lines if "jsonl" in name else "\ufeff \n" + json.dumps([pair(n) for n in range(3)], indent=1)).encode()
        pack = {"gz": gzip.compress, "zst": zstandard.compress}.get(name.rpartition(".")[2], bytes)
        (tmp_path / name).write_bytes(pack(data))
        assert [row["instruction"] for row in imported(tmp_path / name)[0]] == [f"Question {n}?" for n in range(3)]

    def test_nothing_there(self, imported, tmp_path):
        with pytest.raises(NotFoundError, match="no file or folder"):
            imported(tmp_path / "missing.jsonl")

    def test_the_same_file_twice(self, imported, write):
        path = write("x.jsonl", [pair(0)])
        with pytest.raises(InputError, match="given twice"):
            imported(path, path.parent / "." / path.name)

    def test_what_git_lfs_has_not_fetched(self, imported, tmp_path):
        (tmp_path / "x.jsonl.gz").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 875191\n")
        with pytest.raises(InputError, match=r"x.jsonl.gz is a pointer of Git LFS .* run `git lfs pull`"):
            imported(tmp_path / "x.jsonl.gz")

    @pytest.mark.parametrize(("text", "message"), [("", "is empty"), ("[]", "is empty"), (" \n ", "is empty")])
    def test_an_empty_file(self, imported, tmp_path, text, message):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(InputError, match=message):
            imported(tmp_path / "x.json")

    def test_a_list_that_is_cut_off(self, imported, tmp_path):
        (tmp_path / "x.json").write_text(json.dumps([pair(0)], indent=1)[:-3])
        with pytest.raises(InputError, match=r"x.json is not JSON: .* line .* Is it complete\?"):
            imported(tmp_path / "x.json")

    @pytest.mark.parametrize(
        ("item", "reason"),
        [("text", "a JSON object is wanted, not str"), (pair(1, chosen="\ud83d"), "a lone surrogate")],
    )
    def test_a_list_with_something_else_in_it(self, imported, tmp_path, item, reason):
        (tmp_path / "x.json").write_text(json.dumps([pair(0), item]))
        with pytest.raises(RowError, match=f"x.json, row 2: {reason}"):
            imported(tmp_path / "x.json")


class TestWhatIsLeftOut:
    def test_duplicates(self, imported, write):
        again = pair(0, prompt=" question  0? ")
        contrary = pair(0, chosen="Bad 0.", rejected="Good 0.")
        rows, summary = imported(write("x.jsonl", [pair(0), again, pair(0), contrary, pair(1)]))
        assert [row["id"] for row in rows] == ["x-0", "x-3", "x-4"]  # who judged the other way is no duplicate
        assert (summary.records, summary.rows, summary.left_out) == (5, 5, {"duplicate": 2})

    def test_the_order_of_two_answers_makes_no_other_row(self, imported, write):
        one = {"input": "Q", "output_1": "a", "output_2": "b", "label": 1}
        other = {"input": "Q", "output_1": "b", "output_2": "a", "label": 2}
        tie = {**one, "label": 0}
        rows, summary = imported(write("x.jsonl", [one, other, tie]), labels=("1", "2", "0"))
        assert [row["pairs"][0]["label"] for row in rows] == ["a", "tie"]
        assert summary.left_out == {"duplicate": 1}

    def test_the_same_answers_of_other_models_make_another_row(self, imported, write):
        voted = [
            {"instruction": "Q", "response1": "a", "response2": "b", "annotator1": 2, "cmp_key": models}
            for models in ("x_y", "x_z", "x_y")
        ]
        rows, summary = imported(write("x.jsonl", voted))
        assert [row["candidates"][1]["model"] for row in rows] == ["y", "z"]
        assert summary.left_out == {"duplicate": 1}

    def test_other_scores_make_another_row(self, imported, write):
        rated = [{"prompt": "Q", "responses": ["a", "b"], "scores": scores} for scores in ([1, 2], [1, 3], [1, 2])]
        assert imported(write("x.jsonl", rated))[1].left_out == {"duplicate": 1}

    def test_what_a_test_file_asks(self, imported, write):
        test = write("test.jsonl", [{"instruction": "QUESTION  1?", "candidates": []}])
        more = write("more.jsonl", [{"instruction": "Question", "input": "2?", "candidates": ["a"]}])
        rows, summary = imported(write("x.jsonl", [pair(n) for n in range(4)]), exclude=(test, more))
        assert [row["instruction"] for row in rows] == ["Question 0?", "Question 3?"]
        assert summary.left_out == {"asked in more.jsonl": 1, "asked in test.jsonl": 1}
        assert summary.rows == 4
        assert summary.excluded == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (test, more)}

    def test_test_files_of_the_same_name(self, imported, write):
        tests = [write(f"{n}/test.jsonl", [{"instruction": f"Question {n}?", "candidates": []}]) for n in range(2)]
        _, summary = imported(write("x.jsonl", [pair(n) for n in range(3)]), exclude=tuple(tests))
        assert summary.left_out == {"asked in 0/test.jsonl": 1, "asked in 1/test.jsonl": 1}
        assert set(summary.excluded) == {"0/test.jsonl", "1/test.jsonl"}

    def test_a_test_file_that_is_none(self, imported, write):
        other = write("raw.jsonl", [{"prompt": "Why?", "answer": "Because."}])
        with pytest.raises(RowError, match=r"raw.jsonl, line 1: `candidates` is missing"):
            imported(write("x.jsonl", [pair(0)]), exclude=(other,))

    def test_nothing_left(self, imported, write, tmp_path):
        path = write("x.jsonl", [pair(0, chosen="Bad 0."), pair(1, prompt=" ")])
        with pytest.raises(InputError, match="No row is left of 2 records: 1 both answers read the same, 1 the prompt"):
            imported(path)
        assert not (tmp_path / "out.jsonl").exists()


class TestSplit:
    @pytest.fixture
    def source(self, write):
        rows = [pair(n) for n in range(60)] + [pair(n, prompt=f"QUESTION {n}? ", chosen="Else.") for n in range(60)]
        return write("x.jsonl", rows)

    def split(self, source, folder, **options):
        folder.mkdir()
        result = import_rows(ImportPlan((source,), split=SHARES, **options), str(folder / "rows.{split}.jsonl"))
        return {name: list(read_rows(folder / f"rows.{name}.jsonl")) for name in SHARES}, result

    def test_an_instruction_stands_in_one_split(self, source, tmp_path):
        rows, result = self.split(source, tmp_path / "a")
        keys = {name: {normalized_key(row) for row in of_split} for name, of_split in rows.items()}
        assert sum(map(len, keys.values())) == len(set().union(*keys.values())) == 60
        assert {name: len(of_split) for name, of_split in rows.items()} == {
            file.split: file.rows for file in result.written
        }
        assert sum(map(len, rows.values())) == 120
        assert all(rows.values())

    def test_the_same_instruction_is_in_the_same_split_of_another_file(self, source, write, tmp_path):
        whole, _ = self.split(source, tmp_path / "a")
        part, _ = self.split(write("y.jsonl", [pair(n, chosen="New.") for n in range(30, 5, -1)]), tmp_path / "b")
        place = {normalized_key(row): name for name, rows in whole.items() for row in rows}
        assert all(place[normalized_key(row)] == name for name, rows in part.items() for row in rows)

    def test_ids_do_not_depend_on_what_is_left_out(self, source, write, tmp_path):
        whole, _ = self.split(source, tmp_path / "a")
        test = write("test.jsonl", [{"instruction": "Question 0?", "candidates": []}])
        part, _ = self.split(source, tmp_path / "b", exclude=(test,))
        ids = {row.id for rows in whole.values() for row in rows}
        assert {row.id for rows in part.values() for row in rows} == ids - {"x-0", "x-60"}

    def test_the_path_names_the_split(self, source, tmp_path):
        with pytest.raises(InputError, match=r"holds \{split\}, such as rows.\{split\}.jsonl"):
            import_rows(ImportPlan((source,), split=SHARES), str(tmp_path / "rows.jsonl"))

    def test_folders_of_splits(self, source, tmp_path):
        out = str(tmp_path / "{split}" / "x.jsonl.zst")
        with pytest.raises(NotFoundError, match=r"no folder .*train"):
            import_rows(ImportPlan((source,), split=SHARES), out)
        for name in SHARES:
            (tmp_path / name).mkdir()
        import_rows(ImportPlan((source,), split=SHARES), out)
        assert sum(len(records(tmp_path / name / "x.jsonl.zst")) for name in SHARES) == 120
        assert sorted(path.name for path in (tmp_path / "dev").iterdir()) == ["x.jsonl.zst", "x.jsonl.zst.md"]


class TestOutput:
    @pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz", "out.jsonl.zst"])
    def test_the_same_input_and_seed_give_the_same_bytes(self, write, tmp_path, name):
        source = write("x.jsonl", [pair(n) for n in range(50)])
        plan = ImportPlan((source,), name="Mine", seed=3)
        written = []
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir()
            import_rows(plan, str(tmp_path / folder / name))
            written.append([(tmp_path / folder / n).read_bytes() for n in (name, f"{name}.md")])
        assert written[0] == written[1]
        import_rows(ImportPlan((source,), name="Mine", seed=4), str(tmp_path / name))
        assert (tmp_path / name).read_bytes() != written[0][0]

    def test_where_the_input_lies_changes_nothing(self, write, tmp_path):
        cards = []
        for folder in ("here", "there"):
            first = write(f"{folder}/r/a.jsonl", [pair(0)])
            second = write(f"{folder}/r/b.jsonl", [pair(1)])
            import_rows(ImportPlan((first, second), name="x"), str(tmp_path / folder / "out.jsonl"))
            cards.append([(tmp_path / folder / n).read_text() for n in ("out.jsonl", "out.jsonl.md")])
        assert cards[0] == cards[1]
        assert str(tmp_path) not in "".join(cards[0])

    def test_standard_output_has_no_card(self, write, capsys, tmp_path):
        before = set(tmp_path.iterdir())
        result = import_rows(ImportPlan((write("x.jsonl", [pair(0)]),)), "-")
        assert json.loads(capsys.readouterr().out)["instruction"] == "Question 0?"
        assert (result.written[0].card, result.written[0].sha256) == ("", "")
        assert {path.name for path in set(tmp_path.iterdir()) - before} == {"x.jsonl"}

    def test_a_device_has_no_card(self, write):
        result = import_rows(ImportPlan((write("x.jsonl", [pair(0)]),)), "/dev/null")
        assert (result.written[0].rows, result.written[0].card) == (1, "")

    def test_a_card_that_cannot_be_written(self, write, tmp_path):
        (tmp_path / "out.jsonl.md").mkdir()
        with pytest.raises(WorkError, match="The rows are written, but not their card"):
            import_rows(ImportPlan((write("x.jsonl", [pair(0)]),)), str(tmp_path / "out.jsonl"))

    def test_progress_is_told(self, write, tmp_path):
        reports = []
        source = write("x.jsonl", [pair(n) for n in range(3)])
        import_rows(ImportPlan((source,)), str(tmp_path / "o.jsonl"), progress=lambda *args: reports.append(args))
        assert reports == [(1, 0), (2, 0), (3, 0)]

    def test_a_row_is_written_as_the_readers_want_it(self, imported, write):
        ((row,), _) = imported(write("x.jsonl", [pair(0)]))
        assert list(row) == ["id", "source", "instruction", "input", "reference", "candidates", "pairs", "meta"]


class TestCard:
    @pytest.fixture
    def card(self, write, tmp_path):
        source = write("x.jsonl", [pair(0), pair(0), pair(1), pair(2, chosen="Bad 2."), {"prompt": "?"}])
        test = write("test.jsonl", [{"instruction": "Question 1?", "candidates": []}])
        plan = ImportPlan(
            (source,),
            name="Own | pairs",
            url="https://example.org/pairs",
            licence="MIT",
            judge="people",
            exclude=(test,),
            seed=5,
            skip_bad=True,
        )
        self.files = source, test, tmp_path / "out.jsonl"
        import_rows(plan, str(self.files[2]))
        return Path(f"{self.files[2]}.md").read_text()

    def test_source_url_and_licence(self, card):
        assert card.startswith("# Own | pairs\n")
        for line in (
            r"| source | Own \| pairs |",
            "| url | https://example.org/pairs |",
            "| licence | MIT |",
            "| format | chosen_rejected |",
            "| judge | people |",
            "| seed | 5 |",
        ):
            assert line in card

    def test_counts(self, card):
        for line in (
            "| records read | 5 |",
            "| records left out: bad row | 1 |",
            "| records left out: both answers read the same | 1 |",
            "| rows made of the others | 3 |",
            "| rows left out: asked in test.jsonl | 1 |",
            "| rows left out: duplicate | 1 |",
            "| rows written: all | 1 |",
        ):
            assert line in card

    def test_sha256_of_what_was_read_and_written(self, card):
        for path in self.files:
            assert f"`{hashlib.sha256(path.read_bytes()).hexdigest()}`" in card

    def test_what_is_not_known_is_said(self, write, tmp_path):
        import_rows(ImportPlan((write("x.jsonl", [pair(0)]),)), str(tmp_path / "out.jsonl"))
        card = (tmp_path / "out.jsonl.md").read_text()
        assert card.startswith("# x\n")
        assert "| url | unknown |" in card
        assert "| licence | unknown |" in card
