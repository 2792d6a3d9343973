"""Torch modules of the PairRanker (arXiv 2306.02561, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from llm_blender.errors import CheckpointError
from llm_blender.rankers.encoders import BertConfig, BertEncoder, DebertaEncoder, bare_encoder
from llm_blender.rankers.pair_ranker.config import PairRankerConfig
from llm_blender.rankers.pair_ranker.input_format import LEFT, RIGHT, SOURCE


class PairRankerModel(nn.Module):
    """An encoder and one head shared by both candidates.

    With v_s, v_l, v_r the vectors of instruction, left and right candidate, the logits are
    ``head([v_s; v_l]) - head([v_s; v_r])``, one for each task; above zero, the left candidate is better. Parameters
    have the names of the published checkpoints (``pretrained_model.*``, ``head_layer.*``).
    """

    def __init__(self, config: PairRankerConfig, backbone: nn.Module | None = None) -> None:
        super().__init__()
        self.pretrained_model = bare_encoder(config.backbone, backbone)
        self._marked = config.pooling == "marker"
        width = int(cast(Any, self.pretrained_model).config.hidden_size)
        self.head_layer = make_head(width, config)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, segment_ids: Tensor) -> Tensor:
        """Return logits ``[B, tasks]`` of ordered pairs, int64 ``[B, T]`` each (`PairBatch`)."""
        left, right = self.scores(input_ids, attention_mask, segment_ids)
        return left - right

    def scores(self, input_ids: Tensor, attention_mask: Tensor, segment_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the head's scores ``[B, tasks]`` of left and right candidates; that of a missing one is undefined."""
        if self._marked and isinstance(self.pretrained_model, DebertaEncoder):
            markers = torch.stack([(segment_ids == segment).int().argmax(-1) for segment in (SOURCE, LEFT, RIGHT)], -1)
            source, left, right = self.pretrained_model(input_ids, attention_mask, markers).last_hidden_state.unbind(1)
        else:
            states = self.pretrained_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            source, left, right = (segment_mean(states, segment_ids == segment) for segment in (SOURCE, LEFT, RIGHT))
        return self.head_layer(torch.cat([source, left], -1)), self.head_layer(torch.cat([source, right], -1))


def make_head(width: int, config: PairRankerConfig) -> nn.Sequential:
    """Build the head: from vectors of instruction and candidate, ``[B, 2 * width]``, to scores ``[B, tasks]``."""
    return nn.Sequential(
        nn.Dropout(config.head_dropout),
        nn.Linear(2 * width, width),
        nn.Tanh(),
        nn.Dropout(config.head_dropout),
        nn.Linear(width, len(config.tasks)),
    )


def segment_mean(states: Tensor, chosen: Tensor) -> Tensor:
    """Average the states ``[B, T, H]`` where `chosen` ``[B, T]`` to ``[B, H]``; 0 where no token is chosen."""
    weights = chosen.to(states.dtype).unsqueeze(-1)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1)


_STRIDE = 20.0
"""Factor of the few new weights, which are stored divided by it.

Adam moves a weight by about the learning rate in a step, whatever its size: right for an encoder's weights, too little
for new ones that start at zero.
"""


class LatePairRankerModel(nn.Module):
    """An encoder whose lower layers read (instruction, candidate) and whose upper layers compare two such sequences.

    In the upper layers the tokens of one sequence also attend to those of the other; the keys of the other carry a
    learned vector. Both sequences go through the same weights, so swapping the candidates swaps their scores:
    l(left, right) = −l(right, left), there is no position bias, and one pass gives the logits of both orders.

    N candidates cost N passes through the lower layers; only the upper layers run for each pair. With v_s and v_c the
    means of a sequence's last states over instruction and candidate, a candidate's score in a pair is
    ``head([v_s; v_c]) + w · (log(1 + n) − 5)``, where n is its whole length in tokens, truncated ones included.

    Raises:
        CheckpointError: the encoder is not a BERT, or `alone_layers` leaves no layer for comparing.
    """

    def __init__(self, config: PairRankerConfig) -> None:
        super().__init__()
        bert = BertConfig.read(config.backbone)
        if bert is None:
            kind = config.backbone.get("model_type")
            raise CheckpointError(f"alone_layers needs a BERT encoder, not {kind!r}: set alone_layers to 0.")
        layers = bert.num_hidden_layers - config.alone_layers
        if layers < 1:
            raise CheckpointError(
                f"alone_layers is {config.alone_layers} of {bert.num_hidden_layers} layers: none is left to compare."
            )
        self.pretrained_model = BertEncoder(bert)
        self.head_layer = make_head(bert.hidden_size, config)
        self.length_weight = nn.Parameter(torch.zeros(len(config.tasks)))
        self.other_key = nn.Parameter(torch.zeros(layers, bert.hidden_size))
        self.alone_layers = config.alone_layers

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the states ``[B, T, H]`` of sequences, ids and mask int64 ``[B, T]``, for `forward` and `alone`."""
        return self.pretrained_model.lower(input_ids, attention_mask, self.alone_layers)

    def forward(self, states: Tensor, attention_mask: Tensor, segment_ids: Tensor, lengths: Tensor) -> Tensor:
        """Return logits ``[P, tasks]`` of P pairs; for the arguments see `scores`."""
        left, right = self.scores(states, attention_mask, segment_ids, lengths)
        return left - right

    def scores(
        self, states: Tensor, attention_mask: Tensor, segment_ids: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the scores ``[P, tasks]`` of the left and the right candidates of P pairs.

        Args:
            states: ``[2 P, T, H]``, from `encode`: the left candidates' sequences, then the right ones'.
            attention_mask: ``[2 P, T]``.
            segment_ids: ``[2 P, T]``, 1 for tokens of the instruction's vector, 2 for those of the candidate's.
            lengths: ``[2 P]``, number of tokens of the whole candidate.
        """
        left, right = self._scores(states, attention_mask, segment_ids, lengths, self.other_keys()).chunk(2)
        return left, right

    def alone(self, states: Tensor, attention_mask: Tensor, segment_ids: Tensor, lengths: Tensor) -> Tensor:
        """Return the scores ``[B, tasks]`` of candidates without an opponent."""
        return self._scores(states, attention_mask, segment_ids, lengths, None)

    def _scores(
        self,
        states: Tensor,
        attention_mask: Tensor,
        segment_ids: Tensor,
        lengths: Tensor,
        other_keys: Sequence[Tensor] | None,
    ) -> Tensor:
        states = states.to(self.length_weight.dtype)
        states = self.pretrained_model.upper(states, attention_mask, self.alone_layers, other_keys)
        vectors = [segment_mean(states, segment_ids == segment) for segment in (SOURCE, LEFT)]
        return self.head(torch.cat(vectors, -1), lengths.to(states.dtype).unsqueeze(-1))

    def head(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """Return scores ``[B, tasks]`` of the vectors ``[B, 2 H]`` and whole lengths ``[B, 1]`` of candidates."""
        score: Tensor = self.head_layer(vectors)
        return score + _STRIDE * self.length_weight * (torch.log1p(lengths) - 5)

    def other_keys(self) -> list[Tensor]:
        """Return for each comparing layer what it adds to the keys of the other text, ``[H]``."""
        return [_STRIDE * key for key in self.other_key]


AnyPairRanker = PairRankerModel | LatePairRankerModel


def make_model(config: PairRankerConfig, backbone: nn.Module | None = None) -> AnyPairRanker:
    """Build a model with random weights.

    Args:
        config: a `LatePairRankerModel` if its `alone_layers` is above 0, else a `PairRankerModel`.
        backbone: encoder of a `PairRankerModel`; None builds the configuration's.
    """
    return LatePairRankerModel(config) if config.alone_layers else PairRankerModel(config, backbone)


def signed_logistic(logits: Tensor, signs: Tensor) -> Tensor:
    """Return −log sigmoid(sign · logit), averaged: the loss of llm-blender/PairRM-hf.

    Args:
        logits: l(left, right), of any shape.
        signs: of the same shape; above zero where the left candidate is better, below where the right one is. A
            tie, 0, adds log 2 and no gradient.
    """
    return functional.softplus(-torch.sign(signs) * logits).mean()
