"""What the metrics by models share: tokenizers, models, batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from llm_blender._hub import find_folder
from llm_blender._torch import parse_devices, parse_dtype, quiet_loading
from llm_blender.errors import CheckpointError, InputError

__all__ = ["Loaded", "Texts", "batches", "load", "pad"]

_UNLIMITED = 1_000_000  # tokens; a tokenizer without a limit says 10^30
_DEFAULT_LENGTH = 512  # where neither model nor tokenizer has a limit


@dataclass(frozen=True)
class Texts:
    """Texts as token ids.

    Attributes:
        ids: of each.
        cut: ``[n]``: whether it was longer than what is read of it.
    """

    ids: list[list[int]]
    cut: NDArray[np.bool_]


@dataclass(frozen=True)
class SpecialIds:
    """Ids of special tokens, as the tokenizer's own class knows them; None where it has none."""

    pad: int | None
    unk: int | None
    cls: int | None
    sep: int | None


@dataclass(frozen=True)
class Loaded:
    """A model on its device, with its tokenizer.

    Attributes:
        folder: the checkpoint.
        model: in evaluation mode.
        tokenizer: of transformers.
        special: its special tokens.
        rows: tokens that the model knows.
        device: where the model is.
        max_length: tokens of a sequence, special ones included.
    """

    folder: Path
    model: Any
    tokenizer: Any
    special: SpecialIds
    rows: int
    device: torch.device
    max_length: int

    @property
    def pad_id(self) -> int:
        """Fills up short sequences; it is masked."""
        return self.special.pad or 0

    def tokenize(self, texts: Sequence[str]) -> Texts:
        """Texts with the special tokens of the model, cut at its length."""
        ids = self.encode(texts)
        cut = np.array([len(one) > self.max_length for one in ids], bool)
        if cut.any():
            ids = self.encode(texts, truncation=True, max_length=self.max_length)
        return Texts([one or [self.pad_id] for one in ids], cut)

    def encode(self, texts: Sequence[str], **options: Any) -> list[list[int]]:
        """Token ids, all of which the model knows."""
        ids: list[list[int]] = self.tokenizer(list(texts), verbose=False, **options)["input_ids"]
        if len(self.tokenizer) <= self.rows:
            return ids
        other = self.special.unk or 0  # for the name of a special token, spelled out in a text
        return [[token if token < self.rows else other for token in one] for one in ids]


def load(
    kind: Any, name: str, *, revision: str | None, device: str | None, dtype: str, max_length: int | None = None
) -> Loaded:
    """A model and its tokenizer.

    Args:
        kind: one of transformers' ``AutoModel…`` classes.
        name: a folder, or a Hub repository.
        revision: on the Hub.
        device: None takes CUDA where there is one, else the CPU.
        dtype: ``float32``, ``bfloat16``, ``float16``.
        max_length: tokens that are read; None is what the model can read.

    Raises:
        NotFoundError: there is no such checkpoint; the message says where it was looked for.
        CheckpointError: it is no model of this kind, or a file of it is missing or damaged.
        InputError: there is no such device or dtype, or the model cannot read so much.
    """
    place, precision = parse_devices(device)[0], parse_dtype(dtype)
    folder = find_folder("model", name, revision)
    try:
        with quiet_loading():
            model, info = kind.from_pretrained(
                str(folder), dtype=precision, output_loading_info=True, local_files_only=True, trust_remote_code=False
            )
            tokenizer, special = _load_tokenizer(folder)
    except Exception as error:  # of every layer below: JSON, safetensors, pickle, torch, tokenizers, transformers
        raise CheckpointError(f"{folder} is not read by {kind.__name__}: {shorten(str(error), 300)}") from error
    # Encoders are often stored without a pooler, which no metric reads but with a head.
    headless = kind.__name__ == "AutoModel"
    if missing := sorted(key for key in info["missing_keys"] if not (headless and "pooler" in key)):
        raise CheckpointError(f"The weights in {folder} are not whole: {', '.join(missing[:3])} is missing.")
    rows = int(model.get_input_embeddings().num_embeddings)
    # bart-large-cnn has none for <mask>, which no text needs.
    if set(range(rows, len(tokenizer))) - set(tokenizer.get_added_vocab().values()):
        raise CheckpointError(
            f"The tokenizer in {folder} has {len(tokenizer):,} tokens and the model knows {rows:,}: it is not this "
            "model's."
        )
    longest = _longest_input(model, tokenizer)
    if max_length is not None and not 4 <= max_length <= longest:
        raise InputError(f"{folder} reads from 4 to {longest} tokens, not {max_length}.")
    try:
        model = model.eval().to(place)
    except (RuntimeError, AssertionError) as error:  # torch's ways to say that there is none
        raise InputError(f"The device {place} cannot be used: {str(error).splitlines()[0]}") from error
    return Loaded(folder, model, tokenizer, special, rows, place, max_length or longest)


def _load_tokenizer(folder: Path) -> tuple[Any, SpecialIds]:
    def read(kind: Any) -> Any:
        return kind.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)

    # Many a checkpoint leaves the names of its special tokens to the tokenizer's class.
    named = read(AutoTokenizer)
    special = SpecialIds(named.pad_token_id, named.unk_token_id, named.cls_token_id, named.sep_token_id)
    # Straight from tokenizer.json where there is one: version 5's classes lose the normaliser of a sentencepiece model.
    return read(PreTrainedTokenizerFast) if (folder / "tokenizer.json").is_file() else named, special


def _longest_input(model: nn.Module, tokenizer: Any) -> int:
    limits = [int(tokenizer.model_max_length), int(getattr(model.config, "max_position_embeddings", 0) or 0)]
    limits += [
        # Where places count from the padding token's, as in RoBERTa, the first ones are not used.
        module.num_embeddings - module.padding_idx - 1
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and name.endswith("position_embeddings") and module.padding_idx is not None
    ]
    return min((limit for limit in limits if 0 < limit < _UNLIMITED), default=_DEFAULT_LENGTH)


def batches(lengths: Sequence[int], max_tokens: int) -> Iterator[NDArray[np.intp]]:
    """Places of the sequences of each batch, longest first, at most `max_tokens` in it with its padding."""
    order = np.argsort(-np.asarray(lengths, np.int64), kind="stable")
    start = 0
    while start < len(order):
        size = max(1, max_tokens // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size


def pad(rows: Sequence[Sequence[int]], filler: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and mask ``[B, T]``, padded on the right."""
    ids = torch.full((len(rows), max(map(len, rows))), filler, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[number, : len(row)] = 1
    return ids.to(device), mask.to(device)
