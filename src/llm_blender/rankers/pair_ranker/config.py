"""What a PairRanker's ``config.json`` says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import TypeAdapter, ValidationError

from llm_blender.errors import CheckpointError

__all__ = ["FORMAT_VERSION", "PairRankerConfig"]

FORMAT_VERSION = 1


@dataclass(frozen=True)
class PairRankerConfig:
    """How a PairRanker reads a pair and what its weights mean.

    Attributes:
        backbone: the encoder's own configuration, as transformers writes it (``model_type``, ``hidden_size``, …).
        max_length: tokens of a whole pair, special ones included.
        source_max_length: tokens of the instruction.
        source_tail: share of a too long instruction that is kept from its end.
        candidate_tail: share of a too long candidate that is kept from its end.
        pooling: ``mean`` of each segment's last states, or the state of its ``marker`` token (arXiv 2306.02561,
            section 3.2).
        markers: tokens before the instruction, the left and the right candidate.
        tasks: what the head's outputs stand for; their mean is the logit.
        temperature: of probabilities, fitted on development rows.
        head_dropout: of the head, in training.
    """

    backbone: Mapping[str, Any] = field(default_factory=dict)
    max_length: int = 512
    source_max_length: int = 192
    source_tail: float = 0.5
    candidate_tail: float = 0.25
    pooling: Literal["mean", "marker"] = "mean"
    markers: tuple[str, str, str] = ("<|source|>", "<|candidate1|>", "<|candidate2|>")
    tasks: tuple[str, ...] = ("preference",)
    temperature: float = 1.0
    head_dropout: float = 0.05

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read ``config.json``.

        Raises:
            CheckpointError: there is none, or it is not a PairRanker's.
        """
        path = folder / "config.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CheckpointError(f"{folder} is no checkpoint: it holds no config.json.") from None
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise CheckpointError(f"{path} is not JSON: {error}.") from None
        kind = values.get("ranker_type") if isinstance(values, dict) else None
        if kind != "pairranker" or "format_version" not in values:
            raise CheckpointError(f"{path} does not describe a PairRanker of this package (ranker_type {kind!r}).")
        if not isinstance(values["format_version"], int) or values["format_version"] > FORMAT_VERSION:
            raise CheckpointError(
                f"{path} has format version {values['format_version']}, this package reads up to {FORMAT_VERSION}: "
                "pip install --upgrade llm-blender"
            )
        try:
            config = TypeAdapter(cls).validate_python(values)
        except ValidationError as error:
            first = error.errors()[0]
            raise CheckpointError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from None
        if config.max_length - config.source_max_length < 16:
            raise CheckpointError(f"{path}: source_max_length leaves no room for candidates within max_length.")
        return config

    def save(self, folder: Path) -> None:
        """Write ``config.json``."""
        values = {"ranker_type": "pairranker", "format_version": FORMAT_VERSION, **asdict(self)}
        (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
