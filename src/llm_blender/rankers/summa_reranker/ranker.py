"""SummaReranker: reads an instruction with one candidate at a time and says how likely that is the best one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from llm_blender.errors import MissingExtraError
from llm_blender.rankers.batching import MAX_TOKENS
from llm_blender.rankers.checkpoints import find_checkpoint
from llm_blender.rankers.pointwise import Pair, PointwiseRanker, Scored
from llm_blender.rankers.pointwise_config import PointwiseConfig
from llm_blender.rankers.summa_reranker.input_format import SummaInput
from llm_blender.types import OnProgress

if TYPE_CHECKING:
    from llm_blender.rankers._torch import Replicas

__all__ = ["SummaReranker"]


class SummaReranker(PointwiseRanker):
    """A cross-encoder with a mixture of experts and one output per metric (arXiv 2203.06569), in torch.

    Scores lie between 0 and 1. Make one by `from_pretrained`.

    Example:
        >>> ranker = SummaReranker.from_pretrained("my/summa-reranker")  # doctest: +SKIP
        >>> ranker.rank("Why is the sky blue?", ["Blue light scatters most.", "Because."]).best  # doctest: +SKIP
        0
    """

    name = "summareranker"
    decimals = 6

    def __init__(
        self,
        model: Replicas,
        folder: Path,
        config: PointwiseConfig,
        input_format: SummaInput,
        *,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        super().__init__(
            model, folder, pad_id=input_format.special.pad, max_tokens=max_tokens, temperature=config.temperature
        )
        self.config, self.input_format = config, input_format

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
            CheckpointError: it is not a SummaReranker, or a file of it is missing or damaged.
            MissingExtraError: ``torch`` is not installed.
            InputError: there is no such device or dtype.
        """
        try:
            from llm_blender.rankers._torch import Replicas, check_vocabulary, load_module
            from llm_blender.rankers.summa_reranker.modeling import SummaRerankerModel
        except ModuleNotFoundError as error:
            raise MissingExtraError("SummaReranker", "torch") from error
        folder = find_checkpoint(name, revision)
        config = PointwiseConfig.load(folder, "summareranker", backbone)
        form = SummaInput(folder, config)
        module = load_module(folder, lambda: SummaRerankerModel(config))
        check_vocabulary(folder, form.vocabulary, module)
        replicas = Replicas(module, device=device, dtype=dtype or "float32")
        return cls(replicas, folder, config, form, max_tokens=max_tokens)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Copy the checkpoint, in this package's layout, to a folder that `from_pretrained` reads."""
        self.config.save_with(self.folder, Path(folder))

    def _score(self, pairs: Sequence[Pair], progress: OnProgress) -> Scored:
        readings = self.input_format.read(pairs)
        return Scored.by(self._run(readings, progress), readings)
