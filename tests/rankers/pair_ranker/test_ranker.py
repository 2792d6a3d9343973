from __future__ import annotations

import time
import unicodedata

import numpy as np
import pytest

from llm_blender.errors import InputError
from llm_blender.rankers.pair_ranker import PairRanker

PROMPT = "Why is the sky blue?"
TEXTS = ["Because.", "Blue light scatters.", "The sea is green and the sun is bright.", "It is not."]


@pytest.fixture(scope="module")
def ranker(tiny_ranker):
    return PairRanker.from_pretrained(tiny_ranker())


@pytest.fixture(scope="module")
def bundled():
    return PairRanker.from_pretrained()


@pytest.mark.parametrize(
    "others",
    [
        ["Bread.", "I do not know."],
        ["I do not know.", "I am not sure."],
        ["Eat it at once.", "In a box; freeze the rest."],  # of the README
    ],
)
def test_a_good_answer_is_not_behind_texts_that_do_not_know(bundled, others):
    texts = [*others, "In a closed box; freeze what is left after three days."]
    ranking = bundled.rank("How do I keep bread fresh?", texts)
    assert ranking.best == 2


def test_lengths_beyond_the_positions_of_the_model_are_refused(bundled):
    message = "This ranker reads 512 tokens, and an instruction with a candidate would have 513: lower the lengths"
    with pytest.raises(InputError, match=message):
        bundled.with_lengths(313, 200)
    longest = bundled.with_lengths(312, 200)
    assert longest.rank("why " * 1000, ["word " * 1000, "other " * 1000]).truncated > 0.5


def test_the_bundled_one_knows_a_good_answer(bundled):
    texts = ["I don't know.", "Air scatters blue light more than red light, so blue reaches our eyes from everywhere."]
    ranking = bundled.rank(PROMPT, texts)
    assert ranking.best == 1
    assert 0.5 < ranking.probability(1, 0) < 1
    assert ranking.temperature == bundled.config.temperature != 1


def test_a_ranking_is_that_of_its_logits(ranker):
    ranking = ranker.rank(PROMPT, TEXTS, strategy="full")
    assert ranking.comparisons == 12
    assert ranking.logits.shape == (4, 4)
    scores = np.nansum(ranking.logits - ranking.logits.T, axis=1)
    assert ranking.best == int(scores.argmax())
    assert ranking.order == tuple(np.argsort(-scores))


def test_compare_is_the_ranking_of_two(ranker):
    comparison = ranker.compare(PROMPT, TEXTS[0], TEXTS[1])
    ranking = ranker.rank(PROMPT, TEXTS[:2], strategy="full")
    assert (comparison.forward, comparison.backward) == (ranking.logits[0, 1], ranking.logits[1, 0])
    assert comparison.probability == pytest.approx(ranking.probability(0, 1))
    turned = ranker.compare(PROMPT, TEXTS[1], TEXTS[0])
    assert turned.logit == -comparison.logit != 0


def test_a_text_against_itself_is_a_tie(ranker):
    comparison = ranker.compare(PROMPT, "same", "same")
    assert (comparison.winner, comparison.probability) == ("tie", 0.5)


def test_a_conversation_is_read_as_its_turns(ranker):
    turns = [{"role": "user", "content": "Hi"}, {"role": "gpt", "content": "Ho"}, {"role": "user", "content": PROMPT}]
    as_text = f"User: Hi\n\nAssistant: Ho\n\nUser: {PROMPT}"
    assert ranker.rank(turns, TEXTS).scores == ranker.rank(as_text, TEXTS).scores
    assert ranker.rank([{"role": "user", "content": PROMPT}], TEXTS).scores == ranker.rank(PROMPT, TEXTS).scores


def test_the_last_turn_of_a_long_conversation_counts(ranker):
    def ask(last):
        long = [{"role": "user", "content": "tree bird " * 200}, {"role": "assistant", "content": "sing " * 200}]
        return ranker.rank([*long, {"role": "user", "content": last}], TEXTS, strategy="full")

    assert not np.array_equal(ask("give three tips").logits, ask("run to the sun").logits)


class TestOddInput:
    @pytest.mark.parametrize(
        "texts",
        [
            ["\ud83d", "half \ude42 a character"],
            ["👩‍👩‍👧‍👦🏳️‍🌈", "🙂" * 300],
            ["שלום עולם", "مرحبا بالعالم", "\u202eright to left"],
            ["", "not empty"],
            ["", " ", "\n\t"],
            ["\x00", "a\x00b"],
            [unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")],
        ],
    )
    @pytest.mark.parametrize("prompt", [PROMPT, "", " ", "\ud83d", "قل شيئًا 👋"])
    def test_is_ranked(self, ranker, prompt, texts):
        ranking = ranker.rank(prompt, texts, strategy="full")
        assert sorted(ranking.order) == list(range(len(texts)))
        assert np.isfinite(ranking.logits).sum() == len(texts) * (len(texts) - 1)
        assert ranking.comparisons == len(texts) * (len(texts) - 1)

    def test_one_candidate(self, ranker):
        ranking = ranker.rank(PROMPT, ["only"])
        assert (ranking.best, ranking.ranks, ranking.comparisons) == (0, (1,), 0)

    def test_no_candidate(self, ranker):
        with pytest.raises(InputError, match="Instruction 0 has no candidates"):
            ranker.rank(PROMPT, [])

    def test_the_best_of_200_candidates_is_a_knockout(self, ranker):
        ranking = ranker.rank(PROMPT, [f"answer {i}" for i in range(200)], k=1)
        assert (ranking.strategy, ranking.comparisons) == ("knockout", 398)
        assert ranking.ranks[ranking.best] == 1

    @pytest.mark.parametrize("text", ["sky blue " * 50_000, "x" * 600_000], ids=["words", "one word"])
    def test_100_000_words(self, ranker, text):
        ranker.rank(PROMPT, ["warm", "up"])
        started = time.perf_counter()
        ranking = ranker.rank(PROMPT, [text, "short"], strategy="full")
        assert np.isfinite(ranking.logit(0, 1))
        assert time.perf_counter() - started < 10

    @pytest.mark.parametrize("candidates", ["ab", [["a"], "b"], [["a"], [None, "b"]]])
    def test_what_is_no_list_of_texts(self, ranker, candidates):
        with pytest.raises(InputError, match=r"must be a (list of texts|text)"):
            ranker.rank_many([PROMPT, PROMPT], candidates)

    def test_lists_of_different_length(self, ranker):
        with pytest.raises(InputError, match="2 instructions need as many lists of candidates, not 1"):
            ranker.rank_many([PROMPT, PROMPT], [["a"]])


class TestMany:
    PROMPTS = ("Why?", PROMPT, "give three tips", "is it good")
    CANDIDATES = (TEXTS[:2], TEXTS, ["only"], [*TEXTS, *map(str.upper, TEXTS), "one", "two", "three"])

    def test_ragged_lists_in_any_order_are_ranked_as_alone(self, ranker):
        together = ranker.rank_many(self.PROMPTS, self.CANDIDATES)
        assert [ranking.strategy for ranking in together] == ["full", "full", "full", "top_k"]
        backwards = ranker.rank_many(self.PROMPTS[::-1], self.CANDIDATES[::-1])[::-1]
        alone = [ranker.rank(*given) for given in zip(self.PROMPTS, self.CANDIDATES, strict=True)]
        for one, two, three in zip(together, backwards, alone, strict=True):
            assert one.order == two.order == three.order
            np.testing.assert_allclose(one.logits, two.logits, atol=1.1e-4)
            np.testing.assert_allclose(one.logits, three.logits, atol=1.1e-4)

    def test_batches_of_any_size_give_the_same(self, tiny_ranker, ranker):
        small = PairRanker.from_pretrained(tiny_ranker(), max_tokens=1)
        for one, two in zip(
            small.rank_many(self.PROMPTS, self.CANDIDATES), ranker.rank_many(self.PROMPTS, self.CANDIDATES), strict=True
        ):
            assert one.order == two.order

    def test_progress_ends_at_the_number_of_comparisons(self, ranker):
        reported = []
        rankings = ranker.rank_many(self.PROMPTS, self.CANDIDATES, progress=lambda *counts: reported.append(counts))
        assert reported[-1] == (sum(ranking.comparisons for ranking in rankings),) * 2
        assert [done for done, _ in reported] == sorted(done for done, _ in reported)

    def test_nothing_at_all(self, ranker):
        assert ranker.rank_many([], []) == []


class TestTruncated:
    def test_is_the_exact_share_of_tokens_left_out(self, ranker):
        # 96 tokens: 7 are the format's, 32 the instruction's, (96 - 7 - 32) // 2 = 28 each candidate's.
        ranking = ranker.rank("sky " * 50, ["sea " * 100, "sun " * 20, "moon " * 28])
        assert ranking.truncated == pytest.approx(1 - (32 + 28 + 20 + 28) / (50 + 100 + 20 + 28))

    def test_is_zero_where_all_is_read(self, ranker):
        assert ranker.rank("", [""]).truncated == ranker.rank(PROMPT, TEXTS).truncated == 0

    def test_belongs_to_its_own_prompt(self, ranker):
        first, second = ranker.rank_many([PROMPT, PROMPT], [["sea " * 1_000, "b"], TEXTS])
        assert first.truncated > 0.9
        assert second.truncated == 0


@pytest.mark.parametrize(
    ("instruction", "texts"),
    [
        ("What is 47 + 47?", ["94", "94", "94", "93"]),
        ("Which is a mammal? A) trout B) whale C) eagle", ["B", "B", "B", "A"]),
        ("What is the capital of Australia?", ["Canberra", "Canberra", "Sydney"]),
    ],
)
def test_a_majority_of_equal_texts_wins(bundled, instruction, texts):
    for turn in range(len(texts)):
        turned = texts[turn:] + texts[:turn]
        assert turned[bundled.rank(instruction, turned).best] == texts[0]
