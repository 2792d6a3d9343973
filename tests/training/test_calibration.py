"""Calibration of a ranker that was trained on: what its held-out pairs show decides how much the evidence counts."""

from __future__ import annotations

import numpy as np
import pytest

from llm_blender.bench import JudgedPairs, labelled_pairs
from llm_blender.data import parse_judged_row
from llm_blender.rankers.pair_ranker import PairRankerConfig
from llm_blender.ranking import EvidenceWeights, Features, Weights, wilson_interval
from llm_blender.training.calibration import TrainedPairs, cross_fitted, log_odds, recalibrate

GENERAL = PairRankerConfig(
    temperature=3.5,
    evidence_weights=EvidenceWeights(
        two=Weights(1.0, form=3.5, length=0.2),
        several=Weights(0.4, consensus=34.0, form=3.5, length=-1.2),
        agreeing=Weights(1.4, consensus=3.4, agreement=16.6, form=3.5, length=-0.1),
    ),
)
SHORT, LONG = "About 5 metres.", "Well, that depends, but a canoe is usually somewhere near 16 feet, I believe."


def pairs(n: int = 40) -> JudgedPairs:
    rows = [
        {
            "instruction": f"How long is canoe {i}?",
            "candidates": [SHORT, LONG],
            "pairs": [{"a": 0, "b": 1, "label": "a"}],
        }
        for i in range(n)
    ]
    return labelled_pairs("pairs", [parse_judged_row(row) for row in rows])


def best(config: PairRankerConfig, texts: list[str], logit: float) -> int:
    """Rank with a model that prefers the short answer by so much."""
    gains = Features.read(texts, "How long is a canoe?").weigh(config.evidence_weights)
    signs = np.array([float(text == SHORT) for text in texts])
    offsets = sum((np.array(part) for part in gains.parts.values()), np.zeros(len(texts)))
    return int(np.argmax(gains.model * logit * signs + offsets))


class TestContradictedEvidence:
    @pytest.mark.parametrize("texts", [[LONG, SHORT], [LONG, LONG.replace("16", "19"), SHORT]])
    def test_a_ranker_that_is_right_everywhere_wins(self, texts):
        judged = pairs()
        found = TrainedPairs(judged, np.full(40, 0.8), np.full(40, -0.4))
        config, kept = recalibrate(GENERAL, found)
        assert kept < 0.05
        assert best(config, texts, 0.8) == texts.index(SHORT)
        if len(texts) == 3:
            assert best(GENERAL, texts, 0.8) != texts.index(SHORT)
        odds = log_odds(config, judged, found.logits)
        assert 1 / (1 + np.exp(-odds)) == pytest.approx(41 / 42, abs=1e-3)  # Platt's label, not 1
        assert (cross_fitted(GENERAL, found) > 2).all()


def test_evidence_stays_where_the_start_is_right_and_the_model_explains_little():
    judged, a_wins = pairs(200), tuple(i % 5 < 3 for i in range(200))
    judged = JudgedPairs(judged.file, judged.pairs, a_wins, judged.groups, judged.subsets, judged.gains)
    config, kept = recalibrate(GENERAL, TrainedPairs(judged, np.full(200, 1.4), np.full(200, 0.4)))
    assert kept > 0.85
    several, scale = config.evidence_weights.several, config.temperature / GENERAL.temperature
    assert several.consensus == pytest.approx(kept * 34 * scale, abs=1e-2)
    assert several.model < config.evidence_weights.two.model
    assert config.evidence_weights.agreeing.agreement == pytest.approx(16.6 * scale, abs=1e-2)


def test_a_share_of_all_has_an_interval():
    assert wilson_interval(1.0, 40) == pytest.approx((0.912, 1.0), abs=1e-3)
