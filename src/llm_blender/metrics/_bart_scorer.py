"""The mean log-probability of a text that a sequence-to-sequence model writes (arXiv 2106.11520)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSeq2SeqLM

from llm_blender.metrics._models import batches, load, pad
from llm_blender.types import OnProgress

__all__ = ["BARTScorer"]

_NO_LABEL = -100  # transformers' mark for what is padding in the text to write


class BARTScorer:
    """A sequence-to-sequence model.

    Args:
        name: a folder, or a Hub repository.
        max_length: tokens of a text that are read; None is what the model can read.
        revision: on the Hub.
        device: None picks.
        dtype: of the model.

    Raises:
        LLMBlenderError: as for `load`.
    """

    def __init__(
        self,
        name: str,
        *,
        max_length: int | None = None,
        revision: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
    ) -> None:
        self._loaded = load(
            AutoModelForSeq2SeqLM, name, revision=revision, device=device, dtype=dtype, max_length=max_length
        )

    @torch.inference_mode()
    def score(
        self, sources: Sequence[str], targets: Sequence[str], *, max_tokens: int, progress: OnProgress
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Mean of log P(token of the target | the tokens before it, the source) over the target's tokens, ``[m]``.

        And ``[m]``, whether one of the two texts was cut.
        """
        read, written = self._loaded.tokenize(sources), self._loaded.tokenize(targets)
        lengths = [max(len(a), len(b)) for a, b in zip(read.ids, written.ids, strict=True)]
        scores, done = np.empty(len(lengths)), 0
        for rows in batches(lengths, max_tokens):
            ids, mask = pad([read.ids[row] for row in rows], self._loaded.pad_id, self._loaded.device)
            labels, counted = pad([written.ids[row] for row in rows], _NO_LABEL, self._loaded.device)
            logits = self._loaded.model(input_ids=ids, attention_mask=mask, labels=labels).logits.float()
            # Not a softmax of all, which is another tensor of the size of the vocabulary.
            logs = logits.gather(2, labels.clamp(min=0)[:, :, None])[:, :, 0] - logits.logsumexp(dim=2)
            scores[rows] = ((logs * counted).sum(dim=1) / counted.sum(dim=1)).cpu().numpy()
            done += len(rows)
            progress(done, len(lengths))
        return scores, read.cut | written.cut
