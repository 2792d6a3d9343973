from __future__ import annotations

import pytest

from llm_blender.data import parse_row
from llm_blender.datasets import ImportPlan, import_rows
from llm_blender.errors import InputError, RowError

SKY, SUM = "Why is the sky blue?", "Add 2 and 3."
SKY_BASE, SUM_BASE = "Air scatters blue light.", "The sum is 5."


def output(instruction, text, generator="m", **more):
    return {"dataset": "own", "instruction": instruction, "output": text, "generator": generator, **more}


def judged(instruction, base, text, preference, *, baseline="base", model="m", annotator="strict", **more):
    return {
        "instruction": instruction,
        "output_1": base,
        "generator_1": baseline,
        "dataset": "own",
        "output_2": text,
        "generator_2": model,
        "annotator": annotator,
        "preference": preference,
        "raw_completion": {"text": "M"},
        **more,
    }


@pytest.fixture
def results(write, tmp_path):
    """Three models and a baseline; two annotators in folders, and one in a file of the older layout."""
    write("results/base/model_outputs.json", [output(SKY, "An older answer.", "base"), output(SUM, SUM_BASE, "base")])
    write(
        "results/base/annotations.json",
        [{**judged(SUM, SUM_BASE, SUM_BASE, 0, model="base"), "generator": "base", "annotator": "old"}],
    )
    write("results/good/model_outputs.json", [output(SKY, "Rayleigh scattering.", "good"), output(SUM, "5", "good")])
    write(
        "results/good/strict/annotations.json",
        [
            judged(SKY, SKY_BASE, "Rayleigh scattering.", 2, model="good"),
            judged(SUM, SUM_BASE, "5", 1.5, model="good"),
        ],
    )
    write(
        "results/good/weighted/annotations.json",
        [judged(SKY, SKY_BASE, "Rayleigh scattering.", 1.9900139974, model="good", annotator="weighted")],
    )
    write("results/poor/model_outputs.json", [output(SKY, "Because.", "example"), output(SUM, "7", "example")])
    write(
        "results/poor/annotations.json",
        [
            judged(SKY, SKY_BASE, "Because.", 1, model="poor", annotator="old"),
            judged(SUM, SUM_BASE, "7", None, model="poor", annotator="old"),
        ],
    )
    write("results/poor/strict/annotations.json", [judged(SKY, SKY_BASE, "Because.", 1.25, model="example")])
    (tmp_path / "results" / ".DS_Store").write_bytes(b"\0")
    return tmp_path / "results"


def by_model(row):
    return {candidate["model"]: candidate for candidate in row["candidates"]}


def verdicts(row):
    """(annotator, the better one or None, both)."""
    names = [candidate["model"] for candidate in row["candidates"]]
    better = {"a": lambda pair: names[pair["a"]], "b": lambda pair: names[pair["b"]], "tie": lambda pair: None}
    return {
        (pair["by"], better[pair["label"]](pair), frozenset((names[pair["a"]], names[pair["b"]])))
        for pair in row["pairs"]
    }


def test_one_row_an_instruction_with_all_answers_scores_and_pairs(imported, results):
    (sky, add), summary = imported(results, name="mine")
    assert (sky["id"], sky["source"], sky["instruction"], sky["input"]) == ("mine-0", "mine", SKY, "")
    assert sky["meta"] == {"dataset": "own"}
    assert {name: (c["text"], c["scores"]) for name, c in by_model(sky).items()} == {
        "base": (SKY_BASE, {}),
        "base#2": ("An older answer.", {}),
        "good": ("Rayleigh scattering.", {"strict_win_vs_base": 1.0, "weighted_win_vs_base": 0.9900139974}),
        "poor": ("Because.", {"old_win_vs_base": 0.0, "strict_win_vs_base": 0.25}),
    }
    assert verdicts(sky) == {
        ("strict", "good", frozenset(("good", "base"))),
        ("weighted", "good", frozenset(("good", "base"))),
        ("strict", "base", frozenset(("poor", "base"))),
        ("old", "base", frozenset(("poor", "base"))),
    }
    assert {name: c["scores"] for name, c in by_model(add).items()} == {
        "base": {},
        "good": {"strict_win_vs_base": 0.5},
        "poor": {},
    }
    assert verdicts(add) == {("strict", None, frozenset(("good", "base")))}
    assert summary.format == "alpaca_eval"
    assert summary.records == 13
    assert summary.skipped == {"an answer beside itself": 1, "the annotator gave no preference": 1}
    assert all(parse_row(row).candidates for row in (sky, add))


def test_the_folder_above_will_do(imported, results):
    assert imported(results.parent)[0] == imported(results, name=results.parent.name)[0]


def test_only_some_models_and_annotators(imported, results):
    (sky, add), summary = imported(results, models=("good",), annotators=("strict",))
    assert set(by_model(sky)) == {"good", "base"}  # the baseline stays: it was judged against
    assert set(by_model(sky)["good"]["scores"]) == {"strict_win_vs_base"}
    assert set(by_model(add)) == {"good", "base"}
    assert set(summary.inputs) == {"good/model_outputs.json", "good/strict/annotations.json"}


def test_an_annotator_of_the_older_layout(imported, results):
    (sky, _), summary = imported(results, annotators=("old",))
    assert verdicts(sky) == {("old", "base", frozenset(("poor", "base")))}
    assert not any("strict" in name for name in summary.inputs)


def test_the_baseline_as_reference(imported, results):
    (sky, add), _ = imported(results, reference="base")
    assert (sky["reference"], add["reference"]) == (SKY_BASE, SUM_BASE)
    assert sky["meta"]["reference_by"] == "base"


def test_rows_without_the_reference_are_counted(imported, write):
    path = write("outputs.json", [output(SKY, "a", "x"), output(SUM, "b", "x"), output(SKY, "c", "y")])
    rows, summary = imported(path, reference="y")
    assert [row["reference"] for row in rows] == ["c", None]
    assert summary.remarks == ("1 rows have no answer by y, hence no reference",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": ("goood",)}, "Unknown model 'goood': did you mean 'good'?"),
        ({"annotators": ("strickt",)}, "Unknown annotator 'strickt': did you mean 'strict'?"),
        ({"reference": "bose"}, "did you mean 'base'?"),
        ({"format": "chosen_rejected"}, "A folder holds AlpacaEval's results"),
        ({"labels": ("1", "2")}, "--labels is for labelled_pairs"),
    ],
)
def test_wrong_names_are_said(imported, results, options, message):
    with pytest.raises(InputError) as caught:
        imported(results, **options)
    assert message in str(caught.value)


def test_a_text_that_was_judged_keeps_the_name(imported, write, tmp_path):
    write("r/m/model_outputs.json", [output(SKY, "New text.")])
    write("r/m/strict/annotations.json", [judged(SKY, SKY_BASE, "Judged text. \n", 2)])
    ((row,), _) = imported(tmp_path / "r")
    assert {name: (c["text"], len(c["scores"])) for name, c in by_model(row).items()} == {
        "base": (SKY_BASE, 0),
        "m": ("Judged text. \n", 1),
        "m#2": ("New text.", 0),
    }


def test_white_space_around_a_text_makes_no_other_answer(imported, write, tmp_path):
    write("r/m/model_outputs.json", [output(SKY, "Text.")])
    write("r/m/strict/annotations.json", [judged(SKY, SKY_BASE, "Text.\n", 2)])
    ((row,), _) = imported(tmp_path / "r")
    assert set(by_model(row)) == {"base", "m"}


def test_two_baselines_are_two_scores(imported, write, tmp_path):
    write("r/m/one/annotations.json", [judged(SKY, "x", "Text.", 1, baseline="old_base", annotator="one")])
    write("r/m/two/annotations.json", [judged(SKY, "y", "Text.", 2, baseline="new_base", annotator="two")])
    ((row,), _) = imported(tmp_path / "r")
    assert by_model(row)["m"]["scores"] == {"one_win_vs_old_base": 0.0, "two_win_vs_new_base": 1.0}


def test_the_folder_names_the_annotator_and_differences_are_told(imported, write, tmp_path):
    write("r/m/folder/annotations.json", [judged(SKY, SKY_BASE, "Text.", 2, annotator="another")])
    ((row,), summary) = imported(tmp_path / "r")
    assert by_model(row)["m"]["scores"] == {"folder_win_vs_base": 1.0}
    (remark,) = summary.remarks
    assert "m/folder/annotations.json" in remark
    assert "another (1)" in remark


def test_a_model_that_stands_first_is_scored_all_the_same(imported, write, tmp_path):
    write("r/m/j/annotations.json", [judged(SKY, "Mine.", "Theirs.", 1.2, baseline="m", model="base", annotator="j")])
    ((row,), _) = imported(tmp_path / "r")
    assert by_model(row)["m"] == {"model": "m", "text": "Mine.", "scores": {"j_win_vs_base": pytest.approx(0.8)}}
    assert verdicts(row) == {("j", "m", frozenset(("m", "base")))}


def test_what_is_judged_twice_counts_once(imported, write):
    records = [judged(SKY, SKY_BASE, "Text.", preference) for preference in (2, 2, 1)]
    ((row,), summary) = imported(write("annotations.json", records))
    assert by_model(row)["m"]["scores"] == {"strict_win_vs_base": 1.0}
    assert summary.skipped == {"judged already": 1, "judged already, and differently: the first one counts": 1}


def test_files_alone_name_models_and_annotators_themselves(imported, write):
    outputs = write("outputs.json", [output(SKY, "a", "x"), output(SKY, "b", "y")])
    annotations = write("annotations.json", [judged(SKY, "b", "a", 1, baseline="y", model="x")])
    ((row,), _) = imported(outputs, annotations)
    assert by_model(row)["x"]["scores"] == {"strict_win_vs_y": 0.0}
    (kept, _) = imported(outputs, annotations, models=("y",))
    assert [set(by_model(row)) for row in kept] == [{"y"}]


def test_equal_answers_have_a_score_and_no_pair(imported, write):
    ((row,), summary) = imported(write("annotations.json", [judged(SKY, "Same.", "Same.", 2)]))
    assert by_model(row)["m"]["scores"] == {"strict_win_vs_base": 1.0}
    assert row["pairs"] == []
    assert summary.remarks == ("1 judgements of answers that read the same are scores and no pairs",)


def test_a_draw_is_written_in_two_ways(imported, write):
    records = [judged(f"Q{n}", "x", "y", preference) for n, preference in enumerate((0, 1.5, float("nan")))]
    rows, summary = imported(write("annotations.json", records))
    assert [pair["label"] for row in rows for pair in row["pairs"]] == ["tie", "tie"]
    assert summary.skipped == {"the annotator gave no preference": 1}


def test_an_input_is_part_of_the_instruction(imported, write):
    records = [judged("Translate.", "x", "y", 2, input="Hallo"), judged("Translate.", "x", "y", 1, input="Welt")]
    rows, _ = imported(write("annotations.json", records))
    assert [row["input"] for row in rows] == ["Hallo", "Welt"]


def test_the_better_answer_stands_on_either_side(imported, write):
    rows, _ = imported(write("annotations.json", [judged(f"Q{n}", "x", "y", 2) for n in range(200)]))
    labels = [pair["label"] for row in rows for pair in row["pairs"]]
    assert 70 < labels.count("a") < 130


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"preference": 3}, "`preference` must be 0 or from 1 to 2, not 3"),
        ({"preference": "m"}, "`preference` must be 0 or from 1 to 2, not 'm'"),
        ({"output_2": None}, "`output_2` must be a text, not NoneType"),
        ({"instruction": ["Q"]}, "`instruction` must be a text, not list"),
        ({"generator_1": None}, "`generator_1` must be a text, not NoneType"),
    ],
)
def test_a_wrong_record_stops_the_import_with_file_and_row(write, tmp_path, change, reason):
    good = judged(SKY, SKY_BASE, "Text.", 2)
    path = write("r/m/strict/annotations.json", [good, {**good, **change}])
    with pytest.raises(RowError) as caught:
        import_rows(ImportPlan((tmp_path / "r",)), str(tmp_path / "out.jsonl"))
    assert str(caught.value).startswith(f"{path}, row 2: {reason}")
    assert caught.value.line == 2
    assert not (tmp_path / "out.jsonl").exists()
    result = import_rows(ImportPlan((tmp_path / "r",), skip_bad=True), str(tmp_path / "out.jsonl"))
    assert (result.records, result.rows, result.skipped) == (2, 1, {"bad row": 1})
    assert result.bad == str(caught.value)


def test_a_missing_key_is_named(write, tmp_path):
    good = judged(SKY, SKY_BASE, "Text.", 2)
    write("r/m/strict/annotations.json", [{key: value for key, value in good.items() if key != "preference"}])
    with pytest.raises(RowError, match=r"row 1: `preference` is missing; the keys are instruction, output_1"):
        import_rows(ImportPlan((tmp_path / "r",)), str(tmp_path / "out.jsonl"))


def test_a_folder_of_something_else(tmp_path, imported):
    (tmp_path / "else").mkdir()
    with pytest.raises(InputError, match="holds no results of AlpacaEval: MODEL/model_outputs"):
        imported(tmp_path / "else")


def test_several_folders_are_one(imported, results, write):
    write("more/fine/model_outputs.json", [output(SKY, "It scatters.", "fine")])
    (sky, _), summary = imported(results, results.parent / "more")
    assert "fine" in by_model(sky)
    assert {"results/good/model_outputs.json", "more/fine/model_outputs.json"} < set(summary.inputs)


def test_files_and_folders_do_not_mix(results, write, imported):
    with pytest.raises(InputError, match="import them one by one"):
        imported(results, write("x.json", [output(SKY, "a")]))


def test_bench_reads_it(imported, results):
    from llm_blender.bench.judged_pairs import labelled_pairs

    bench = labelled_pairs("x", [parse_row(row) for row in imported(results)[0]])
    better = {(pair.prompt, (pair.a if won else pair.b)) for pair, won in zip(bench.pairs, bench.a_wins, strict=True)}
    assert better == {(SKY, "Rayleigh scattering."), (SKY, SKY_BASE)}
    assert (len(bench.pairs), bench.ties) == (4, 1)
