"""Base of the paper's pointwise baselines: SummaReranker and SimCLS checkpoints, this package's or 0.0.2's."""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol, Self, TypeVar, Unpack

from torch import nn

from llm_blender.errors import CheckpointError
from llm_blender.rankers._torch import Loading, LoadOptions, Replicas, check_vocabulary
from llm_blender.rankers.batching import MAX_TOKENS
from llm_blender.rankers.checkpoints import SpecialTokens, copy_checkpoint, find_checkpoint, read_config
from llm_blender.rankers.pointwise import PointwiseRanker
from llm_blender.rankers.published import Backbone, PublishedConfig, is_published, parse_config

FORMAT_VERSION = 1

Kind = Literal["summareranker", "simcls"]
_TITLES = {"summareranker": "SummaReranker", "simcls": "SimCLS", "pairranker": "PairRanker"}
_PUBLISHED_KINDS = {"dual": "simcls"}


@dataclass(frozen=True)
class PointwiseConfig:
    """Configuration of a SummaReranker or SimCLS.

    Attributes:
        ranker_type: ``summareranker`` or ``simcls``.
        backbone: the encoder's configuration in transformers' format (``model_type``, ``hidden_size``, …).
        source_max_length: maximum tokens of the instruction, special tokens included.
        candidate_max_length: maximum tokens of a candidate, special tokens included.
        tasks: names of a SummaReranker's outputs; their mean is the score.
        temperature: of probabilities, fitted on development rows.
    """

    ranker_type: Kind
    backbone: Mapping[str, Any] = field(default_factory=dict)
    source_max_length: int = 128
    candidate_max_length: int = 128
    tasks: tuple[str, ...] = ("preference",)
    temperature: float = 1.0

    @classmethod
    def load(cls, folder: Path, kind: Kind, backbone: Backbone | None = None) -> Self:
        """Read ``config.json``, this package's or llm-blender 0.0.2's.

        Args:
            folder: the checkpoint.
            kind: expected kind of ranker.
            backbone: the encoder's configuration or its location, if ``config.json`` does not contain it.

        Raises:
            CheckpointError: the file is missing, or describes another kind of ranker.
        """
        values, path = read_config(folder), folder / "config.json"
        found = str(values.get("ranker_type"))
        if not is_published(values) and "format_version" not in values:
            raise CheckpointError(
                f"{path} has an unknown layout (ranker_type {values.get('ranker_type')!r}, model_type "
                f"{values.get('model_type')!r}): known are this package's and llm-blender 0.0.2's."
            )
        if "cand1_prefix_id" in values:
            found = "pairranker"
        if _PUBLISHED_KINDS.get(found, found) != kind:
            raise CheckpointError(
                f"{folder} is a {_TITLES.get(found, found)}, not a {_TITLES[kind]}: "
                "llm_blender.rankers.load_ranker loads either."
            )
        if is_published(values):
            published = PublishedConfig.load(folder)
            return cls(
                kind,
                backbone=published.backbone(folder, backbone),
                source_max_length=published.source_max_length,
                candidate_max_length=published.candidate_max_length,
                tasks=published.task_names,
            )
        config = parse_config(cls, values, path, FORMAT_VERSION)
        if min(config.source_max_length, config.candidate_max_length) < 4:
            raise CheckpointError(f"{path}: the lengths must be numbers of tokens above 3.")
        return config

    def save(self, folder: Path) -> None:
        """Write ``config.json``."""
        values = {"format_version": FORMAT_VERSION, **asdict(self)}
        (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


class InputFormat(Protocol):
    """Tokenizer of a pointwise baseline; the readings are a matter of each ranker."""

    @property
    def special(self) -> SpecialTokens:
        """The tokenizer's special tokens."""
        ...

    @property
    def vocabulary(self) -> int:
        """Number of tokens of the tokenizer."""
        ...


Input = TypeVar("Input", bound=InputFormat)


class EncoderRanker(PointwiseRanker, Generic[Input]):
    """Base of pointwise rankers whose checkpoint has a `PointwiseConfig`."""

    name: ClassVar[Literal["summareranker", "simcls"]]

    def __init__(
        self,
        model: Replicas,
        folder: Path,
        config: PointwiseConfig,
        input_format: Input,
        *,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        super().__init__(
            model, folder, pad_id=input_format.special.pad, max_tokens=max_tokens, temperature=config.temperature
        )
        self.config, self.input_format = config, input_format

    @classmethod
    @abstractmethod
    def _read(cls, folder: Path, config: PointwiseConfig) -> tuple[Input, nn.Module]:
        """Load the input format and the model of a checkpoint, on the CPU."""

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        backbone: str | Mapping[str, Any] | None = None,
        **options: Unpack[LoadOptions],
    ) -> Self:
        """Load a checkpoint, this package's or one in the layout of llm-blender 0.0.2.

        Args:
            name: a folder, or a Hub repository.
            backbone: the encoder's configuration, or the folder or Hub name that holds it, for a checkpoint of 0.0.2
                whose encoder is neither named nor a DeBERTa-v3.
            **options: see `LoadOptions`.

        Raises:
            NotFoundError: there is no such checkpoint; the message lists the places searched.
            CheckpointError: it is another kind of ranker, or a file of it is missing or damaged.
            MissingExtraError: ``torch`` is not installed.
            InputError: there is no such device or dtype.
        """
        loading = Loading.of(**options)
        folder = find_checkpoint(name, loading.revision)
        config = PointwiseConfig.load(folder, cls.name, backbone)
        form, module = cls._read(folder, config)
        check_vocabulary(folder, form.vocabulary, module)
        replicas = Replicas(module, device=loading.devices, dtype=loading.dtype)
        return cls(replicas, folder, config, form, max_tokens=loading.max_tokens)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Copy the checkpoint, in this package's layout, to a folder that `from_pretrained` reads."""
        target = Path(folder)
        copy_checkpoint(self.folder, target)
        if not target.samefile(self.folder):
            self.config.save(target)
