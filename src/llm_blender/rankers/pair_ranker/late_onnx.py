"""Modules that export a `LatePairRankerModel` to ONNX: one text at a time, then one pair at a time.

On a CPU a text of some dozen tokens fills the matrix kernels, and a batch of one needs neither padding nor masks. The
modules compute what `LatePairRankerModel` computes, in a form that ONNX Runtime runs fast:

- Attention is one operator, ``MultiHeadAttention`` of ONNX Runtime.
- A pair is one sequence, left and right candidate in a row. That a query and a key belong to different candidates is
  one more number in each head: with the side s = ±1, and c(q) what a key of the other candidate adds to the logit of
  query q, c(q) [s_q ≠ s_k] = c(q)/2 − c(q) s_q s_k / 2. The first term is the same for all keys, so softmax drops it.
- Query, key and value of the first comparing layer depend on one text only: the reader returns them too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from llm_blender.rankers.encoders.bert import OTHER_BIAS, BertAttention, BertLayer
from llm_blender.rankers.pair_ranker.late import READINGS
from llm_blender.rankers.pair_ranker.modeling import LatePairRankerModel


class Reader(nn.Module):
    """Reading of one text: from ids ``[1, T]`` to its `READINGS`."""

    def __init__(self, model: LatePairRankerModel) -> None:
        super().__init__()
        first, *_ = _comparing(model)
        self.model, self.first = model, first

    def forward(self, input_ids: Tensor) -> tuple[Tensor, ...]:
        """Return the `READINGS` of a text of T tokens, ``[1, T, …]`` each, from its ids ``[1, T]``."""
        encoder = self.model.pretrained_model
        states = encoder.embeddings(input_ids)
        for layer in encoder.encoder.layer[: self.model.alone_layers]:
            bert = cast(BertLayer, layer)
            query, key, value = (project(states) for project in bert.attention.self.values())
            states = _finish(bert, _attend(bert.attention, query, key, value), states)
        return states, *self.first.project(states)


class Comparer(nn.Module):
    """Comparison of one pair: from the readings of both texts to logits ``[1, tasks]``.

    Inputs, beside the `READINGS` of left and right: ``sides`` ``[1, L + R, 1]``, 1 and −1; ``means``
    ``[4, L + R]``, the weights of the tokens in the vectors of instruction and candidate, left and right; ``lengths``
    ``[2, 1]``, the number of tokens of both whole candidates.
    """

    def __init__(self, model: LatePairRankerModel) -> None:
        super().__init__()
        self.model, self.layers = model, nn.ModuleList(_comparing(model))

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the logits ``[1, tasks]`` from the inputs, in the order above."""
        count = len(READINGS)
        *both, sides, means, lengths = inputs
        left, right = both[:count], both[count:]
        states, query, key, value = (torch.cat(parts, 1) for parts in zip(left, right, strict=True))
        for number, module in enumerate(self.layers):
            layer = cast(_ComparingLayer, module)
            if number:
                query, key, value = layer.project(states)
            states = layer(states, query, key, value, sides)
        vectors = torch.matmul(means, states[0]).view(2, -1)
        score = self.model.head(vectors, lengths)
        return score[:1] - score[1:]


class _ComparingLayer(nn.Module):
    """A layer in which the tokens of two texts attend to each other; its heads have one more number (see above)."""

    last: Tensor

    def __init__(self, layer: BertLayer, other_key: Tensor) -> None:
        super().__init__()
        self.layer, heads, width = layer, layer.attention.heads, layer.attention.width
        query, key, value = (cast(nn.Linear, project) for project in layer.attention.self.values())
        other = other_key.view(heads, width, 1)
        weight, bias = (values.view(heads, width, -1) for values in (query.weight, query.bias))
        extra = -(weight * other).sum(1, keepdim=True) / 2
        constant = -((bias * other).sum(1, keepdim=True) + OTHER_BIAS * width**0.5) / 2
        self.query = _linear(torch.cat([weight, extra], 1), torch.cat([bias, constant], 1))
        weight, bias = (values.view(heads, width, -1) for values in (key.weight, key.bias))
        self.key = _linear(functional.pad(weight, (0, 0, 0, 1)), functional.pad(bias, (0, 0, 0, 1), value=1.0))
        self.value = value
        last = functional.pad(torch.zeros(width), (0, 1), value=1.0).repeat(heads)
        self.register_buffer("last", last)

    def project(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return query, key and value of states ``[1, T, H]``, before their sides are known."""
        return self.query(states), self.key(states), self.value(states)

    def forward(self, states: Tensor, query: Tensor, key: Tensor, value: Tensor, sides: Tensor) -> Tensor:
        """Return the next states ``[1, T, H]``."""
        signs = 1 + (sides - 1) * self.last  # of each number of a head: 1, and the side for the last one
        mixed = _attend(self.layer.attention, query * signs, key * signs, value)
        return _finish(self.layer, mixed, states)


def _comparing(model: LatePairRankerModel) -> list[_ComparingLayer]:
    layers = list(model.pretrained_model.encoder.layer)[model.alone_layers :]
    return [_ComparingLayer(cast(BertLayer, layer), key) for layer, key in zip(layers, model.other_keys(), strict=True)]


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Make a linear layer of the weights ``[heads, width, H]`` and biases ``[heads, width, 1]`` of all heads."""
    linear = nn.Linear(weight.shape[-1], weight.shape[0] * weight.shape[1])
    linear.weight.data, linear.bias.data = weight.flatten(0, 1), bias.flatten()
    return linear


def _finish(layer: BertLayer, mixed: Tensor, states: Tensor) -> Tensor:
    """Return a layer's states after its attention."""
    return layer.transform(layer.attention.output(mixed, states))


def _attend(attention: BertAttention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    attend: Callable[..., Tensor] = _Attention.apply
    return attend(query, key, value, attention.heads, attention.width**-0.5)


class _Attention(torch.autograd.Function):
    """Attention of ``[1, T, heads * width]``, exported as ONNX Runtime's ``MultiHeadAttention``."""

    @staticmethod
    def forward(_: Any, query: Tensor, key: Tensor, value: Tensor, heads: int, scale: float) -> Tensor:
        """Return the mixed values, of the shape of `value`."""
        q, k, v = (part.view(1, part.shape[1], heads, -1).transpose(1, 2) for part in (query, key, value))
        return functional.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2).flatten(2)

    @staticmethod
    def symbolic(graph: Any, query: Any, key: Any, value: Any, heads: int, scale: float) -> Any:
        """Return the node of the exported graph."""
        node = graph.op("com.microsoft::MultiHeadAttention", query, key, value, num_heads_i=heads, scale_f=scale)
        node.setType(value.type())
        return node


def example(model: LatePairRankerModel, lengths: Sequence[int] = (16, 12)) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Make inputs to trace `Reader` and `Comparer` with."""
    ids = [torch.arange(4, 4 + length).unsqueeze(0) for length in lengths]
    with torch.no_grad():
        readings = [values for text in ids for values in Reader(model)(text)]
    sides = torch.cat([torch.ones(1, lengths[0], 1), -torch.ones(1, lengths[1], 1)], 1)
    return ids[0], (*readings, sides, torch.rand(4, sum(lengths)), torch.tensor([[9.0], [40.0]]))
