from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_blender.rankers.pair_ranker import PairRanker
from llm_blender.rankers.pair_ranker.batching import padding_efficiency, token_batches


@given(st.lists(st.integers(1, 600), max_size=80), st.integers(1, 4_096))
def test_every_sequence_once_longest_first_within_the_budget(lengths, max_tokens):
    batches = list(token_batches(lengths, max_tokens))
    order = [int(i) for batch in batches for i in batch]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[i] for i in order] == sorted(lengths, reverse=True)
    for batch in batches:
        computed = len(batch) * max(lengths[i] for i in batch)
        assert computed <= max_tokens or len(batch) == 1


def test_batches_are_as_full_as_they_can_be():
    assert [len(batch) for batch in token_batches([10] * 7, 30)] == [3, 3, 1]


def test_efficiency_counts_padding():
    assert padding_efficiency([], 100) == 1
    assert padding_efficiency([10, 5], 20) == 15 / 20
    assert padding_efficiency([10, 5], 15) == 1  # the second fits no longer


@pytest.mark.parametrize(("prompts", "candidates"), [(200, 2), (6, 10)])
def test_little_padding_on_a_realistic_mix(tiny_ranker, prompts, candidates):
    """Over 0.9 of what goes through the model is text; lengths of chat answers are about log-normal."""
    ranker = PairRanker.from_pretrained(tiny_ranker(), max_tokens=1_024)
    rng = np.random.default_rng(0)
    words = np.exp(rng.normal(3, 0.9, size=(prompts, candidates))).astype(int) + 1
    texts = [[f"{'the sky ' * (n // 2)}{i}" for i, n in enumerate(row)] for row in words]
    computed, read = [], []
    real = ranker.backend

    def count(batch):
        computed.append(batch.input_ids.size)
        read.append(batch.attention_mask.sum())
        return real(batch)

    count.parallel = 1
    ranker.backend = count
    rankings = ranker.rank_many(["Why is the sky blue?"] * len(texts), texts, strategy="single")
    assert sum(ranking.comparisons for ranking in rankings) >= 200
    assert sum(read) / sum(computed) > 0.9
    assert max(computed) <= 1_024
