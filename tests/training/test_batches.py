from __future__ import annotations

import pytest

from llm_blender.training.groups import Preference, TrainingGroup
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
    from llm_blender.training.batches import Batches

    (batch,) = Batches(groups, form, reading, 10_000, **{"soft": True, **options})
    return batch


def test_apart_each_text_is_one_sequence(form):
    for reading in ("alone", "late"):
        batch = only(form, GROUPS[:1], reading)
        assert len(batch.input_ids) == 3
        assert set(batch.segment_ids.unique().tolist()) == {0, 1, 2}
        assert batch.lengths.tolist() == [1, 3, 1]
        assert batch.sizes == (2,)


def test_together_each_preference_is_one_sequence(form):
    batch = only(form, GROUPS[:1], "one")
    assert len(batch.input_ids) == 2
    assert set(batch.segment_ids.unique().tolist()) == {0, 1, 2, 3}
    assert batch.left.tolist() == batch.right.tolist() == [0, 1]


def test_both_orders(form):
    batch = only(form, GROUPS[:1], "both")
    assert batch.targets.tolist() == pytest.approx([1, 0, 0.7, 0.3])
    assert batch.sizes == (4,)


def test_one_order_has_the_better_one_left_as_often_as_right(form):
    pairs = [TrainingGroup("why", ("good", "bad"), (Preference(i % 2, 1 - i % 2, 1.0),)) for i in range(20)]
    for reading in ("one", "alone", "late"):
        assert sorted(only(form, pairs, reading).targets.tolist()) == [0.0] * 10 + [1.0] * 10


@pytest.mark.parametrize("reading", ["alone", "late", "one", "both"])
def test_targets_belong_to_the_texts_that_are_named(form, reading):
    good, bad = (form.tokenize([text])[0][0] for text in ("good", "bad"))
    groups = [TrainingGroup("why", ("good", "bad"), (Preference(0, 1, 0.9),)) for _ in range(4)]
    batch = only(form, groups, reading)
    for left, right, target in zip(batch.left, batch.right, batch.targets, strict=True):
        ids, segments = batch.input_ids, batch.segment_ids
        right_segment = 2 if reading in ("alone", "late") else 3
        has_good = good in ids[left][segments[left] == 2]
        assert (good if has_good else bad) in ids[left][segments[left] == 2]
        assert (bad if has_good else good) in ids[right][segments[right] == right_segment]
        assert float(target) == pytest.approx(0.9 if has_good else 0.1)


def test_hard_labels(form):
    assert sorted(only(form, GROUPS, "both", soft=False).targets.tolist()) == [0.0] * 3 + [1.0] * 3


class TestPacking:
    def groups(self, count: int) -> list[TrainingGroup]:
        texts = [("sea " * (1 + 7 * i % 30), "sun") for i in range(count)]
        return [TrainingGroup("why", pair, (Preference(0, 1, 1.0),)) for pair in texts]

    def test_no_batch_is_above_its_tokens_and_no_group_is_lost(self, form):
        from llm_blender.training.batches import Batches

        batches = list(Batches(self.groups(50), form, "late", 200, True))
        assert len(batches) > 3
        assert max(batch.input_ids.numel() for batch in batches) <= 200
        assert sum(len(batch.sizes) for batch in batches) == 50

    def test_little_of_it_is_padding(self, form):
        from llm_blender.training.batches import Batches

        batches = list(Batches(self.groups(200), form, "one", 400, True))
        assert sum(int(b.attention_mask.sum()) for b in batches) > 0.9 * sum(b.input_ids.numel() for b in batches)

    def test_a_group_that_is_too_large_is_a_batch_of_its_own(self, form):
        from llm_blender.training.batches import Batches

        batches = list(Batches(self.groups(5), form, "alone", 1, True))
        assert [batch.sizes for batch in batches] == [(1,)] * 5


def test_the_same_batch_each_time(form):
    import torch

    from llm_blender.training.batches import Batches

    batches = Batches(GROUPS, form, "late", 100, True)
    assert torch.equal(batches[0].input_ids, batches[0].input_ids)
