"""A sparsely gated mixture of experts with one gate per task (arXiv 1701.06538, section 2; arXiv 2203.06569)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["MixtureOfExperts"]

_NOISE_FLOOR = 1e-2  # of the standard deviation that the gates' noise can learn
_BALANCE = 1e-2  # weight of the loss that spreads work over the experts
_EPS = 1e-10


class MixtureOfExperts(nn.Module):
    """Experts that all tasks share; each task weighs the `k` best of them for each row.

    Args:
        width: of rows and experts.
        experts: how many there are.
        tasks: how many gates there are.
        k: experts that a gate lets through.

    Parameters have the names that llm-blender 0.0.2 gave them (``experts.N.fc1``, ``w_gate.T``, ``w_noise.T``).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, width: int, experts: int, tasks: int, k: int) -> None:
        super().__init__()
        self.k = k
        self.experts = nn.ModuleList(Expert(width) for _ in range(experts))
        self.w_gate = nn.ParameterList(torch.zeros(width, experts) for _ in range(tasks))
        self.w_noise = nn.ParameterList(torch.zeros(width, experts) for _ in range(tasks))
        # Of the noise. Constants, but the published checkpoints hold them.
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("std", torch.ones(1))

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Mix the experts.

        Args:
            rows: ``[B, H]``.

        Returns:
            A vector per row and task, ``[B, tasks, H]``; and the loss that keeps the experts in balance, a scalar,
            to be added to that of the tasks.
        """
        outputs = torch.stack([expert(rows) for expert in self.experts], 1)
        mixed, balance = [], rows.new_zeros(())
        for task in range(len(self.w_gate)):
            gates, load = self._gates(rows, task)
            # In log space: an expert that is shut out weighs exp(-inf) = 0.
            mixed.append(torch.logsumexp(outputs + gates.log().unsqueeze(-1), 1))
            balance = balance + _BALANCE * (_squared_variation(gates.sum(0)) + _squared_variation(load))
        return torch.stack(mixed, 1), balance

    def _gates(self, rows: Tensor, task: int) -> tuple[Tensor, Tensor]:
        """Weights ``[B, experts]`` that sum to 1, and how many rows each expert is expected to get, ``[experts]``."""
        clean = rows @ self.w_gate[task]
        noisy, deviation = clean, None
        if self.training:
            deviation = functional.softplus(rows @ self.w_noise[task]) + _NOISE_FLOOR
            noisy = clean + torch.randn_like(clean) * deviation
        experts = noisy.shape[1]
        best, places = noisy.topk(min(self.k + 1, experts), dim=1)
        weights = best[:, : self.k].softmax(1).to(noisy.dtype)  # under autocast, a softmax is float32
        gates = torch.zeros_like(noisy).scatter(1, places[:, : self.k], weights)
        if deviation is None or self.k >= experts:
            return gates, (gates > 0).sum(0).to(rows.dtype)
        # With other noise, each expert would be among the k best with this probability; unlike the count of rows,
        # it has a gradient. Who is among them now must stay above the (k+1)-th, who is not must pass the k-th.
        among = noisy > best[:, self.k, None]
        bar = torch.where(among, best[:, self.k, None], best[:, self.k - 1, None])
        return gates, _normal_cdf((clean - bar) / deviation).sum(0)


class Expert(nn.Module):
    """Two layers, as wide as their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, rows: Tensor) -> Tensor:
        """``[B, H]`` to ``[B, H]``."""
        output: Tensor = self.fc2(functional.relu(self.fc1(rows)))
        return output


def _normal_cdf(values: Tensor) -> Tensor:
    return (1 + torch.erf(values / math.sqrt(2))) / 2


def _squared_variation(values: Tensor) -> Tensor:
    """Variance over the squared mean: 0 where all are equal."""
    if len(values) < 2:
        return values.new_zeros(())
    return values.var() / (values.mean() ** 2 + _EPS)
