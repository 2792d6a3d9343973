from __future__ import annotations

import json
import math

import numpy as np
import pytest

from llm_blender.data import parse_row, stored_ranking
from llm_blender.testing import FakeRanker

ROW = {"instruction": "Q", "candidates": ["a", "b", "c"]}
GOOD = {"best": 1, "ranks": [2, 1, 2], "scores": [0, 1.5, 0], "strategy": "full", "comparisons": 6}


@pytest.mark.parametrize("strategy", ["full", "single", "bubble", "knockout", "top_k", "active"])
def test_what_a_ranking_wrote_of_itself_is_read_again(strategy):
    texts = ["333", "1", "55555", "22", "4444", "22"]
    ranking = FakeRanker(noise=0.3).rank("say", texts, strategy=strategy)
    row = json.loads(json.dumps({**ROW, "candidates": texts, "ranking": ranking.summary()}))
    stored = stored_ranking(parse_row(row))
    assert (stored.best, stored.order, stored.ranks, stored.scores, stored.strategy) == (
        ranking.best,
        ranking.order,
        ranking.ranks,
        ranking.scores,
        strategy,
    )
    assert np.isnan(stored.logits).sum() == 35
    assert stored.lead == pytest.approx(ranking.lead)
    assert stored.comparisons == 0


@pytest.mark.parametrize(
    ("ranking", "reason"),
    [
        (None, "`ranking` is missing"),
        ([1, 2, 3], "must be an object, not list"),
        ({}, "`scores` of `ranking` must be a list of numbers"),
        ({**GOOD, "scores": [0, "high", 0]}, "list of numbers"),
        ({**GOOD, "scores": [0, math.nan, 0]}, "list of numbers"),
        ({**GOOD, "scores": [0, True, 0]}, "list of numbers"),
        ({**GOOD, "scores": [0, 1]}, "2 scores for 3 candidates"),
        ({**GOOD, "ranks": [3, 1, 2]}, "do not follow from its scores"),
        ({**GOOD, "best": 0}, "do not follow from its scores"),
        ({**GOOD, "best": None}, "do not follow from its scores"),
    ],
)
def test_what_is_wrong_is_said(ranking, reason):
    with pytest.raises(ValueError, match=reason):
        stored_ranking(parse_row({**ROW, "ranking": ranking}))


def test_a_good_one_is_good():
    assert stored_ranking(parse_row({**ROW, "ranking": GOOD})).order == (1, 0, 2)


@pytest.mark.parametrize(
    ("lead", "read"), [(0.7, 0.7), (1.0, 1.0), (0, 0.0), (None, None), ("high", None), (1.5, None), (math.nan, None)]
)
def test_its_lead(lead, read):
    ranking = stored_ranking(parse_row({**ROW, "ranking": {**GOOD, "lead": lead}}))
    assert ranking.lead == (None if read is None else pytest.approx(read))
