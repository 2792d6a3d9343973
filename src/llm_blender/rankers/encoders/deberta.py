"""DeBERTa-v2/v3 for inference: the same parameters and results as transformers' `DebertaV2Model`, faster.

Disentangled attention (arXiv 2006.03654, section 3.1) adds two terms to a query's product with a key: the query
with the key's relative position (c2p) and the key with the query's (p2c). How this module makes them cheap:

- The projections of the table of relative positions depend only on the weights: they are computed once, not for each
  batch.
- Both terms depend only on the distance i − j, so row i of the one and column j of the other are windows that slide
  over one product: strided views replace the gathers. Where a sequence is longer than the table, the rows of far
  distances repeat, which costs less than gathering on a CPU; other devices gather then.
- Heads are the first dimension, so a product with the table is one matrix product per head for any batch. On a CPU,
  long sequences run one by one: their terms are large, and smaller ones stay in the caches.
- The sum of both terms is the mask of one fused attention.
- The last layer computes only the states of the tokens that are read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class DebertaConfig:
    """Hyper-parameters of `DebertaEncoder`, by transformers' names."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    position_buckets: int
    max_position_embeddings: int = 512
    max_relative_positions: int = -1
    layer_norm_eps: float = 1e-7

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self | None:
        """Read transformers' configuration; return None for another model, or a variant only transformers supports."""
        wanted = {
            "model_type": ("deberta-v2",),
            "relative_attention": (True,),
            "share_att_key": (True,),
            "norm_rel_ebd": ("layer_norm",),
            "hidden_act": ("gelu", None),
            "position_biased_input": (False,),
            "type_vocab_size": (0,),
            "conv_kernel_size": (0, None),
            "embedding_size": (values.get("hidden_size"), None),
        }
        if any(values.get(name) not in allowed for name, allowed in wanted.items()):
            return None
        terms = values.get("pos_att_type") or ()
        if set(terms.split("|") if isinstance(terms, str) else terms) != {"c2p", "p2c"}:
            return None
        known = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        return cls(**known) if known.get("position_buckets", -1) > 0 else None

    @property
    def max_distance(self) -> int:
        """Distance in tokens beyond which all distances share the last bucket."""
        return self.max_relative_positions if self.max_relative_positions > 0 else self.max_position_embeddings


class Encoded(NamedTuple):
    """Output of an encoder, by transformers' name."""

    last_hidden_state: Tensor


class DebertaEncoder(nn.Module):
    """Encoder from token ids to states. Parameters have transformers' names; without dropout, not for training."""

    def __init__(self, config: DebertaConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = _Embeddings(config)
        self.encoder = _Layers(config)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, wanted: Tensor | None = None) -> Encoded:
        """Return states ``[B, T, H]`` of ids ``[B, T]``, undefined where the mask ``[B, T]`` is 0.

        With `wanted`, positions ``[B, W]`` of tokens, return only their states ``[B, W, H]``.
        """
        states = self.embeddings(input_ids) * attention_mask.unsqueeze(-1)
        return Encoded(self.encoder(states, attention_mask, wanted))


class _Embeddings(nn.Module):
    def __init__(self, config: DebertaConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, input_ids: Tensor) -> Tensor:
        embedded: Tensor = self.LayerNorm(self.word_embeddings(input_ids))
        return embedded


class _Layers(nn.Module):
    def __init__(self, config: DebertaConfig) -> None:
        super().__init__()
        self._config = config
        self.layer = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))
        self.rel_embeddings = nn.Embedding(2 * config.position_buckets, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, states: Tensor, attention_mask: Tensor, wanted: Tensor | None) -> Tensor:
        table = self.LayerNorm(self.rel_embeddings.weight)
        # Not -inf: a row of only padding would be NaN.
        hidden = (attention_mask == 0)[:, None, :] * torch.finfo(states.dtype).min
        windows = _Windows.of(states.shape[1], self._config, states.device)
        *layers, last = self.layer
        for layer in layers:
            states = layer(states, states, table, hidden, windows)
        if wanted is None:
            return last(states, states, table, hidden, windows)  # type: ignore[no-any-return]
        rows = wanted.unsqueeze(-1).expand(-1, -1, states.shape[-1])
        return last(torch.gather(states, 1, rows), states, table, hidden, windows.at(wanted))  # type: ignore[no-any-return]


class _Windows(NamedTuple):
    """Rows of the table of relative positions for each query and key: by distance for sliding, or gathered.

    Attributes:
        rows: ``[2T − 1]``, row for distance T − 1, …, −(T − 1); None for gathering.
        places: ``[Q, T]`` or ``[B, Q, T]``, row for a query and a key; None for sliding windows.
    """

    rows: Tensor | None
    places: Tensor | None
    length: int
    config: DebertaConfig

    @classmethod
    def of(cls, length: int, config: DebertaConfig, device: torch.device) -> _Windows:
        """Return the windows of all T × T tokens."""
        # Views of a fixed stride cannot be exported for variable lengths.
        if torch.onnx.is_in_onnx_export() or (device.type != "cpu" and length > config.position_buckets):
            return cls(None, None, length, config).at(torch.arange(length, device=device))
        return cls(_row_of(torch.arange(length - 1, -length, -1, device=device), config), None, length, config)

    def at(self, queries: Tensor) -> _Windows:
        """Return the windows of some tokens as queries, by their positions ``[…, Q]``, and all as keys."""
        distances = queries[..., None] - torch.arange(self.length, device=queries.device)
        return self._replace(rows=None, places=_row_of(distances, self.config))

    @property
    def one_by_one(self) -> bool:
        """Whether sequences run one by one."""
        return self.rows is not None and self.length > self.config.position_buckets

    def tables(self, of_keys: Tensor, of_queries: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tables ``[heads, rows, d]`` that `terms` takes."""
        if self.rows is None:
            return of_keys, of_queries
        return of_keys.index_select(1, self.rows), of_queries.index_select(1, self.rows.flip(0))

    def terms(self, query: Tensor, key: Tensor, of_keys: Tensor, of_queries: Tensor) -> Tensor:
        """Compute c2p + p2c, ``[heads, B, Q, T]``.

        Args:
            query: ``[heads, B, Q, d]``.
            key: ``[heads, B, T, d]``.
            of_keys: the table as keys, from `tables`.
            of_queries: the table as queries, from `tables`.
        """
        if self.places is None:
            return self._slid(query, key, of_keys, of_queries)
        heads, batch, count, _ = query.shape
        places = self.places.expand(heads, batch, count, self.length)
        c2p = torch.gather(_product(query, of_keys), -1, places)
        if self.places.dim() == 3:  # few queries: only their rows
            return c2p + (of_queries[:, self.places] * key.unsqueeze(2)).sum(-1)
        p2c = torch.gather(_product(key, of_queries), -1, places.transpose(-1, -2))
        return c2p + p2c.transpose(-1, -2)

    def _slid(self, query: Tensor, key: Tensor, of_keys: Tensor, of_queries: Tensor) -> Tensor:
        """Compute `terms` of all tokens in parts: each part needs only the rows of its distances."""
        length = self.length
        terms = query.new_empty((*query.shape[:-1], length))
        size = _PART if self.one_by_one else length if length < _FEW else -(-length // 3)
        parts = [slice(start, min(start + size, length)) for start in range(0, length, size)]
        for part in parts:
            near = slice(length - part.stop, 2 * length - 1 - part.start)
            terms[..., part] = _slide(key[:, :, part], of_queries[:, near]).transpose(-1, -2)
        for part in parts:
            near = slice(length - part.stop, 2 * length - 1 - part.start)
            terms[:, :, part] += _slide(query[:, :, part], of_keys[:, near])
        return terms


_FEW = 48  # tokens below which splitting does not pay
_PART = 64  # tokens of a part where sequences run one by one


def _product(states: Tensor, table: Tensor) -> Tensor:
    """Multiply ``[heads, B, T, d]`` by ``[heads, rows, d]`` to ``[heads, B, T, rows]``, one matrix product per head."""
    return torch.bmm(states.flatten(1, 2), table.transpose(1, 2)).unflatten(1, states.shape[1:3])  # type: ignore[no-any-return, no-untyped-call]


def _slide(states: Tensor, table: Tensor) -> Tensor:
    """View m tokens' product with m + T − 1 rows as ``[heads, B, m, T]``, whose row i starts at row m − 1 − i."""
    product = _product(states, table)
    *outer, count, width = product.shape
    strides = (*product.stride()[:-2], width - 1, 1)
    return product.as_strided((*outer, count, width - count + 1), strides, count - 1)


def _row_of(distances: Tensor, config: DebertaConfig) -> Tensor:
    """Return table rows for distances in tokens: exact up to half the buckets, logarithmic beyond."""
    buckets, middle = config.position_buckets, config.position_buckets // 2
    size = distances.abs().clamp(min=middle).float()
    # In float32 and in this order, as in the training of the published models: other rounding gives other buckets.
    far = torch.ceil(torch.log(size / middle) / math.log((config.max_distance - 1) / middle) * (middle - 1)) + middle
    row = torch.where(distances.abs() <= middle, distances, far.long() * distances.sign())
    return (row + buckets).clamp(0, 2 * buckets - 1)


class _Layer(nn.Module):
    def __init__(self, config: DebertaConfig) -> None:
        super().__init__()
        self.attention = _Attention(config)
        self.intermediate = Dense(config.hidden_size, config.intermediate_size)
        self.output = Residual(config.intermediate_size, config.hidden_size, config.layer_norm_eps)

    def forward(self, states: Tensor, context: Tensor, table: Tensor, hidden: Tensor, windows: _Windows) -> Tensor:
        states = self.attention(states, context, table, hidden, windows)
        return self.output(_gelu(self.intermediate.dense(states)), states)  # type: ignore[no-any-return]


def _gelu(states: Tensor) -> Tensor:
    """Return GELU(states), in their place where no gradient needs them."""
    return functional.gelu(states) if torch.is_grad_enabled() else cast(Tensor, torch.ops.aten.gelu_(states))


class Dense(nn.Module):
    """A linear layer under transformers' name."""

    def __init__(self, size: int, out: int) -> None:
        super().__init__()
        self.dense = nn.Linear(size, out)


class Residual(Dense):
    """Projection, dropout, residual, norm."""

    def __init__(self, size: int, out: int, eps: float, dropout: float = 0.0) -> None:
        super().__init__(size, out)
        self.LayerNorm = nn.LayerNorm(out, eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inner: Tensor, states: Tensor) -> Tensor:
        """Map ``[…, size]`` and states ``[…, out]`` to new states."""
        return self.LayerNorm(self.dropout(self.dense(inner)) + states)  # type: ignore[no-any-return]


class _Attention(nn.Module):
    def __init__(self, config: DebertaConfig) -> None:
        super().__init__()
        self.self = _DisentangledAttention(config)
        self.output = Residual(config.hidden_size, config.hidden_size, config.layer_norm_eps)

    def forward(self, states: Tensor, context: Tensor, table: Tensor, hidden: Tensor, windows: _Windows) -> Tensor:
        return self.output(self.self(states, context, table, hidden, windows), states)  # type: ignore[no-any-return]


class _DisentangledAttention(nn.Module):
    def __init__(self, config: DebertaConfig) -> None:
        super().__init__()
        self._heads = config.num_attention_heads
        width = config.hidden_size
        self._scale = 1 / math.sqrt(3 * (width // self._heads))  # three terms
        self.query_proj, self.key_proj, self.value_proj = (nn.Linear(width, width) for _ in range(3))
        self._tables: tuple[Tensor, Tensor] | None = None

    def forward(self, states: Tensor, context: Tensor, table: Tensor, hidden: Tensor, windows: _Windows) -> Tensor:
        inputs = self.query_proj(states), self.key_proj(context), self.value_proj(context), hidden
        tables = windows.tables(*self._projected(table))
        if not windows.one_by_one:
            return self._mix(*inputs, tables, windows)
        each = zip(*(part.split(1) for part in inputs), strict=True)
        return torch.cat([self._mix(query, key, value, gone, tables, windows) for query, key, value, gone in each])

    def _mix(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        hidden: Tensor,
        tables: tuple[Tensor, Tensor],
        windows: _Windows,
    ) -> Tensor:
        """Attend from queries ``[B, Q, H]`` to values ``[B, T, H]``, with `hidden` ``[B, 1, T]`` added to the terms."""
        query, key, value = self._split(query), self._split(key), self._split(value)
        bias = windows.terms(query, key, *tables).add_(hidden)
        query, key, value, bias = (part.transpose(0, 1) for part in (query, key, value, bias))
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=self._scale)
        return mixed.transpose(1, 2).flatten(2)

    def _projected(self, table: Tensor) -> tuple[Tensor, Tensor]:
        """Return the table as keys and as queries ``[heads, rows, d]``, scaled; cached until the weights change."""
        if self._tables is None or torch.is_grad_enabled():
            of_keys, of_queries = (
                self._split(project(table).unsqueeze(0)).squeeze(1) * self._scale
                for project in (self.key_proj, self.query_proj)
            )
            if torch.is_grad_enabled():
                self._tables = None  # an optimiser may change the weights next
                return of_keys, of_queries
            self._tables = of_keys, of_queries
        return self._tables

    def _split(self, states: Tensor) -> Tensor:
        """View ``[B, T, H]`` as ``[heads, B, T, d]``."""
        batch, length, width = states.shape
        return states.view(batch, length, self._heads, width // self._heads).permute(2, 0, 1, 3)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:  # moved, or another dtype
        self._tables = None
        return cast(Self, super()._apply(fn, recurse))  # type: ignore[no-untyped-call]

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._tables = None
        super()._load_from_state_dict(*args, **kwargs)
