from __future__ import annotations

import json
import math

import numpy as np
import pytest

from llm_blender.errors import Failure, InputError
from llm_blender.ranking import CloseCalls, add_verdicts, closest_pair, rank_with, verdict_of
from llm_blender.types import Comparison, Judging, Ranking, Verdict

TEXTS = ["a", "b", "c", "d"]


def rank(strengths, texts=TEXTS, *, strategy="full", temperature=1.0) -> Ranking:
    def compare(pool, _):
        return [strengths[left] - strengths[right] for _, left, right in pool]

    (ranking,) = rank_with([texts], compare, strategy=strategy, temperature=temperature)
    return ranking


def judged(ranking: Ranking, *verdicts: tuple[int, int, float], rule: CloseCalls, failure=None) -> Ranking:
    return add_verdicts(ranking, Judging("judge", False, tuple(Verdict(*each) for each in verdicts), failure), rule)


def test_only_a_close_opponent_of_the_best_is_asked_about():
    rule = CloseCalls(margin=0.2, pairs=9)
    assert closest_pair(rank([0.1, 3.0, 2.5, 0.1]), TEXTS, rule) == (1, 2)
    assert closest_pair(rank([0.1, 3.0, 1.0, 0.1]), TEXTS, rule) is None  # two even losers are of no interest
    assert closest_pair(rank([0.1, 3.0, 1.0, 0.1]), TEXTS, CloseCalls(margin=0.5)) == (1, 2)


def test_the_margin_is_a_probability_at_the_temperature_of_the_ranking():
    strengths = [0.0, math.log(0.7 / 0.3), -9.0, -9.0]
    assert closest_pair(rank(strengths), TEXTS, CloseCalls(margin=0.21)) == (1, 0)
    assert closest_pair(rank(strengths), TEXTS, CloseCalls(margin=0.19)) is None
    hotter = rank([4 * strength for strength in strengths], temperature=4.0)
    assert closest_pair(hotter, TEXTS, CloseCalls(margin=0.21)) == (1, 0)


def test_equal_texts_and_a_lone_candidate_are_never_asked_about():
    assert closest_pair(rank([1, 1, 0.9], ["x", "x", "y"]), ["x", "x", "y"], CloseCalls()) == (0, 2)
    assert closest_pair(rank([1, 1], ["x", "x"]), ["x", "x"], CloseCalls()) is None
    assert closest_pair(rank([1], ["x"]), ["x"], CloseCalls()) is None


def test_pairs_that_were_not_compared_are_not_close():
    ranking = rank([1, 1.1, 1.2, 1.3], strategy="knockout")
    unknown = [i for i in range(4) if math.isnan(ranking.probability(ranking.best, i))]
    assert unknown
    pair = closest_pair(ranking, TEXTS, CloseCalls(margin=0.5))
    assert pair is not None
    assert pair[0] == ranking.best
    assert pair[1] not in unknown


def test_a_clear_verdict_moves_the_pair_by_the_log_odds_of_the_judge():
    rule = CloseCalls(accuracy=0.8)
    before = rank([0.2, 0.3, -1, -2], temperature=2.0)
    after = judged(before, (1, 0, -1.0), rule=rule)
    assert (before.best, after.best) == (1, 0)
    logit = 2.0 * math.log(0.8 / 0.2)
    assert after.logit(0, 1) == pytest.approx(before.logit(0, 1) + logit)
    assert after.logit(0, 2) == pytest.approx(before.logit(0, 2) + logit / 2)
    assert after.logit(2, 3) == pytest.approx(before.logit(2, 3))
    assert after.evidence is not None
    assert after.evidence.parts["judge"] == pytest.approx((logit / 2, -logit / 2, 0, 0))


def test_verdicts_replace_those_that_are_in_the_evidence_already():
    rule = CloseCalls(pairs=3)
    ranking = rank([0.2, 0.3, 0.1, -2])
    first = judged(ranking, (1, 0, -1.0), rule=rule)
    both = judged(first, (1, 0, -1.0), (0, 2, 0.5), rule=rule)
    at_once = judged(ranking, (1, 0, -1.0), (0, 2, 0.5), rule=rule)
    assert both.evidence == at_once.evidence
    assert both.scores == pytest.approx(at_once.scores, abs=1e-5)


def test_a_tie_changes_nothing_but_is_recorded():
    ranking = rank([0.2, 0.3, 0.1, -2])
    after = judged(ranking, (1, 0, 0.0), rule=CloseCalls())
    assert after.scores == ranking.scores
    np.testing.assert_array_equal(after.logits, ranking.logits)
    assert after.evidence is not None
    assert after.evidence.judging == Judging("judge", False, (Verdict(1, 0, 0.0),))


def test_the_next_challenger_of_the_new_best_is_asked_about_while_there_is_budget():
    rule = CloseCalls(margin=0.3, pairs=2, accuracy=0.6)
    first = rank([0.2, 0.3, 0.1, -2])
    assert closest_pair(first, TEXTS, rule) == (1, 0)
    second = judged(first, (1, 0, -1.0), rule=rule)
    assert second.best == 0
    assert closest_pair(second, TEXTS, rule) == (0, 2)  # not the pair (0, 1) again
    third = judged(second, (1, 0, -1.0), (0, 2, 0.0), rule=rule)
    assert closest_pair(third, TEXTS, rule) is None
    assert closest_pair(first, TEXTS, CloseCalls(pairs=0)) is None


def test_a_judge_that_failed_is_not_asked_again():
    rule = CloseCalls(pairs=5)
    ranking = rank([0.2, 0.3, 0.1, -2])
    failed = judged(ranking, rule=rule, failure=Failure("judge", "timeout", "late"))
    assert failed.scores == ranking.scores
    assert closest_pair(failed, TEXTS, rule) is None


def test_verdicts_reach_a_ranking_that_left_pairs_out():
    ranking = rank([1, 1.1, 1.2, 1.3], strategy="knockout")
    pair = closest_pair(ranking, TEXTS, CloseCalls())
    assert pair is not None
    assert judged(ranking, (*pair, -1.0), rule=CloseCalls()).best == pair[1]


@pytest.mark.parametrize(
    ("forward", "backward", "verdict"),
    [(2, -0.1, 1), (-1, 1, -1), (1, 1, 0), (0, 0, 0), (3, 0, 0.5), (0, 0.1, -0.5)],
)
def test_a_verdict_counts_orders_not_scores(forward, backward, verdict):
    assert verdict_of(Comparison.from_logits(forward, backward)) == verdict


def test_the_record_survives_json():
    failure = Failure("judge", "budget", "too dear")
    ranking = judged(rank([0.2, 0.3, 0.1, -2]), (1, 0, -1.0), rule=CloseCalls(), failure=failure)
    again = Ranking.from_dict(json.loads(json.dumps(ranking.to_dict())))
    assert again.evidence == ranking.evidence
    assert ranking.summary()["evidence"]["judging"] == {
        "judge": "judge",
        "member": False,
        "verdicts": [{"a": 1, "b": 0, "value": -1.0}],
        "failure": {"model": "judge", "reason": "budget", "message": "too dear"},
    }


@pytest.mark.parametrize(
    "wrong", [{"margin": 0.6}, {"margin": -0.1}, {"pairs": -1}, {"accuracy": 0.5}, {"accuracy": 1}]
)
def test_wrong_rules_are_refused(wrong):
    with pytest.raises(InputError):
        CloseCalls(**wrong)
