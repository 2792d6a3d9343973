import math

import pytest

from llm_blender.bench import agreements, baseline_predictions, labelled_pairs, ranker_predictions
from llm_blender.testing import FakeRanker

from .conftest import labelled_row

ROWS = [
    labelled_row("one", ["a", "bb", "cc"], (0, 1, "a"), (2, 0, "a"), (1, 2, "a"), (1, 2, "tie"), part="x"),
    labelled_row("two", ["long one", "short"], (0, 1, "b"), part="y"),
]


@pytest.fixture
def judged():
    return labelled_pairs("rows.jsonl", ROWS)


def measured(judged, *rankers):
    methods = [ranker_predictions(judged, ranker, f"fake{i}") for i, ranker in enumerate(rankers)]
    return agreements(judged, methods)


def test_baselines(judged):
    random, longest, first = agreements(judged, baseline_predictions(judged))
    assert [result.method for result in (random, longest, first)] == ["random", "longest", "first"]
    assert {(result.file, result.pairs, result.ties) for result in (random, longest, first)} == {("rows.jsonl", 4, 1)}
    assert (random.accuracy, random.ci95, random.brier, random.ece, random.undecided) == (0.5, None, 0.25, None, 1)
    assert longest.accuracy == (0 + 1 + 0.5 + 0) / 4  # two texts equally long are half right
    assert first.accuracy == 3 / 4
    assert {result.longest for result in (random, longest, first)} == {longest.accuracy}
    assert longest.ci95.low <= longest.accuracy <= longest.ci95.high
    assert {result.brier_base_rate for result in (random, longest, first)} == {3 / 4 * 1 / 4}
    assert all(result.flip_rate is result.ece is None and result.bins == () for result in (random, longest, first))


def test_a_ranker_is_scored_on_both_orders(judged):
    strengths = {"a": 3.0, "bb": 1.0, "cc": 1.0, "long one": 0.0, "short": 2.0}
    (result,) = measured(judged, FakeRanker(strengths, order_bias=1.5))
    # Right, wrong, undecided, right; an order bias of 1.5 turns only the undecided one.
    assert (result.method, result.accuracy, result.flip_rate) == ("fake0", (1 + 0 + 0.5 + 1) / 4, 1 / 4)
    assert result.undecided == 1 / 4
    assert result.with_ties == (1 + 0 + 0.5 + 1 + 0.5) / 5  # the judges' tie is half right


def test_who_prefers_the_longer_answer(judged):
    shorter = {"a": 3.0, "bb": 1.0, "cc": 0.0, "long one": 0.0, "short": 2.0}
    ours, always, _ = measured(judged, FakeRanker(shorter), FakeRanker(), FakeRanker(lambda text: 0))
    # "bb" and "cc" are equally long: a half, whoever is preferred.
    assert ours.prefers_longer == (0 + 0 + 0.5 + 0) / 4
    assert always.prefers_longer == (1 + 1 + 0.5 + 1) / 4
    assert ours.longest == always.longest == (0 + 1 + 0.5 + 0) / 4


def test_an_order_bias_flips_decisions_but_costs_no_accuracy(judged):
    strengths = {"a": 3.0, "bb": 2.0, "cc": 1.0, "long one": 0.0, "short": 2.0}
    fair, biased = measured(judged, *(FakeRanker(strengths, order_bias=bias) for bias in (0, 10)))
    assert (fair.flip_rate, biased.flip_rate) == (0, 1)
    assert fair.accuracy == biased.accuracy == 3 / 4


def test_calibration_does_not_depend_on_which_of_two_is_called_a(judged):
    turned = labelled_pairs(
        "rows.jsonl",
        [
            labelled_row("one", ["a", "bb", "cc"], (1, 0, "b"), (0, 2, "b"), (2, 1, "b")),
            labelled_row("two", ["long one", "short"], (1, 0, "a")),
        ],
    )
    ranker = FakeRanker(noise=1.0)
    (one,), (other,) = measured(judged, ranker), measured(turned, ranker)
    assert (one.accuracy, one.flip_rate) == (other.accuracy, other.flip_rate)
    assert (one.ece, one.brier) == pytest.approx((other.ece, other.brier))
    assert [part.accuracy for part in one.bins] == [part.accuracy for part in other.bins]


def test_calibration_of_a_ranker_that_keeps_its_promise():
    probability = 0.75
    rows = [labelled_row(f"{i}", ["good", "bad"], (0, 1, "b" if i % 4 == 0 else "a")) for i in range(40)]
    ranker = FakeRanker({"good": math.log(probability / (1 - probability)), "bad": 0.0})
    (result,) = measured(labelled_pairs("rows.jsonl", rows), ranker)
    assert result.accuracy == probability
    assert result.ece == pytest.approx(0, abs=1e-4)
    assert result.brier == pytest.approx(probability * (1 - probability), abs=1e-4)
    (only,) = result.bins
    assert (only.pairs, only.accuracy, only.confidence) == (40, probability, pytest.approx(probability, abs=1e-4))
    assert only.ci95 == result.ci95


def test_bins_sum_up_to_the_calibration_error():
    rows = [labelled_row(f"{i}", ["x" * (i % 23), "y" * (i % 7)], (0, 1, "ab"[i % 2])) for i in range(1, 100)]
    rows = [r for r in rows if r.candidates[0].text and len(r.candidates[0].text) != len(r.candidates[1].text)]
    judged = labelled_pairs("rows.jsonl", rows)
    (result,) = measured(judged, FakeRanker(lambda text: len(text) / 9))
    assert 5 < len(result.bins) <= 10
    assert sum(part.pairs for part in result.bins) == len(rows)
    gaps = [part.pairs * abs(part.confidence - part.accuracy) for part in result.bins]
    assert sum(gaps) / len(rows) == pytest.approx(result.ece)
    assert [part.confidence for part in result.bins] == sorted(part.confidence for part in result.bins)


def test_others_are_compared_with_the_first_on_the_same_pairs():
    rows = [labelled_row(f"{i}", ["good", "bad"], (0, 1, "a" if i % 3 else "b")) for i in range(60)]
    judged = labelled_pairs("x", rows)
    right, same, wrong = ({"good": good, "bad": bad} for good, bad in [(1, 0), (5, 2), (0, 1)])
    methods = [ranker_predictions(judged, FakeRanker(s), name) for s, name in [(right, "r"), (same, "s"), (wrong, "w")]]
    first, alike, worse, random, *_ = agreements(judged, [*methods, *baseline_predictions(judged)])
    assert first.versus is None
    # The two intervals are wide, that of their difference is not: they err on the same pairs.
    assert first.ci95.high - first.ci95.low > 0.1
    assert (alike.versus.method, alike.versus.mean, alike.versus.ci95) == ("r", 0, (0, 0))
    assert worse.versus.mean == pytest.approx(-1 / 3)
    assert worse.versus.ci95.high < 0
    assert random.versus.mean == pytest.approx(0.5 - 2 / 3)


def test_subsets_follow_the_whole_and_are_measured_alone():
    judged = labelled_pairs("rows.jsonl", ROWS, by="part")
    ranker = FakeRanker({"a": 3.0, "bb": 1.0, "cc": 1.0, "long one": 0.0, "short": 2.0})
    results = agreements(judged, [ranker_predictions(judged, ranker, "fake"), *baseline_predictions(judged)])
    assert ranker.comparisons == 8  # subsets cost none
    assert [(r.subset, r.method) for r in results[::4]] == [(None, "fake"), ("x", "fake"), ("y", "fake")]
    whole, x, y = results[::4]
    assert (x.pairs, x.ties, x.accuracy) == (3, 1, 0.5)
    assert (y.pairs, y.ties, y.accuracy, y.longest) == (1, 0, 1, 0)
    assert whole.accuracy == (3 * x.accuracy + y.accuracy) / 4
    assert results[-1].versus.method == "fake"
    (alone,) = measured(labelled_pairs("rows.jsonl", ROWS[1:]), ranker)
    assert (alone.brier, alone.ece, alone.prefers_longer) == (y.brier, y.ece, y.prefers_longer)


def test_pairs_of_one_instruction_are_drawn_together():
    texts = ["a", "b"]
    apart = labelled_pairs("x", [labelled_row(f"{i}", texts, (0, 1, "ab"[i % 2])) for i in range(40)])
    together = labelled_pairs("x", [labelled_row(f"{g}", texts, *[(0, 1, "ab"[g % 2])] * 10) for g in range(4)])
    widths = []
    for judged in (apart, together):
        low, high = agreements(judged, baseline_predictions(judged))[2].ci95
        widths.append(high - low)
    assert widths[1] > 2 * widths[0]


def test_to_dict_is_plain(judged):
    _, result = (result.to_dict() for result in measured(judged, FakeRanker(), FakeRanker(noise=1)))
    assert list(result) == [
        "file", "subset", "method", "pairs", "ties", "accuracy", "ci95", "with_ties", "undecided", "longest",
        "prefers_longer", "flip_rate", "ece", "brier", "brier_base_rate", "versus", "bins",
    ]  # fmt: skip
    assert len(result["ci95"]) == 2
    assert list(result["versus"]) == ["method", "accuracy", "ci95"]
    assert list(result["bins"][0]) == ["pairs", "confidence", "accuracy", "ci95"]
