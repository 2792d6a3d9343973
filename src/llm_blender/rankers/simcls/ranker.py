"""SimCLS: reads instruction and candidates apart, and takes the candidate that is nearest to the instruction."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from llm_blender.errors import MissingExtraError
from llm_blender.rankers.batching import MAX_TOKENS
from llm_blender.rankers.checkpoints import find_checkpoint
from llm_blender.rankers.pointwise import Pair, PointwiseRanker, Scored
from llm_blender.rankers.pointwise_config import PointwiseConfig
from llm_blender.rankers.simcls.input_format import SimCLSInput
from llm_blender.types import OnProgress, instruction_text

if TYPE_CHECKING:
    from llm_blender.rankers._torch import Replicas

__all__ = ["SimCLS"]


class SimCLS(PointwiseRanker):
    """A bi-encoder whose score is the cosine of instruction and candidate (arXiv 2106.01890), in torch.

    Each instruction and each candidate is read once, whatever is compared with what. Make one by `from_pretrained`.

    Example:
        >>> ranker = SimCLS.from_pretrained("my/simcls")  # doctest: +SKIP
        >>> ranker.rank("Why is the sky blue?", ["Blue light scatters most.", "Because."]).best  # doctest: +SKIP
        0
    """

    name = "simcls"
    decimals = 6

    def __init__(
        self,
        model: Replicas,
        folder: Path,
        config: PointwiseConfig,
        input_format: SimCLSInput,
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
            CheckpointError: it is not a SimCLS, or a file of it is missing or damaged.
            MissingExtraError: ``torch`` is not installed.
            InputError: there is no such device or dtype.
        """
        try:
            from llm_blender.rankers._torch import Replicas, check_vocabulary, load_module
            from llm_blender.rankers.simcls.modeling import SimCLSModel, one_encoder
        except ModuleNotFoundError as error:
            raise MissingExtraError("SimCLS", "torch") from error
        folder = find_checkpoint(name, revision)
        config = PointwiseConfig.load(folder, "simcls", backbone)
        form = SimCLSInput(folder, config)
        module = load_module(folder, lambda: SimCLSModel(config), one_encoder)
        check_vocabulary(folder, form.vocabulary, module)
        replicas = Replicas(module, device=device, dtype=dtype or "float32")
        return cls(replicas, folder, config, form, max_tokens=max_tokens)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Copy the checkpoint, in this package's layout, to a folder that `from_pretrained` reads."""
        self.config.save_with(self.folder, Path(folder))

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
