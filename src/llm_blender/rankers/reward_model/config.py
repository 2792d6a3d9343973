"""What the ``config.json`` and ``tokenizer_config.json`` of a sequence classifier say about reading and scoring."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from llm_blender.errors import CheckpointError, InputError
from llm_blender.rankers.checkpoints import read_config

__all__ = ["ClassifierConfig", "is_classifier"]

_DEFAULT_LENGTH = 4_096  # where a model knows no limit, or none that memory knows
# Their positions count from the padding token's id + 1.
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer", "data2vec-text")


def is_classifier(values: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` is that of a sequence classifier of transformers."""
    return any(str(name).endswith("ForSequenceClassification") for name in values.get("architectures") or ())


@dataclass(frozen=True)
class ClassifierConfig:
    """How a sequence classifier is read.

    Attributes:
        label: index of the output that is the score.
        max_length: tokens it reads at most.
        pad_id: of the padding token; None where the model has none.
        token_types: whether it tells the first text from the second by token types.
        chat: whether its tokenizer has a chat template.
    """

    label: int
    max_length: int
    pad_id: int | None
    token_types: bool
    chat: bool

    @classmethod
    def load(cls, folder: Path, label: int | str | None = None, max_length: int | None = None) -> Self:
        """From the files of a checkpoint.

        Args:
            folder: the checkpoint.
            label: which output is the score, by index or by name; None is the only one.
            max_length: tokens to read at most; None is what the model can.

        Raises:
            CheckpointError: it is no sequence classifier.
            InputError: it has several labels and none is named, or it does not have this one, or cannot read so much.
        """
        values = read_config(folder)
        if not is_classifier(values):
            found = ", ".join(map(str, values.get("architectures") or ())) or values.get("ranker_type") or "unnamed"
            raise CheckpointError(
                f"{folder} is not a reward model: a sequence classifier of transformers is wanted (architectures that "
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
    """Tokens that the model can read; None where positions are relative and nobody set a limit."""
    limits = []
    positions = values.get("max_position_embeddings") or values.get("n_positions")
    # DeBERTa's distances end in buckets: any length can be read.
    if isinstance(positions, int) and positions > 0 and values.get("position_biased_input") is not False:
        offset = int(values.get("pad_token_id") or 0) + 1 if values.get("model_type") in _OFFSET_POSITIONS else 0
        limits.append(positions - offset)
    told = tokenizer.get("model_max_length")
    if isinstance(told, int | float) and 0 < told < 10**9:  # above: transformers' way to say that there is none
        limits.append(int(told))
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
    raise InputError(f"{labels}: say which is the score, as `label`." if label is None else f"{labels}, not {label!r}.")
