from __future__ import annotations

from collections import Counter

import pytest

from llm_blender.data import parse_row
from llm_blender.training.pairs import TrainingPair, draw_pairs
from llm_blender.training.recipe import Source


def row(name: str, *scores: float, models: str = "") -> dict:
    models = models or "m" * len(scores)
    candidates = [
        {"text": f"{name}{i}", "model": model, "scores": {"judge": score}}
        for i, (score, model) in enumerate(zip(scores, models, strict=True))
    ]
    return {"instruction": name, "candidates": candidates}


def draw(rows: list[dict], seed: int = 0, **source) -> list[TrainingPair]:
    return draw_pairs([parse_row(row) for row in rows], Source(file="rows", **source), seed)


def texts(pairs: list[TrainingPair]) -> set[tuple[str, str]]:
    return {(pair.better, pair.worse) for pair in pairs}


class TestImplied:
    def test_the_higher_score_is_better(self):
        pairs = draw([row("a", 1, 3), row("b", 9, 2)], min_gap=0)
        assert {(pair.prompt, pair.better, pair.worse) for pair in pairs} == {("a", "a1", "a0"), ("b", "b0", "b1")}

    @pytest.mark.parametrize("min_gap", [0, 0.2])
    def test_a_tie_is_no_pair(self, min_gap):
        assert draw([row("a", 1, 1), row("b", 0, 0, 0)], min_gap=min_gap) == []

    def test_a_gap_is_a_share_of_the_files_scores(self):
        rows = [row("a", *range(11))]
        # Mid-ranks of 11 different scores are 1/11 apart.
        for gap, apart in ((0.0, 1), (0.5, 6), (0.9, 10), (1.0, 11)):
            assert all(int(p.better[1:]) - int(p.worse[1:]) >= apart for p in draw(rows, min_gap=gap))
            assert len(draw(rows, min_gap=gap)) == (11 - apart) * (12 - apart) / 2

    def test_scales_do_not_matter(self):
        small, large = ([row("a", *(scale * s**3 for s in (1, 2, 5, 7)))] for scale in (1e-6, 1e6))
        assert texts(draw(small, min_gap=0.5)) == texts(draw(large, min_gap=0.5))

    def test_llms_of_different_strength_are_not_compared(self):
        rows = [row(f"r{i}-", 9 + i % 2, 1, 1.5 - i % 2, models="sww") for i in range(10)]
        assert {i for p in draw(rows, comparable=0.25, min_gap=0) for i in (p.better[-1], p.worse[-1])} == {"1", "2"}
        assert "0" in {p.better[-1] for p in draw(rows, comparable=1, min_gap=0)}

    def test_scores_are_chosen_by_name(self):
        candidates = [{"text": "x", "scores": {"one": 0, "two": 1}}, {"text": "y", "scores": {"one": 1, "two": 0}}]
        rows = [{"instruction": "q", "candidates": candidates}]
        assert texts(draw(rows, scores=("one",))) == {("y", "x")}
        assert texts(draw(rows, scores=("two",))) == {("x", "y")}
        assert texts(draw(rows)) == {("y", "x"), ("x", "y")}
        assert draw(rows, scores=("three",)) == []

    def test_excluded_models_and_equal_texts_are_left_out(self):
        rows = [row("a", 1, 2, 3, models="xyz")]
        assert texts(draw(rows, exclude_models=("z",), comparable=1)) == {("a1", "a0")}
        rows[0]["candidates"][1]["text"] = "a0 \n"
        assert ("a0 \n", "a0") not in texts(draw(rows, comparable=1, min_gap=0))


class TestLabelled:
    ROWS = ({**row("a", 0, 0, 0, models="xyz"), "pairs": [
        {"a": 0, "b": 1, "label": "a"}, {"a": 1, "b": 2, "label": "b"}, {"a": 0, "b": 2, "label": "tie"},
    ]},)  # fmt: skip

    def test_labels_decide_and_ties_teach_nothing(self):
        assert texts(draw(list(self.ROWS), pairs="labelled")) == {("a0", "a1"), ("a2", "a1")}

    def test_excluded_models(self):
        assert texts(draw(list(self.ROWS), pairs="labelled", exclude_models=("z",))) == {("a0", "a1")}


class TestMismatched:
    @pytest.mark.parametrize("seed", range(5))
    def test_each_reference_against_that_of_another_row(self, seed):
        rows = [{"instruction": f"q{i}", "candidates": [], "output": f"r{i}"} for i in range(6)]
        pairs = draw([*rows, {"instruction": "none", "candidates": []}], seed, pairs="mismatched")
        assert {(pair.prompt, pair.better) for pair in pairs} == {(f"q{i}", f"r{i}") for i in range(6)}
        assert all(pair.better != pair.worse for pair in pairs)
        assert {pair.worse for pair in pairs} == {f"r{i}" for i in range(6)}

    def test_one_row_has_no_other(self):
        assert draw([{"instruction": "q", "candidates": [], "output": "r"}], pairs="mismatched") == []
        assert draw([], pairs="mismatched") == []

    def test_others_with_the_same_reference_are_no_pair(self):
        rows = [{"instruction": f"q{i}", "candidates": [], "output": "yes"} for i in range(2)]
        assert draw(rows, pairs="mismatched") == []


class TestDrawing:
    ROWS = (row("many", *range(20)), *(row(f"few{i}", 1, 20) for i in range(5)))

    def test_rows_take_turns(self):
        counts = Counter(pair.prompt for pair in draw(list(self.ROWS), max_pairs=8))
        assert counts == {"many": 3, **{f"few{i}": 1 for i in range(5)}}

    def test_no_pair_twice(self):
        pairs = draw(list(self.ROWS), max_pairs=10_000, min_gap=0)
        assert len(pairs) == len(set(pairs)) == 190 + 5

    def test_the_seed_decides(self):
        assert draw(list(self.ROWS), 1, max_pairs=50) == draw(list(self.ROWS), 1, max_pairs=50)
        assert draw(list(self.ROWS), 1, max_pairs=50) != draw(list(self.ROWS), 2, max_pairs=50)
