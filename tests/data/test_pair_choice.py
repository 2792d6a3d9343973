from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_blender.data import PAIR_CHOICES, ChosenPairs, choose_pairs, compare_chosen
from llm_blender.errors import InputError
from llm_blender.ranking import ranking_from_scores
from llm_blender.testing import FakeRanker

TEXTS = ["333", "1", "55555", "22", "4444"]  # the longer, the better


def ranked(scores):
    return ranking_from_scores("full", scores, np.full((len(scores), len(scores)), np.nan))


class TestChoosePairs:
    def test_best_against_worst(self):
        assert choose_pairs(TEXTS, FakeRanker().rank("say", TEXTS)).pairs == ((2, 1),)

    def test_best_against_second(self):
        assert choose_pairs(TEXTS, FakeRanker().rank("say", TEXTS), "best_second").pairs == ((2, 4),)

    def test_best_against_a_random_one_is_any_other(self):
        ranking = FakeRanker().rank("say", TEXTS)
        drawn = Counter(choose_pairs(TEXTS, ranking, "best_random", seed=seed).pairs for seed in range(400))
        assert set(drawn) == {((2, other),) for other in (0, 1, 3, 4)}
        assert min(drawn.values()) > 60  # 100 expected, standard deviation 9

    def test_a_draw_repeats_and_differs_from_row_to_row(self):
        rows = [[f"{row}" * 9, *"abcdefgh"] for row in range(40)]
        rankings = [FakeRanker().rank("say", row) for row in rows]
        first, again = (
            [choose_pairs(*given, "best_random").pairs for given in zip(rows, rankings, strict=True)] for _ in range(2)
        )
        assert first == again
        assert len(set(first)) > 4

    def test_all_pairs_better_one_first(self):
        pairs = choose_pairs(TEXTS, FakeRanker().rank("say", TEXTS), "all").pairs
        assert set(pairs) == set(combinations([2, 4, 0, 3, 1], 2))

    def test_who_shares_the_last_place_is_drawn(self):
        ranking = ranked([1, 0, 0, 0])
        drawn = {choose_pairs("abcd", ranking, seed=seed).pairs for seed in range(50)}
        assert drawn == {((0, 1),), ((0, 2),), ((0, 3),)}

    @pytest.mark.parametrize(
        ("texts", "scores", "choice", "reason"),
        [
            (["a"], [1], "best_worst", "single"),
            (["a", " \n"], [0, 1], "best_worst", "single"),
            (["", ""], [0, 0], "best_worst", "single"),
            (["a", "a", "a"], [0, 0, 0], "best_worst", "equal"),
            (["a", "a"], [0, 0], "all", "equal"),
            (["a", "b"], [0, 0], "best_worst", "tie"),
            (["a", "b"], [0, 0], "best_random", "tie"),
            (["a", "b"], [0, 0], "all", "tie"),
            (["a", "b", "c"], [1, 1, 0], "best_second", "tie"),
        ],
    )
    def test_no_pair_has_a_reason(self, texts, scores, choice, reason):
        assert choose_pairs(texts, ranked(scores), choice) == ChosenPairs(dropped=(reason,))

    def test_ties_among_others_do_not_hide_the_best(self):
        assert choose_pairs("abc", ranked([1, 1, 0])).pairs == ((0, 2),)
        assert choose_pairs("abc", ranked([1, 1, 0]), "best_random").pairs == ((0, 2),)
        assert choose_pairs("abc", ranked([1, 1, 0]), "all") == ChosenPairs(((0, 2), (1, 2)), ("tie",))

    def test_blank_texts_are_no_candidates(self):
        # An empty answer teaches nothing, whatever its rank.
        texts = ["", "b", "c", "\n"]
        assert choose_pairs(texts, ranked([4, 3, 2, 1])).pairs == ((1, 2),)
        assert choose_pairs(texts, ranked([4, 3, 2, 1]), "all").pairs == ((1, 2),)

    def test_equal_texts_are_one_candidate_where_the_best_of_them_stands(self):
        texts = ["a", "b", "a", "c"]
        assert choose_pairs(texts, ranked([0, 2, 3, 1])).pairs == ((2, 3),)
        assert choose_pairs(texts, ranked([0, 2, 3, 1]), "all").pairs == ((2, 1), (2, 3), (1, 3))

    @given(
        st.lists(st.tuples(st.sampled_from(["", " ", "a", "b", "c", "d"]), st.integers(0, 3)), min_size=1, max_size=7),
        st.sampled_from(PAIR_CHOICES),
        st.integers(0, 5),
    )
    def test_each_pair_is_two_different_answers_in_the_order_of_their_ranks(self, rows, choice, seed):
        texts, scores = [text for text, _ in rows], [score for _, score in rows]
        ranking = ranked(scores)
        chosen = choose_pairs(texts, ranking, choice, seed=seed)
        assert chosen.pairs or chosen.dropped
        for i, j in chosen.pairs:
            assert ranking.ranks[i] < ranking.ranks[j]
            assert texts[i].strip()
            assert texts[j].strip()
        pairs = [(texts[i], texts[j]) for i, j in chosen.pairs]
        assert len(set(pairs)) == len(pairs)
        if choice != "all":
            assert len(chosen.pairs) + len(chosen.dropped) == 1

    def test_wrong_arguments(self):
        ranking = ranked([1, 2])
        with pytest.raises(InputError, match="Unknown choice of pairs 'best-worst': did you mean 'best_worst'"):
            choose_pairs("ab", ranking, "best-worst")
        with pytest.raises(InputError, match="2 candidates sorts as many items, not 3"):
            choose_pairs("abc", ranking)


class TestCompareChosen:
    ROWS = (TEXTS, ["ab", "a", "abc", "abcd", "abcde", "abcdef", "abcdefg"], ["alone"], ["one", "three"])

    def choose(self, ranker, strategy, choice="best_worst"):
        rankings = ranker.rank_many(["say"] * 4, self.ROWS, strategy=strategy)
        chosen = [choose_pairs(*given, choice) for given in zip(self.ROWS, rankings, strict=True)]
        return rankings, chosen

    @pytest.mark.parametrize("choice", PAIR_CHOICES)
    @pytest.mark.parametrize("strategy", ["knockout", "bubble", "single", "top_k"])
    def test_the_evidence_is_that_of_full(self, strategy, choice):
        ranker = FakeRanker(order_bias=0.3, noise=0.1)
        rankings, chosen = self.choose(ranker, strategy, choice)
        full = ranker.rank_many(["say"] * 4, self.ROWS, strategy="full")
        before = len(ranker.batches)
        completed = compare_chosen(ranker, ["say"] * 4, self.ROWS, rankings, chosen)
        assert len(ranker.batches) - before <= 1  # all rows together
        for ranking, reference, its in zip(completed, full, chosen, strict=True):
            for i, j in its.pairs:
                assert (ranking.logits[i, j], ranking.logits[j, i]) == (reference.logits[i, j], reference.logits[j, i])

    def test_only_what_is_missing_is_compared_and_counted(self):
        ranker = FakeRanker()
        rankings, chosen = self.choose(ranker, "bubble", "best_worst")
        missing = sum(
            bool(np.isnan(ranking.logits[pair]))
            for ranking, its in zip(rankings, chosen, strict=True)
            for pair in its.pairs
        )
        assert 0 < missing < 3
        before = ranker.comparisons
        completed = compare_chosen(ranker, ["say"] * 4, self.ROWS, rankings, chosen)
        assert ranker.comparisons - before == 2 * missing
        assert sum(ranking.comparisons for ranking in completed) == ranker.comparisons

    def test_order_ranks_and_the_given_rankings_stay(self):
        ranker = FakeRanker()
        rankings, chosen = self.choose(ranker, "knockout", "all")
        logits = [ranking.logits.copy() for ranking in rankings]
        completed = compare_chosen(ranker, ["say"] * 4, self.ROWS, rankings, chosen)
        for before, after, kept in zip(rankings, completed, logits, strict=True):
            assert (after.order, after.ranks, after.scores) == (before.order, before.ranks, before.scores)
            np.testing.assert_array_equal(before.logits, kept)

    def test_full_needs_nothing_more(self):
        ranker = FakeRanker()
        rankings, chosen = self.choose(ranker, "full", "all")
        before = ranker.comparisons
        assert compare_chosen(ranker, ["say"] * 4, self.ROWS, rankings, chosen) == rankings
        assert ranker.comparisons == before

    def test_lists_of_different_lengths(self):
        ranker = FakeRanker()
        rankings, chosen = self.choose(ranker, "full")
        with pytest.raises(InputError, match="of the same number"):
            compare_chosen(ranker, ["say"] * 3, self.ROWS, rankings, chosen)
