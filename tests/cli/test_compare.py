from __future__ import annotations

import json

import pytest


def test_the_better_one_and_its_probability(blend, ranker):
    ranker.temperature = 2.0
    assert blend("compare", "Q", "long", "longer").stdout == "B is better (P = 0.73)\n"
    assert blend("compare", "Q", "longer", "long").stdout == "A is better (P = 0.73)\n"
    assert blend("compare", "Q", "one", "two").stdout == "A and B are equally good\n"
    ranker.temperature = 10.0
    assert blend("compare", "Q", "long", "longer").stdout == "A and B are about equally good (P = 0.55)\n"


def test_json(blend, ranker):
    result = json.loads(blend("compare", "Q", "a", "abc", "--json").stdout)
    assert result == {"winner": "B", "probability": pytest.approx(0.1192, abs=1e-4), "logit": -2.0}


def test_texts_from_files_and_standard_input(blend, tmp_path, ranker):
    (tmp_path / "q.txt").write_text("What?\n\n")
    (tmp_path / "a.txt").write_text("العربية 🙂\n")
    assert blend("compare", "@q.txt", "@a.txt", "-", stdin="from stdin\n").exit_code == 0
    assert ranker.batches[0][0] == ("What?", "العربية 🙂", "from stdin")


def test_two_ats_are_one(blend, ranker):
    blend("compare", "Q", "@@home", "b")
    assert ranker.batches[0][0][1] == "@home"


def test_an_empty_answer_is_an_answer(blend, ranker):
    assert blend("compare", "Q", "", "b").stdout.startswith("B is better")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["", "a", "b"], "The instruction is empty"),
        ([" \n", "a", "b"], "The instruction is empty"),
        (["Q", "-", "-"], "only one"),
        (["@missing.txt", "a", "b"], "no file 'missing.txt'"),
        (["@bytes.bin", "a", "b"], "bytes.bin is not UTF-8 (byte 2)"),
        (["@.", "a", "b"], "cannot be read"),
        (["Q", "caf\udce9", "b"], "An argument is not UTF-8"),
        (["Q", "a"], "Missing argument"),
    ],
)
def test_wrong_arguments(refuse, tmp_path, ranker, args, message):
    (tmp_path / "bytes.bin").write_bytes(b"ab\xff")
    refuse("compare", *args, message=message)
    assert ranker.comparisons == 0
