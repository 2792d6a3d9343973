"""Configuration of a PairRanker: its ``config.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from llm_blender.errors import CheckpointError, InputError
from llm_blender.rankers.checkpoints import read_config
from llm_blender.rankers.published import Backbone, PublishedConfig, is_published, parse_config
from llm_blender.ranking import EvidenceWeights, reliability

FORMAT_VERSION = 1
_CANDIDATES = 11  # of a prompt, to which the evidence weights of version 1.0 were fitted


@dataclass(frozen=True)
class PairRankerConfig:
    """Configuration of a PairRanker: input format, model and calibration.

    Attributes:
        backbone: the encoder's configuration in transformers' format (``model_type``, ``hidden_size``, …).
        max_length: maximum tokens of a whole pair, special tokens included.
        source_max_length: maximum tokens of the instruction.
        source_tail: share of a too long instruction that is kept from its end.
        candidate_tail: share of a too long candidate that is kept from its end.
        special_tokens: ``once``, a ``[CLS]`` before the sequence; or ``each_text``, one before each of its three
            texts, as in the published checkpoints.
        pooling: ``mean`` of each segment's last states, or the state of its ``marker`` token (arXiv 2306.02561,
            section 3.2).
        alone_layers: number of lowest encoder layers that read one candidate with the instruction; in the layers
            above, two such sequences attend to each other (`LatePairRankerModel`). 0: one sequence holds both
            candidates from the start (arXiv 2306.02561). Above 0, `max_length` is that of one candidate's sequence.
        markers: tokens before the instruction, the left and the right candidate.
        tasks: names of the head's outputs; their mean is the logit.
        temperature: of probabilities, fitted on development rows.
        head_dropout: of the head, in training.
        evidence_weights: of the model's logit and of what else the texts show (`llm_blender.ranking.evidence`), fitted
            on development rows.
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
        """Read ``config.json``, this package's or that of a checkpoint published by llm-blender 0.0.2.

        Args:
            folder: the checkpoint.
            backbone: the encoder's configuration or its location, if ``config.json`` does not contain it.

        Raises:
            CheckpointError: the file is missing, or does not describe a PairRanker.
        """
        values, path = read_config(folder), folder / "config.json"
        if is_published(values):
            return cls._of_published(PublishedConfig.load(folder), folder, backbone)
        kind = values.get("ranker_type")
        if kind != "pairranker" or "format_version" not in values:
            raise CheckpointError(
                f"{path} has an unknown layout (ranker_type {kind!r}, model_type {values.get('model_type')!r}): "
                "known are this package's and those of llm-blender/PairRM, pair-ranker and PairRM-hf."
            )
        config = parse_config(cls, _current(values), path, FORMAT_VERSION)
        if config.candidate_budget < 16:
            raise CheckpointError(f"{path}: source_max_length leaves no room for candidates within max_length.")
        return config

    @classmethod
    def _of_published(cls, published: PublishedConfig, folder: Path, backbone: Backbone | None) -> Self:
        if published.ranker_type != "pairranker":
            raise CheckpointError(
                f"{folder} is a {published.ranker_type}, not a PairRanker: "
                "llm_blender.rankers.load_ranker loads either."
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
        """Return the configuration with other lengths, in tokens, the special tokens of each text included.

        The candidates of a sequence share what the instruction leaves of ``source + 2 * candidate``.

        Raises:
            InputError: the lengths leave no room for text.
        """
        special = 3  # of the instruction: [CLS], its marker, [SEP]
        now = self.source_max_length + special
        source, candidate = source or now, candidate or (self.max_length - now) // self.candidates_per_sequence
        changed = replace(
            self, max_length=source + self.candidates_per_sequence * candidate, source_max_length=source - special
        )
        if changed.source_max_length < 1 or changed.candidate_budget < 2:
            raise InputError(f"No text fits into {source} tokens for the instruction and {candidate} for a candidate.")
        return changed

    @property
    def overhead(self) -> int:
        """Number of special tokens in a sequence: ``[CLS]``, and a marker and ``[SEP]`` for each text."""
        texts = 1 + self.candidates_per_sequence
        return 1 + 2 * texts if self.special_tokens == "once" else 3 * texts

    @property
    def candidates_per_sequence(self) -> int:
        """Number of candidates in a sequence: 1 or 2."""
        return 1 if self.alone_layers else 2

    @property
    def candidate_budget(self) -> int:
        """Number of tokens for the candidates of a sequence with the longest instruction."""
        return self.max_length - self.source_max_length - self.overhead

    def save(self, folder: Path) -> None:
        """Write ``config.json``."""
        values = {"ranker_type": "pairranker", "format_version": FORMAT_VERSION, **asdict(self)}
        (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _current(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Bring the evidence weights of version 1.0, of logit and consensus for all prompts, into today's form."""
    weights = values.get("evidence_weights")
    if not isinstance(weights, Mapping) or not weights or not weights.keys() <= {"consensus", "model"}:
        return values
    consensus, model = weights.get("consensus", 0.0), weights.get("model", 1.0)
    if not consensus:
        return {**values, "evidence_weights": {}}
    several = {"model": model, "consensus": consensus / reliability(_CANDIDATES)}
    return {**values, "evidence_weights": {"several": several, "agreeing": several}}
