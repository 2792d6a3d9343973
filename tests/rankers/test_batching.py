from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_blender.rankers.batching import _OVERHEAD, pad, token_batches
from llm_blender.rankers.pair_ranker import PairRanker


@given(st.lists(st.integers(1, 600), max_size=80), st.integers(1, 4_096), st.integers(1, 100))
def test_every_sequence_once_longest_first_within_the_budget(lengths, max_tokens, chunk):
    batches = list(token_batches(lengths, max_tokens, chunk=chunk))
    order = [int(i) for batch in batches for i in batch]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[i] for i in order] == sorted(lengths, reverse=True)
    for batch in batches:
        computed = len(batch) * max(lengths[i] for i in batch)
        assert computed <= max_tokens or len(batch) == 1
        assert len(batch) <= chunk


@given(st.lists(st.integers(1, 300), min_size=1, max_size=9), st.integers(1, 900))
def test_no_other_cut_is_cheaper(lengths, max_tokens):
    ordered = sorted(lengths, reverse=True)

    def cost(sizes):
        return sum(_OVERHEAD + len(batch) * batch[0] for batch in sizes)

    def cuts(rest):
        if not rest:
            yield []
        for count in range(1, len(rest) + 1):
            if count == 1 or count * rest[0] <= max_tokens:
                for others in cuts(rest[count:]):
                    yield [rest[:count], *others]

    chosen = [[lengths[i] for i in batch] for batch in token_batches(lengths, max_tokens)]
    assert cost(chosen) == min(map(cost, cuts(ordered)))


def test_alike_sequences_share_batches_and_unlike_ones_do_not():
    assert sorted(len(batch) for batch in token_batches([10] * 7, 30)) == [1, 3, 3]
    assert [len(batch) for batch in token_batches([500] * 2 + [100] * 8, 10_000)] == [2, 8]


def test_efficiency_counts_padding():
    assert [len(batch) for batch in token_batches([], 100)] == []
    assert [len(batch) for batch in token_batches([10, 5], 20)] == [2]
    assert [len(batch) for batch in token_batches([10, 5], 15)] == [1, 1]


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

    count.parallel, count.ahead = 1, 0
    ranker.backend = count
    rankings = ranker.rank_many(["Why is the sky blue?"] * len(texts), texts, strategy="single")
    assert sum(ranking.comparisons for ranking in rankings) >= 200
    assert sum(read) / sum(computed) > 0.9
    assert max(computed) <= 1_024


def test_pad():
    ids, mask = pad([np.array([5, 6]), [7, 8, 9]], 1)
    assert ids.tolist() == [[5, 6, 1], [7, 8, 9]]
    assert mask.tolist() == [[1, 1, 0], [1, 1, 1]]
