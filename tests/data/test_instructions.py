from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_blender.data import PAPER_LENGTHS, Lengths, choose_instructions, read_instructions, source_files
from llm_blender.errors import InputError, NotFoundError, RowError


def write(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def chosen(*paths, **options):
    return choose_instructions(source_files([str(path) for path in paths]), **options)


def words(text):
    return len(text.split())


def test_prompts_under_all_their_names(tmp_path):
    path = write(
        tmp_path / "in.jsonl",
        [
            {"instruction": "One?", "input": "x", "output": "r", "id": 7, "candidates": ["not read"]},
            {"prompt": "Two?", "response": "r2", "license": "MIT"},
            {"question": "Three?", "answer": "r3", "meta": {"licence": "CC BY 4.0"}},
            {"messages": [{"role": "user", "content": "Four?"}], "source": "mine"},
            {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Five?"}]},
        ],
    )
    rows = list(read_instructions(path))
    assert [row.prompt.split("\n")[0] for row in rows[:4]] == ["One?", "Two?", "Three?", "Four?"]
    assert [row.reference for row in rows] == ["r", "r2", "r3", None, None]
    assert [row.id for row in rows] == ["7", "in-2", "in-3", "in-4", "in-5"]
    assert (rows[0].input, rows[0].candidates) == ("x", ())
    assert [row.extra for row in rows[1:4]] == [{"licence": "MIT"}, {"licence": "CC BY 4.0"}, {"source": "mine"}]
    assert rows[4].instruction[0]["role"] == "system"


def test_a_text_file_has_a_prompt_a_line(tmp_path):
    path = tmp_path / "in.txt"
    path.write_bytes("\ufeffWhy?\n\n  How so?  \n".encode())
    assert [(row.id, row.instruction) for row in read_instructions(path)] == [("in-1", "Why?"), ("in-3", "How so?")]
    path.write_bytes(b"Why?\n\xff\n")
    with pytest.raises(RowError, match=r"in\.txt, line 2: not UTF-8"):
        list(read_instructions(path))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "x"}, "there is no prompt"),
        ({"prompt": "  "}, "the prompt is empty"),
        ({"prompt": 3}, "must be a text"),
    ],
)
def test_bad_rows_stop_or_are_counted(tmp_path, row, reason):
    path = write(tmp_path / "in.jsonl", [{"prompt": "Good?"}, row])
    with pytest.raises(RowError, match=f"line 2: .*{reason}"):
        chosen(path)
    found = chosen(path, skip_bad=True)
    assert (found.read, found.left_out) == (2, {"bad row": 1})
    assert "line 2" in found.first_bad


def test_the_filters_of_the_paper(tmp_path):
    def row(name, prompt, output):
        return {"id": name, "prompt": " ".join(f"{name}{i}" for i in range(prompt)), "output": "w " * output}

    sizes = {
        "short": (4, 50),
        "fits": (5, 11),
        "long": (127, 127),
        "toolong": (128, 50),
        "few": (9, 10),
        "many": (9, 128),
    }
    path = write(
        tmp_path / "in.jsonl", [row(name, *size) for name, size in sizes.items()] + [{"prompt": "a b c d e f"}]
    )
    found = chosen(path, lengths=PAPER_LENGTHS, count_tokens=words)
    assert [row.id for row in found.rows] == ["fits", "long"]
    assert found.left_out == {
        "prompt above 127 tokens": 1,
        "prompt below 5 tokens": 1,
        "reference above 127 tokens": 1,
        "reference below 11 tokens": 1,
        "no reference": 1,
    }
    with pytest.raises(InputError, match="give `count_tokens`"):
        chosen(path, lengths=Lengths(prompt=(5, None)))


def test_what_asks_the_same_stands_there_once(tmp_path):
    first = write(tmp_path / "a.jsonl", [{"prompt": "Why?"}, {"prompt": "How?"}, {"prompt": " WHY? "}])
    second = write(tmp_path / "b.jsonl", [{"prompt": "how?"}, {"prompt": "When?"}])
    exclude = write(tmp_path / "test.jsonl", [{"instruction": "when?"}])
    found = chosen(first, second, exclude=[exclude])
    assert [row.instruction for row in found.rows] == ["Why?", "How?"]
    assert found.left_out == {"duplicate": 2, "asked in test.jsonl": 1}
    assert list(found.sources) == ["a.jsonl", "b.jsonl"]


def test_a_draw_depends_on_seed_and_prompts_alone(tmp_path):
    rows = [{"prompt": f"Question {i}?"} for i in range(50)]
    forward, backward = write(tmp_path / "f.jsonl", rows), write(tmp_path / "b.jsonl", rows[::-1])
    drawn = {row.prompt for row in chosen(forward, n=10, seed=3).rows}
    assert len(drawn) == 10
    assert {row.prompt for row in chosen(backward, n=10, seed=3).rows} == drawn
    assert {row.prompt for row in chosen(forward, n=10, seed=4).rows} != drawn
    more = {row.prompt for row in chosen(forward, n=20, seed=3).rows}
    assert drawn < more
    assert chosen(forward, n=10, seed=3).left_out == {"not drawn": 40}


def test_ids_differ(tmp_path):
    found = chosen(write(tmp_path / "in.jsonl", [{"prompt": f"Q{i}?", "id": "same"} for i in range(3)]))
    ids = [row.id for row in found.rows]
    assert ids[0] == "same"
    assert len(set(ids)) == 3


def test_licences_are_counted(tmp_path):
    rows = [{"prompt": "a", "license": "MIT"}, {"prompt": "b", "license": "MIT"}, {"prompt": "c"}]
    assert chosen(write(tmp_path / "in.jsonl", rows)).licences == {"MIT": 2}


def test_nothing_left_and_no_such_file(tmp_path):
    with pytest.raises(InputError, match="No instruction is left of 1: 1 prompt below 5 tokens"):
        chosen(write(tmp_path / "in.jsonl", [{"prompt": "a"}]), lengths=Lengths((5, None)), count_tokens=words)
    with pytest.raises(NotFoundError, match=r"no file none\.jsonl"):
        source_files(["none.jsonl"])
