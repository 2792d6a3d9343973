from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_blender.rankers.batching import _OVERHEAD, Tally, in_lanes, in_turn, pad, side_by_side, token_batches
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


class TestSideBySide:
    @pytest.mark.parametrize("parallel", [1, 3])
    @pytest.mark.parametrize("ahead", [0, 2])
    def test_each_batch_once(self, parallel, ahead):
        found = side_by_side(lambda batch: lambda: batch * 2, range(50), parallel, ahead)
        assert sorted(found) == [2 * batch for batch in range(50)]

    def test_batches_are_begun_ahead_of_the_results(self):
        events = []

        def begin(batch):
            events.append(f"begin {batch}")
            return lambda: events.append(f"end {batch}")

        list(in_turn(begin, range(4), ahead=2))
        assert events == ["begin 0", "begin 1", "begin 2", "end 0", "begin 3", "end 1", "end 2", "end 3"]
        events.clear()
        list(in_turn(begin, range(2)))
        assert events == ["begin 0", "end 0", "begin 1", "end 1"]

    def test_the_work_goes_to_whoever_is_free(self):
        slow, names = threading.Event(), set()

        def begin(batch):
            names.add(threading.current_thread().name)
            assert batch or slow.wait(10)  # the first batch ends when all others have
            return lambda: batch

        found = side_by_side(begin, range(20), 2)
        assert [next(found) for _ in range(19)] == list(range(1, 20))
        slow.set()
        assert list(found) == [0]
        assert len(names) == 2

    def test_an_error_ends_the_other_threads(self):
        begun = []

        def begin(batch):
            begun.append(batch)
            if batch == 3:
                raise ValueError("broken")
            return lambda: time.sleep(0.001)

        with pytest.raises(ValueError, match="broken"):
            list(side_by_side(begin, range(10_000), 2))
        assert len(begun) < 5_000

    def test_a_lane_runs_its_own_iterator(self):
        found = in_lanes(lambda lane: iter([(lane, number) for number in range(3)]), 2)
        assert sorted(found) == [(lane, number) for lane in range(2) for number in range(3)]


def test_a_tally_ends_at_its_total():
    calls = []
    tally = Tally(lambda *call: calls.append(call), 3, 100)
    for work in (10, 60, 30):
        tally.advance(work)
    assert calls == [(0, 3), (2, 3), (3, 3)]
