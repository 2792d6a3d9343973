"""SummaReranker: reads an instruction with one candidate at a time and says how likely that is the best one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llm_blender.rankers.encoder_ranker import EncoderRanker
from llm_blender.rankers.pointwise import Pair, Scored
from llm_blender.rankers.pointwise_config import PointwiseConfig
from llm_blender.rankers.summa_reranker.input_format import SummaInput
from llm_blender.types import OnProgress

if TYPE_CHECKING:
    from torch import nn

__all__ = ["SummaReranker"]


class SummaReranker(EncoderRanker[SummaInput]):
    """A cross-encoder with a mixture of experts and one output per metric (arXiv 2203.06569), in torch.

    Scores lie between 0 and 1. Make one by `from_pretrained`.

    Example:
        >>> ranker = SummaReranker.from_pretrained("my/summa-reranker")  # doctest: +SKIP
        >>> ranker.rank("Why is the sky blue?", ["Blue light scatters most.", "Because."]).best  # doctest: +SKIP
        0
    """

    name = "summareranker"
    decimals = 6

    @classmethod
    def _read(cls, folder: Path, config: PointwiseConfig) -> tuple[SummaInput, nn.Module]:
        from llm_blender.rankers._torch import load_module
        from llm_blender.rankers.summa_reranker.modeling import SummaRerankerModel

        return SummaInput(folder, config), load_module(folder, lambda: SummaRerankerModel(config))

    def _score(self, pairs: Sequence[Pair], progress: OnProgress) -> Scored:
        readings = self.input_format.read(pairs)
        return Scored.by(self._run(readings, progress), readings)
