"""MLMScoring: scores each candidate by its pseudo-log-likelihood."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import numpy as np
from numpy.typing import NDArray

from llm_blender.errors import InputError, MissingExtraError, unknown_name
from llm_blender.rankers.batching import MAX_TOKENS
from llm_blender.rankers.checkpoints import find_checkpoint
from llm_blender.rankers.mlm_scoring.input_format import MaskedInput, MaskedReading, TokenizedText
from llm_blender.rankers.pointwise import Pair, PointwiseRanker, Reading, Scored
from llm_blender.types import OnProgress

if TYPE_CHECKING:
    from llm_blender.rankers._torch import Replicas

__all__ = ["MLMScoring"]

Reduction = Literal["sum", "mean"]

_REDUCTIONS = ("sum", "mean")


class MLMScoring(PointwiseRanker):
    """How likely a masked language model finds a candidate, whatever the instruction.

    The score is Σ_t log P(w_t | all other tokens of the candidate), one masked copy of the text for each token
    (Salazar et al., arXiv 1910.14659; the baseline "MLM-Scoring" of arXiv 2306.02561). A sum favours short texts, and
    an empty one, of which nothing is unlikely, has the highest score there is: 0. The mean over the tokens does not.
    What is longer than the model reads is scored by its beginning, and `Ranking.truncated` says how much was left out.

    Differences of such scores are no calibrated logits; fit a temperature where probabilities are wanted
    (`llm_blender.ranking.fit_temperature`).

    Args:
        model: log-probabilities of masked tokens.
        folder: the checkpoint.
        input_format: tokenises and masks.
        max_length: tokens that the model reads, special ones included.
        reduction: ``sum`` or ``mean``.
        max_tokens: of a batch, padding included.
        temperature: of probabilities.
        copies: masked copies that are made at a time; bounds memory, keeps lengths alike.

    Raises:
        InputError: the reduction is unknown.

    Example:
        >>> ranker = MLMScoring.from_pretrained("google-bert/bert-base-uncased")  # doctest: +SKIP
        >>> ranker.rank("Why is the sky blue?", ["Blue light scatters most.", "Sky the is."]).best  # doctest: +SKIP
        0
    """

    name = "mlm"
    decimals = 3  # a sum gathers the noise of all tokens

    def __init__(
        self,
        model: Replicas,
        folder: Path,
        input_format: MaskedInput,
        max_length: int,
        *,
        reduction: Reduction = "sum",
        max_tokens: int = MAX_TOKENS,
        temperature: float = 1.0,
        copies: int = 4_096,
    ) -> None:
        if reduction not in _REDUCTIONS:
            raise unknown_name("reduction", reduction, _REDUCTIONS)
        super().__init__(model, folder, pad_id=input_format.special.pad, max_tokens=max_tokens, temperature=temperature)
        self.input_format, self.max_length, self.reduction = input_format, max_length, reduction
        self._copies = copies

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        device: Any = None,
        dtype: Any = None,
        reduction: Reduction = "sum",
        max_length: int | None = None,
        revision: str | None = None,
        max_tokens: int = MAX_TOKENS,
        temperature: float = 1.0,
    ) -> Self:
        """Load any masked language model of transformers.

        Args:
            name: a folder, or a Hub repository.
            device: ``cpu``, ``cuda``, ``mps``, …, or a list of devices to share the work; None picks.
            dtype: ``float32`` (None), ``bfloat16``, ``float16``.
            reduction: ``sum`` over the tokens of a candidate, as in the paper, or their ``mean``.
            max_length: tokens of a candidate with the two special ones; None is what the model can read.
            revision: on the Hub.
            max_tokens: of a batch, padding included; more suits an accelerator.
            temperature: of probabilities.

        Raises:
            NotFoundError: there is no such checkpoint; the message says where it was looked for.
            CheckpointError: it is no masked language model, or a file of it is missing or damaged.
            MissingExtraError: ``torch`` is not installed.
            InputError: there is no such device, dtype or reduction, or the model cannot read so much.
        """
        try:
            from llm_blender.rankers._torch import Replicas
            from llm_blender.rankers.mlm_scoring.modeling import MaskedTokens, load_masked_lm, longest_input
        except ModuleNotFoundError as error:
            raise MissingExtraError("MLM-scoring", "torch") from error
        folder = find_checkpoint(name, revision)
        form = MaskedInput(folder)
        model = load_masked_lm(folder, form.vocabulary)
        longest = longest_input(model)
        if max_length is not None and not 3 <= max_length <= longest:
            raise InputError(f"{folder} reads from 3 to {longest} tokens, not {max_length}.")
        length = max_length or longest
        replicas = Replicas(MaskedTokens(model), device=device, dtype=dtype or "float32")
        return cls(replicas, folder, form, length, reduction=reduction, max_tokens=max_tokens, temperature=temperature)

    def _score(self, pairs: Sequence[Pair], progress: OnProgress) -> Scored:
        unique = list(dict.fromkeys(candidate for _, candidate in pairs))
        texts = dict(zip(unique, self.input_format.tokenize(unique, self.max_length), strict=True))
        scores = dict(zip(unique, self._pseudo_log_likelihoods(list(texts.values()), progress), strict=True))
        return Scored(
            np.array([scores[candidate] for _, candidate in pairs]),
            np.array([len(texts[candidate].ids) for _, candidate in pairs], np.int64),
            np.array([texts[candidate].whole for _, candidate in pairs], np.int64),
        )

    def _pseudo_log_likelihoods(self, texts: Sequence[TokenizedText], progress: OnProgress) -> list[float]:
        """One score per text; progress counts masked tokens."""
        total, done = sum(len(text.ids) for text in texts), 0
        # An empty text has no mean; it is taken for as unlikely as any token at all.
        scores = np.full(len(texts), 0.0 if self.reduction == "sum" else -math.log(self.input_format.vocabulary))
        for places in _portions(texts, self._copies):
            copies = [copy for place in places for copy in self.input_format.mask_each(texts[place])]
            logs = self._run(copies, progress, before=done, total=total).astype(np.float64)
            done += len(copies)
            ends = np.cumsum([len(texts[place].ids) for place in places])
            for place, part in zip(places, np.split(logs, ends[:-1]), strict=True):
                scores[place] = part.sum() if self.reduction == "sum" else part.mean()
        return [float(score) for score in scores]

    def _pad(self, readings: Sequence[Reading]) -> list[NDArray[np.int64]]:
        """Ids and mask ``[B, T]``, places of the masks and tokens behind them ``[B]``."""
        masked = cast(Sequence[MaskedReading], readings)
        positions = np.array([reading.position for reading in masked], np.int64)
        targets = np.array([reading.target for reading in masked], np.int64)
        return [*super()._pad(readings), positions, targets]


def _portions(texts: Sequence[TokenizedText], enough: int) -> Iterator[list[int]]:
    """The texts that are not empty, longest first, as many at a time as make `enough` copies."""
    portion: list[int] = []
    copies = 0
    for place in sorted(range(len(texts)), key=lambda place: -len(texts[place].ids)):
        if not texts[place].ids:
            break
        portion.append(place)
        copies += len(texts[place].ids)
        if copies >= enough:
            yield portion
            portion, copies = [], 0
    if portion:
        yield portion
