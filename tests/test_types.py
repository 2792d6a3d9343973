from __future__ import annotations

import json

import numpy as np
import pytest

from llm_blender.errors import InputError
from llm_blender.ranking import ranking_from_scores
from llm_blender.testing import FakeRanker
from llm_blender.types import Evidence, Fusion, Ranking, Usage

NAN = float("nan")


def test_sorted_is_best_first_where_ranks_would_mislead():
    # Best to worst: 2, 0, 1. Taking the ranks (2, 3, 1) for the order would give "b", "c", "a".
    ranking = ranking_from_scores("full", [0.5, 0.1, 0.9], [[NAN] * 3] * 3)
    assert ranking.order != tuple(rank - 1 for rank in ranking.ranks)
    assert ranking.sorted(["a", "b", "c"]) == ["c", "a", "b"]
    assert ranking.sorted(ranking.ranks) == [1, 2, 3]
    assert ranking.sorted(ranking.scores) == sorted(ranking.scores, reverse=True)


def test_sorted_candidates_stand_in_the_order_of_their_strength():
    texts = ["333", "1", "55555", "22", "4444"]
    for strategy in ("full", "single", "active"):
        assert FakeRanker().rank("say", texts, strategy=strategy).sorted(texts) == sorted(texts, reverse=True)


@pytest.mark.parametrize("items", [[], ["a"], ["a", "b", "c"]])
def test_sorted_wants_one_item_per_candidate(items):
    with pytest.raises(InputError, match=f"2 candidates sorts as many items, not {len(items)}"):
        FakeRanker().rank("say", ["a", "bb"]).sorted(items)


def test_a_ranking_survives_json():
    ranking = FakeRanker(temperature=2.0).rank("say", ["a", "bbb", "cc", "dddd", "e"], strategy="knockout")
    again = Ranking.from_dict(json.loads(json.dumps(ranking.to_dict())))
    assert again.to_dict() == ranking.to_dict()
    assert (again.order, again.ranks, again.scores) == (ranking.order, ranking.ranks, ranking.scores)
    assert again.lead == ranking.lead
    np.testing.assert_array_equal(again.logits, ranking.logits)


def test_evidence_without_weight_of_the_model_survives_json():
    found = Evidence(model=0.0, parts={"length": (0.5, -0.5)})
    assert Evidence.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize("cost", [0.0, 0.25, None])
def test_a_fusion_survives_json(cost):
    fusion = Fusion("text", "fuser", (2, 0), flaw="echo", usage=Usage(3, 4), cost=cost)
    assert Fusion.from_dict(json.loads(json.dumps(fusion.to_dict()))) == fusion
