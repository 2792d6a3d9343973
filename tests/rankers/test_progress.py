"""Progress of rankers: the share of the work that is reported is about the share of the time that has passed.

The clock is counted work: tokens of each batch, padding included, times the layers that they pass through.
"""

from __future__ import annotations

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
        return PairRanker(backend, form, folder, max_tokens=2_048, evidence=False)

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
    return [time / share / end for time, share in reports if share >= 0.1]


STRATEGIES = [{}, {"k": 1}, {"strategy": "knockout"}, {"strategy": "top_k"}, {"strategy": "bubble"}]


@pytest.mark.parametrize("kind", ["one at a time", "batches", "pairs"])
@pytest.mark.parametrize("options", STRATEGIES)
def test_after_a_tenth_the_time_left_is_known_within_a_half(make, kind, options):
    ranker = make(kind)
    prompts, candidates = chat_texts(12, 6)
    candidates = [[*texts, texts[0]] for texts in candidates]  # an equal text is not compared: less than expected
    reports, end = timed(ranker, lambda progress: ranker.rank_many(prompts, candidates, progress=progress, **options))
    shares = [share for _, share in reports]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert sum(0 < share < 0.3 for share in shares) >= 2  # also while the texts are read
    assert all(0.5 <= estimate <= 1.5 for estimate in estimates(reports, end))


@pytest.mark.parametrize("kind", ["one at a time", "batches"])
def test_so_it_is_in_a_file_of_several_chunks(make, kind, monkeypatch):
    from llm_blender.cli import _rows

    class Rows:
        count = 40

        def chunks(self, size):
            prompts, candidates = chat_texts(self.count, 3, words=40)
            rows = list(zip(prompts, candidates, strict=True))
            yield from (rows[start : start + size] for start in range(0, self.count, size))

    monkeypatch.setattr(_rows, "_CHUNK", 16)
    ranker = make(kind)

    def rank(rows, report):
        return ranker.rank_many(*map(list, zip(*rows, strict=True)), strategy="knockout", progress=report)

    reports, end = timed(ranker, lambda progress: list(_rows.rank_rows(Rows(), rank, progress)))
    assert reports[-1] == (end, 1)
    assert all(0.5 <= estimate <= 1.5 for estimate in estimates(reports, end))


def test_the_longest_texts_of_a_pointwise_ranker_come_first_and_count_more(tiny_reward_model, monkeypatch):
    from llm_blender.rankers import load_ranker

    ranker = load_ranker(tiny_reward_model("llama"), device="cpu", max_tokens=96)
    clock, reports, run = 0, [], ranker.model.run

    def counting(ids, *others, **options):
        nonlocal clock
        clock += ids.size
        return run(ids, *others, **options)

    monkeypatch.setattr(ranker.model, "run", counting)
    texts = [f"the sky {'is blue ' * number}" for number in range(1, 25)]
    ranker.rank_many(["Why?"], [texts], progress=lambda done, total: reports.append((clock, done / total)))
    assert all(0.5 <= estimate <= 1.5 for estimate in estimates(reports, clock))
    assert reports[-1] == (clock, 1)
    assert reports[0][1] < 0.1


def test_pairs_alone_report_reading_too(make):
    ranker = make("batches")
    prompts, candidates = chat_texts(1, 11)
    pairs = [(0, i, j) for i in range(11) for j in range(i)]
    reports, end = timed(ranker, lambda progress: ranker.pair_logits(prompts, candidates, pairs, progress=progress))
    assert reports[-1] == (end, 1)
    assert all(0.5 <= estimate <= 1.5 for estimate in estimates(reports, end))
