"""What a PairRanker's ``config.json`` says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from llm_blender.errors import CheckpointError, InputError
from llm_blender.rankers.checkpoints import read_config
from llm_blender.rankers.published import Backbone, PublishedConfig, is_published, parse_config
from llm_blender.ranking import EvidenceWeights

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
        special_tokens: ``once``, a ``[CLS]`` before the sequence; or ``each_text``, one before each of its three
            texts, as the published checkpoints were trained.
        pooling: ``mean`` of each segment's last states, or the state of its ``marker`` token (arXiv 2306.02561,
            section 3.2).
        alone_layers: lowest encoder layers that read instruction and candidate alone; in those above, two such
            sequences attend to each other (`LatePairRankerModel`). 0: both candidates stand in one sequence from the
            start (arXiv 2306.02561). Above 0, `max_length` is that of one candidate's sequence.
        markers: tokens before the instruction, the left and the right candidate.
        tasks: what the head's outputs stand for; their mean is the logit.
        temperature: of probabilities, fitted on development rows.
        head_dropout: of the head, in training.
        evidence_weights: what the model's logit and the candidates' consensus (`llm_blender.ranking.consensus`)
            count, fitted on development rows.
    """

    backbone: Mapping[str, Any] = field(default_factory=dict)
    max_length: int = 512
    source_max_length: int = 192
    source_tail: float = 0.5
    candidate_tail: float = 0.25
    special_tokens: Literal["once", "each_text"] = "once"
    pooling: Literal["mean", "marker"] = "mean"
    alone_layers: int = 0
    markers: tuple[str, str, str] = ("<|source|>", "<|candidate1|>", "<|candidate2|>")
    tasks: tuple[str, ...] = ("preference",)
    temperature: float = 1.0
    head_dropout: float = 0.05
    evidence_weights: EvidenceWeights = field(default_factory=EvidenceWeights)

    @classmethod
    def load(cls, folder: Path, backbone: Backbone | None = None) -> Self:
        """Read ``config.json``, this package's or that of a checkpoint which llm-blender 0.0.2 published.

        Args:
            folder: the checkpoint.
            backbone: the encoder's configuration, or where it is, if ``config.json`` does not say it.

        Raises:
            CheckpointError: there is none, or it is not a PairRanker's.
        """
        values, path = read_config(folder), folder / "config.json"
        if is_published(values):
            return cls._of_published(PublishedConfig.load(folder), folder, backbone)
        kind = values.get("ranker_type")
        if kind != "pairranker" or "format_version" not in values:
            raise CheckpointError(
                f"{path} is of an unknown layout (ranker_type {kind!r}, model_type {values.get('model_type')!r}): "
                "known are this package's and those of llm-blender/PairRM, pair-ranker and PairRM-hf."
            )
        config = parse_config(cls, values, path, FORMAT_VERSION)
        if config.room < 16:
            raise CheckpointError(f"{path}: source_max_length leaves no room for candidates within max_length.")
        return config

    @classmethod
    def _of_published(cls, published: PublishedConfig, folder: Path, backbone: Backbone | None) -> Self:
        if published.ranker_type != "pairranker":
            raise CheckpointError(
                f"{folder} is a {published.ranker_type}, not a PairRanker: llm_blender.rankers.load_ranker takes each."
            )
        return cls(
            backbone=published.backbone(folder, backbone),
            tasks=published.task_names,
            head_dropout=published.dropout,
            special_tokens="each_text",
            pooling="marker",
            source_tail=0.0,
            candidate_tail=0.0,
        ).with_lengths(published.source_max_length, published.candidate_max_length)

    def with_lengths(self, source: int | None = None, candidate: int | None = None) -> Self:
        """Other lengths, in tokens, each text's own special ones included.

        What the instruction leaves of ``source + 2 * candidate`` is shared by the candidates of a sequence.

        Raises:
            InputError: no text fits into that.
        """
        special = 3  # of the instruction: [CLS], its marker, [SEP]
        now = self.source_max_length + special
        source, candidate = source or now, candidate or (self.max_length - now) // self.beside
        changed = replace(self, max_length=source + self.beside * candidate, source_max_length=source - special)
        if changed.source_max_length < 1 or changed.room < 2:
            raise InputError(f"No text fits into {source} tokens for the instruction and {candidate} for a candidate.")
        return changed

    @property
    def overhead(self) -> int:
        """Tokens of a sequence that are not its texts': ``[CLS]``, and a marker and ``[SEP]`` for each."""
        texts = 1 + self.beside
        return 1 + 2 * texts if self.special_tokens == "once" else 3 * texts

    @property
    def beside(self) -> int:
        """Candidates in a sequence."""
        return 1 if self.alone_layers else 2

    @property
    def room(self) -> int:
        """Tokens for the candidates of a sequence beside the longest instruction."""
        return self.max_length - self.source_max_length - self.overhead

    def save(self, folder: Path) -> None:
        """Write ``config.json``."""
        values = {"ranker_type": "pairranker", "format_version": FORMAT_VERSION, **asdict(self)}
        (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
