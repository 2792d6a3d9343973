"""Losses of rankers.

The pairwise losses share one signature; a pair is a left and a right candidate for the same instruction::

    loss(left, right, left_targets, right_targets) -> scalar

with the head's scores ``[P, T]`` of P pairs in T tasks (one per metric), and their true scores ``[P, T]``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from llm_blender.errors import unknown_name
from llm_blender.rankers.pair_ranker.modeling import signed_logistic


def logistic(left: Tensor, right: Tensor, left_targets: Tensor, right_targets: Tensor) -> Tensor:
    """Compute −log σ(better − worse): the loss of the released PairRM, ``instructgpt``.

    Source: InstructGPT's reward model, arXiv 2203.02155; a Bradley-Terry model of the pair. A tie adds log 2 and no
    gradient.

    Args:
        left: ``[P, T]``, scores of the left candidates of P pairs in T tasks.
        right: ``[P, T]``, scores of the right ones.
        left_targets: ``[P, T]``, true scores of the left ones.
        right_targets: ``[P, T]``, true scores of the right ones.

    Returns:
        A scalar, averaged over pairs and tasks.
    """
    return signed_logistic(left - right, left_targets - right_targets)


def soft_logistic(left: Tensor, right: Tensor, left_targets: Tensor, right_targets: Tensor) -> Tensor:
    """Compute the binary cross entropy of σ(difference of the scores) against the judges' probability.

    That probability is ``(1 + difference of the targets) / 2``. With targets of 1 and 0 this is `logistic`; a tie pulls
    the two scores together.

    Args:
        left: ``[P, T]``, scores of the left candidates of P pairs in T tasks.
        right: ``[P, T]``, scores of the right ones.
        left_targets: ``[P, T]``, true scores of the left ones.
        right_targets: ``[P, T]``, true scores of the right ones.

    Returns:
        A scalar, averaged over pairs and tasks.
    """
    probability = (1 + left_targets - right_targets) / 2
    return functional.binary_cross_entropy_with_logits(left - right, probability)


def bce(left: Tensor, right: Tensor, left_targets: Tensor, right_targets: Tensor) -> Tensor:
    """Compute the binary cross entropy of each candidate against "is the better one": the paper's loss.

    Source: arXiv 2306.02561, section 3.2. In a tie neither is better.

    Args:
        left: ``[P, T]``, scores of the left candidates of P pairs in T tasks.
        right: ``[P, T]``, scores of the right ones.
        left_targets: ``[P, T]``, true scores of the left ones.
        right_targets: ``[P, T]``, true scores of the right ones.

    Returns:
        A scalar, averaged over pairs and tasks.
    """
    left_better = (left_targets > right_targets).to(left.dtype)
    right_better = (left_targets < right_targets).to(right.dtype)
    return _both(left, right, left_better, right_better)


def mse(left: Tensor, right: Tensor, left_targets: Tensor, right_targets: Tensor) -> Tensor:
    """Compute the squared errors of both scores, less twice the product of predicted and true difference.

    It rewards a difference of the right sign as well as the right values, and so can be below zero.
    Source: llm-blender 0.0.2, ``MSE``.

    Args:
        left: ``[P, T]``, scores of the left candidates of P pairs in T tasks.
        right: ``[P, T]``, scores of the right ones.
        left_targets: ``[P, T]``, true scores of the left ones.
        right_targets: ``[P, T]``, true scores of the right ones.

    Returns:
        A scalar, averaged over pairs and tasks.
    """
    errors = functional.mse_loss(left, left_targets) + functional.mse_loss(right, right_targets)
    return errors - (2 * (left - right) * (left_targets - right_targets)).mean()


def open_instruct_bce(left: Tensor, right: Tensor, left_targets: Tensor, right_targets: Tensor) -> Tensor:
    """Compute the binary cross entropy of each candidate against its own label, independent of the other's.

    Source: llm-blender 0.0.2, ``open_instruct_BCE``. Targets are labels: 1 is good, any other number is bad.

    Args:
        left: ``[P, T]``, scores of the left candidates of P pairs in T tasks.
        right: ``[P, T]``, scores of the right ones.
        left_targets: ``[P, T]``, true scores of the left ones.
        right_targets: ``[P, T]``, true scores of the right ones.

    Returns:
        A scalar, averaged over pairs and tasks.
    """
    return _both(left, right, (left_targets == 1).to(left.dtype), (right_targets == 1).to(right.dtype))


def _both(left: Tensor, right: Tensor, left_labels: Tensor, right_labels: Tensor) -> Tensor:
    entropy = functional.binary_cross_entropy_with_logits
    return (entropy(left, left_labels) + entropy(right, right_labels)) / 2


PairLoss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Takes scores of left and right candidates and their targets, ``[P, T]`` each; returns a scalar."""

LOSSES: dict[str, PairLoss] = {
    "logistic": logistic,
    "instructgpt": logistic,  # its name in the configurations of the published checkpoints
    "soft_logistic": soft_logistic,
    "bce": bce,
    "mse": mse,
    "open_instruct_bce": open_instruct_bce,
}
"""The pairwise losses by name."""


def find_loss(name: str) -> PairLoss:
    """Find a pairwise loss by name, in any case (``BCE``, ``open_instruct_BCE``).

    Raises:
        InputError: there is none; the message holds the nearest known name.
    """
    if name.lower() not in LOSSES:
        raise unknown_name("loss", name, LOSSES)
    return LOSSES[name.lower()]


def mean_over_groups(losses: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """Average the mean losses of groups, weighted by the root of their numbers of preferences.

    Args:
        losses: G scalars, one per group.
        sizes: G numbers of preferences.

    Returns:
        A scalar.
    """
    weights = torch.tensor(sizes, device=losses[0].device).sqrt()
    return (weights * torch.stack(list(losses))).sum() / weights.sum()


def agreement(logits: NDArray[Any], targets: NDArray[Any]) -> float:
    """Compute the share of preferences ordered as labelled.

    Args:
        logits: ``[P]``, above zero where a is preferred.
        targets: ``[P]``, probability that a is better.
    """
    return float(np.mean(logits * (targets - 0.5) > 0))


def reference_margins(similarities: Tensor, reference: Tensor) -> Tensor:
    """Penalise candidates nearer to the instruction than the reference is, averaged over the candidates.

    Source: SimCLS, arXiv 2106.01890, the first sum of its loss (a mean here, as in LLM-Blender).

    Args:
        similarities: ``[B, N]`` of instruction and candidate.
        reference: ``[B]`` of instruction and reference answer.
    """
    return functional.relu(similarities - reference.unsqueeze(-1)).mean()


def rank_margins(
    similarities: Tensor, targets: Tensor, margin: float | None = None, *, between_equals: bool = True
) -> Tensor:
    """Penalise a worse candidate that is not a margin below a better one; the margin grows with their distance.

    With the candidates sorted by `targets`, best first: Σ_{i<j} max(0, s_j − s_i + (j − i) · margin), averaged over
    the rows. Source: SimCLS, arXiv 2106.01890, the second sum of its loss.

    Args:
        similarities: ``[B, N]`` of instruction and candidate.
        targets: ``[B, N]`` true scores, summed over metrics. Equal ones keep their order.
        margin: between adjacent candidates; None is LLM-Blender's 1/N.
        between_equals: also between equal targets, as in LLM-Blender.
    """
    count = similarities.shape[-1]
    best_first = torch.argsort(targets, dim=-1, descending=True, stable=True)
    ordered = similarities.gather(-1, best_first)
    places = torch.arange(count, device=ordered.device)
    distance = (places[None, :] - places[:, None]).to(ordered.dtype)
    lacking = ordered.unsqueeze(-2) - ordered.unsqueeze(-1) + distance * (1 / count if margin is None else margin)
    if not between_equals:
        sorted_targets = targets.gather(-1, best_first)
        lacking = lacking.masked_fill(sorted_targets.unsqueeze(-2) == sorted_targets.unsqueeze(-1), 0)
    return functional.relu(lacking).triu(diagonal=1).sum((-2, -1)).mean()


def best_per_metric(targets: Tensor) -> Tensor:
    """Label the candidates that are best by a metric with 1 and the others with 0, as SummaReranker learns.

    Source: SummaReranker, arXiv 2203.06569. All that share the best score are best.

    Args:
        targets: ``[B, N, T]`` true scores by T metrics.

    Returns:
        ``[B, N, T]``, in the dtype of `targets`.
    """
    return (targets == targets.amax(dim=-2, keepdim=True)).to(targets.dtype)
