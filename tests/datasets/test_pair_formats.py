"""The two formats of one pair a record: chosen and rejected, and two answers with a label or votes."""

from __future__ import annotations

import pytest

from llm_blender.data import parse_row
from llm_blender.errors import InputError, RowError

USER, SYSTEM = {"role": "user", "content": "Hi"}, {"role": "system", "content": "Be kind."}


def says(text):
    return {"role": "assistant", "content": text}


def better(row):
    (pair,) = row["pairs"]
    return None if pair["label"] == "tie" else row["candidates"][pair[pair["label"]]]["text"]


def texts(row):
    return {candidate["text"] for candidate in row["candidates"]}


class TestChosenRejected:
    @pytest.mark.parametrize(
        ("record", "instruction"),
        [
            ({"prompt": "Hi", "chosen": "Hello!", "rejected": "Go."}, "Hi"),
            ({"instruction": "Hi", "chosen": "Hello!", "rejected": "Go."}, "Hi"),
            ({"question": "Hi", "system": "", "chosen": "Hello!", "rejected": "Go."}, "Hi"),
            ({"question": "Hi", "system": "Be kind.", "chosen": "Hello!", "rejected": "Go."}, [SYSTEM, USER]),
            ({"messages": [USER], "chosen": "Hello!", "rejected": "Go."}, "Hi"),
            ({"prompt": [USER], "chosen": [says("Hello!")], "rejected": [says("Go.")]}, "Hi"),
            ({"prompt": "Hi", "chosen": [says("Hello!")], "rejected": [says("Go.")]}, "Hi"),
            ({"prompt": [SYSTEM, USER], "chosen": [says("Hello!")], "rejected": [says("Go.")]}, [SYSTEM, USER]),
            ({"chosen": [USER, says("Hello!")], "rejected": [USER, says("Go.")]}, "Hi"),
            ({"prompt": "Hi", "chosen": [USER, says("Hello!")], "rejected": [USER, says("Go.")]}, "Hi"),
            (
                {
                    "chosen": [USER, says("Yes?"), USER, says("Hello!")],
                    "rejected": [USER, says("Yes?"), USER, says("Go.")],
                },
                [USER, says("Yes?"), USER],
            ),
            ({"chosen": "\n\nHuman: Hi\n\nAssistant: Hello!", "rejected": "\n\nHuman: Hi\n\nAssistant: Go."}, "Hi"),
            (
                {
                    "chosen": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Hi\n\nAssistant: Hello!",
                    "rejected": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Hi\n\nAssistant: Go.",
                },
                [USER, says("Yes?"), USER],
            ),
            ({"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": "Hello!", "rejected": "Go."}, "Hi"),
        ],
    )
    def test_the_prompt_however_it_is_written(self, imported, write, record, instruction):
        ((row,), summary) = imported(write("pairs.jsonl", [record]))
        assert (row["instruction"], better(row), texts(row)) == (instruction, "Hello!", {"Hello!", "Go."})
        assert (summary.format, summary.skipped) == ("chosen_rejected", {})
        assert parse_row(row).prompt

    def test_the_input_is_kept_apart(self, imported, write):
        record = {"instruction": "Translate.", "input": "Hallo", "chosen": "Hello", "rejected": "Hi"}
        ((row,), _) = imported(write("pairs.jsonl", [record]))
        assert (row["instruction"], row["input"]) == ("Translate.", "Hallo")

    def test_an_answer_keeps_its_paragraphs(self, imported, write):
        record = {"chosen": "\n\nHuman: Hi\n\nAssistant: One.\n\nTwo.", "rejected": "\n\nHuman: Hi\n\nAssistant: Go."}
        ((row,), _) = imported(write("pairs.jsonl", [record]))
        assert better(row) == "One.\n\nTwo."

    def test_models_scores_and_short_values_are_kept(self, imported, write):
        record = {
            "prompt": "Hi",
            "chosen": "Hello!",
            "rejected": "Go.",
            "chosen_model": "x",
            "rejected_model": "y",
            "score_chosen": 8.5,
            "score_rejected": 2,
            "id": 7,
            "topic": "greeting",
            "essay": "long " * 50,
            "nothing": None,
        }
        ((row,), _) = imported(write("pairs.jsonl", [record]), judge="people")
        by_text = {candidate["text"]: candidate for candidate in row["candidates"]}
        assert by_text["Hello!"] == {"model": "x", "text": "Hello!", "scores": {"score": 8.5}}
        assert by_text["Go."] == {"model": "y", "text": "Go.", "scores": {"score": 2.0}}
        assert row["meta"] == {"id": 7, "topic": "greeting"}
        assert row["pairs"][0]["by"] == "people"

    def test_the_better_one_stands_on_either_side(self, imported, write):
        records = [{"prompt": "Hi", "chosen": f"Hello {n}!", "rejected": "Go."} for n in range(200)]
        path = write("pairs.jsonl", records)
        first = [row["pairs"][0]["label"] for row in imported(path)[0]]
        assert 70 < first.count("a") < 130
        assert first != [row["pairs"][0]["label"] for row in imported(path, seed=1)[0]]

    @pytest.mark.parametrize(
        ("record", "reason"),
        [
            ({"prompt": "Hi", "chosen": "Same", "rejected": "Same "}, "both answers read the same"),
            ({"chosen": [USER, says("Same")], "rejected": [USER, says("Same")]}, "both answers read the same"),
            ({"prompt": "  ", "chosen": "a", "rejected": "b"}, "the prompt is empty"),
            (
                {
                    "chosen": "\n\nHuman: Hi\n\nAssistant: A\n\nHuman: So?\n\nAssistant: B",
                    "rejected": "\n\nHuman: Hi\n\nAssistant: C\n\nHuman: So?\n\nAssistant: D",
                },
                "the conversations part before their last answer",
            ),
            (
                {"chosen": [USER, says("a"), USER, says("b")], "rejected": [USER, says("a")]},
                "the conversations part before their last answer",
            ),
            ({"chosen": [says("a")], "rejected": [says("b")]}, "the prompt is empty"),
            (
                {"chosen": [USER, says("a"), USER], "rejected": [USER, says("a"), {"role": "user", "content": "x"}]},
                "the conversations do not end with an answer",
            ),
        ],
    )
    def test_what_teaches_nothing_is_counted(self, imported, write, record, reason):
        good = {"prompt": "Hi", "chosen": "Hello!", "rejected": "Go."}
        rows, summary = imported(write("pairs.jsonl", [good, record]), format="chosen_rejected")
        assert len(rows) == 1
        assert summary.skipped == {reason: 1}

    @pytest.mark.parametrize(
        ("record", "reason"),
        [
            ({"prompt": "Hi", "chosen": "Hello!"}, "`rejected` is missing; the keys are prompt, chosen"),
            ({"prompt": "Hi", "chosen": "Hello!", "rejected": None}, "`rejected` must be a text or a list"),
            ({"prompt": "Hi", "chosen": "Hello!", "rejected": 5}, "`rejected` must be a text or a list"),
            ({"chosen": "Hello!", "rejected": "Go."}, "there is no prompt: one of `prompt`, `instruction`"),
            ({"prompt": 5, "chosen": "Hello!", "rejected": "Go."}, "`prompt` must be a text or a list"),
            ({"prompt": "Hi", "chosen": [says("a")], "rejected": "b"}, "must both be conversations or both be texts"),
            ({"prompt": "Hi", "chosen": [], "rejected": "b"}, "`chosen` must be a text or a list of messages"),
            ({"prompt": [{"role": "user"}], "chosen": "a", "rejected": "b"}, "`prompt`: Message 0"),
            ({"chosen": [{"role": "judge", "content": "x"}], "rejected": [USER]}, "unknown role 'judge'"),
        ],
    )
    def test_a_wrong_record_stops_with_file_and_line(self, imported, write, record, reason):
        good = {"prompt": "Hi", "chosen": "Hello!", "rejected": "Go."}
        path = write("pairs.jsonl", [good, good, record])
        with pytest.raises(RowError) as caught:
            imported(path)
        assert str(caught.value).startswith(f"{path}, line 3: ")
        assert reason in str(caught.value)
        rows, summary = imported(path, skip_bad=True)
        assert (len(rows), summary.skipped, summary.left_out) == (1, {"bad row": 1}, {"duplicate": 1})

    def test_a_line_that_is_no_json(self, imported, write):
        path = write("pairs.jsonl", [{"prompt": "Hi", "chosen": "Hello!", "rejected": "Go."}])
        path.write_text(path.read_text() + "{\n")
        with pytest.raises(RowError, match="line 2: not JSON"):
            imported(path)

    def test_parquet(self, imported, tmp_path):
        pytest.importorskip("pyarrow")
        from pyarrow import Table, parquet

        records = [
            {"prompt": "Hi", "chosen": [USER, says("Hello!")], "rejected": [USER, says("Go.")], "other": None},
            {"prompt": "Hi", "chosen": [USER, says("Hello!")], "rejected": None, "other": 1},
        ]
        path = tmp_path / "pairs.parquet"
        parquet.write_table(Table.from_pylist(records), path)
        with pytest.raises(RowError, match="row 2: `rejected` must be"):
            imported(path)
        ((row,), _) = imported(path, skip_bad=True)
        assert (row["instruction"], better(row)) == ("Hi", "Hello!")

    def test_the_preferences_of_this_project_come_back(self, imported, write):
        from llm_blender import Candidate, Example
        from llm_blender.data import make_preferences
        from llm_blender.testing import FakeRanker

        example = Example("Hi!", candidates=(Candidate("Go.", "x"), Candidate("Hello, you?", "y")))
        ranking = FakeRanker().rank("Hi!", ["Go.", "Hello, you?"])
        (record,) = make_preferences(example, ranking).records
        ((row,), _) = imported(write("pairs.jsonl", [record.to_dict()]))
        assert (row["instruction"], better(row), row["meta"]["margin"]) == ("Hi!", "Hello, you?", record.margin)
        assert {candidate["model"] for candidate in row["candidates"]} == {"x", "y"}


def panda(*votes, **change):
    return {
        "idx": 3,
        "motivation_app": "Editor",
        "cmp_key": "alpha-7b_beta-6.7B",
        "instruction": "Shorten.",
        "input": "It is very much cold.",
        "response1": "It is cold.",
        "response2": "Cold it is, very.",
        **{f"annotator{n}": vote for n, vote in enumerate(votes, 1)},
        **change,
    }


def llmbar(label, **change):
    return {"input": "Name a bird.", "output_1": "Owl", "output_2": "Cod", "label": label, **change}


class TestLabelledPairs:
    @pytest.mark.parametrize(
        ("votes", "wanted"),
        [
            ((1, 1, 2), "It is cold."),
            ((2, 2, 2), "Cold it is, very."),
            ((0, 0, 1), None),
            ((0, 1, 2), None),
            ((1, 2), None),
            ((2,), "Cold it is, very."),
        ],
    )
    def test_votes_as_in_pandalm(self, imported, write, votes, wanted):
        records = [panda(*votes), panda(2, instruction="Another.")]
        ((row, _), summary) = imported(write("testset.json", records), judge="people")
        assert summary.format == "labelled_pairs"
        assert better(row) == wanted
        assert row["pairs"][0]["by"] == f"people-majority{len(votes)}"
        assert (row["instruction"], row["input"]) == ("Shorten.", "It is very much cold.")
        assert [candidate["model"] for candidate in row["candidates"]] == ["alpha-7b", "beta-6.7B"]
        assert row["meta"] == {"idx": 3, "motivation_app": "Editor", "votes": list(votes)}

    def test_an_empty_cell_of_pandas_is_no_input(self, imported, write):
        path = write("testset.json", [panda(1, 1, 1, input=float("nan"))])
        assert "NaN" in path.read_text()
        assert imported(path)[0][0]["input"] == ""

    @pytest.mark.parametrize(("label", "wanted"), [(1, "Owl"), (2, "Cod"), ("1", "Owl"), (2.0, "Cod"), ("tie", None)])
    def test_a_label_as_in_llmbar(self, imported, write, label, wanted):
        ((row,), summary) = imported(write("dataset.json", [llmbar(label)]))
        assert (row["instruction"], row["input"], better(row)) == ("Name a bird.", "", wanted)
        assert (summary.format, row["pairs"][0]["by"], row["meta"]) == ("labelled_pairs", "", {})

    def test_an_arena_of_conversations(self, imported, write):
        record = {
            "conversation_a": [USER, says("Hello!")],
            "conversation_b": [USER, says("Go.")],
            "model_a": "x",
            "model_b": "y",
            "winner": "model_b",
        }
        rows, _ = imported(write("arena.jsonl", [record, {**record, "winner": "tie (bothbad)"}]))
        assert [better(row) for row in rows] == ["Go.", None]
        assert [candidate["model"] for candidate in rows[0]["candidates"]] == ["x", "y"]

    def test_several_files_are_told_apart(self, imported, write):
        natural = write("LLMBar/Natural/dataset.json", [llmbar(1)])
        manual = write("LLMBar/Adversarial/Manual/dataset.json", [llmbar(2, input="Name a fish.")])
        rows, summary = imported(natural, manual, name="llmbar")
        files = ["Natural/dataset.json", "Adversarial/Manual/dataset.json"]
        assert [row["meta"]["file"] for row in rows] == files == list(summary.inputs)
        assert [row["id"] for row in rows] == ["llmbar-0", "llmbar-1"]

    def test_labels_of_zero_and_one_are_not_guessed(self, imported, write):
        path = write("pairs.jsonl", [llmbar(0), llmbar(1, input="Name a fish.")])
        with pytest.raises(InputError, match="--labels 0,1 if 0 means the first answer"):
            imported(path)
        assert [better(row) for row in imported(path, labels=("0", "1"))[0]] == ["Owl", "Cod"]
        assert [better(row) for row in imported(path, labels=("1", "2", "0"))[0]] == [None, "Owl"]

    def test_labels_of_ones_own(self, imported, write):
        path = write("pairs.jsonl", [llmbar("Left"), llmbar("RIGHT", input="Name a fish.")])
        with pytest.raises(RowError, match="`label` is 'Left'; known are 1, a, "):
            imported(path)
        assert [better(row) for row in imported(path, labels=("left", "right"))[0]] == ["Owl", "Cod"]

    @pytest.mark.parametrize(
        ("record", "reason"),
        [
            (llmbar(None), "nobody says which answer is better"),
            (panda(1, None, 1), "nobody says which answer is better"),
            (llmbar(1, output_2=" Owl"), "both answers read the same"),
            (llmbar(1, input=" "), "the prompt is empty"),
        ],
    )
    def test_what_teaches_nothing_is_counted(self, imported, write, record, reason):
        rows, summary = imported(write("pairs.json", [llmbar(1), record]))
        assert (len(rows), summary.skipped) == (1, {reason: 1})

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"label": 3}, "`label` is 3; known are"),
            ({"output_2": None}, "`output_2` must be a text"),
            ({"input": None}, "there is no prompt"),
            ({"input": 5}, "`prompt` must be a text"),
        ],
    )
    def test_a_wrong_record_stops_with_file_and_row(self, imported, write, change, reason):
        path = write("dataset.json", [llmbar(1), {**llmbar(1), **change}])
        with pytest.raises(RowError) as caught:
            imported(path)
        assert str(caught.value).startswith(f"{path}, row 2: ")
        assert reason in str(caught.value)

    def test_missing_keys_are_named(self, imported, write):
        unlabelled = {key: value for key, value in llmbar(1).items() if key != "label"}
        with pytest.raises(RowError, match=r"row 2: nothing says which answer is better: label, winner"):
            imported(write("dataset.json", [llmbar(1), unlabelled]))
        with pytest.raises(RowError, match=r"row 2: there are no two answers \(response1/response2, .* label$"):
            imported(write("dataset.json", [llmbar(1), {"input": "x", "output_1": "y", "label": 1}]))

    def test_bench_reads_it(self, imported, write):
        from llm_blender.bench.judged_pairs import labelled_pairs

        rows, _ = imported(write("LLMBar/a.json", [llmbar(1), llmbar(2)]), write("LLMBar/b.json", [llmbar(1)]))
        bench = labelled_pairs("x", [parse_row(row) for row in rows], by="meta.file")
        assert sorted(bench.a_wins) == [False, True]
