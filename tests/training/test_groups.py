from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from llm_blender.data import parse_row, read_rows
from llm_blender.errors import NotFoundError
from llm_blender.training.groups import (
    PREFERENCE,
    Judgements,
    Preference,
    ScoredGroup,
    TrainingGroup,
    draw_groups,
    find_tasks,
    load_groups,
    similar_texts,
    wins_share,
)
from llm_blender.training.recipes import Source


def row(name: str, *scores: float, models: str = "", **keys) -> dict:
    models = models or "m" * len(scores)
    candidates = [
        {"text": f"{name}{i}", "model": model, "scores": {"judge": score}}
        for i, (score, model) in enumerate(zip(scores, models, strict=True))
    ]
    return {"instruction": name, "candidates": candidates, **keys}


def draw(rows: list[dict], seed: int = 0, **source) -> list[TrainingGroup]:
    return draw_groups([parse_row(row) for row in rows], Source(file="rows", **source), seed)


def better(groups: list[TrainingGroup]) -> set[tuple[str, str]]:
    """(better, worse) of all preferences."""
    return {
        (group.texts[a], group.texts[b]) if p > 0.5 else (group.texts[b], group.texts[a])
        for group in groups
        for a, b, p in group.preferences
    }


class TestImplied:
    def test_the_higher_score_is_better(self):
        groups = draw([row("a", 1, 3), row("b", 9, 2)], min_gap=0)
        assert better(groups) == {("a1", "a0"), ("b0", "b1")}
        assert {group.prompt for group in groups} == {"a", "b"}

    @pytest.mark.parametrize("min_gap", [0, 0.2])
    def test_a_tie_is_no_preference(self, min_gap):
        assert draw([row("a", 1, 1), row("b", 0, 0, 0)], min_gap=min_gap) == []

    def test_a_group_of_many_holds_all_their_preferences(self):
        (group,) = draw([row("a", 1, 2, 3, 4)], candidates=4, min_gap=0)
        assert len(group.texts) == 4
        assert better([group]) == {(f"a{i}", f"a{j}") for i in range(4) for j in range(i)}

    def test_a_gap_is_a_share_of_the_files_scores(self):
        rows = [row("a", *range(11))]
        for gap, apart in ((0.0, 1), (0.5, 6), (0.9, 10)):
            found = better(draw(rows, candidates=11, min_gap=gap))
            # Mid-ranks of 11 different scores are 1/11 apart.
            assert found == {(f"a{i}", f"a{j}") for i in range(11) for j in range(11) if i - j >= apart}
        assert draw(rows, candidates=11, min_gap=1) == []

    def test_scales_do_not_matter(self):
        small, large = ([row("a", *(scale * s**3 for s in (1, 2, 5, 7)))] for scale in (1e-6, 1e6))
        assert draw(small, candidates=4) == draw(large, candidates=4)

    def test_the_probability_says_how_far_they_are_apart_and_whether_judges_agree(self):
        candidates = [
            {"text": t, "scores": {"one": a, "two": b}} for t, a, b in (("x", 0, 0), ("y", 1, 1), ("z", 1, 0))
        ]
        (group,) = draw([{"instruction": "q", "candidates": candidates}], candidates=3, min_gap=0)
        found = {tuple(sorted((group.texts[a], group.texts[b]))): max(p, 1 - p) for a, b, p in group.preferences}
        assert found == {("x", "y"): 1, ("x", "z"): 1, ("y", "z"): 1}
        (group,) = draw([row("a", *range(10))], candidates=10, min_gap=0)
        sure = {abs(a - b): p for a, b, p in ((int(group.texts[a][1:]), int(group.texts[b][1:]), max(p, 1 - p))
                for a, b, p in group.preferences)}  # fmt: skip
        assert sure[1] == pytest.approx(0.6)
        assert sure[3] == pytest.approx(0.8)
        assert {sure[apart] for apart in range(5, 10)} == {1.0}

    def test_judges_who_disagree_are_no_preference(self):
        candidates = [{"text": "x", "scores": {"one": 0, "two": 1}}, {"text": "y", "scores": {"one": 1, "two": 0}}]
        rows = [{"instruction": "q", "candidates": candidates}]
        assert better(draw(rows, scores=("one",))) == {("y", "x")}
        assert better(draw(rows, scores=("two",))) == {("x", "y")}
        assert draw(rows) == []
        assert draw(rows, scores=("three",)) == []

    def test_llms_of_different_strength_are_not_compared(self):
        rows = [row(f"r{i}-", 9 + i % 2, 1, 1.5 - i % 2, models="sww") for i in range(10)]
        assert {text[-1] for pair in better(draw(rows, comparable=0.25, min_gap=0)) for text in pair} == {"1", "2"}
        assert "0" in {good[-1] for good, _ in better(draw(rows, comparable=1, min_gap=0))}

    def test_excluded_models_and_equal_texts_are_left_out(self):
        rows = [row("a", 1, 2, 3, models="xyz")]
        assert better(draw(rows, candidates=3, exclude_models=("z",), comparable=1)) == {("a1", "a0")}
        rows[0]["candidates"][1]["text"] = "a0 \n"
        assert ("a0 \n", "a0") not in better(draw(rows, candidates=3, comparable=1, min_gap=0))

    def test_a_distractor_answers_a_similar_instruction_and_loses(self):
        rows = [row(f"{word} number {i} of many ", 1, 5, 3, models="xyz") for i, word in enumerate(("blue", "red") * 3)]
        groups = draw(rows, candidates=3, comparable=1, distractors=1, min_gap=0)
        for group in groups:
            *own, other = group.texts
            assert {text[:-1] for text in own} == {group.prompt}
            assert other[:-1] != group.prompt
            assert other[-1] == "1"  # of the better half of three LLMs
            lost = [p for p in group.preferences if p.b == len(own)]
            assert len(lost) == 3
            assert {p.probability for p in lost} == {1.0}
        assert not [g for g in draw(rows, candidates=3, comparable=1) if len(g.texts) > 3]


class TestLabelled:
    ROWS = ({**row("a", 0, 0, 0, 0, models="wxyz"), "pairs": [
        {"a": 1, "b": 2, "label": "a"}, {"a": 2, "b": 3, "label": "b"}, {"a": 1, "b": 3, "label": "tie"},
    ]},)  # fmt: skip

    def test_labels_decide_ties_teach_nothing_and_who_is_in_no_pair_is_not_read(self):
        (group,) = draw(list(self.ROWS), pairs="labelled")
        assert group.texts == ("a1", "a2", "a3")
        assert better([group]) == {("a1", "a2"), ("a3", "a2")}

    def test_excluded_models(self):
        assert better(draw(list(self.ROWS), pairs="labelled", exclude_models=("z",))) == {("a1", "a2")}


class TestReference:
    ROWS = tuple(
        {"instruction": f"tell of {topic}, {name}", "candidates": [], "output": f"{topic}, {name} " + "word " * 20}
        for topic in ("cats", "dogs")
        for name in (topic + "a", topic + "b", topic + "c")
    )

    def test_it_is_better_than_each_negative(self):
        for group in draw(list(self.ROWS), pairs="reference"):
            reference, neighbour, other, cut = group.texts
            assert reference.split()[:2] == group.prompt.split()[2:]
            assert neighbour.split()[0] == reference.split()[0]  # that of an instruction on the same topic
            assert other != reference
            assert reference.startswith(cut)
            assert 5 <= len(cut.split()) < 17
            assert group.preferences == tuple((0, n, 1.0) for n in (1, 2, 3))

    @pytest.mark.parametrize("kind", ["neighbour", "other", "cut"])
    def test_kinds_are_chosen(self, kind):
        groups = draw(list(self.ROWS), pairs="reference", negatives=(kind,))
        assert {len(group.texts) for group in groups} == {2}
        assert len(groups) == 6

    def test_what_has_no_negative(self):
        assert draw([{"instruction": "q", "candidates": [], "output": "r"}], pairs="reference") == []
        assert draw([], pairs="reference") == []
        rows = [{"instruction": f"q{i}", "candidates": [], "output": "yes"} for i in range(2)]
        assert draw([*rows, {"instruction": "none", "candidates": []}], pairs="reference") == []


class TestDrawing:
    ROWS = (row("many", *range(20)), *(row(f"few{i}", 1, 20) for i in range(5)))

    def test_rows_take_turns(self):
        counts = Counter(group.prompt for group in draw(list(self.ROWS), max_groups=8, comparable=1))
        assert counts == {"many": 3, **{f"few{i}": 1 for i in range(5)}}

    def test_no_group_twice(self):
        groups = draw(list(self.ROWS), max_groups=10_000, min_gap=0, comparable=1)
        keys = [(group.prompt, frozenset(group.texts)) for group in groups]
        assert len(keys) == len(set(keys)) > 100

    def test_the_seed_decides(self):
        assert draw(list(self.ROWS), 1, max_groups=50) == draw(list(self.ROWS), 1, max_groups=50)
        assert draw(list(self.ROWS), 1, max_groups=50) != draw(list(self.ROWS), 2, max_groups=50)


class TestNearest:
    def test_rarer_words_count_more(self):
        texts = ["red volcano", "red river", "red sea", "red car", "old volcano", "bake bread", ""]
        assert similar_texts(texts, 2)[0][0] == 4
        assert similar_texts(texts, 1)[4] == [0]
        assert similar_texts(texts, 3)[5:] == [[], []]


NAN = float("nan")
GROUP = TrainingGroup(
    "Why?", ("a", "b", "c", "d"), (Preference(0, 1, 0.9), Preference(0, 2, 0.5), Preference(1, 2, 0.2))
)


def test_wins_share_is_the_mean_probability_of_being_better():
    np.testing.assert_allclose(wins_share(GROUP), [0.7, 0.15, 0.65, NAN])


def test_equals_have_equal_shares():
    thirds = TrainingGroup(
        "Why?", ("a", "b", "c"), (Preference(0, 1, 0.3), Preference(1, 2, 0.3), Preference(2, 0, 0.3))
    )
    assert len(set(wins_share(thirds).tolist())) == 1


@pytest.fixture
def folder(tmp_path):
    rows = [
        {
            "instruction": "Why?",
            "reference": "because",
            "candidates": [
                {"text": "a", "model": "x", "scores": {"judge": 1, "other": 3}},
                {"text": "a", "model": "y", "scores": {"judge": 0}},
                {"text": "b", "model": "z", "scores": {"judge": 0.25}},
            ],
        },
        {"instruction": "How?", "candidates": [{"text": "c", "scores": {"judge": 1}}, {"text": "d"}]},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


class TestJudgements:
    def test_scores_by_prompt_and_text(self, folder):
        (scored,) = Judgements.read([Source(file="rows.jsonl")], folder).of([GROUP])
        # The same text of two LLMs has the mean; "c" and "d" answer something else.
        np.testing.assert_equal(scored.scores["judge"], (0.5, 0.25, NAN, NAN))
        np.testing.assert_equal(scored.scores["other"], (3, NAN, NAN, NAN))
        assert scored.reference == "because"

    def test_without_a_reference(self, folder):
        (scored,) = Judgements(read_rows(folder / "rows.jsonl")).of([TrainingGroup("How?", ("c",), ())])
        assert scored.reference is None
        assert scored.scores == {"judge": (1.0,)}

    def test_the_groups_that_are_drawn_from_rows_have_their_scores(self, folder):
        source = Source(file="rows.jsonl", scores=("judge",), comparable=1.0)
        drawn = draw_groups(list(read_rows(folder / "rows.jsonl")), source, 0)
        assert drawn
        for scored in Judgements.read([source], folder).of(drawn):
            assert not np.isnan(scored.scores["judge"]).any()

    def test_a_file_that_is_not_there(self, folder):
        with pytest.raises(NotFoundError, match="no file"):
            Judgements.read([Source(file="none.jsonl")], folder)


class TestTasks:
    def groups(self, *scores: dict) -> list[ScoredGroup]:
        return [ScoredGroup(GROUP, of_group) for of_group in scores]

    def test_preference_first_then_by_how_many_groups_they_tell_apart(self):
        apart, same, alone = (0.0, 1.0, NAN, NAN), (1.0, 1.0, 1.0, 1.0), (NAN, 1.0, NAN, NAN)
        groups = self.groups(
            {"rare": apart, "often": apart},
            {"often": apart, "same": same},
            {"often": apart, "alone": alone},
            {},
        )
        assert find_tasks(groups) == (PREFERENCE, "often", "rare")
        assert find_tasks(groups, least=0.5) == (PREFERENCE, "often")
        assert find_tasks([]) == (PREFERENCE,)

    def test_targets(self):
        (scored,) = self.groups({"judge": (0.0, 1.0, NAN, 2.0)})
        targets = scored.targets([PREFERENCE, "judge", "unknown"])
        assert targets.shape == (4, 3)
        np.testing.assert_equal(targets[:, 1:], [[0, NAN], [1, NAN], [NAN, NAN], [2, NAN]])
        np.testing.assert_equal(targets[:, 0], wins_share(GROUP))


def test_pairs_that_are_not_read_beside_rows_with_scores_are_counted(tmp_path, caplog):
    scored = {"instruction": "a", "candidates": [{"text": "x", "scores": {"s": 2}}, {"text": "y", "scores": {"s": 1}}]}
    judged = {"instruction": "b", "candidates": ["x", "y"], "pairs": [{"a": 0, "b": 1, "label": "a"}]}
    preference = {"prompt": "c", "chosen": "x", "rejected": "y"}
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (scored, judged, preference)))
    groups, _ = load_groups([Source(file="rows.jsonl")], tmp_path, frozenset(), seed=0)
    assert [group.prompt for group in groups] == ["a"]
    assert "2 of 3 rows have judged pairs and no scores" in caplog.text
    caplog.clear()
    groups, _ = load_groups([Source(file="rows.jsonl", pairs="labelled")], tmp_path, frozenset(), seed=0)
    assert sorted(group.prompt for group in groups) == ["b", "c"]
    assert not caplog.text
