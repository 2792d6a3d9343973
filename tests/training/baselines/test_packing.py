from __future__ import annotations

import numpy as np
import pytest

from llm_blender.rankers.pointwise import Reading
from llm_blender.training.groups import TrainingGroup


@pytest.mark.parametrize("max_tokens", [1, 100, 1_000])
def test_each_item_is_in_one_batch_and_none_is_too_large(max_tokens):
    from llm_blender.training.batches import pack

    rng = np.random.default_rng(0)
    sizes = [(int(length), int(count)) for length, count in rng.integers(1, 30, (200, 2))]
    packed = pack(sizes, max_tokens)
    assert sorted(number for batch in packed for number in batch) == list(range(200))
    for batch in packed:
        tokens = sum(sizes[n][1] for n in batch) * max(sizes[n][0] for n in batch)
        assert tokens <= max_tokens or len(batch) == 1


def test_little_of_a_batch_is_padding():
    from llm_blender.training.batches import pack

    rng = np.random.default_rng(1)
    sizes = [(int(length), 4) for length in rng.integers(10, 200, 400)]
    packed = pack(sizes, 4_000)
    computed = sum(4 * len(batch) * max(sizes[n][0] for n in batch) for batch in packed)
    assert sum(length * count for length, count in sizes) / computed > 0.95


def test_nothing():
    from llm_blender.training.batches import pack

    assert pack([], 100) == []


def test_pad():
    from llm_blender.training.batches import pad

    ids, mask = pad([np.array([5, 6]), np.array([7, 8, 9])], 1)
    assert ids.tolist() == [[5, 6, 1], [7, 8, 9]]
    assert mask.tolist() == [[1, 1, 0], [1, 1, 1]]


@pytest.mark.parametrize("types", [False, True])
def test_a_batch_holds_the_sequences_of_its_groups_in_order(types):
    import torch

    from llm_blender.training.batches import PackedGroups
    from llm_blender.training.groups import ScoredGroup

    def read(groups):
        for scored in groups:
            ids = [[int(text)] * int(text) for text in scored.group.texts]
            yield [Reading(of, len(of), len(of), [1] * len(of) if types else None) for of in ids]

    groups = [ScoredGroup(TrainingGroup("Why?", texts, ()), {}) for texts in (("2", "3"), ("4",), ("1", "2", "3"))]
    batches = PackedGroups(groups, read, 0, 10)
    seen = []
    for index in range(len(batches)):
        batch = batches[index]
        assert ("token_type_ids" in batch) == types
        rows = batch["input_ids"].split(batch["sizes"])
        for scored, of_group in zip(batch["groups"], rows, strict=True):
            assert [str(int(row[0])) for row in of_group] == list(scored.group.texts)
            seen.append(scored.group.texts)
        torch.testing.assert_close(batch["attention_mask"], (batch["input_ids"] > 0).long())
    assert sorted(seen) == sorted(scored.group.texts for scored in groups)
