from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_blender.errors import InputError

if TYPE_CHECKING:
    import torch

PAIR_LOSSES = ["bce", "instructgpt", "logistic", "mse", "open_instruct_bce", "soft_logistic"]


@pytest.fixture
def logits() -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits of left and right candidates, ``[2, 2]`` each."""
    import torch

    return torch.tensor([[0.5, -1.0], [2.0, 0.0]]), torch.tensor([[-0.5, 0.5], [1.0, 0.0]])


@pytest.fixture
def targets() -> tuple[torch.Tensor, torch.Tensor]:
    """Return targets of better and worse candidates, ``[2, 2]`` each."""
    import torch

    return torch.ones(2, 2), torch.zeros(2, 2)


def nll(x):
    """Compute −log sigmoid(x) without torch."""
    return math.log1p(math.exp(-x))


def pairs(targets):
    """Draw scores and targets of left and right candidates, ``[3, 2]`` each."""

    def tensor(values):
        import torch

        return torch.tensor(values).float().view(3, 2)

    def table(entry):
        return st.lists(entry, min_size=6, max_size=6).map(tensor)

    scores = table(st.integers(-20, 20).map(lambda quarters: quarters / 4))
    return st.tuples(scores, scores, table(targets), table(targets))


def test_logistic_by_hand(logits, targets):
    from llm_blender.training.losses import logistic

    (left, right), (better, worse) = logits, targets
    expected = (nll(1.0) + nll(-1.5) + nll(1.0) + nll(0.0)) / 4
    assert logistic(left, right, better, worse).item() == pytest.approx(expected)
    assert logistic(left, right, 100 * better, -3 * better).item() == pytest.approx(expected)  # only the sign counts


def test_a_tie_costs_log_two_and_teaches_nothing(logits, targets):
    from llm_blender.training.losses import logistic

    (left, right), (better, _) = logits, targets
    left.requires_grad_()
    loss = logistic(left, right, better, better)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert not left.grad.any()


def test_bce_by_hand(logits, targets):
    from llm_blender.training.losses import bce

    expected = (
        (nll(0.5) + nll(-1.0) + nll(2.0) + nll(0.0)) / 4 + (nll(0.5) + nll(-0.5) + nll(-1.0) + nll(0.0)) / 4
    ) / 2
    assert bce(*logits, *targets).item() == pytest.approx(expected)


def test_bce_of_a_tie_finds_neither_better(logits, targets):
    from llm_blender.training.losses import bce

    expected = (sum(nll(-x) for x in (0.5, -1, 2, 0)) + sum(nll(-x) for x in (-0.5, 0.5, 1, 0))) / 8
    assert bce(*logits, targets[1], targets[1]).item() == pytest.approx(expected)


def test_mse_by_hand():
    import torch

    from llm_blender.training.losses import mse

    left, right, better, worse = (torch.tensor([[value]]) for value in (0.5, -1.0, 0.9, 0.4))
    assert mse(left, right, better, worse).item() == pytest.approx(0.4**2 + 1.4**2 - 2 * 1.5 * 0.5)


def test_open_instruct_bce_labels_each_by_itself():
    import torch

    from llm_blender.training.losses import open_instruct_bce

    left, right = torch.tensor([[0.5], [1.0]]), torch.tensor([[2.0], [-1.0]])
    both_good = open_instruct_bce(left, right, torch.ones(2, 1), torch.ones(2, 1))
    assert both_good.item() == pytest.approx((nll(0.5) + nll(1.0) + nll(2.0) + nll(-1.0)) / 4)
    mixed = open_instruct_bce(left, right, torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [0.5]]))
    assert mixed.item() == pytest.approx((nll(0.5) + nll(-1.0) + nll(-2.0) + nll(1.0)) / 4)


@pytest.mark.parametrize("name", PAIR_LOSSES)
@settings(deadline=None)
@given(pairs(st.integers(0, 1)))
def test_left_and_right_may_change_places(name, pair):
    from llm_blender.training.losses import find_loss

    left, right, a, b = pair
    assert find_loss(name)(left, right, a, b).item() == pytest.approx(
        find_loss(name)(right, left, b, a).item(), abs=1e-5
    )


@pytest.mark.parametrize("name", ["logistic", "bce", "mse", "open_instruct_bce"])
def test_every_loss_falls_where_the_better_one_gains(name):
    import torch

    from llm_blender.training.losses import find_loss

    left = torch.zeros(1, 1, requires_grad=True)
    right = torch.zeros(1, 1, requires_grad=True)
    find_loss(name)(left, right, torch.ones(1, 1), torch.zeros(1, 1)).backward()
    assert left.grad.item() < 0 < right.grad.item()


def test_signed_logistic_by_hand():
    import torch

    from llm_blender.rankers.pair_ranker.modeling import signed_logistic

    loss = signed_logistic(torch.tensor([2.0, -1.0, 5.0]), torch.tensor([1, -1, 0]))
    assert loss.item() == pytest.approx((nll(2) + nll(1) + nll(0)) / 3)


def test_losses_do_not_overflow():
    import torch

    from llm_blender.training.losses import LOSSES, find_loss

    assert sorted(LOSSES) == PAIR_LOSSES
    far = torch.tensor([[1000.0]])
    for name in LOSSES:
        assert find_loss(name)(-far, far, torch.ones(1, 1), torch.zeros(1, 1)).isfinite()


def test_the_originals_spelling_is_known():
    from llm_blender.training.losses import bce, find_loss, logistic, mse, open_instruct_bce

    assert find_loss("instructgpt") is logistic
    assert find_loss("BCE") is bce
    assert find_loss("MSE") is mse
    assert find_loss("open_instruct_BCE") is open_instruct_bce


def test_an_unknown_loss_is_told_the_nearest():
    from llm_blender.training.losses import find_loss

    with pytest.raises(InputError, match=r"'instruct_gpt': did you mean 'instructgpt'\?"):
        find_loss("instruct_gpt")


def test_the_reference_should_be_nearest():
    import torch

    from llm_blender.training.losses import reference_margins

    loss = reference_margins(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([0.5, 0.7]))
    assert loss.item() == pytest.approx((0.4 + 0 + 0 + 0.1) / 4)


def test_rank_margins_by_hand():
    import torch

    from llm_blender.training.losses import rank_margins

    similarities, targets = torch.tensor([[0.2, 0.6, 0.3]]), torch.tensor([[1.0, 3.0, 2.0]])
    # Best first: 0.6, 0.3, 0.2; margins of a third a place.
    expected = (-0.3 + 1 / 3) + (-0.1 + 1 / 3) + (-0.4 + 2 / 3)
    assert rank_margins(similarities, targets).item() == pytest.approx(expected)
    assert rank_margins(similarities, targets, margin=0.2).item() == pytest.approx(0 + 0.1 + 0)
    twice = rank_margins(similarities.repeat(2, 1), targets.repeat(2, 1))
    assert twice.item() == pytest.approx(expected)  # a mean over the rows


def test_simcls_is_both_its_parts():
    import torch

    from llm_blender.training.losses import rank_margins, reference_margins

    similarities, reference = torch.tensor([[0.9, 0.1, 0.5]]), torch.tensor([0.7])
    targets = torch.tensor([[0.1, 0.9, 0.5]])
    expected = 0.2 / 3 + (0.4 + 1 / 3) + (0.4 + 1 / 3) + (0.8 + 2 / 3)
    loss = reference_margins(similarities, reference) + rank_margins(similarities, targets)
    assert loss.item() == pytest.approx(expected)


@settings(deadline=None)
@given(st.permutations(range(4)))
def test_rank_margins_do_not_depend_on_the_order_of_the_candidates(order):
    import torch

    from llm_blender.training.losses import rank_margins

    similarities, targets = torch.tensor([[0.2, 0.6, 0.3, -0.4]]), torch.tensor([[1.0, 3.0, 2.0, 7.0]])
    shuffled = rank_margins(similarities[:, order], targets[:, order])
    assert shuffled.item() == pytest.approx(rank_margins(similarities, targets).item())


def test_one_candidate_has_no_margin_to_keep():
    import torch

    from llm_blender.training.losses import rank_margins

    assert rank_margins(torch.tensor([[0.3]]), torch.tensor([[1.0]])).item() == 0


def test_the_best_by_each_metric():
    import torch

    from llm_blender.training.losses import best_per_metric

    targets = torch.tensor([[[1.0, 0.2], [3.0, 0.2], [2.0, 0.1]]])
    assert best_per_metric(targets).tolist() == [[[0, 1], [1, 1], [0, 0]]]
