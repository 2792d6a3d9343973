"""A regression on reference and prediction read together (arXiv 2004.04696)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification

from llm_blender.errors import CheckpointError
from llm_blender.metrics._models import batches, load, pad
from llm_blender.types import OnProgress

__all__ = ["BLEURTScorer"]


class BLEURTScorer:
    """A sequence classifier with one output.

    Args:
        name: a folder, or a Hub repository.
        max_length: tokens of both texts with the special ones; None is what the model can read.
        revision: on the Hub.
        device: None picks.
        dtype: of the model.

    Attributes:
        max_length: which it is.

    Raises:
        CheckpointError: it has several outputs.
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
            AutoModelForSequenceClassification,
            name,
            revision=revision,
            device=device,
            dtype=dtype,
            max_length=max_length,
        )
        config = self._loaded.model.config
        if config.num_labels != 1:
            raise CheckpointError(f"{name} has {config.num_labels} outputs: a BLEURT model has one.")
        self.max_length = self._loaded.max_length
        self._typed = (getattr(config, "type_vocab_size", 0) or 0) > 1
        self._before, self._between, self._after = self._frame()

    def _frame(self) -> tuple[list[int], list[int], list[int]]:
        """The special tokens before, between and after two texts."""
        if not self._loaded.tokenizer.is_fast:
            raise CheckpointError(f"{self._loaded.folder} holds no tokenizer.json: save its tokenizer as a fast one.")
        encoded = self._loaded.tokenizer("a", "a")
        ids, sides = encoded["input_ids"], encoded.sequence_ids()
        first, second = sides.index(0), sides.index(1)
        end_of_first = second - sides[:second][::-1].index(0)
        end = len(sides) - sides[::-1].index(1)
        return ids[:first], ids[end_of_first:second], ids[end:]

    @torch.inference_mode()
    def score(
        self, predictions: Sequence[str], references: Sequence[str], *, max_tokens: int, progress: OnProgress
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """The model's output for each pair, ``[m]``, and ``[m]`` whether one of the two texts was cut."""
        first, second = (self._loaded.encode(texts, add_special_tokens=False) for texts in (references, predictions))
        room = self.max_length - len(self._before) - len(self._between) - len(self._after)
        kept = [_shares(len(a), len(b), room) for a, b in zip(first, second, strict=True)]
        opening = [[*self._before, *a[:n], *self._between] for a, (n, _) in zip(first, kept, strict=True)]
        closing = [[*b[:n], *self._after] for b, (_, n) in zip(second, kept, strict=True)]
        cut = np.array([n + m < len(a) + len(b) for a, b, (n, m) in zip(first, second, kept, strict=True)], bool)
        scores, done = np.empty(len(kept)), 0
        for rows in batches([len(a) + len(b) for a, b in zip(opening, closing, strict=True)], max_tokens):
            ids, mask = pad([opening[row] + closing[row] for row in rows], self._loaded.pad_id, self._loaded.device)
            inputs = {"input_ids": ids, "attention_mask": mask}
            if self._typed:
                types = [[0] * len(opening[row]) + [1] * len(closing[row]) for row in rows]
                inputs["token_type_ids"] = pad(types, 0, self._loaded.device)[0]
            scores[rows] = self._loaded.model(**inputs).logits[:, 0].float().cpu().numpy()
            done += len(rows)
            progress(done, len(kept))
        return scores, cut


def _shares(reference: int, prediction: int, room: int) -> tuple[int, int]:
    """Tokens of both that are read: the longer one is cut first, of two equally long ones the prediction."""
    if reference + prediction <= room:
        return reference, prediction
    half = room // 2
    if reference <= half:
        return reference, room - reference
    if prediction <= half:
        return room - prediction, prediction
    return room - half, half
