"""Work of the bundled ranker on a fixed input: it depends on no machine and no weights, and may not grow unseen."""

from __future__ import annotations

import numpy as np
import pytest

from llm_blender.rankers.checkpoints import BUNDLED, find_checkpoint
from llm_blender.rankers.pair_ranker import PairRanker, PairRankerConfig
from llm_blender.rankers.pair_ranker.input_format import InputFormat
from llm_blender.ranking import EvidenceWeights
from llm_blender.testing import Work, chat_texts, counted, work_of

# Prompts, candidates, strategy, k: batches, rows, pairs, tokens, tokens with padding, rows times layers. Where less is
# computed, write the new numbers; where more is, say why in the commit.
WRITTEN = {
    (1, 5, "auto", None): {
        "read": Work(5, 5, 0, 878, 878, 20),
        "compare": Work(10, 20, 10, 3512, 3512, 40),
    },
    (1, 5, "auto", 1): {
        "read": Work(5, 5, 0, 878, 878, 20),
        "compare": Work(4, 8, 4, 1532, 1532, 16),
    },
    (1, 11, "auto", None): {
        "read": Work(11, 11, 0, 1608, 1608, 44),
        "compare": Work(16, 32, 16, 5329, 5329, 64),
    },
    (1, 11, "auto", 1): {
        "read": Work(11, 11, 0, 1608, 1608, 44),
        "compare": Work(10, 20, 10, 3320, 3320, 40),
    },
    (1, 11, "full", None): {
        "read": Work(11, 11, 0, 1608, 1608, 44),
        "compare": Work(55, 110, 55, 16080, 16080, 220),
    },
    (6, 5, "auto", None): {
        "read": Work(30, 30, 0, 5119, 5119, 120),
        "compare": Work(60, 120, 60, 20476, 20476, 240),
    },
    (6, 11, "auto", 1): {
        "read": Work(66, 66, 0, 12544, 12544, 264),
        "compare": Work(60, 120, 60, 24796, 24796, 240),
    },
}
IN_BATCHES = {"read": Work(8, 30, 0, 5119, 5273, 120), "compare": Work(15, 120, 60, 20476, 23078, 240)}
"""Of 6 prompts with 5 candidates, where a backend takes batches."""


class LongerWins:
    """The longer candidate is the better one; no model runs, so that winners, and with them the rounds, are fixed."""

    parallel, devices, ahead = 1, 1, 0

    def __init__(self, singly):
        self.singly = singly

    def read(self, sequences, device=0):
        return [None for _ in sequences]

    def compare(self, pairs, device=0):
        return np.array([[(len(left.sequence) - len(right.sequence)) / 16] for left, right in pairs], np.float32)


@pytest.fixture(scope="module")
def make():
    folder = find_checkpoint(BUNDLED)
    form = InputFormat.load(folder, PairRankerConfig.load(folder))
    return lambda singly: PairRanker(LongerWins(singly), form, folder, max_tokens=2_048)


@pytest.mark.parametrize(("prompts", "candidates", "strategy", "k"), WRITTEN)
def test_the_model_computes_no_more_than_is_written_here(make, prompts, candidates, strategy, k):
    ranker = make(singly=True)
    with counted(ranker) as counting:
        ranker.rank_many(*chat_texts(prompts, candidates), strategy=strategy, k=k)
    assert work_of(counting.batches, ranker.config) == WRITTEN[prompts, candidates, strategy, k]


def test_batches_of_many_prompts(make):
    ranker = make(singly=False)
    with counted(ranker) as counting:
        ranker.rank_many(*chat_texts(6, 5))
    assert work_of(counting.batches, ranker.config) == IN_BATCHES


def test_in_batches_each_text_is_read_once_however_many_there_are(make):
    ranker = make(singly=False)
    ranker.evidence_weights = EvidenceWeights()
    prompts, candidates = chat_texts(24, 11, words=200)
    with counted(ranker) as counting:
        ranker.rank_many(prompts, candidates, strategy="knockout")
    work = work_of(counting.batches, ranker.config)
    assert work["read"].rows == 24 * 11
    assert work["read"].tokens > 32_768  # more than is kept at a time


def test_many_prompts_take_fewer_batches_than_one_after_the_other(make):
    ranker = make(singly=False)
    prompts, candidates = chat_texts(6, 5, words=20)
    with counted(ranker) as together:
        ranker.rank_many(prompts, candidates)
    with counted(ranker) as alone:
        for prompt, texts in zip(prompts, candidates, strict=True):
            ranker.rank(prompt, texts)
    assert len(together.batches) < 0.7 * len(alone.batches)
    assert sum(sum(b.lengths) for b in together.batches) == sum(sum(b.lengths) for b in alone.batches)
