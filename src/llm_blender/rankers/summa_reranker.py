"""SummaReranker: read an instruction with one candidate and score how likely it is the best one.

Its sequence is ``[CLS] <source>x [SEP] <candidate>y [SEP]``, where ``<source>`` and ``<candidate>`` are plain text, not
special tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from llm_blender._inputs import clean
from llm_blender.rankers._torch import first_states, load_module
from llm_blender.rankers.batching import Tally
from llm_blender.rankers.checkpoints import SpecialTokens, load_tokenizer
from llm_blender.rankers.encoder_ranker import EncoderRanker, PointwiseConfig
from llm_blender.rankers.encoders import bare_encoder
from llm_blender.rankers.pointwise import Pair, Reading, Scored, tokens_of
from llm_blender.types import Instruction, OnProgress, instruction_text

_SOURCE, _CANDIDATE = "<source>", "<candidate>"
_EDGES = 2  # [CLS] and [SEP], which count towards the length of each text


class SummaInput:
    """Tokenizer, truncation and joining, as in the training of the published weights.

    A text is cut to its length, decoded, appended to its prefix and tokenised again, which drops special tokens and
    unknown characters. The prefixes do not count towards these lengths but towards that of the whole sequence: with
    an instruction of full length, a candidate of full length loses its end too.

    Args:
        folder: the checkpoint, for its tokenizer.
        config: the lengths.

    Raises:
        CheckpointError: the tokenizer is missing, or lacks a special token.
    """

    def __init__(self, folder: Path, config: PointwiseConfig) -> None:
        self._config = config
        self._tokenizer, self._plain = load_tokenizer(folder), load_tokenizer(folder)
        self._plain.encode_special_tokens = True  # a special token that decoding joins from pieces stays text
        self.special = SpecialTokens.of(self._tokenizer)
        self.vocabulary = self._tokenizer.get_vocab_size()

    def read(self, pairs: Sequence[tuple[Instruction, str]]) -> list[Reading]:
        """Return one sequence per pair; tokenise each text once."""
        most = self._config.source_max_length + self._config.candidate_max_length + 3
        sources = [(instruction_text(instruction), not isinstance(instruction, str)) for instruction, _ in pairs]
        source_of = self._fit(_SOURCE, sources, self._config.source_max_length - _EDGES)
        candidates = [(text, False) for _, text in pairs]
        candidate_of = self._fit(_CANDIDATE, candidates, self._config.candidate_max_length - _EDGES)
        readings = []
        for source, candidate in zip(sources, candidates, strict=True):
            first, second = source_of[source], candidate_of[candidate]
            ids = [self.special.cls, *first.ids, self.special.sep, *second.ids]
            lost = max(0, len(ids) + 1 - most)
            read = first.read + max(0, second.read - lost)
            readings.append(Reading([*ids[: len(ids) - lost], self.special.sep], read, first.whole + second.whole))
        return readings

    def _fit(self, prefix: str, texts: Sequence[tuple[str, bool]], budget: int) -> dict[tuple[str, bool], Reading]:
        """Read each text, given with whether to keep its end, without special tokens."""
        unique = list(dict.fromkeys(texts))
        whole = [e.ids for e in self._tokenizer.encode_batch([clean(t) for t, _ in unique], add_special_tokens=False)]
        kept = [
            ids if len(ids) <= budget else ids[-budget:] if from_end else ids[:budget]
            for ids, (_, from_end) in zip(whole, unique, strict=True)
        ]
        again = [prefix + self._tokenizer.decode(ids, skip_special_tokens=True) for ids in kept]
        encoded = self._plain.encode_batch(again, add_special_tokens=False)
        return {
            text: Reading(encoding.ids, len(short), len(ids))
            for text, encoding, short, ids in zip(unique, encoded, kept, whole, strict=True)
        }


class SummaReranker(EncoderRanker[SummaInput]):
    """A cross-encoder with a mixture of experts and one output per metric (arXiv 2203.06569), in torch.

    Scores lie between 0 and 1. Load one with `from_pretrained`.
    """

    name = "summareranker"
    decimals = 6

    @classmethod
    def _read(cls, folder: Path, config: PointwiseConfig) -> tuple[SummaInput, nn.Module]:
        return SummaInput(folder, config), load_module(folder, lambda: SummaRerankerModel(config))

    def _score(self, pairs: Sequence[Pair], progress: OnProgress) -> Scored:
        readings = self.input_format.read(pairs)
        return Scored.by(self._run(readings, Tally(progress, len(readings), tokens_of(readings))), readings)


_NOISE_FLOOR = 1e-2  # lower bound of the learned standard deviation of the gates' noise
_BALANCE = 1e-2  # weight of the loss that balances the experts
_EPS = 1e-10


class MixtureOfExperts(nn.Module):
    """Experts shared by all tasks; each task weights its `k` best experts for each row.

    Args:
        width: of rows and experts.
        experts: number of experts.
        tasks: number of tasks, one gate each.
        k: number of experts that a gate lets through.

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
        # Mean and deviation of the noise: constants, but part of the published checkpoints.
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("std", torch.ones(1))

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Mix the experts.

        Args:
            rows: ``[B, H]``.

        Returns:
            A vector per row and task, ``[B, tasks, H]``; and the loss that balances the experts, a scalar to add to
            that of the tasks.
        """
        outputs = torch.stack([expert(rows) for expert in self.experts], 1)
        mixed, balance = [], rows.new_zeros(())
        for task in range(len(self.w_gate)):
            gates, load = self._gates(rows, task)
            # In log space: the weight of a closed expert is exp(-inf) = 0.
            mixed.append(torch.logsumexp(outputs + gates.log().unsqueeze(-1), 1))
            balance = balance + _BALANCE * (_squared_variation(gates.sum(0)) + _squared_variation(load))
        return torch.stack(mixed, 1), balance

    def _gates(self, rows: Tensor, task: int) -> tuple[Tensor, Tensor]:
        """Return weights ``[B, experts]`` that sum to 1, and the expected rows of each expert, ``[experts]``."""
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
        # Under new noise, each expert is among the k best with this probability; unlike the count of rows, it has a
        # gradient. An expert among them must stay above the (k+1)-th, any other must pass the k-th.
        among = noisy > best[:, self.k, None]
        bar = torch.where(among, best[:, self.k, None], best[:, self.k - 1, None])
        return gates, _normal_cdf((clean - bar) / deviation).sum(0)


class Expert(nn.Module):
    """Two layers, as wide as their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, rows: Tensor) -> Tensor:
        """Map ``[B, H]`` to ``[B, H]``."""
        output: Tensor = self.fc2(functional.relu(self.fc1(rows)))
        return output


def _normal_cdf(values: Tensor) -> Tensor:
    return (1 + torch.erf(values / math.sqrt(2))) / 2


def _squared_variation(values: Tensor) -> Tensor:
    """Return variance over squared mean: 0 if all values are equal."""
    if len(values) < 2:
        return values.new_zeros(())
    return values.var() / (values.mean() ** 2 + _EPS)


class SummaRerankerModel(nn.Module):
    """An encoder, a shared layer, a mixture of experts, and a tower for each task.

    A task is a metric; its logit predicts whether the candidate is the best one by that metric. Parameters have the
    names of llm-blender 0.0.2 (``pretrained_model.*``, ``fc1``, ``fc2``, ``moe.*``, ``towers.T``).

    Args:
        config: of the encoder and the tasks.
        backbone: an encoder to train; None builds the config's, with random weights.
    """

    def __init__(self, config: PointwiseConfig, backbone: nn.Module | None = None) -> None:
        super().__init__()
        self.pretrained_model = bare_encoder(config.backbone, backbone)
        width, tasks = int(cast(Any, self.pretrained_model).config.hidden_size), len(config.tasks)
        self.fc1, self.fc2 = nn.Linear(width, width), nn.Linear(width, width)
        self.moe = MixtureOfExperts(width, experts=2 * tasks, tasks=tasks, k=tasks)
        self.towers = nn.ModuleList(nn.Linear(width, 1) for _ in range(tasks))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return scores ``[B]`` between 0 and 1 of ids and mask ``[B, T]``: the sigmoid of the tasks' mean logit."""
        logits, _ = self.logits(input_ids, attention_mask)
        return logits.mean(-1).sigmoid()

    def logits(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of the tasks ``[B, tasks]``, and the auxiliary loss of the mixture, a scalar."""
        first = first_states(self.pretrained_model, input_ids, attention_mask)
        shared = self.fc2(functional.relu(self.fc1(first)))
        mixed, balance = self.moe(shared)
        return torch.cat([tower(mixed[:, task]) for task, tower in enumerate(self.towers)], -1), balance
