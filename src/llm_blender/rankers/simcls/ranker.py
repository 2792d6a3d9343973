"""SimCLS: reads instruction and candidates apart, and takes the candidate that is nearest to the instruction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llm_blender.rankers.encoder_ranker import EncoderRanker
from llm_blender.rankers.pointwise import Pair, Scored
from llm_blender.rankers.pointwise_config import PointwiseConfig
from llm_blender.rankers.simcls.input_format import SimCLSInput
from llm_blender.types import OnProgress, instruction_text

if TYPE_CHECKING:
    from torch import nn

__all__ = ["SimCLS"]


class SimCLS(EncoderRanker[SimCLSInput]):
    """A bi-encoder whose score is the cosine of instruction and candidate (arXiv 2106.01890), in torch.

    Each instruction and each candidate is read once, whatever is compared with what. Make one by `from_pretrained`.

    Example:
        >>> ranker = SimCLS.from_pretrained("my/simcls")  # doctest: +SKIP
        >>> ranker.rank("Why is the sky blue?", ["Blue light scatters most.", "Because."]).best  # doctest: +SKIP
        0
    """

    name = "simcls"
    decimals = 6

    @classmethod
    def _read(cls, folder: Path, config: PointwiseConfig) -> tuple[SimCLSInput, nn.Module]:
        from llm_blender.rankers._torch import load_module
        from llm_blender.rankers.simcls.modeling import SimCLSModel, one_encoder

        return SimCLSInput(folder, config), load_module(folder, lambda: SimCLSModel(config), one_encoder)

    def _score(self, pairs: Sequence[Pair], progress: OnProgress) -> Scored:
        prompts = [(instruction_text(instruction), not isinstance(instruction, str)) for instruction, _ in pairs]
        source_row = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
        candidate_row = {text: row for row, text in enumerate(dict.fromkeys(text for _, text in pairs))}
        texts, from_end = [text for text, _ in source_row], [end for _, end in source_row]
        sources = self.input_format.read_sources(texts, from_end)
        candidates = self.input_format.read_candidates(list(candidate_row))
        total = len(sources) + len(candidates)
        of_sources = self._run(sources, progress, total=total)
        of_candidates = self._run(candidates, progress, before=len(sources), total=total)
        left = np.array([source_row[prompt] for prompt in prompts], np.intp)
        right = np.array([candidate_row[text] for _, text in pairs], np.intp)
        both = [(sources[s], candidates[c]) for s, c in zip(left, right, strict=True)]
        return Scored(
            np.asarray((of_sources[left] * of_candidates[right]).sum(-1, dtype=np.float64)),
            np.array([s.read + c.read for s, c in both], np.int64),
            np.array([s.whole + c.whole for s, c in both], np.int64),
        )
