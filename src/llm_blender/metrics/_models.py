"""The learned metrics on torch: the scorers of BERTScore, BARTScore and BLEURT, and the loading and batching below."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from textwrap import shorten
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from llm_blender._hub import find_folder
from llm_blender._torch import parse_devices, parse_dtype, quiet_loading
from llm_blender.errors import CheckpointError, InputError, NotFoundError
from llm_blender.types import OnProgress

Floats = NDArray[np.float64]

_UNLIMITED = 1_000_000  # tokens; a tokenizer without a limit reports 10^30
_DEFAULT_LENGTH = 512  # if neither model nor tokenizer has a limit


@dataclass(frozen=True)
class Texts:
    """Texts as token ids.

    Attributes:
        ids: of each text.
        cut: ``[n]``, whether the text was longer than the model reads.
    """

    ids: list[list[int]]
    cut: NDArray[np.bool_]


@dataclass(frozen=True)
class SpecialIds:
    """Ids of special tokens by the tokenizer's own class; None for a token that it lacks."""

    pad: int | None
    unk: int | None
    cls: int | None
    sep: int | None


@dataclass(frozen=True)
class Loaded:
    """A model on its device, with its tokenizer.

    Attributes:
        folder: the checkpoint.
        model: in evaluation mode.
        tokenizer: of transformers.
        special: ids of special tokens.
        rows: size of the model's vocabulary.
        device: of the model.
        max_length: most tokens of a sequence, special ones included.
    """

    folder: Path
    model: Any
    tokenizer: Any
    special: SpecialIds
    rows: int
    device: torch.device
    max_length: int

    @property
    def pad_id(self) -> int:
        """Id of the padding token; padding is masked."""
        return self.special.pad or 0

    def tokenize(self, texts: Sequence[str]) -> Texts:
        """Tokenise texts with the special tokens of the model, cut at its length."""
        ids = self.encode(texts)
        cut = np.array([len(one) > self.max_length for one in ids], bool)
        if cut.any():
            ids = self.encode(texts, truncation=True, max_length=self.max_length)
        return Texts([one or [self.pad_id] for one in ids], cut)

    def encode(self, texts: Sequence[str], **options: Any) -> list[list[int]]:
        """Return the token ids of texts; ids outside the model's vocabulary become the unknown token."""
        ids: list[list[int]] = self.tokenizer(list(texts), verbose=False, **options)["input_ids"]
        if len(self.tokenizer) <= self.rows:
            return ids
        other = self.special.unk or 0  # for a special token spelled out in a text
        return [[token if token < self.rows else other for token in one] for one in ids]


def load(
    kind: Any, name: str, *, revision: str | None, device: str | None, dtype: str, max_length: int | None = None
) -> Loaded:
    """Load a model and its tokenizer.

    Args:
        kind: one of transformers' ``AutoModel…`` classes.
        name: a folder, or a Hub repository.
        revision: on the Hub.
        device: None takes CUDA if there is one, else the CPU.
        dtype: ``float32``, ``bfloat16``, ``float16``.
        max_length: most tokens of a sequence; None takes the model's limit.

    Raises:
        NotFoundError: there is no such checkpoint; the message lists where it was looked for.
        CheckpointError: it is not a model of this kind, or a file of it is missing or damaged.
        InputError: there is no such device or dtype, or `max_length` is beyond the model's limit.
    """
    place, precision = parse_devices(device)[0], parse_dtype(dtype)
    folder = find_folder("model", name, revision)
    try:
        with quiet_loading():
            model, info = kind.from_pretrained(
                str(folder), dtype=precision, output_loading_info=True, local_files_only=True, trust_remote_code=False
            )
            tokenizer, special = _load_tokenizer(folder)
    except Exception as error:  # of every layer below: JSON, safetensors, pickle, torch, tokenizers, transformers
        raise CheckpointError(f"{folder} is not read by {kind.__name__}: {shorten(str(error), 300)}") from error
    # Encoders are often stored without a pooler; only a model with a head uses it.
    headless = kind.__name__ == "AutoModel"
    if missing := sorted(key for key in info["missing_keys"] if not (headless and "pooler" in key)):
        raise CheckpointError(f"The weights in {folder} are not whole: {', '.join(missing[:3])} is missing.")
    rows = int(model.get_input_embeddings().num_embeddings)
    # bart-large-cnn lacks the row of <mask>, which no text needs.
    if set(range(rows, len(tokenizer))) - set(tokenizer.get_added_vocab().values()):
        raise CheckpointError(
            f"The tokenizer in {folder} has {len(tokenizer):,} tokens and the model knows {rows:,}: it is not this "
            "model's."
        )
    longest = _longest_input(model, tokenizer)
    if max_length is not None and not 4 <= max_length <= longest:
        raise InputError(f"{folder} reads from 4 to {longest} tokens, not {max_length}.")
    try:
        model = model.eval().to(place)
    except (RuntimeError, AssertionError) as error:  # torch raises either for a missing device
        raise InputError(f"The device {place} cannot be used: {str(error).splitlines()[0]}") from error
    return Loaded(folder, model, tokenizer, special, rows, place, max_length or longest)


def _load_tokenizer(folder: Path) -> tuple[Any, SpecialIds]:
    def read(kind: Any) -> Any:
        return kind.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)

    # Many checkpoints leave the names of their special tokens to the tokenizer's class.
    named = read(AutoTokenizer)
    special = SpecialIds(named.pad_token_id, named.unk_token_id, named.cls_token_id, named.sep_token_id)
    # From tokenizer.json if there is one: the classes of transformers 5 lose the normaliser of a sentencepiece model.
    return read(PreTrainedTokenizerFast) if (folder / "tokenizer.json").is_file() else named, special


def _longest_input(model: nn.Module, tokenizer: Any) -> int:
    limits = [int(tokenizer.model_max_length), int(getattr(model.config, "max_position_embeddings", 0) or 0)]
    limits += [
        # RoBERTa counts positions from the padding token's on, so the first ones are unused.
        module.num_embeddings - module.padding_idx - 1
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and name.endswith("position_embeddings") and module.padding_idx is not None
    ]
    return min((limit for limit in limits if 0 < limit < _UNLIMITED), default=_DEFAULT_LENGTH)


def batches(lengths: Sequence[int], max_tokens: int) -> Iterator[NDArray[np.intp]]:
    """Yield the indices of the sequences of each batch, longest first, with at most `max_tokens` padded tokens each."""
    order = np.argsort(-np.asarray(lengths, np.int64), kind="stable")
    start = 0
    while start < len(order):
        size = max(1, max_tokens // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size


class _Scorer:
    """A model that scores pairs of texts.

    Args:
        name: a folder, or a Hub repository.
        max_length: most tokens of a sequence; None takes the model's limit.
        revision: on the Hub.
        device: None takes CUDA if there is one, else the CPU.
        dtype: of the model.

    Raises:
        LLMBlenderError: as for `load`.
    """

    kind: ClassVar[Any]
    """The ``AutoModel…`` class of transformers that loads it."""

    def __init__(
        self,
        name: str,
        *,
        max_length: int | None = None,
        revision: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
    ) -> None:
        self._loaded = load(self.kind, name, revision=revision, device=device, dtype=dtype, max_length=max_length)

    def _pad(self, rows: Sequence[Sequence[int]], filler: int | None = None) -> tuple[Tensor, Tensor]:
        """Return ids and mask ``[B, T]`` on the model's device, padded on the right."""
        filler = self._loaded.pad_id if filler is None else filler
        ids = torch.full((len(rows), max(map(len, rows))), filler, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row, dtype=torch.long)
            mask[number, : len(row)] = 1
        return ids.to(self._loaded.device), mask.to(self._loaded.device)

    @staticmethod
    def _by_batches(
        lengths: Sequence[int], max_tokens: int, progress: OnProgress, run: Callable[[NDArray[np.intp]], Tensor]
    ) -> Floats:
        """Score sequences ``[m]`` with a function that scores a batch of them, given by indices."""
        scores, done = np.empty(len(lengths)), 0
        for rows in batches(lengths, max_tokens):
            scores[rows] = run(rows).float().cpu().numpy()
            done += len(rows)
            progress(done, len(lengths))
        return scores


# The layer whose scores agree best with human scores on WMT16, as listed in bert-score 0.3.13.
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


class BERTScorer(_Scorer):
    """The scorer of BERTScore: an encoder, and the layer whose states are compared.

    Args:
        name: as for every scorer.
        layer: counted from 1, 0 for the embeddings; None takes the known best one for that name, else the last.
        **options: as for every scorer.

    Attributes:
        layer: the layer in use.

    Raises:
        InputError: there is no such layer.
        LLMBlenderError: as for `load`.
    """

    kind = AutoModel

    def __init__(self, name: str, layer: int | None = None, **options: Any) -> None:
        super().__init__(name, **options)
        loaded = self._loaded
        config = loaded.model.config
        self._encoder = loaded.model.get_encoder() if config.is_encoder_decoder else loaded.model
        total = int(config.num_hidden_layers)
        self.layer = _LAYERS.get(Path(name).name, total) if layer is None else layer
        if not 0 <= self.layer <= total:
            raise InputError(f"{name} has the layers 0 (embeddings) to {total}, and no layer {self.layer}.")
        self._all_states = not _keep_layers(self._encoder, total, self.layer)
        self._space = " " if config.model_type in _SPACED else ""

    def read_baseline(self, path: str) -> Floats:
        """Read precision, recall and F1 of unrelated texts at this layer, ``[3]``.

        Raises:
            NotFoundError: there is no such file.
            InputError: it has no line for this layer.
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
        """Return precision, recall and F1 ``[m, 3]`` of m pairs, and ``[m]`` whether a text of the pair was cut.

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
        """Compute the inverse document frequency of each token: log((N + 1) / (references that have it + 1))."""
        counts = Counter(chain.from_iterable(set(ids) for ids in references))
        return {token: math.log((len(references) + 1) / (count + 1)) for token, count in counts.items()}

    @torch.inference_mode()
    def _states(self, sequences: Sequence[Sequence[int]], max_tokens: int) -> list[Tensor]:
        """Return the states ``[T, H]`` of each sequence, normalised to length 1."""
        states: list[Tensor] = [torch.empty(0)] * len(sequences)
        for rows in batches([len(ids) for ids in sequences], max_tokens):
            ids, mask = self._pad([sequences[row] for row in rows])
            output = self._encoder(input_ids=ids, attention_mask=mask, output_hidden_states=self._all_states)
            layer = output.hidden_states[self.layer] if self._all_states else output.last_hidden_state
            normal = nn.functional.normalize(layer.float(), dim=-1)
            for row, state in zip(rows, normal, strict=True):
                states[row] = state[: len(sequences[row])].clone()
        return states


def _match(a: Tensor, b: Tensor, weight_a: Tensor, weight_b: Tensor) -> tuple[float, float, float]:
    """Compute precision, recall and F1 of the tokens ``[T, H]`` of a prediction and a reference."""
    similarity = a @ b.T
    precision = _mean(similarity.amax(dim=1), weight_a)
    recall = _mean(similarity.amax(dim=0), weight_b)
    return precision, recall, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _mean(similarities: Tensor, weights: Tensor) -> float:
    """Compute the weighted mean; 0 if all weights are 0 (with idf: every token is in every reference)."""
    total = float(weights.sum())
    return float((similarities * weights).sum()) / total if total else 0.0


def _keep_layers(encoder: nn.Module, total: int, layer: int) -> bool:
    """Drop the layers above `layer`; return False if no list of `total` layers is found in the model."""
    for parent in encoder.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == total:
                setattr(parent, name, child[:layer])
                return True
    return False


_NO_LABEL = -100  # transformers' padding of the text to write


class BARTScorer(_Scorer):
    """The scorer of BARTScore: a sequence-to-sequence model."""

    kind = AutoModelForSeq2SeqLM

    @torch.inference_mode()
    def score(
        self, sources: Sequence[str], targets: Sequence[str], *, max_tokens: int, progress: OnProgress
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """Return the mean of log P(token | the tokens before it, the source) over the target's tokens, ``[m]``.

        The second array ``[m]`` marks pairs with a text that was cut.
        """
        read, written = self._loaded.tokenize(sources), self._loaded.tokenize(targets)

        def run(rows: NDArray[np.intp]) -> Tensor:
            ids, mask = self._pad([read.ids[row] for row in rows])
            labels, counted = self._pad([written.ids[row] for row in rows], _NO_LABEL)
            logits = self._loaded.model(input_ids=ids, attention_mask=mask, labels=labels).logits.float()
            # Not a softmax of all, which is another tensor of the size of the vocabulary.
            logs = logits.gather(2, labels.clamp(min=0)[:, :, None])[:, :, 0] - logits.logsumexp(dim=2)
            mean: Tensor = (logs * counted).sum(dim=1) / counted.sum(dim=1)
            return mean

        lengths = [max(len(a), len(b)) for a, b in zip(read.ids, written.ids, strict=True)]
        return self._by_batches(lengths, max_tokens, progress, run), read.cut | written.cut


class BLEURTScorer(_Scorer):
    """The scorer of BLEURT: a sequence classifier with one output that reads reference and prediction together.

    Args:
        name: as for every scorer.
        **options: as for every scorer.

    Attributes:
        max_length: most tokens of both texts together, special ones included.

    Raises:
        CheckpointError: the classifier has several outputs.
        LLMBlenderError: as for `load`.
    """

    kind = AutoModelForSequenceClassification

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        config = self._loaded.model.config
        if config.num_labels != 1:
            raise CheckpointError(f"{name} has {config.num_labels} outputs: a BLEURT model has one.")
        self.max_length = self._loaded.max_length
        self._typed = (getattr(config, "type_vocab_size", 0) or 0) > 1
        self._before, self._between, self._after = self._frame()

    def _frame(self) -> tuple[list[int], list[int], list[int]]:
        """Find the special tokens before, between and after two texts."""
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
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """Return the model's output for each pair ``[m]``, and ``[m]`` whether a text of the pair was cut."""
        first, second = (self._loaded.encode(texts, add_special_tokens=False) for texts in (references, predictions))
        budget = self.max_length - len(self._before) - len(self._between) - len(self._after)
        kept = [_shares(len(a), len(b), budget) for a, b in zip(first, second, strict=True)]
        opening = [[*self._before, *a[:n], *self._between] for a, (n, _) in zip(first, kept, strict=True)]
        closing = [[*b[:n], *self._after] for b, (_, n) in zip(second, kept, strict=True)]
        cut = np.array([n + m < len(a) + len(b) for a, b, (n, m) in zip(first, second, kept, strict=True)], bool)

        def run(rows: NDArray[np.intp]) -> Tensor:
            ids, mask = self._pad([opening[row] + closing[row] for row in rows])
            inputs = {"input_ids": ids, "attention_mask": mask}
            if self._typed:
                types = [[0] * len(opening[row]) + [1] * len(closing[row]) for row in rows]
                inputs["token_type_ids"] = self._pad(types, 0)[0]
            output: Tensor = self._loaded.model(**inputs).logits[:, 0]
            return output

        lengths = [len(a) + len(b) for a, b in zip(opening, closing, strict=True)]
        return self._by_batches(lengths, max_tokens, progress, run), cut


def _shares(reference: int, prediction: int, budget: int) -> tuple[int, int]:
    """Return how many tokens of both are read: the longer text is cut first, of equally long ones the prediction."""
    if reference + prediction <= budget:
        return reference, prediction
    half = budget // 2
    if reference <= half:
        return reference, budget - reference
    if prediction <= half:
        return budget - prediction, prediction
    return budget - half, half
