from __future__ import annotations

import numpy as np
import pytest

from llm_blender.errors import InputError
from llm_blender.fusers.guard import FusionRule, content_overlap, decide
from llm_blender.ranking import ranking_from_scores
from llm_blender.testing import FakeRanker
from llm_blender.types import Ranking

SAME = ["Apples grow on trees here.", "Apples grow on trees.", "Trees grow apples."]


def ranking(texts: list[str], strategy: str = "full", **strength: float) -> Ranking:
    names = dict(zip(texts, strength.values(), strict=True))
    return FakeRanker(names).rank("q", texts, strategy=strategy)


def test_close_candidates_are_fused() -> None:
    decision = decide(ranking(SAME, a=1.0, b=0.9, c=-5.0), SAME)
    assert (decision.fuse, decision.reason) == (True, "close")
    assert decision.lead == pytest.approx(1 / (1 + np.exp(-0.1)))


def test_a_clear_best_that_holds_what_the_others_say_is_picked() -> None:
    decision = decide(ranking(SAME, a=5.0, b=0.9, c=-5.0), SAME)
    assert (decision.fuse, decision.reason, decision.overlap) == (False, "clear", 1.0)


def test_candidates_that_complement_each_other_are_fused() -> None:
    texts = ["Apples grow on trees.", "Pears need sunlight.", "Plums ripen late."]
    decision = decide(ranking(texts, a=5.0, b=0.9, c=-5.0), texts)
    assert (decision.fuse, decision.reason, decision.overlap) == (True, "complementary", 0.0)


def test_only_what_would_be_fused_counts() -> None:
    texts = [*SAME, "Pears need sunlight."]
    judged = ranking(texts, a=9.0, b=5.0, c=2.0, d=-5.0)
    assert not decide(judged, texts, top_k=3).fuse
    assert decide(judged, texts, FusionRule(overlap=0.7), top_k=4).reason == "complementary"


def test_the_thresholds_decide() -> None:
    judged = ranking(SAME, a=1.0, b=0.0, c=-5.0)
    assert not decide(judged, SAME, FusionRule(close=0.73)).fuse
    assert decide(judged, SAME, FusionRule(close=0.74)).fuse


def test_where_the_first_two_were_not_compared_the_closest_opponent_counts() -> None:
    logits = np.full((3, 3), np.nan)
    logits[0, 2], logits[2, 0] = 0.4, -0.4
    judged = ranking_from_scores("knockout", [3.0, 2.0, 1.0], logits)
    assert decide(judged, SAME).lead == pytest.approx(1 / (1 + np.exp(-0.4)))
    unknown = ranking_from_scores("rows", [3.0, 2.0, 1.0], np.full((3, 3), np.nan))
    assert decide(unknown, SAME).lead is None
    assert decide(unknown, SAME).reason == "clear"


def test_overlap_is_the_share_of_the_others_words() -> None:
    assert content_overlap("apples pears", ["apples plums", "pears"]) == 0.75
    assert content_overlap("apples", []) == 1.0
    assert content_overlap("apples", ["a an 7", "of"]) == 0.0  # numbers count, short words do not
    assert content_overlap("空は青い", ["青い海"]) == pytest.approx(2 / 3)
    assert content_overlap("", ["", "of"]) == 1.0


@pytest.mark.parametrize("name", ["close", "overlap", "prefer"])
def test_thresholds_are_shares(name: str) -> None:
    with pytest.raises(InputError, match=f"threshold {name} is a number from 0 to 1, not 1.5"):
        FusionRule(**{name: 1.5})
