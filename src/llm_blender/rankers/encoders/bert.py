"""BERT whose upper layers can attend to a second text; otherwise the same as transformers' `BertModel`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from llm_blender.rankers.encoders.deberta import Dense, Encoded, Residual

OTHER_BIAS = -2.0
"""Added to attention logits of the other text, so that an untrained model stays close to its pretraining.

A constant, since a bias with a gradient would rule out fused attention. The keys learn which tokens get more weight.
"""


@dataclass(frozen=True)
class BertConfig:
    """Hyper-parameters of `BertEncoder`, by transformers' names."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_dropout_prob: float = 0.1

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self | None:
        """Read transformers' configuration; return None for another model, or a variant only transformers supports."""
        wanted = {
            "model_type": ("bert",),
            "hidden_act": ("gelu", None),
            "position_embedding_type": ("absolute", None),
            "is_decoder": (False, None),
        }
        if any(values.get(name) not in allowed for name, allowed in wanted.items()):
            return None
        return cls(**{name: values[name] for name in cls.__dataclass_fields__ if name in values})


class BertEncoder(nn.Module):
    """Encoder from token ids to states, in float32. Parameters have transformers' names; only states have dropout.

    `lower` and `upper` are its two parts, for work between them.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = _Embeddings(config)
        self.encoder = _Layers(config)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Encoded:
        """Return states ``[B, T, H]`` of ids ``[B, T]``, undefined where the mask ``[B, T]`` is 0."""
        return Encoded(self.upper(self.lower(input_ids, attention_mask, 0), attention_mask, 0))

    def lower(self, input_ids: Tensor, attention_mask: Tensor, layers: int) -> Tensor:
        """Return states ``[B, T, H]`` after the embeddings and the `layers` lowest layers."""
        states = cast(Tensor, self.embeddings(input_ids))
        hidden = _hidden(attention_mask, states.dtype)
        for layer in self.encoder.layer[:layers]:
            states = layer(states, hidden)
        return states

    def upper(
        self, states: Tensor, attention_mask: Tensor, layers: int, other_keys: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Return states ``[B, T, H]`` after the layers above the `layers` lowest ones.

        With `other_keys`, a vector ``[H]`` for each of these layers, rows i and i + B / 2 form a pair: a token attends
        to the tokens of both, and the vector, added to the keys of the other text, marks them.
        """
        hidden = _hidden(attention_mask, states.dtype)
        for number, layer in enumerate(self.encoder.layer[layers:]):
            states = layer(states, hidden, other_keys[number] if other_keys is not None else None)
        return states


class _Embeddings(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor) -> Tensor:
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        words, first_type = self.word_embeddings(input_ids), self.token_type_embeddings.weight[0]
        states = self.LayerNorm(words + self.position_embeddings(places) + first_type)
        return cast(Tensor, self.dropout(states))


class _Layers(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(BertLayer(config) for _ in range(config.num_hidden_layers))


class BertLayer(nn.Module):
    """A layer: attention, then `transform`."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = BertAttention(config)
        self.intermediate = Dense(config.hidden_size, config.intermediate_size)
        self.output = _residual(config.intermediate_size, config)

    def forward(self, states: Tensor, hidden: Tensor, other_key: Tensor | None = None) -> Tensor:
        """Return the next states ``[B, T, H]``; `hidden` is added to attention logits."""
        return self.transform(self.attention(states, hidden, other_key))

    def transform(self, states: Tensor) -> Tensor:
        """Return the states ``[B, T, H]`` after the layer's attention and feed-forward network."""
        return cast(Tensor, self.output(functional.gelu(self.intermediate.dense(states)), states))


def _residual(inputs: int, config: BertConfig) -> Residual:
    return Residual(inputs, config.hidden_size, config.layer_norm_eps, config.hidden_dropout_prob)


class BertAttention(nn.Module):
    """Attention of all heads.

    Attributes:
        heads: number of heads.
        width: numbers of a head.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.self = nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")})
        self.output = _residual(config.hidden_size, config)
        self.heads, self.width = config.num_attention_heads, width // config.num_attention_heads

    def forward(self, states: Tensor, hidden: Tensor, other_key: Tensor | None) -> Tensor:
        """Return the states after attention ``[B, T, H]``, before the feed-forward network."""
        query, key, value = (self._split(project(states)) for project in self.self.values())
        mask = hidden
        if other_key is not None:
            key = torch.cat([key, _swap(key) + other_key.view(1, self.heads, 1, -1)], 2)
            value = torch.cat([value, _swap(value)], 2)
            mask = torch.cat([hidden, _swap(hidden) + OTHER_BIAS], -1)
        mixed = functional.scaled_dot_product_attention(query, key, value, mask.to(query.dtype))
        return cast(Tensor, self.output(mixed.transpose(1, 2).flatten(2), states))

    def _split(self, states: Tensor) -> Tensor:
        batch, length, _ = states.shape
        return states.view(batch, length, self.heads, -1).transpose(1, 2)


def _swap(values: Tensor) -> Tensor:
    """Swap the two halves of the rows."""
    first, second = values.chunk(2)
    return torch.cat([second, first])


def _hidden(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``[B, 1, 1, T]`` to add to attention logits. Not -inf: a row of only padding would be NaN."""
    return (mask == 0)[:, None, None, :].to(dtype) * -1e4
