from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_blender.rankers.published import _deberta_v3

if TYPE_CHECKING:
    import torch


VALUES = {
    **_deberta_v3(hidden=32, layers=3, intermediate=48),
    "vocab_size": 60,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "position_buckets": 16,
    "initializer_range": 0.3,  # so that the terms of attention matter
}


def make_twins(values):
    """Build transformers' model and ours with the same random weights."""
    import torch

    from llm_blender.rankers.encoders import DebertaEncoder, make_encoder

    torch.manual_seed(0)
    theirs = make_encoder(values, own=False).eval()
    ours = make_encoder(values).eval()
    assert isinstance(ours, DebertaEncoder)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


@pytest.fixture(scope="module")
def twins():
    return make_twins(VALUES)


@pytest.fixture(scope="module")
def published_twins():
    """Twins with the table of the published models: 256 buckets for distances up to 512."""
    return make_twins({**VALUES, "position_buckets": 256, "max_position_embeddings": 512, "num_hidden_layers": 2})


def batch(rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    torch.manual_seed(length)
    mask = torch.ones(rows, length, dtype=torch.long)
    for row in range(1, rows):
        mask[row, length - row * length // (2 * rows) :] = 0
    return torch.randint(60, (rows, length)), mask


def difference(twins, rows: int, length: int) -> float:
    import torch

    theirs, ours = twins
    ids, mask = batch(rows, length)
    with torch.inference_mode():
        wanted = theirs(input_ids=ids, attention_mask=mask).last_hidden_state
        states = ours(ids, mask).last_hidden_state
    return (wanted - states)[mask.bool()].abs().max().item()


# The table has 32 rows: above 16 tokens sequences run one by one, above 64 distances are clipped and parts are several.
@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 40, 64, 65, 130])
def test_states_are_those_of_transformers(twins, length):
    assert difference(twins, 4, length) < 3e-5


@pytest.mark.parametrize("length", [257, 300, 511, 600])
def test_long_states_are_those_of_transformers(published_twins, length):
    assert difference(published_twins, 2, length) < 1e-5


@pytest.mark.parametrize("length", [5, 16, 40])
def test_gathered_states_are_those_that_slide(twins, length, monkeypatch):
    """Exporting, and other devices for long sequences, gather."""
    import torch

    _, ours = twins
    ids, mask = batch(3, length)
    with torch.inference_mode():
        slid = ours(ids, mask).last_hidden_state
        monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
        monkeypatch.setattr("llm_blender.rankers.encoders.deberta._slide", None)
        gathered = ours(ids, mask).last_hidden_state
    assert (gathered - slid)[mask.bool()].abs().max() < 3e-5


def test_long_sequences_are_neither_gathered_nor_computed_together(twins, monkeypatch):
    import torch

    from llm_blender.rankers.encoders import deberta

    _, ours = twins
    batches = set()
    slide = deberta._slide

    def recorded(states, table):
        batches.add(states.shape[1])
        return slide(states, table)

    monkeypatch.setattr(deberta, "_slide", recorded)
    with torch.inference_mode():
        ours(*batch(3, 17))
        assert batches == {1}
        ours(*batch(3, 16))
        assert batches == {1, 3}


@pytest.mark.parametrize("length", [5, 16, 40])
def test_some_states_are_those_of_all(twins, length):
    import torch

    _, ours = twins
    ids, mask = batch(3, length)
    places = torch.tensor([[0, 1, 2], [2, 0, 1], [1, 1, 0]])
    with torch.inference_mode():
        states = ours(ids, mask).last_hidden_state
        some = ours(ids, mask, places).last_hidden_state
    assert some.shape == (3, 3, 32)
    assert (some - torch.stack([row[place] for row, place in zip(states, places, strict=True)])).abs().max() < 3e-5


def test_padding_changes_nothing(twins):
    import torch

    _, ours = twins
    ids, mask = batch(1, 12)
    longer = (
        torch.cat([ids, torch.zeros(1, 9, dtype=torch.long)], 1),
        torch.cat([mask, torch.zeros_like(ids[:, :9])], 1),
    )
    with torch.inference_mode():
        assert (ours(*longer).last_hidden_state[:, :12] - ours(ids, mask).last_hidden_state).abs().max() < 3e-5


def test_new_weights_are_used_though_the_old_ones_were_projected(twins):
    import torch

    from llm_blender.rankers.encoders import make_encoder

    theirs, _ = twins
    ours = make_encoder(VALUES).eval()
    ids, mask = batch(1, 10)
    with torch.inference_mode():
        before = ours(ids, mask).last_hidden_state
        ours.load_state_dict(theirs.state_dict())
        after = ours(ids, mask).last_hidden_state
        assert (before - after).abs().max() > 1e-2
        assert (theirs(input_ids=ids, attention_mask=mask).last_hidden_state - after).abs().max() < 3e-5
        halved = ours.to(torch.bfloat16)(ids, mask).last_hidden_state
        assert halved.dtype == torch.bfloat16
        assert (halved.float() - after).abs().max() < 0.3


def test_a_step_of_training_counts_though_the_weights_before_it_were_projected():
    import torch

    from llm_blender.rankers.encoders import make_encoder

    ours = make_encoder(VALUES).eval()
    ids, mask = batch(1, 10)
    with torch.no_grad():
        ours(ids, mask)
    ours(ids, mask)
    with torch.no_grad():
        for weight in ours.parameters():
            weight += torch.randn_like(weight) / 10
        after = ours(ids, mask).last_hidden_state
    assert (after - ours(ids, mask).last_hidden_state).abs().max() < 3e-5


@pytest.mark.parametrize("length", [10, 20])
def test_gradients_reach_the_table_of_positions(length):
    from llm_blender.rankers.encoders import make_encoder

    ours = make_encoder(VALUES)
    ids, mask = batch(2, length)
    for _ in range(2):  # twice: the first graph is not kept
        ours.zero_grad()
        ours(ids, mask).last_hidden_state.square().sum().backward()
        assert ours.encoder.rel_embeddings.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "bert"},
        {"position_buckets": -1},
        {"pos_att_type": ["c2p"]},
        {"share_att_key": False},
        {"relative_attention": False},
        {"norm_rel_ebd": "none"},
        {"conv_kernel_size": 3},
        {"position_biased_input": True},
        {"hidden_act": "relu"},
        {"embedding_size": 16},
        {"type_vocab_size": 2},
    ],
)
def test_other_models_are_left_to_transformers(change):
    from llm_blender.rankers.encoders import DebertaConfig

    assert DebertaConfig.read({**VALUES, **change}) is None


def test_both_spellings_of_the_terms():
    from llm_blender.rankers.encoders import DebertaConfig

    assert DebertaConfig.read({**VALUES, "pos_att_type": "p2c|c2p"}) == DebertaConfig.read(VALUES) is not None
