"""Progress of rankers: the share of the work that is reported is about the share of the time that has passed.

The clock is counted work: tokens of each batch, padding included, times the layers that they pass through.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from llm_blender.rankers.checkpoints import BUNDLED, find_checkpoint
from llm_blender.rankers.pair_ranker import PairRanker, PairRankerConfig
from llm_blender.rankers.pair_ranker.input_format import InputFormat
from llm_blender.testing import chat_texts, counted
from llm_blender.testing.work import layers_of


class ReadsFirst:
    """A backend in two steps, without a model: the longer candidate is the better one."""

    parallel, devices, ahead = 1, 1, 0

    def __init__(self, singly):
        self.singly = singly

    def read(self, sequences, device=0):
        return [None for _ in sequences]

    def compare(self, pairs, device=0):
        return np.array([[(len(left.sequence) - len(right.sequence)) / 16] for left, right in pairs], np.float32)


class ReadsPairs:
    """A cross-encoder's backend, without a model."""

    parallel, ahead = 1, 0

    def __call__(self, batch):
        return np.sin(batch.input_ids.sum(axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def make(tiny_ranker):
    bundled, pairs = find_checkpoint(BUNDLED), tiny_ranker()
    rankers = {
        "one at a time": (bundled, ReadsFirst(True)),
        "batches": (bundled, ReadsFirst(False)),
        "pairs": (pairs, ReadsPairs()),
    }

    def make(kind):
        folder, backend = rankers[kind]
        form = InputFormat.load(folder, PairRankerConfig.load(folder))
        return PairRanker(backend, form, folder, max_tokens=2_048)

    return make


def timed(ranker, run):
    """Run with a progress callback; return (time, share done) of each report, and the time at the end."""
    layers, reports, clock = layers_of(ranker.config), [], 0
    with counted(ranker) as counting:

        def now():
            nonlocal clock
            clock += sum(sum(batch.widths) * layers[batch.part] for batch in counting.batches)
            counting.batches.clear()
            return clock

        run(lambda done, total: reports.append((now(), done / total)))
        return reports, now()


def estimates(reports, end):
    """Return the whole time by extrapolation, over the real one, of the reports after a tenth of the work."""
    return [time / share / end for time, share in reports if 0.1 <= share]


@pytest.mark.parametrize("kind", ["one at a time", "batches", "pairs"])
@pytest.mark.parametrize(
    "options", [{}, {"k": 1}, {"strategy": "knockout"}, {"strategy": "top_k"}, {"strategy": "bubble"}]
)
@pytest.mark.parametrize("candidates", [5, 11])
def test_after_a_tenth_the_time_left_is_known_within_a_half(make, kind, options, candidates):
    ranker = make(kind)
    texts = chat_texts(24, candidates)
    reports, end = timed(ranker, lambda progress: ranker.rank_many(*texts, progress=progress, **options))
    shares = [share for _, share in reports]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len([share for share in shares if share < 0.2]) >= 2  # also while the texts are read
    assert all(0.5 <= estimate <= 1.5 for estimate in estimates(reports, end)), estimates(reports, end)
