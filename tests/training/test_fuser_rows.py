"""Rows and candidates that a fuser learns from, and the answers made of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_blender.errors import ConfigError, InputError, NotFoundError, RowError
from llm_blender.training.fuser_rows import FuserRow, FuserRowCount, closest_merge, load_rows
from llm_blender.training.groups import excluded_keys
from llm_blender.training.recipes import FuserRecipe, FuserSource

from .conftest import make_row, write_rows

RANKING = {"strategy": "full", "comparisons": 6, "scores": [0.2, -1.0, 3.0], "ranks": [2, 3, 1], "best": 2}


def load(
    path: Path, *, excluded: frozenset[str] = frozenset(), top_k: int = 3, seed: int = 0, **options: object
) -> tuple[list[FuserRow], FuserRowCount]:
    source = FuserSource.model_validate({"file": path.name, **options})
    rows, (count,) = load_rows([source], path.parent, excluded, top_k, seed)
    return rows, count


def models(row: FuserRow) -> list[str]:
    return [text.split()[-1] for text in row.candidates]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", [make_row(i) for i in range(12)])


class TestCandidates:
    def test_by_the_stored_ranking_before_any_score(self, tmp_path):
        path = write_rows(tmp_path / "rows.jsonl", [make_row(1, ranking=RANKING), make_row(2)])
        rows, count = load(path, score="judge")
        assert [models(row) for row in rows] == [["fair", "bad", "good"], ["good", "fair", "bad"]]
        assert count.chosen_by == {"ranking": 1, "score": 1}

    def test_by_a_score_without_those_that_lack_it(self, tmp_path):
        row = make_row(1)
        del row["candidates"][1]["scores"]
        rows, count = load(write_rows(tmp_path / "rows.jsonl", [row]), score="judge")
        assert models(rows[0]) == ["fair", "bad"]
        assert count.chosen_by == {"score": 1}

    def test_else_by_the_seed(self, path):
        rows, count = load(path)
        assert count.chosen_by == {"chance": 12}
        assert len({tuple(models(row)) for row in rows}) > 3
        assert load(path)[0] == rows != load(path, seed=1)[0]

    def test_the_best_few(self, path):
        assert {tuple(models(row)) for row in load(path, score="judge", top_k=2)[0]} == {("good", "fair")}

    def test_of_some_llms(self, path):
        for options in ({"models": ["bad", "fair"]}, {"exclude_models": ["good"]}):
            assert {frozenset(models(row)) for row in load(path, **options)[0]} == {frozenset({"bad", "fair"})}

    def test_an_llm_whose_answers_are_the_references(self, path):
        rows, _ = load(path, reference_model="fair")
        assert rows[3].answer == "the light is fair"
        assert {tuple(sorted(models(row))) for row in rows} == {("bad", "good")}

    def test_the_same_text_and_no_text_are_read_once_and_never(self, tmp_path):
        row = make_row(1, candidates=["one", " one ", "two", "  "])
        assert sorted(text.strip() for text in load(write_rows(tmp_path / "a.jsonl", [row]))[0][0].candidates) == [
            "one",
            "two",
        ]

    def test_a_ranking_that_does_not_fit_is_an_error_of_its_line(self, tmp_path):
        path = write_rows(tmp_path / "rows.jsonl", [make_row(1), make_row(2, ranking={**RANKING, "best": 0})])
        with pytest.raises(RowError, match=r"rows\.jsonl, line 2: .*rank the row again"):
            load(path)


class TestRows:
    def test_what_cannot_be_learnt_is_counted(self, tmp_path):
        rows = [make_row(1), make_row(2, output=None), make_row(3, output=" "), make_row(4, candidates=[]), make_row(5)]
        test = write_rows(tmp_path / "test.jsonl", [make_row(5, instruction="  why BED sky?")])
        found, count = load(write_rows(tmp_path / "a.jsonl", [*rows, make_row(6)]), excluded=excluded_keys([test]))
        assert (count.rows, count.excluded, count.without_reference, count.without_candidates) == (6, 1, 2, 1)
        assert count.used == len(found) == 2

    def test_so_many_are_drawn(self, path):
        rows, count = load(path, max_rows=5)
        assert count.used == len(rows) == 5
        assert load(path, max_rows=5)[0] == rows
        assert [row.instruction for row in rows] != [row.instruction for row in load(path)[0][:5]]

    @pytest.mark.parametrize(
        ("rows", "options", "message"),
        [
            ([], {}, "holds no rows"),
            ([make_row(1, output=None)], {}, r"has a reference \(`output` or `reference`\)"),
            ([make_row(1, candidates=[])], {}, "reference and candidates: `blend data build`"),
            ([make_row(1)], {"reference_model": "x"}, "has an answer of x to use as the reference"),
            ([make_row(1)], {"models": ["x"]}, "candidates of the LLMs that the source takes"),
        ],
    )
    def test_nothing_to_learn(self, tmp_path, rows, options, message):
        with pytest.raises(InputError, match=message):
            load(write_rows(tmp_path / "rows.jsonl", rows), **options)

    def test_all_excluded(self, path):
        with pytest.raises(InputError, match="no rows but those whose prompt is in a test file"):
            load(path, excluded=excluded_keys([path]))

    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(NotFoundError, match=r"no file .*none\.jsonl"):
            load(tmp_path / "none.jsonl")


class TestRecipe:
    def test_from_a_file_and_its_base(self, tmp_path):
        (tmp_path / "a.toml").write_text('lora_rank = 4\n[[sources]]\nfile = "a"\nmodels = ["x"]\n')
        (tmp_path / "b.toml").write_text('base = "a.toml"\nseed = 3\n')
        assert FuserRecipe.load(tmp_path / "b.toml") == FuserRecipe(
            lora_rank=4, seed=3, sources=(FuserSource(file="a", models=("x",)),)
        )

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("lora = 4", 'unknown key "lora"'),
            ("fewer = 1.5", '"fewer" should be at most 1'),
            ("[[sources]]\nfile = 'a'\npairs = 'labelled'", r'\[\[sources\]\] #1: unknown key "pairs"'),
            ("max_length = 100\nanswer_max_length = 80", "leave at least 32 tokens of max_length to the prompt"),
        ],
    )
    def test_what_is_wrong_is_named(self, tmp_path, text, message):
        (tmp_path / "a.toml").write_text(text)
        with pytest.raises(ConfigError, match=message):
            FuserRecipe.load(tmp_path / "a.toml")


BEST = "The sky is blue. Pigs fly. It looks so by day."
OTHERS = ["It is blue. Air scatters light.", "No idea at all. 1. Air scatters light."]


def test_sentences_go_and_come_until_it_is_closest():
    assert closest_merge(BEST, OTHERS, "The sky is blue. Air scatters light.") == "The sky is blue. Air scatters light."


def test_the_best_stays_where_no_move_helps():
    assert closest_merge(BEST, OTHERS, BEST) == BEST
    assert closest_merge(BEST, [], "Wolves hunt deer.") == BEST
    assert closest_merge(BEST, OTHERS, "The sky is blue.", gain=0.99) == BEST
    assert closest_merge("...", OTHERS, "The sky is blue.") == "..."


def test_no_more_moves_than_wanted():
    assert closest_merge(BEST, OTHERS, "The sky is blue.", most=1) == "The sky is blue. Pigs fly."


def test_it_is_laid_out_as_the_best_one_is():
    best = "Sleep better:\n1. Go to bed early.\n2. Drink tea."
    merged = closest_merge(best, ["Do this:\n* Keep it dark."], "Sleep better: Go to bed early. Keep it dark.")
    assert merged == "Sleep better:\n1. Go to bed early.\n2. Keep it dark."
