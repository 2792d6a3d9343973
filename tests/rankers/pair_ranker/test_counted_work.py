"""Work of the bundled ranker on a fixed input: it depends on no machine and no weights, and may not grow unseen."""

from __future__ import annotations

import numpy as np
import pytest

from llm_blender.rankers.checkpoints import BUNDLED, find_checkpoint
from llm_blender.rankers.pair_ranker import PairRanker, PairRankerConfig
from llm_blender.rankers.pair_ranker.input_format import InputFormat
from llm_blender.testing import Work, chat_texts, counted, work_of

# Prompts, candidates, strategy: batches, rows, pairs, tokens, tokens with padding, rows times layers. Where less is
# computed, write the new numbers; where more is, say why in the commit.
WRITTEN = {
    (1, 5, "auto"): {
        "read": Work(2, 5, 0, 878, 904, 20),
        "compare": Work(4, 20, 10, 3512, 4082, 40),
    },
    (1, 5, "full"): {
        "read": Work(2, 5, 0, 878, 904, 20),
        "compare": Work(4, 20, 10, 3512, 4082, 40),
    },
    (1, 11, "auto"): {
        "read": Work(4, 11, 0, 1608, 1695, 44),
        "compare": Work(8, 20, 10, 3320, 3878, 40),
    },
    (1, 11, "full"): {
        "read": Work(4, 11, 0, 1608, 1664, 44),
        "compare": Work(13, 110, 55, 16080, 18892, 220),
    },
    (1, 11, "top_k"): {
        "read": Work(4, 11, 0, 1608, 1695, 44),
        "compare": Work(14, 32, 16, 5329, 6210, 64),
    },
    (6, 5, "auto"): {
        "read": Work(8, 30, 0, 5119, 5273, 120),
        "compare": Work(15, 120, 60, 20476, 23078, 240),
    },
    (6, 11, "auto"): {
        "read": Work(13, 66, 0, 12544, 12764, 264),
        "compare": Work(21, 120, 60, 24796, 27726, 240),
    },
}


class LongerWins:
    """The longer candidate is the better one; no model runs, so that winners, and with them the rounds, are fixed."""

    parallel = 1
    singly = True

    def read(self, sequences):
        return [None for _ in sequences]

    def compare(self, pairs):
        return np.array([[(len(left.sequence) - len(right.sequence)) / 16] for left, right in pairs], np.float32)


@pytest.fixture(scope="module")
def ranker() -> PairRanker:
    folder = find_checkpoint(BUNDLED)
    form = InputFormat.load(folder, PairRankerConfig.load(folder))
    return PairRanker(LongerWins(), form, folder, max_tokens=2_048)


@pytest.mark.parametrize(("prompts", "candidates", "strategy"), WRITTEN)
def test_the_model_computes_no_more_than_is_written_here(ranker, prompts, candidates, strategy):
    with counted(ranker) as counting:
        ranker.rank_many(*chat_texts(prompts, candidates), strategy=strategy)
    assert work_of(counting.batches, ranker.config) == WRITTEN[prompts, candidates, strategy]


def test_many_prompts_take_fewer_batches_than_one_after_the_other(ranker):
    prompts, candidates = chat_texts(6, 5, words=20)
    with counted(ranker) as together:
        ranker.rank_many(prompts, candidates)
    with counted(ranker) as alone:
        for prompt, texts in zip(prompts, candidates, strict=True):
            ranker.rank(prompt, texts)
    assert len(together.batches) < 0.7 * len(alone.batches)
    assert sum(sum(b.lengths) for b in together.batches) == sum(sum(b.lengths) for b in alone.batches)
