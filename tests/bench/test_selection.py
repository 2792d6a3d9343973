from dataclasses import replace

import pytest

from llm_blender.bench import BenchRow, baseline_selections, folded_selections, ranker_selections
from llm_blender.errors import InputError
from llm_blender.ranking import Priors
from llm_blender.testing import FakeRanker
from llm_blender.types import Candidate

MODELS = ("ann", "bob", "cy")


def row(prompt, qualities, texts=("a", "bb", "ccc"), models=MODELS):
    return BenchRow(prompt, tuple(map(Candidate, texts, models)), qualities)


ROWS = [row("one", (1, 0, 0.5)), row("two", (1, 0.4, 0)), row("three", (0, 1, 0.2), texts=("aa", "bb", "c"))]


def by_method(selections):
    return {selection.method: selection for selection in selections}


def test_baselines():
    found = by_method(baseline_selections(ROWS))
    qualities = {method: selection.quality for method, selection in found.items()}
    assert qualities == {
        "random": pytest.approx((1.5 + 1.4 + 1.2) / 9),
        "longest": pytest.approx((0.5 + 0 + (0 + 1) / 2) / 3),  # two equally long: what is expected of a draw
        "consensus": pytest.approx((1.5 + 1.4 + 1.2) / 9),  # no word occurs twice: a draw
        "first": pytest.approx(2 / 3),
        "best in hindsight: ann": pytest.approx(2 / 3),
        "oracle": 1,
    }
    assert {selection.rows for selection in found.values()} == {3}
    assert {selection.comparisons for selection in found.values()} == {0}
    assert found["random"].vs_random_ci95 is None
    low, high = found["oracle"].vs_random_ci95
    assert 0 < low <= 1 - qualities["random"] <= high


def test_the_best_single_llm_is_chosen_on_other_rows():
    found = by_method(baseline_selections(ROWS, [row("other", (0, 1, 0.2))]))
    assert found["best single: bob"].quality == pytest.approx(1.4 / 3)
    assert found["best in hindsight: ann"].quality == pytest.approx(2 / 3)


def test_only_an_llm_of_these_rows_can_be_the_best_single_one():
    train = [row("other", (0, 0.2, 1), models=("ann", "bob", "zoe"))]
    assert "best single: bob" in by_method(baseline_selections(ROWS, train))
    with pytest.raises(InputError, match="none of the LLMs"):
        baseline_selections(ROWS, [row("other", (0, 1, 1), models=("zoe", "yan", None))])


def test_an_llm_without_an_answer_counts_as_a_draw():
    rows = [row("one", (1, 0, 0)), row("two", (0.5, 0.3), ("b", "c"), ("bob", "cy"))]
    assert by_method(baseline_selections(rows))["best in hindsight: ann"].quality == pytest.approx((1 + 0.4) / 2)


def test_without_names_there_is_no_single_llm():
    selections = baseline_selections([row("one", (1, 0, 0), models=(None,) * 3)])
    assert [selection.method for selection in selections] == ["random", "longest", "consensus", "first", "oracle"]


def test_a_ranker_selects_what_it_calls_best():
    ranker = FakeRanker({"a": 2, "bb": 1, "ccc": 0, "aa": 3, "c": 4})
    (full,) = ranker_selections(ROWS, ranker, "fake", strategy="full")
    assert (full.method, full.rows, full.quality, full.comparisons) == ("fake, full", 3, pytest.approx(2.2 / 3), 18)
    (knockout,) = ranker_selections(ROWS, ranker, "fake", strategy="knockout")
    assert (knockout.quality, knockout.comparisons) == (full.quality, 12)


def test_priors_are_shown_beside_the_ranker_by_the_same_comparisons():
    ranker = FakeRanker({"a": 2, "bb": 1, "ccc": 0, "aa": 3, "c": 4})
    alone, informed = ranker_selections(ROWS, ranker, "fake", strategy="full", priors=Priors({"bob": 5}))
    assert (alone.method, informed.method) == ("fake, full", "fake with priors, full")
    assert alone == ranker_selections(ROWS, ranker, "fake", strategy="full")[0]
    assert informed.quality == pytest.approx((0 + 0.4 + 1) / 3)
    assert informed.comparisons == alone.comparisons == 18
    assert ranker.comparisons == 2 * 18


def test_a_constant_gain_over_random_is_certain():
    rows = [row(f"{i}", (i + 1, i, i - 1)) for i in range(20)]
    (selection,) = ranker_selections(rows, FakeRanker({"a": 2, "bb": 1, "ccc": 0}), "fake")
    assert selection.vs_random_ci95 == pytest.approx((1, 1))
    assert selection.ci95.high - selection.ci95.low > 1


def test_to_dict_is_plain():
    keys = ["method", "rows", "quality", "ci95", "vs_random_ci95", "comparisons", "vs_single", "vs_single_ci95"]
    assert list(baseline_selections(ROWS)[0].to_dict()) == keys


class TestFolds:
    """Eight instructions; ann writes the better answer in six, and the ranker cannot tell."""

    rows = tuple(
        row(f"q{i}", (1, 0, 0) if i < 6 else (0, 1, 0), texts=("one answer", "one more", "no")) for i in range(8)
    )

    def folded(self, ranker=None, **options):
        rankings = (ranker or FakeRanker(lambda text: 0.0)).rank_many(
            [row.prompt for row in self.rows], [row.texts for row in self.rows], strategy="full"
        )
        return by_method(folded_selections(self.rows, {"fake": rankings}, folds=4, **options))

    def test_priors_of_the_other_folds_decide_what_the_ranker_cannot(self):
        found = self.folded()
        assert found["best single LLM"].quality == 6 / 8
        assert found["fake with priors from scores"].quality == 6 / 8
        assert found["fake with priors from scores"].vs_single == 0
        assert found["best single LLM"].vs_single is None
        assert found["oracle"].vs_single == 2 / 8
        low, high = found["oracle"].vs_single_ci95
        assert 0 <= low <= 2 / 8 <= high

    def test_without_labels_the_ranker_teaches_the_priors(self):
        found = self.folded(FakeRanker(lambda text: -float(len(text))))  # prefers cy's short answers
        assert found["fake"].quality == found["fake with priors without labels"].quality == 0

    def test_the_seed_draws_the_folds(self):
        assert self.folded(seed=1) == self.folded(seed=1)

    def test_where_all_llms_do_equally_well_there_is_nothing_to_learn_and_nothing_to_gain(self):
        rows = [row(f"q{i}", (1, 1, 1), texts=("one answer", "one more", "no")) for i in range(8)]
        ranker = FakeRanker(lambda text: float(len(text)))
        rankings = ranker.rank_many([row.prompt for row in rows], [row.texts for row in rows], strategy="full")
        found = by_method(folded_selections(rows, {"fake": rankings}, folds=4))
        assert {selection.quality for selection in found.values()} == {1.0}
        assert found["fake with priors from scores"].vs_single == 0

    @pytest.mark.parametrize("folds", [1, 9])
    def test_too_few_instructions(self, folds):
        with pytest.raises(InputError, match="give 2 to 8"):
            folded_selections(self.rows, {}, folds=folds)

    def test_rows_that_cannot_be_folded_are_named(self):
        with pytest.raises(InputError, match="at least two instructions"):
            folded_selections(self.rows[:1], {}, folds=2)
        nameless = [replace(row, candidates=tuple(Candidate(text) for text in row.texts)) for row in self.rows]
        with pytest.raises(InputError, match="No candidate has a `model`"):
            folded_selections(nameless, {}, folds=2)
