"""What the pointwise rankers of the paper's baselines share: an encoder's checkpoint, this package's or 0.0.2's."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Self, TypeVar

from llm_blender.errors import MissingExtraError
from llm_blender.rankers.batching import MAX_TOKENS
from llm_blender.rankers.checkpoints import find_checkpoint
from llm_blender.rankers.pointwise import PointwiseRanker
from llm_blender.rankers.pointwise_config import PointwiseConfig

if TYPE_CHECKING:
    from torch import nn

    from llm_blender.rankers._torch import Replicas
    from llm_blender.rankers.simcls.input_format import SimCLSInput
    from llm_blender.rankers.summa_reranker.input_format import SummaInput

__all__ = ["EncoderRanker"]

Input = TypeVar("Input", bound="SummaInput | SimCLSInput")


class EncoderRanker(PointwiseRanker, Generic[Input]):
    """A pointwise ranker of a checkpoint with a `PointwiseConfig`."""

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
        """The input format and the model of a checkpoint, on the CPU."""

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        device: Any = None,
        dtype: Any = None,
        backbone: str | Mapping[str, Any] | None = None,
        revision: str | None = None,
        max_tokens: int = MAX_TOKENS,
    ) -> Self:
        """Load a checkpoint, this package's or one in the layout of llm-blender 0.0.2.

        Args:
            name: a folder, or a Hub repository.
            device: ``cpu``, ``cuda``, ``mps``, …, or a list of devices to share the work; None picks.
            dtype: ``float32`` (None), ``bfloat16``, ``float16``.
            backbone: the encoder's configuration, or the folder or Hub name that holds it, for a checkpoint of 0.0.2
                whose encoder is neither named nor a DeBERTa-v3.
            revision: on the Hub.
            max_tokens: of a batch.

        Raises:
            NotFoundError: there is no such checkpoint; the message says where it was looked for.
            CheckpointError: it is another kind of ranker, or a file of it is missing or damaged.
            MissingExtraError: ``torch`` is not installed.
            InputError: there is no such device or dtype.
        """
        try:
            from llm_blender.rankers._torch import Replicas, check_vocabulary
        except ModuleNotFoundError as error:
            raise MissingExtraError(cls.__name__, "torch") from error
        folder = find_checkpoint(name, revision)
        config = PointwiseConfig.load(folder, cls.name, backbone)
        form, module = cls._read(folder, config)
        check_vocabulary(folder, form.vocabulary, module)
        replicas = Replicas(module, device=device, dtype=dtype or "float32")
        return cls(replicas, folder, config, form, max_tokens=max_tokens)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Copy the checkpoint, in this package's layout, to a folder that `from_pretrained` reads."""
        self.config.save_with(self.folder, Path(folder))
