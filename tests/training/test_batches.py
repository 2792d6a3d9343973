from __future__ import annotations

import numpy as np
import pytest

from llm_blender.rankers.pointwise import Reading
from llm_blender.training.groups import Preference, ScoredGroup, TrainingGroup
from llm_blender.training.recipes import Recipe

GROUPS = [
    TrainingGroup("why", ("good", "bad the sky", "not"), (Preference(0, 1, 1.0), Preference(2, 1, 0.7))),
    TrainingGroup("what is the sea", ("blue blue", "green"), (Preference(0, 1, 0.2),)),
]


@pytest.fixture(scope="module")
def form(tiny_encoder):
    from llm_blender.training.checkpoints import new_pair_ranker

    return new_pair_ranker(Recipe.model_validate({"max_length": 64, "source_max_length": 16}), str(tiny_encoder))[1]


def only(form, groups, reading, **options):
    from llm_blender.training.batches import PairBatches

    (batch,) = PairBatches(groups, form, reading, 10_000, **{"soft": True, **options})
    return batch


def test_apart_each_text_is_one_sequence(form):
    for reading in ("alone", "late"):
        batch = only(form, GROUPS[:1], reading)
        assert len(batch["input_ids"]) == 3
        assert set(batch["segment_ids"].unique().tolist()) == {0, 1, 2}
        assert batch["lengths"].tolist() == [1, 3, 1]
        assert batch["sizes"] == (2,)


def test_together_each_preference_is_one_sequence(form):
    batch = only(form, GROUPS[:1], "one")
    assert len(batch["input_ids"]) == 2
    assert set(batch["segment_ids"].unique().tolist()) == {0, 1, 2, 3}
    assert batch["left"].tolist() == batch["right"].tolist() == [0, 1]


def test_both_orders(form):
    batch = only(form, GROUPS[:1], "both")
    assert batch["targets"].tolist() == pytest.approx([1, 0, 0.7, 0.3])
    assert batch["sizes"] == (4,)


def test_one_order_has_the_better_one_left_as_often_as_right(form):
    pairs = [TrainingGroup("why", ("good", "bad"), (Preference(i % 2, 1 - i % 2, 1.0),)) for i in range(20)]
    for reading in ("one", "alone", "late"):
        assert sorted(only(form, pairs, reading)["targets"].tolist()) == [0.0] * 10 + [1.0] * 10


@pytest.mark.parametrize("reading", ["alone", "late", "one", "both"])
def test_targets_belong_to_the_texts_that_are_named(form, reading):
    good, bad = (form.tokenize([text])[0][0] for text in ("good", "bad"))
    groups = [TrainingGroup("why", ("good", "bad"), (Preference(0, 1, 0.9),)) for _ in range(4)]
    batch = only(form, groups, reading)
    for left, right, target in zip(batch["left"], batch["right"], batch["targets"], strict=True):
        ids, segments = batch["input_ids"], batch["segment_ids"]
        right_segment = 2 if reading in ("alone", "late") else 3
        has_good = good in ids[left][segments[left] == 2]
        assert (good if has_good else bad) in ids[left][segments[left] == 2]
        assert (bad if has_good else good) in ids[right][segments[right] == right_segment]
        assert float(target) == pytest.approx(0.9 if has_good else 0.1)


def test_hard_labels(form):
    assert sorted(only(form, GROUPS, "both", soft=False)["targets"].tolist()) == [0.0] * 3 + [1.0] * 3


class TestPacking:
    def groups(self, count: int) -> list[TrainingGroup]:
        texts = [("sea " * (1 + 7 * i % 30), "sun") for i in range(count)]
        return [TrainingGroup("why", pair, (Preference(0, 1, 1.0),)) for pair in texts]

    def test_no_batch_is_above_its_tokens_and_no_group_is_lost(self, form):
        from llm_blender.training.batches import PairBatches

        batches = list(PairBatches(self.groups(50), form, "late", 200, True))
        assert len(batches) > 3
        assert max(batch["input_ids"].numel() for batch in batches) <= 200
        assert sum(len(batch["sizes"]) for batch in batches) == 50

    def test_little_of_it_is_padding(self, form):
        from llm_blender.training.batches import PairBatches

        batches = list(PairBatches(self.groups(200), form, "one", 400, True))
        assert sum(int(b["attention_mask"].sum()) for b in batches) > 0.9 * sum(b["input_ids"].numel() for b in batches)

    def test_a_group_that_is_too_large_is_a_batch_of_its_own(self, form):
        from llm_blender.training.batches import PairBatches

        batches = list(PairBatches(self.groups(5), form, "alone", 1, True))
        assert [batch["sizes"] for batch in batches] == [(1,)] * 5


def test_the_same_batch_each_time(form):
    import torch

    from llm_blender.training.batches import PairBatches

    batches = PairBatches(GROUPS, form, "late", 100, True)
    assert torch.equal(batches[0]["input_ids"], batches[0]["input_ids"])


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


@pytest.mark.parametrize("types", [False, True])
def test_a_batch_holds_the_sequences_of_its_groups_in_order(types):
    import torch

    from llm_blender.training.batches import PackedGroups

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
