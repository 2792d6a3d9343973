"""Greedy matching of contextual embeddings (arXiv 1904.09675), with the conventions of the package ``bert-score``."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModel

from llm_blender.errors import InputError, NotFoundError
from llm_blender.metrics._models import batches, load, pad
from llm_blender.types import OnProgress

__all__ = ["BERTScorer"]

Floats = NDArray[np.float64]

# The layer whose scores agree best with people's on WMT16, as bert-score 0.3.13 lists them.
_LAYERS = {
    "bert-base-chinese": 8,
    "bert-base-multilingual-cased": 9,
    "bert-base-uncased": 9,
    "bert-large-uncased": 18,
    "deberta-base": 9,
    "deberta-base-mnli": 9,
    "deberta-large": 16,
    "deberta-large-mnli": 18,
    "deberta-v2-xlarge": 10,
    "deberta-v2-xlarge-mnli": 17,
    "deberta-v2-xxlarge": 21,
    "deberta-v2-xxlarge-mnli": 22,
    "deberta-v3-base": 9,
    "deberta-v3-large": 12,
    "deberta-v3-small": 4,
    "deberta-v3-xsmall": 10,
    "deberta-xlarge": 18,
    "deberta-xlarge-mnli": 40,
    "distilbert-base-multilingual-cased": 5,
    "distilbert-base-uncased": 5,
    "distilroberta-base": 5,
    "mdeberta-v3-base": 10,
    "mpnet-base": 8,
    "roberta-base": 10,
    "roberta-large": 17,
    "roberta-large-mnli": 19,
    "xlm-roberta-base": 9,
    "xlm-roberta-large": 17,
}
_SPACED = ("gpt2", "roberta")  # bert-score reads a text for these as if a space stood before it


class BERTScorer:
    """An encoder and the layer that is compared.

    Args:
        name: a folder, or a Hub repository.
        layer: from 0, the embeddings; None is the known best one for that name, else the last.
        max_length: tokens of a text that are read; None is what the model can read.
        revision: on the Hub.
        device: None picks.
        dtype: of the model.

    Attributes:
        layer: which it is.

    Raises:
        InputError: there is no such layer.
        LLMBlenderError: as for `load`.
    """

    def __init__(
        self,
        name: str,
        layer: int | None = None,
        *,
        max_length: int | None = None,
        revision: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
    ) -> None:
        loaded = load(AutoModel, name, revision=revision, device=device, dtype=dtype, max_length=max_length)
        config = loaded.model.config
        self._encoder = loaded.model.get_encoder() if config.is_encoder_decoder else loaded.model
        total = int(config.num_hidden_layers)
        self.layer = _LAYERS.get(Path(name).name, total) if layer is None else layer
        if not 0 <= self.layer <= total:
            raise InputError(f"{name} has the layers 0 (embeddings) to {total}, and no layer {self.layer}.")
        self._loaded, self._all_states = loaded, not _keep_layers(self._encoder, total, self.layer)
        self._space = " " if config.model_type in _SPACED else ""

    def read_baseline(self, path: str) -> Floats:
        """Precision, recall and F1 of unrelated texts at this layer, ``[3]``.

        Raises:
            NotFoundError: there is no such file.
            InputError: it says nothing of this layer.
        """
        try:
            with Path(path).expanduser().open(encoding="utf-8", newline="") as file:
                lines = {line.get("LAYER"): line for line in csv.DictReader(file)}
        except (OSError, UnicodeDecodeError) as error:
            raise NotFoundError(f"The baseline {path} cannot be read: {error}.") from error
        try:
            line = lines[str(self.layer)]
            return np.array([float(line[column]) for column in ("P", "R", "F")])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"The baseline {path} has no line of numbers for layer {self.layer}: wanted are LAYER,P,R,F, as in "
                "the files of bert-score."
            ) from error

    def score(
        self,
        predictions: Sequence[str],
        references: Sequence[str],
        *,
        idf: bool,
        max_tokens: int,
        progress: OnProgress,
        portion: int = 1_024,
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """Precision, recall and F1 ``[m, 3]`` of m pairs, and ``[m]`` whether one of the two texts was cut.

        Embeddings of `portion` pairs are in memory at a time.
        """
        texts = list(dict.fromkeys(text.strip() for text in chain(references, predictions)))
        read = self._loaded.tokenize([self._space + text if text else "" for text in texts])
        ids, cut = dict(zip(texts, read.ids, strict=True)), dict(zip(texts, read.cut, strict=True))
        pairs = [(a.strip(), b.strip()) for a, b in zip(predictions, references, strict=True)]
        weights = self._rarities([ids[b] for _, b in pairs]) if idf else {}
        blank = len(self._loaded.tokenize([""]).ids[0])
        plain = {token: 0.0 for token in (self._loaded.special.cls, self._loaded.special.sep) if token is not None}
        unseen = math.log(len(pairs) + 1) if idf else 1.0

        def weigh(text: str) -> Tensor:
            known: Mapping[int, float] = weights if idf else plain
            return torch.tensor([known.get(token, unseen) for token in ids[text]], device=self._loaded.device)

        empty = {text for text in texts if not text or len(ids[text]) <= blank}
        scores = np.zeros((len(pairs), 3))
        for start in range(0, len(pairs), portion):
            some = pairs[start : start + portion]
            needed = list(dict.fromkeys(text for pair in some for text in pair if text not in empty))
            states = dict(zip(needed, self._states([ids[text] for text in needed], max_tokens), strict=True))
            weight = {text: weigh(text) for text in needed}
            for number, (a, b) in enumerate(some, start):
                if a not in empty and b not in empty:
                    scores[number] = _match(states[a], states[b], weight[a], weight[b])
                progress(number + 1, len(pairs))
        return scores, np.array([cut[a] or cut[b] for a, b in pairs], bool)

    @staticmethod
    def _rarities(references: Sequence[Sequence[int]]) -> dict[int, float]:
        """Inverse document frequency of each token: log((N + 1) / (references that have it + 1))."""
        counts = Counter(chain.from_iterable(set(ids) for ids in references))
        return {token: math.log((len(references) + 1) / (count + 1)) for token, count in counts.items()}

    @torch.inference_mode()
    def _states(self, sequences: Sequence[Sequence[int]], max_tokens: int) -> list[Tensor]:
        """Of each sequence the states ``[T, H]``, of length 1."""
        states: list[Tensor] = [torch.empty(0)] * len(sequences)
        for rows in batches([len(ids) for ids in sequences], max_tokens):
            ids, mask = pad([sequences[row] for row in rows], self._loaded.pad_id, self._loaded.device)
            output = self._encoder(input_ids=ids, attention_mask=mask, output_hidden_states=self._all_states)
            layer = output.hidden_states[self.layer] if self._all_states else output.last_hidden_state
            normal = nn.functional.normalize(layer.float(), dim=-1)
            for row, state in zip(rows, normal, strict=True):
                states[row] = state[: len(sequences[row])].clone()
        return states


def _match(a: Tensor, b: Tensor, weight_a: Tensor, weight_b: Tensor) -> tuple[float, float, float]:
    """Precision, recall and F1 of the tokens ``[T, H]`` of a prediction and a reference."""
    similarity = a @ b.T
    precision = _mean(similarity.amax(dim=1), weight_a)
    recall = _mean(similarity.amax(dim=0), weight_b)
    return precision, recall, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _mean(similarities: Tensor, weights: Tensor) -> float:
    """Weighted mean; where nothing has weight (by idf: all is in every reference), 0."""
    total = float(weights.sum())
    return float((similarities * weights).sum()) / total if total else 0.0


def _keep_layers(encoder: nn.Module, total: int, layer: int) -> bool:
    """Drop the layers that are not needed; False if the model does not show where it has them."""
    for parent in encoder.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == total:
                setattr(parent, name, child[:layer])
                return True
    return False
