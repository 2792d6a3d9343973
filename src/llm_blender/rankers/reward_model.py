"""RewardModel: score each answer with a sequence classifier trained on preferences."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any, Self, Unpack

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from llm_blender._inputs import clean, split_special
from llm_blender._torch import load_model, parse_dtype
from llm_blender.errors import CheckpointError, InputError
from llm_blender.rankers._torch import Loading, LoadOptions, Replicas, check_vocabulary, first_states
from llm_blender.rankers.batching import MAX_TOKENS, Tally
from llm_blender.rankers.checkpoints import find_checkpoint, is_classifier, load_tokenizer, position_limit, read_config
from llm_blender.rankers.encoders import DebertaEncoder, make_encoder
from llm_blender.rankers.pointwise import Pair, PointwiseRanker, Reading, Scored, tokens_of
from llm_blender.types import Instruction, OnProgress, instruction_text, text_messages

_DEFAULT_LENGTH = 4_096  # for models without a limit, or with one that exceeds memory


@dataclass(frozen=True)
class ClassifierConfig:
    """Configuration of a sequence classifier that scores answers.

    Attributes:
        label: index of the output that is the score.
        max_length: maximum tokens of a sequence.
        pad_id: id of the padding token; None if the model has none.
        token_types: whether token types distinguish the first text from the second.
        chat: whether its tokenizer has a chat template.
    """

    label: int
    max_length: int
    pad_id: int | None
    token_types: bool
    chat: bool

    @classmethod
    def load(cls, folder: Path, label: int | str | None = None, max_length: int | None = None) -> Self:
        """Read the files of a checkpoint.

        Args:
            folder: the checkpoint.
            label: output that is the score, by index or name; None for a model with one output.
            max_length: maximum tokens to read; None for the model's limit.

        Raises:
            CheckpointError: it is not a sequence classifier.
            InputError: it has several labels and none is given, lacks the given one, or cannot read so many tokens.
        """
        values = read_config(folder)
        if not is_classifier(values):
            found = ", ".join(map(str, values.get("architectures") or ())) or values.get("ranker_type") or "unnamed"
            raise CheckpointError(
                f"{folder} is not a reward model: it must be a sequence classifier of transformers (architectures that "
                f"end in ForSequenceClassification), and this one is {found}."
            )
        tokenizer = _read_json(folder / "tokenizer_config.json")
        limit = _limit(values, tokenizer)
        if max_length is not None and not 8 <= max_length <= (limit or max_length):
            raise InputError(f"{folder} reads from 8 to {limit or 'any number of'} tokens, not {max_length}.")
        pad_id = values.get("pad_token_id")
        return cls(
            label=_label(folder, values, label),
            max_length=max_length or min(limit or _DEFAULT_LENGTH, _DEFAULT_LENGTH),
            pad_id=pad_id if isinstance(pad_id, int) and pad_id >= 0 else None,
            token_types=int(values.get("type_vocab_size") or 0) > 1
            and "token_type_ids" in (tokenizer.get("model_input_names") or ["token_type_ids"]),
            chat=bool(tokenizer.get("chat_template")) or any(folder.glob("chat_template.*")),
        )


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}.") from None
    return values if isinstance(values, dict) else {}


def _limit(values: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> int | None:
    """Return the maximum tokens the model can read; None if positions are relative and no limit is set."""
    positions = position_limit(values)
    limits = [] if positions is None else [positions]
    given = tokenizer.get("model_max_length")
    if isinstance(given, int | float) and 0 < given < 10**9:  # a larger number is transformers' mark for no limit
        limits.append(int(given))
    return min(limits) if limits else None


def _label(folder: Path, values: Mapping[str, Any], label: int | str | None) -> int:
    names = values.get("id2label")
    if isinstance(names, Mapping) and names:
        known = [str(name) for _, name in sorted(names.items(), key=lambda item: int(item[0]))]
    else:
        known = [f"LABEL_{i}" for i in range(int(values.get("num_labels") or 2))]  # 2: transformers' default
    if label is None and len(known) == 1:
        return 0
    if isinstance(label, int) and 0 <= label < len(known):
        return label
    if label in known:
        return known.index(str(label))
    labels = f"{folder} has {len(known)} labels ({', '.join(known)})"
    raise InputError(
        f"{labels}: give the one that is the score as `label`." if label is None else f"{labels}, not {label!r}."
    )


class PairFormat:
    """Input format of instruction and candidate as a pair of texts, with the tokenizer's special tokens.

    A pair that is too long first loses the beginning of the instruction, so that a conversation keeps its last turn,
    down to a quarter of the budget; then the end of the candidate. Special tokens inside a text are plain text.

    Args:
        tokenizer: of the checkpoint.
        max_length: maximum tokens of a sequence.
        token_types: whether the model reads token types.
        reference: read texts as llm-blender 0.0.2 did, which decoded their tokens and tokenised them again: special
            tokens inside a text and characters outside the vocabulary are lost.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int, *, token_types: bool, reference: bool = False) -> None:
        tokenizer.encode_special_tokens = not reference
        self._tokenizer, self._types, self._reference = tokenizer, token_types, reference
        self._frame = _Frame.of(tokenizer)
        self._budget = max_length - len(self._frame)

    def read(self, pairs: Sequence[Pair]) -> list[Reading]:
        """Return one sequence per pair; tokenise each text once."""
        texts = [(clean(instruction_text(instruction)), clean(text)) for instruction, text in pairs]
        unique = list(dict.fromkeys(text for pair in texts for text in pair))
        encodings = self._tokenizer.encode_batch(unique, add_special_tokens=False)
        if self._reference:
            again = [self._tokenizer.decode(encoding.ids, skip_special_tokens=True) for encoding in encodings]
            encodings = self._tokenizer.encode_batch(again, add_special_tokens=False)
        ids = {text: encoding.ids for text, encoding in zip(unique, encodings, strict=True)}
        return [self._join(ids[source], ids[candidate]) for source, candidate in texts]

    def _join(self, source: list[int], candidate: list[int]) -> Reading:
        whole = len(source) + len(candidate)
        if whole > self._budget:
            candidate = candidate[: self._budget - min(len(source), self._budget // 4)]
            source = source[len(source) - min(len(source), self._budget - len(candidate)) :]
        ids, types = self._frame.around(source, candidate)
        return Reading(ids, len(source) + len(candidate), whole, types if self._types else None)


@dataclass(frozen=True)
class _Frame:
    """Special tokens of a pair, and the type of each of its tokens.

    Attributes:
        special: (id, type) of the special tokens before, between and after the two texts.
        types: token types of the first and of the second text.
    """

    special: tuple[list[tuple[int, int]], list[tuple[int, int]], list[tuple[int, int]]]
    types: tuple[int, int]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Self:
        """Read the special tokens from the tokenizer's template."""
        encoding = tokenizer.encode("a", "a")
        special: tuple[list[tuple[int, int]], list[tuple[int, int]], list[tuple[int, int]]] = ([], [], [])
        types = [0, 0]
        place = 0
        for token, kind, text in zip(encoding.ids, encoding.type_ids, encoding.sequence_ids, strict=True):
            if text is None:
                special[place].append((token, kind))
            else:
                place, types[text] = text + 1, kind
        return cls(special, (types[0], types[1]))

    def __len__(self) -> int:
        return sum(map(len, self.special))

    def around(self, first: list[int], second: list[int]) -> tuple[list[int], list[int]]:
        """Return ids and types of the whole sequence."""
        before, between, after = self.special
        one, two = ([(token, kind) for token in text] for text, kind in zip((first, second), self.types, strict=True))
        ids, types = zip(*before, *one, *between, *two, *after, strict=True)
        return list(ids), list(types)


class ChatFormat:
    """Input format of the conversation with the candidate as its last turn, in the model's chat template.

    Special tokens inside a message are not read as such. A sequence that is too long loses its beginning, except for
    the token that begins every sequence.

    Args:
        tokenizer: of the checkpoint.
        template: transformers' tokenizer, for its template.
        max_length: maximum tokens of a sequence.
        folder: the checkpoint, for error messages.
    """

    def __init__(self, tokenizer: Tokenizer, template: Any, max_length: int, folder: Path) -> None:
        self._tokenizer, self._template, self._max_length, self._folder = tokenizer, template, max_length, folder
        self._special = sorted(template.all_special_tokens, key=len, reverse=True)
        self._special_ids = {tokenizer.token_to_id(token) for token in self._special}

    @classmethod
    def load(cls, folder: Path, tokenizer: Tokenizer, max_length: int) -> Self:
        """Load the chat template of a checkpoint.

        Raises:
            CheckpointError: it is unreadable.
        """
        from transformers import PreTrainedTokenizerFast

        try:
            template = PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
        except Exception as error:  # any error that a damaged file causes
            raise CheckpointError(f"The tokenizer of {folder} cannot be read: {error}") from error
        return cls(tokenizer, template, max_length, folder)

    def read(self, pairs: Sequence[Pair]) -> list[Reading]:
        """Return one sequence per pair."""
        texts = [self._render(instruction, candidate) for instruction, candidate in pairs]
        encodings = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        return [self._cut(encoding.ids) for encoding in encodings]

    def _render(self, instruction: Instruction, candidate: str) -> str:
        turns = (
            [{"role": "user", "content": instruction}]
            if isinstance(instruction, str)
            else [dict(message) for message in text_messages(instruction)]
        )
        turns.append({"role": "assistant", "content": candidate})
        messages = [{**turn, "content": split_special(clean(str(turn["content"])), self._special)} for turn in turns]
        try:
            return str(self._template.apply_chat_template(messages, tokenize=False))
        except Exception as error:  # a template raises its own errors, e.g. for a system message
            raise InputError(f"The chat template of {self._folder} refuses this conversation: {error}") from error

    def _cut(self, ids: list[int]) -> Reading:
        lost = len(ids) - self._max_length
        if lost <= 0:
            return Reading(ids, len(ids), len(ids))
        first = ids[:1] if ids[0] in self._special_ids else []
        kept = [*first, *ids[lost + len(first) :]]
        return Reading(kept, len(kept), len(ids))


def make_format(
    folder: Path, config: ClassifierConfig, tokenizer: Tokenizer, *, reference: bool = False
) -> PairFormat | ChatFormat:
    """Make the input format of a checkpoint: its chat template, if it has one, else a pair of texts.

    Raises:
        CheckpointError: the chat template is unreadable.
    """
    if config.chat:
        return ChatFormat.load(folder, tokenizer, config.max_length)
    return PairFormat(tokenizer, config.max_length, token_types=config.token_types, reference=reference)


class RewardModel(PointwiseRanker):
    """A reward model: any sequence classifier of transformers, in torch.

    A model whose tokenizer has a chat template (most recent ones) reads the conversation with the candidate as its
    last turn; one without (``OpenAssistant/reward-model-deberta-v3-large-v2``) reads instruction and candidate as a
    pair of texts. A difference of scores is a logit, as in the Bradley-Terry model of their training. Load one with
    `from_pretrained`.

    Examples:
        >>> name = "OpenAssistant/reward-model-deberta-v3-large-v2"
        >>> ranker = RewardModel.from_pretrained(name)  # doctest: +SKIP
        >>> ranker.rank("Why is the sky blue?", ["Blue light scatters most.", "Because."]).best  # doctest: +SKIP
        0
    """

    name = "reward"

    def __init__(
        self,
        model: Replicas,
        folder: Path,
        config: ClassifierConfig,
        input_format: PairFormat | ChatFormat,
        *,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        # Without a padding token, a batch is one sequence.
        pad_id, max_tokens = (0, 1) if config.pad_id is None else (config.pad_id, max_tokens)
        super().__init__(model, folder, pad_id=pad_id, max_tokens=max_tokens)
        self.config, self.input_format = config, input_format

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        label: int | str | None = None,
        max_length: int | None = None,
        reference: bool = False,
        **options: Unpack[LoadOptions],
    ) -> Self:
        """Load a sequence classifier.

        Args:
            name: a folder, or a Hub repository.
            label: output that is the score, by index or name, if there are several.
            max_length: maximum tokens of a sequence; None for the model's limit, at most 4,096.
            reference: read texts exactly as llm-blender 0.0.2 did, see `PairFormat`; without a chat template.
            **options: see `LoadOptions`; the dtype ``auto`` is the precision of the file.

        Raises:
            NotFoundError: there is no such checkpoint; the message lists the places searched.
            CheckpointError: it is not a sequence classifier, or a file is missing or damaged.
            MissingExtraError: ``torch`` is not installed.
            InputError: there is no such device, dtype or label, or several labels and none is given.
        """
        loading = Loading.of(**options)
        folder = find_checkpoint(name, loading.revision)
        config = ClassifierConfig.load(folder, label, max_length)
        tokenizer = load_tokenizer(folder)
        dtype = loading.dtype if loading.dtype == "auto" else parse_dtype(loading.dtype)
        model = load_classifier(folder, config.label, dtype)
        check_vocabulary(folder, tokenizer.get_vocab_size(), model)
        form = make_format(folder, config, tokenizer, reference=reference)
        replicas = Replicas(model, device=loading.devices, dtype=None)
        return cls(replicas, folder, config, form, max_tokens=loading.max_tokens)

    def _score(self, pairs: Sequence[Pair], progress: OnProgress) -> Scored:
        readings = self.input_format.read(pairs)
        return Scored.by(self._run(readings, Tally(progress, len(readings), tokens_of(readings))), readings)


class Classifier(nn.Module):
    """One output of a sequence classifier.

    Args:
        model: any sequence classifier of transformers.
        label: index of the output.
    """

    def __init__(self, model: nn.Module, label: int) -> None:
        super().__init__()
        self.model, self.label = model, label

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Return scores ``[B]`` of ids, mask and (if the model has them) types ``[B, T]``."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask, **types).logits
        return logits[:, self.label]


class _DebertaClassifier(nn.Module):
    """A DeBERTa classifier with this package's faster encoder."""

    def __init__(self, encoder: DebertaEncoder, model: Any, label: int) -> None:
        super().__init__()
        self.encoder, self.pooler, self.classifier, self.label = encoder, model.pooler, model.classifier, label

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        first = first_states(self.encoder, input_ids, attention_mask)
        logits: Tensor = self.classifier(self.pooler(first.unsqueeze(1)))  # it takes the first of states [B, T, H]
        return logits[:, self.label]


def load_classifier(folder: Path, label: int, dtype: torch.dtype | str) -> nn.Module:
    """Load the classifier of a checkpoint, on the CPU.

    Args:
        folder: the checkpoint.
        label: index of the output that is the score.
        dtype: of the weights; ``auto`` for the precision of the file.

    Raises:
        CheckpointError: the weights are missing, damaged, or do not match ``config.json``.
    """
    try:
        model, missing = load_model(AutoModelForSequenceClassification, folder, dtype=dtype)
    except Exception as error:  # from JSON, safetensors, pickle, torch or transformers
        raise CheckpointError(
            f"The weights in {folder} cannot be read (a .bin may hold only tensors), or do not match its config.json: "
            f"{shorten(str(error), 300)}"
        ) from error
    if missing:
        raise CheckpointError(f"The weights in {folder} are incomplete: {', '.join(missing[:3])} is missing.")
    return _with_own_encoder(model.eval(), label)


def _with_own_encoder(model: Any, label: int) -> nn.Module:
    if model.config.model_type == "deberta-v2":
        encoder = make_encoder(model.config.to_dict())
        if isinstance(encoder, DebertaEncoder):
            encoder.load_state_dict(model.deberta.state_dict())
            return _DebertaClassifier(encoder.to(model.dtype), model, label).eval()
    return Classifier(model, label)
