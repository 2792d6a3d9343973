import math

import pytest

from llm_blender.bench import ScoredRow, baseline_agreements, implied_pairs, labelled_pairs, ranker_agreement
from llm_blender.errors import InputError
from llm_blender.testing import FakeRanker
from llm_blender.types import Candidate, Example, LabelledPair


def row(prompt, texts, *pairs):
    return Example(prompt, candidates=tuple(map(Candidate, texts)), pairs=tuple(LabelledPair(*pair) for pair in pairs))


ROWS = [
    row("one", ["a", "bb", "cc"], (0, 1, "a"), (2, 0, "a"), (1, 2, "a"), (1, 2, "tie")),
    row("two", ["long one", "short"], (0, 1, "b")),
]


@pytest.fixture
def judged():
    return labelled_pairs("rows.jsonl", ROWS)


def test_labelled_pairs_leave_out_ties_and_count_them(judged):
    assert [(pair.a, pair.b) for pair in judged.pairs] == [
        ("a", "bb"),
        ("cc", "a"),
        ("bb", "cc"),
        ("long one", "short"),
    ]
    assert judged.a_wins == (True, True, True, False)
    assert judged.groups[0] == judged.groups[2] != judged.groups[3]
    assert judged.ties == 1


def test_implied_pairs_are_those_whose_scores_differ():
    rows = [
        ScoredRow("one", ("a", "b", "c"), (None,) * 3, (0.0, 1.0, 1.0)),
        ScoredRow("two", ("d", "e"), (None,) * 2, (1, 0)),
    ]
    judged = implied_pairs("rows.jsonl", rows)
    assert [(pair.prompt, pair.a, pair.b) for pair in judged.pairs] == [
        ("one", "a", "b"),
        ("one", "a", "c"),
        ("two", "d", "e"),
    ]
    assert judged.a_wins == (False, False, True)
    assert judged.ties == 1


def test_nothing_to_agree_with_is_refused():
    with pytest.raises(InputError, match=r"x\.jsonl holds no labelled pairs"):
        labelled_pairs("x.jsonl", [row("one", ["a", "b"])])
    with pytest.raises(InputError, match="only ties: 1"):
        labelled_pairs("x.jsonl", [row("one", ["a", "b"], (0, 1, "tie"))])


def test_baselines(judged):
    random, longest, first = baseline_agreements(judged)
    assert [result.method for result in (random, longest, first)] == ["random", "longest", "first"]
    assert {(result.file, result.pairs, result.ties) for result in (random, longest, first)} == {("rows.jsonl", 4, 1)}
    assert (random.accuracy, random.ci95, random.brier) == (0.5, None, 0.25)
    assert longest.accuracy == (0 + 1 + 0.5 + 0) / 4  # two texts equally long are half right
    assert first.accuracy == 3 / 4
    assert {result.longest for result in (random, longest, first)} == {longest.accuracy}
    assert longest.ci95.low <= longest.accuracy <= longest.ci95.high


def test_a_ranker_is_scored_on_both_orders(judged):
    strengths = {"a": 3.0, "bb": 1.0, "cc": 1.0, "long one": 0.0, "short": 2.0}
    result = ranker_agreement(judged, FakeRanker(strengths, order_bias=1.5), "fake")
    # Right, wrong, undecided, right; an order bias of 1.5 turns only the undecided one.
    assert (result.method, result.accuracy, result.flip_rate) == ("fake", (1 + 0 + 0.5 + 1) / 4, 1 / 4)


def test_an_order_bias_flips_decisions_but_costs_no_accuracy(judged):
    strengths = {"a": 3.0, "bb": 2.0, "cc": 1.0, "long one": 0.0, "short": 2.0}
    fair, biased = (ranker_agreement(judged, FakeRanker(strengths, order_bias=bias), "fake") for bias in (0, 10))
    assert (fair.flip_rate, biased.flip_rate) == (0, 1)
    assert fair.accuracy == biased.accuracy == 3 / 4


def test_calibration_does_not_depend_on_which_of_two_is_called_a(judged):
    turned = labelled_pairs(
        "rows.jsonl",
        [
            row("one", ["a", "bb", "cc"], (1, 0, "b"), (0, 2, "b"), (2, 1, "b")),
            row("two", ["long one", "short"], (1, 0, "a")),
        ],
    )
    ranker = FakeRanker(noise=1.0)
    one, other = (ranker_agreement(pairs, ranker, "fake") for pairs in (judged, turned))
    assert (one.accuracy, one.flip_rate) == (other.accuracy, other.flip_rate)
    assert (one.ece, one.brier) == pytest.approx((other.ece, other.brier))


def test_calibration_of_a_ranker_that_keeps_its_promise():
    probability = 0.75
    rows = [row(f"{i}", ["good", "bad"], (0, 1, "b" if i % 4 == 0 else "a")) for i in range(40)]
    ranker = FakeRanker({"good": math.log(probability / (1 - probability)), "bad": 0.0})
    result = ranker_agreement(labelled_pairs("rows.jsonl", rows), ranker, "fake")
    assert result.accuracy == probability
    assert result.ece == pytest.approx(0, abs=1e-4)
    assert result.brier == pytest.approx(probability * (1 - probability), abs=1e-4)


def test_pairs_of_one_instruction_are_drawn_together():
    texts = ["a", "b"]
    apart = labelled_pairs("x", [row(f"{i}", texts, (0, 1, "ab"[i % 2])) for i in range(40)])
    together = labelled_pairs("x", [row(f"{g}", texts, *[(0, 1, "ab"[g % 2])] * 10) for g in range(4)])
    widths = []
    for judged in (apart, together):
        low, high = baseline_agreements(judged)[2].ci95
        widths.append(high - low)
    assert widths[1] > 2 * widths[0]


def test_to_dict_is_plain(judged):
    result = ranker_agreement(judged, FakeRanker(), "fake").to_dict()
    assert list(result) == [
        "file", "method", "pairs", "ties", "accuracy", "ci95", "longest", "flip_rate", "ece", "brier"
    ]  # fmt: skip
    assert len(result["ci95"]) == 2
