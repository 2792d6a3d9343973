from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from llm_blender.data import read_rows
from llm_blender.errors import NotFoundError
from llm_blender.training.groups import Preference, TrainingGroup, draw_groups
from llm_blender.training.recipes import Source

if TYPE_CHECKING:
    from llm_blender.training.groups import ScoredGroup


NAN = float("nan")
GROUP = TrainingGroup(
    "Why?", ("a", "b", "c", "d"), (Preference(0, 1, 0.9), Preference(0, 2, 0.5), Preference(1, 2, 0.2))
)


def test_wins_share_is_the_mean_probability_of_being_better():
    from llm_blender.training.groups import wins_share

    np.testing.assert_allclose(wins_share(GROUP), [0.7, 0.15, 0.65, NAN])


def test_equals_have_equal_shares():
    from llm_blender.training.groups import wins_share

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
        from llm_blender.training.groups import Judgements

        (scored,) = Judgements.read([Source(file="rows.jsonl")], folder).of([GROUP])
        # The same text of two LLMs has the mean; "c" and "d" answer something else.
        np.testing.assert_equal(scored.scores["judge"], (0.5, 0.25, NAN, NAN))
        np.testing.assert_equal(scored.scores["other"], (3, NAN, NAN, NAN))
        assert scored.reference == "because"

    def test_without_a_reference(self, folder):
        from llm_blender.training.groups import Judgements

        (scored,) = Judgements(read_rows(folder / "rows.jsonl")).of([TrainingGroup("How?", ("c",), ())])
        assert scored.reference is None
        assert scored.scores == {"judge": (1.0,)}

    def test_the_groups_that_are_drawn_from_rows_have_their_scores(self, folder):
        from llm_blender.training.groups import Judgements

        source = Source(file="rows.jsonl", scores=("judge",), comparable=1.0)
        drawn = draw_groups(list(read_rows(folder / "rows.jsonl")), source, 0)
        assert drawn
        for scored in Judgements.read([source], folder).of(drawn):
            assert not np.isnan(scored.scores["judge"]).any()

    def test_a_file_that_is_not_there(self, folder):
        from llm_blender.training.groups import Judgements

        with pytest.raises(NotFoundError, match="no file"):
            Judgements.read([Source(file="none.jsonl")], folder)


class TestTasks:
    def groups(self, *scores: dict) -> list[ScoredGroup]:
        from llm_blender.training.groups import ScoredGroup

        return [ScoredGroup(GROUP, of_group) for of_group in scores]

    def test_preference_first_then_by_how_many_groups_they_tell_apart(self):
        from llm_blender.training.groups import PREFERENCE, find_tasks

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
        from llm_blender.training.groups import PREFERENCE, wins_share

        (scored,) = self.groups({"judge": (0.0, 1.0, NAN, 2.0)})
        targets = scored.targets([PREFERENCE, "judge", "unknown"])
        assert targets.shape == (4, 3)
        np.testing.assert_equal(targets[:, 1:], [[0, NAN], [1, NAN], [NAN, NAN], [2, NAN]])
        np.testing.assert_equal(targets[:, 0], wins_share(GROUP))
