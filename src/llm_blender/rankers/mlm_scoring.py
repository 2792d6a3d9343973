"""MLMScoring: score each candidate by its pseudo-log-likelihood."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal, Self, Unpack, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM

from llm_blender._inputs import clean
from llm_blender._torch import load_model
from llm_blender.errors import CheckpointError, InputError, unknown_name
from llm_blender.rankers._torch import Loading, LoadOptions, Replicas, check_vocabulary
from llm_blender.rankers.batching import MAX_TOKENS, Tally
from llm_blender.rankers.checkpoints import SpecialTokens, find_checkpoint, load_tokenizer, token_id
from llm_blender.rankers.pointwise import Pair, PointwiseRanker, Reading, Scored
from llm_blender.types import OnProgress


@dataclass(frozen=True)
class MaskedReading(Reading):
    """A text with one masked token.

    Attributes:
        position: index of the mask in `ids`.
        target: id of the masked token.
    """

    position: int = 0
    target: int = 0


class MaskedInput:
    """Tokenizer and masking.

    Args:
        folder: the checkpoint, for its tokenizer.

    Raises:
        CheckpointError: the tokenizer is missing, or lacks the mask or another special token.
    """

    def __init__(self, folder: Path) -> None:
        self._tokenizer = load_tokenizer(folder)
        self._tokenizer.encode_special_tokens = True  # a mask token inside a text stays text
        self.special = SpecialTokens.of(self._tokenizer)
        self.mask = token_id(self._tokenizer, "[MASK]", "<mask>")

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def tokenize(self, texts: Sequence[str], max_length: int) -> list[Reading]:
        """Tokenise texts, without special tokens; cut their end so that they and two of these fit into `max_length`."""
        encodings = self._tokenizer.encode_batch([clean(text) for text in texts], add_special_tokens=False)
        budget = max_length - 2
        return [Reading(e.ids[:budget], min(len(e.ids), budget), len(e.ids)) for e in encodings]

    def mask_each(self, text: Reading) -> Iterator[MaskedReading]:
        """Yield one masked copy for each token of a text, in order."""
        sequence = [self.special.cls, *text.ids, self.special.sep]
        for position in range(1, len(sequence) - 1):
            masked = [*sequence[:position], self.mask, *sequence[position + 1 :]]
            yield MaskedReading(masked, text.read, text.whole, None, position, sequence[position])


Reduction = Literal["sum", "mean"]

_REDUCTIONS = ("sum", "mean")


class MLMScoring(PointwiseRanker):
    """A pointwise ranker by the likelihood of a candidate under a masked language model; it ignores the instruction.

    The score is Σ_t log P(w_t | all other tokens of the candidate), one masked copy of the text for each token
    (Salazar et al., arXiv 1910.14659; the baseline "MLM-Scoring" of arXiv 2306.02561). A sum favours short texts: an
    empty text has the highest possible score, 0. The mean over the tokens does not. A text that is longer than the
    model's limit is scored by its beginning, and `Ranking.truncated` is the share left out.

    Differences of such scores are not calibrated logits; fit a temperature to get probabilities
    (`llm_blender.ranking.fit_temperature`).

    Args:
        model: log-probabilities of masked tokens.
        folder: the checkpoint.
        input_format: tokenises and masks.
        copies: number of masked copies made at a time; bounds memory and keeps lengths similar. For the other
            arguments see `from_pretrained`.

    Raises:
        InputError: the reduction is unknown.

    Examples:
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
        reduction: Reduction = "sum",
        max_length: int | None = None,
        temperature: float = 1.0,
        **options: Unpack[LoadOptions],
    ) -> Self:
        """Load any masked language model of transformers.

        Args:
            name: a folder, or a Hub repository.
            reduction: ``sum`` over the tokens of a candidate, as in the paper, or their ``mean``.
            max_length: maximum tokens of a candidate, two special tokens included; None for the model's limit.
            temperature: of probabilities.
            **options: see `LoadOptions`.

        Raises:
            NotFoundError: there is no such checkpoint; the message lists the places searched.
            CheckpointError: it is not a masked language model, or a file is missing or damaged.
            MissingExtraError: ``torch`` is not installed.
            InputError: there is no such device, dtype or reduction, or the model cannot read so many tokens.
        """
        loading = Loading.of(**options)
        folder = find_checkpoint(name, loading.revision)
        form = MaskedInput(folder)
        model = load_masked_lm(folder, form.vocabulary)
        longest = longest_input(model)
        if max_length is not None and not 3 <= max_length <= longest:
            raise InputError(f"{folder} reads from 3 to {longest} tokens, not {max_length}.")
        return cls(
            Replicas(MaskedTokens(model), device=loading.devices, dtype=loading.dtype),
            folder,
            form,
            max_length or longest,
            reduction=reduction,
            max_tokens=loading.max_tokens,
            temperature=temperature,
        )

    def _score(self, pairs: Sequence[Pair], progress: OnProgress) -> Scored:
        unique = list(dict.fromkeys(candidate for _, candidate in pairs))
        texts = dict(zip(unique, self.input_format.tokenize(unique, self.max_length), strict=True))
        scores = dict(zip(unique, self._pseudo_log_likelihoods(list(texts.values()), progress), strict=True))
        found = np.array([scores[candidate] for _, candidate in pairs])
        return Scored.by(found, [texts[candidate] for _, candidate in pairs])

    def _pseudo_log_likelihoods(self, texts: Sequence[Reading], progress: OnProgress) -> list[float]:
        """Return one score per text; progress counts masked tokens, by the share of the tokens of all copies."""
        lengths = [len(text.ids) for text in texts]
        tally = Tally(progress, sum(lengths), sum(length * (length + 2) for length in lengths))
        # An empty text has no mean: it scores like a uniformly drawn token.
        scores = np.full(len(texts), 0.0 if self.reduction == "sum" else -math.log(self.input_format.vocabulary))
        for places in _portions(texts, self._copies):
            copies = [copy for place in places for copy in self.input_format.mask_each(texts[place])]
            logs = self._run(copies, tally).astype(np.float64)
            ends = np.cumsum([len(texts[place].ids) for place in places])
            for place, part in zip(places, np.split(logs, ends[:-1]), strict=True):
                scores[place] = part.sum() if self.reduction == "sum" else part.mean()
        return [float(score) for score in scores]

    def _pad(self, readings: Sequence[Reading]) -> list[NDArray[np.int64]]:
        """Return ids and mask ``[B, T]``, positions of the masks and masked tokens ``[B]``."""
        masked = cast(Sequence[MaskedReading], readings)
        positions = np.array([reading.position for reading in masked], np.int64)
        targets = np.array([reading.target for reading in masked], np.int64)
        return [*super()._pad(readings), positions, targets]


def _portions(texts: Sequence[Reading], enough: int) -> Iterator[list[int]]:
    """Split the texts that are not empty, longest first, into portions of at least `enough` copies."""
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


_DEFAULT_LENGTH = 512  # for relative positions without a limit


class MaskedTokens(nn.Module):
    """Log-probability of a masked token given all other tokens.

    Args:
        model: any masked language model of transformers.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._positions: Tensor | None = None
        # Vocabularies are large: only the state at the mask goes through the language-model head.
        encoder = cast(Any, model).base_model
        if encoder is not model:
            encoder.register_forward_hook(self._keep_masks)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, positions: Tensor, targets: Tensor) -> Tensor:
        """Return log-probabilities ``[B]`` of masked tokens, from ids, mask ``[B, T]`` and positions, ids ``[B]``."""
        self._positions = positions
        try:
            logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        finally:
            self._positions = None
        at_mask = logits[:, 0] if logits.shape[1] == 1 else _at(logits, positions)[:, 0]
        return at_mask.float().log_softmax(dim=-1).gather(1, targets[:, None])[:, 0]

    def _keep_masks(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        if self._positions is not None:
            output["last_hidden_state"] = _at(output["last_hidden_state"], self._positions)
        return output


def _at(states: Tensor, positions: Tensor) -> Tensor:
    """Select one position of each row of ``[B, T, H]``: ``[B, 1, H]``."""
    return states.gather(1, positions[:, None, None].expand(-1, 1, states.shape[-1]))


def load_masked_lm(folder: Path, vocabulary: int) -> nn.Module:
    """Load the masked language model of a checkpoint, in float32 on the CPU.

    Args:
        folder: the checkpoint.
        vocabulary: number of tokens of its tokenizer.

    Raises:
        CheckpointError: the weights are missing, damaged, or without a language-model head.
    """
    try:
        model, missing = load_model(AutoModelForMaskedLM, folder, dtype=torch.float32)
    except Exception as error:  # from JSON, safetensors, pickle, torch or transformers
        raise CheckpointError(f"{folder} is not a masked language model: {shorten(str(error), 300)}") from error
    if missing:
        raise CheckpointError(
            f"{folder} is an encoder without its language-model head ({', '.join(missing[:3])} is missing): name the "
            "masked language model it comes from."
        )
    check_vocabulary(folder, vocabulary, model.get_input_embeddings())
    return cast(nn.Module, model.eval())


def longest_input(model: nn.Module) -> int:
    """Return the maximum tokens of a sequence: the number of positions, special tokens included."""
    positions = [
        # Where positions count from the padding token's, as in RoBERTa, the first ones are not used.
        module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and name.endswith("position_embeddings")
    ]
    if positions:
        return min(positions)
    if cast(Any, model).config.model_type == "deberta-v2":  # distances in buckets: any length can be read
        return _DEFAULT_LENGTH
    return int(getattr(cast(Any, model).config, "max_position_embeddings", _DEFAULT_LENGTH))
