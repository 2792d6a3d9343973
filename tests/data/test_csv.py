from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest

from llm_blender.data import RowWriter, parse_row, read_instructions, read_records, read_rows
from llm_blender.errors import RowError

ODD = [
    *(
        "5",
        "007",
        "1.50",
        "1e5",
        "true",
        "null",
        "NaN",
        "[1]",
        '["a"]',
        '{"a": 1}',
        '[{"role": "user", "content": "x"}]',
    ),
    *('"', '""', '"5"', '"\\"5\\""', "a,b;c\td", "one\ntwo", "\r\n x ", "\r", " ", "-", "t", "=1+1", "'", "a\0b"),
    *("é 👋", "\ufeffx", "\u2028"),
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rows.csv"


def records(path: Path) -> list:
    return [record for _, record in read_records(path)]


def write(path: Path, rows: list) -> list[list[str]]:
    with RowWriter(path) as writer:
        for row in rows:
            writer.write(row)
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.reader(file))


class TestReading:
    @pytest.mark.parametrize(
        "table",
        [
            'instruction,input,candidate_1,candidate_2,output\n"Why, oh\nwhy?",,"""No"", he wrote",Yes,42\n',
            'instruction;input;candidate_1;candidate_2;output\n"Why, oh\nwhy?";;"""No"", he wrote";Yes;42\n',
            'instruction\tinput\tcandidate_1\tcandidate_2\toutput\n"Why, oh\nwhy?"\t\t"""No"", he wrote"\tYes\t42\n',
            '\ufeff"Instruction","Candidate 1","candidate2","OUTPUT"\r\n"Why, oh\nwhy?","""No"", he wrote",Yes,42\r\n',
            'sep=;\r\ninstruction;input;candidate_1;candidate_2;output\n"Why, oh\nwhy?";;"""No"", he wrote";Yes;42\r\n',
            'instruction,input,candidate_1,candidate_2,output\r"Why, oh\nwhy?",,"""No"", he wrote",Yes,42\r',
            ',instruction,candidates,output,,\n0,"Why, oh\nwhy?","[""\\""No\\"", he wrote"", ""Yes""]",42,,\n',
        ],
    )
    def test_every_dialect_gives_the_same_row(self, path, table):
        path.write_bytes(table.encode())
        assert records(path) == [
            {"instruction": "Why, oh\nwhy?", "candidates": ['"No", he wrote', "Yes"], "output": "42"}
        ]
        (row,) = read_rows(path)
        assert row.reference == "42"
        expected = records(path)
        path.write_bytes(table.encode("utf-16"))  # "Unicode Text" of Excel
        assert records(path) == expected

    def test_tabs_alone_separate_a_tsv(self, tmp_path):
        (tmp_path / "a.tsv").write_text("instruction, please\tx\nWhy, oh why?\t1\n")
        assert records(tmp_path / "a.tsv") == [{"instruction, please": "Why, oh why?", "x": 1}]

    def test_columns_of_models_and_what_a_row_lacks(self, path):
        path.write_text("prompt,candidate:gpt-4.1,candidate: b:7b ,candidate:c\nQ,One,,3\nR,,Two,\nS,,,\n")
        assert records(path) == [
            {"prompt": "Q", "candidates": [{"text": "One", "model": "gpt-4.1"}, {"text": "3", "model": "c"}]},
            {"prompt": "R", "candidates": [{"text": "Two", "model": "b:7b"}]},
            {"prompt": "S"},
        ]

    def test_further_keys_of_candidates(self, path):
        path.write_text(
            "prompt,candidate_1,candidate_1.model,candidate_1.scores,candidate_2,candidate_2.model\n"
            'Q,A,007,"{""x"": 1}",,m\n'
        )
        assert records(path) == [{"prompt": "Q", "candidates": [{"text": "A", "model": "007", "scores": {"x": 1}}]}]
        assert parse_row(records(path)[0]).candidates[0].scores == {"x": 1}

    def test_values(self, path):
        path.write_text(
            "id,prompt,score,n,ok,code,list,text\n"
            '1,7,0.5,3,true,007,"[1, null]",[draft]\n2,[1],1.50,-1,TRUE,x,{},"[1]"\n'
            '3,"[{""role"": ""user"", ""content"": ""Hi""}]",,,,,,5\n'
        )
        assert records(path) == [
            {
                "id": "1",
                "prompt": "7",
                "score": 0.5,
                "n": 3,
                "ok": True,
                "code": "007",
                "list": [1, None],
                "text": "[draft]",
            },
            {
                "id": "2",
                "prompt": "[1]",
                "score": "1.50",
                "n": -1,
                "ok": "TRUE",
                "code": "x",
                "list": {},
                "text": "[1]",
            },
            {"id": "3", "prompt": [{"role": "user", "content": "Hi"}], "text": "5"},
        ]

    def test_a_huge_cell(self, path):
        path.write_text("prompt\n" + "word " * 100_000 + "\n")
        assert records(path) == [{"prompt": "word " * 100_000}]

    def test_prompts(self, path):
        path.write_text("question\nWhy?\n\nHow?\n")
        assert [(row.id, row.instruction) for row in read_instructions(path)] == [
            ("rows-2", "Why?"),
            ("rows-4", "How?"),
        ]

    @pytest.mark.parametrize("table", ["", "\n\n", ",,\n", "prompt,candidate_1\n"])
    def test_no_rows(self, path, table):
        path.write_text(table)
        assert records(path) == []


class TestBadRows:
    @pytest.mark.parametrize(
        ("cells", "reason"),
        [
            (b"Q,a,b,c,d", "5 cells for 4 columns"),
            (b'Q,a,,"[""b""]"', "`candidates` is given beside columns of candidates"),
            (b"Q,,,a and b", "`candidates` must be a JSON list; or use columns candidate_1"),
            (b'Q,,,"{}"', "`candidates` must be a JSON list"),
            (b'Q,,,"[""\\ud800""]"', "surrogate"),
        ],
    )
    def test_each_is_named_by_the_line_where_it_begins(self, path, cells, reason):
        path.write_bytes(b'prompt,candidate_1,candidate_2,candidates\n"one\ntwo",a,b,\n\n' + cells + b"\nR,a,b\n")
        bad: list[RowError] = []
        assert len(list(read_rows(path, on_bad=bad.append))) == 2
        (error,) = bad
        assert (error.path, error.line, error.unit) == (str(path), 5, "line")
        assert reason in error.reason

    @pytest.mark.parametrize(
        ("table", "message"),
        [
            (b'prompt,n\nQ,1\n"open,2\nR,3\n', "line 3: not CSV (unexpected end of data); is a quote not doubled"),
            (b'prompt,n\nQ,1\n"a" b,2\n', "line 3: not CSV"),
            (b"prompt,n\nQ,1\n\xe9t\xe9,2\n", "line 3: not UTF-8 (byte 0); save the table as CSV UTF-8"),
            (b"prompt,n,prompt\nQ,1,2\n", "line 1: two columns are `prompt`"),
            (b"\n;\nprompt;candidate:a;candidate:a\nQ,1,2\n", "line 3: two columns are the candidate a"),
        ],
    )
    def test_what_ends_the_file(self, path, table, message):
        path.write_bytes(table)
        with pytest.raises(RowError) as raised:
            list(read_rows(path, on_bad=lambda error: None))
        assert f"rows.csv, {message}" in str(raised.value)


class TestWriting:
    def test_names_of_llms_of_preferences_are_texts(self, path):
        path.write_text("prompt,chosen,rejected,chosen_model,rejected_model\nQ,x,y,4,007\n", encoding="utf-8")
        assert records(path) == [
            {"prompt": "Q", "chosen": "x", "rejected": "y", "chosen_model": "4", "rejected_model": "007"}
        ]

    def test_columns_of_models_where_the_rows_allow(self, path):
        rows = [
            {"prompt": "Q", "candidates": [{"text": "1", "model": "a"}, {"text": "2", "model": "c"}], "x": 1},
            {"prompt": "R", "candidates": [{"text": "3", "model": "a"}, {"text": "4", "model": "b"}], "y": 2},
            {"prompt": "S", "candidates": [{"text": "5", "model": "b"}, {"text": "6", "model": "c"}]},
        ]
        assert write(path, rows) == [
            ["prompt", "candidate:a", "candidate:b", "candidate:c", "x", "y"],
            ["Q", "1", "", "2", "1", ""],
            ["R", "3", "4", "", "", "2"],
            ["S", "", "5", "6", "", ""],
        ]
        assert records(path) == rows

    @pytest.mark.parametrize(
        "candidates",
        [
            [{"text": "2", "model": "b"}, {"text": "1", "model": "a"}],  # another order
            [{"text": "1", "model": "a"}, {"text": "2", "model": "a"}],
            [{"text": "1", "model": "a", "scores": {"s": 0.5}}],
            [{"text": "1", "model": " a"}],
            ["1", "2", "3"],
        ],
    )
    def test_numbered_columns_elsewhere(self, path, candidates):
        rows = [
            {"prompt": "Q", "candidates": [{"text": "1", "model": "a"}, {"text": "2", "model": "b"}]},
            {"prompt": "R", "candidates": candidates},
        ]
        header, *_ = write(path, rows)
        assert header[:3] == ["prompt", "candidate_1", "candidate_1.model"]
        assert records(path) == rows

    def test_an_empty_candidate_is_kept(self, path):
        rows = [{"prompt": "Q", "candidates": ["a", ""]}, {"prompt": "R", "candidates": ["a", "b"]}]
        assert write(path, rows) == [
            ["prompt", "candidate_1", "candidate_2", "candidates"],
            ["Q", "", "", '["a", ""]'],
            ["R", "a", "b", ""],
        ]
        assert records(path) == rows

    def test_the_best_candidate_in_words(self, path):
        ranking = {"best": 1, "ranks": [2, 1]}
        rows = [
            {
                "prompt": "Q",
                "candidates": [{"text": "No", "model": "a"}, {"text": "Yes", "model": "b"}],
                "ranking": ranking,
            },
            {"prompt": "R", "candidates": [], "ranking": None},
        ]
        header, first, second = write(path, rows)
        assert dict(zip(header, first, strict=True)) == {
            "prompt": "Q",
            "candidate:a": "No",
            "candidate:b": "Yes",
            "candidates": "",
            "best answer": "Yes",
            "best model": "b",
            "ranking": '{"best": 1, "ranks": [2, 1]}',
        }
        assert second == ["R", "", "", "[]", "", "", ""]
        assert records(path) == [rows[0], {"prompt": "R", "candidates": []}]
        again = path.with_name("again.csv")
        write(again, records(path))
        assert again.read_bytes() == path.read_bytes()

    def test_spreadsheets_take_it_for_utf_8(self, path):
        write(path, [{"prompt": "é"}])
        assert path.read_bytes() == b"\xef\xbb\xbfprompt\r\n\xc3\xa9\r\n"

    def test_no_rows(self, path):
        write(path, [])
        assert records(path) == []

    @pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz", "a.tsv.zst"])
    def test_odd_rows_are_read_as_they_were_written(self, tmp_path, name):
        draw = random.Random(0)

        def value() -> object:
            return draw.choice(
                [draw.choice(ODD), draw.choice([7, 0.1, 1e22, True, [], {}, {"a": None, "b": [1, "2"]}])]
            )

        def candidate(model: str) -> object:
            text = draw.choice([*ODD, ""])
            return draw.choice([text, {"text": text, "model": model}, {"text": text, "model": model, "n": value()}])

        for _ in range(60):
            rows = [
                {
                    "id": draw.choice(ODD),
                    "instruction": draw.choice([*ODD, [{"role": "user", "content": draw.choice(ODD)}]]),
                    "candidates": [candidate(draw.choice(ODD)) for _ in range(draw.randint(1, 3))],
                    **{key: value() for key in draw.sample(["x", "größe", "a b"], draw.randint(0, 3))},
                    "output": draw.choice(ODD),
                }
                for _ in range(draw.randint(1, 6))
            ]
            with RowWriter(tmp_path / name) as writer:
                for row in rows:
                    writer.write(row)
            assert records(tmp_path / name) == rows
