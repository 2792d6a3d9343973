"""Layouts of ``config.json``: this package's, and that of llm-blender 0.0.2, which only names the encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from llm_blender.errors import CheckpointError, NotFoundError
from llm_blender.rankers.checkpoints import find_config, load_tokenizer, read_config

Backbone = str | Mapping[str, Any]
"""An encoder's configuration in transformers' format, or a folder or Hub name to read it from."""

# name: (hidden size, layers, intermediate size); a head has 64 units in all of them (arXiv 2111.09543, table 1)
_DEBERTA_V3 = {
    "microsoft/deberta-v3-xsmall": (384, 12, 1536),
    "microsoft/deberta-v3-small": (768, 6, 3072),
    "microsoft/deberta-v3-base": (768, 12, 3072),
    "microsoft/deberta-v3-large": (1024, 24, 4096),
}


def is_published(values: Mapping[str, Any]) -> bool:
    """Return whether a ``config.json`` is that of a ranker of 0.0.2, or of ``PairRM-hf``, its copy for transformers."""
    return "format_version" not in values and ("ranker_type" in values or "cand1_prefix_id" in values)


_Config = TypeVar("_Config")


def parse_config(cls: type[_Config], values: Mapping[str, Any], path: Path, version: int) -> _Config:
    """Build a configuration of this package's layout from a ``config.json``.

    Args:
        cls: the dataclass of the configuration.
        values: contents of the file.
        path: of the file, for messages.
        version: highest format version that this package reads.

    Raises:
        CheckpointError: the format version is higher, or a value has the wrong type.
    """
    if not isinstance(values["format_version"], int) or values["format_version"] > version:
        raise CheckpointError(
            f"{path} has format version {values['format_version']}, this package reads up to {version}: "
            "pip install --upgrade llm-blender"
        )
    try:
        return TypeAdapter(cls).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise CheckpointError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from None


@dataclass(frozen=True)
class PublishedConfig:
    """Configuration of a checkpoint of 0.0.2.

    Attributes:
        ranker_type: ``pairranker``, ``summareranker`` or ``dual`` (SimCLS).
        model_name: Hub name or folder of the encoder.
        source_max_length: maximum tokens of the instruction, its three special tokens included.
        candidate_max_length: maximum tokens of a candidate, its three special tokens included.
        tasks: number of outputs of the head.
        dropout: of the head, in training.
        encoder: the encoder's hyper-parameters, if ``config.json`` contains them (``PairRM-hf``).
    """

    ranker_type: str
    model_name: str
    source_max_length: int
    candidate_max_length: int
    tasks: int
    dropout: float
    encoder: Mapping[str, Any]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read ``config.json``, with either spelling of the lengths.

        Raises:
            CheckpointError: the file is not in the layout of 0.0.2.
        """
        values, path = read_config(folder), folder / "config.json"
        if not is_published(values):
            raise CheckpointError(f"{path} has no `ranker_type`: it does not belong to a ranker.")
        of_transformers = "cand1_prefix_id" in values
        defaults = {"source": 1224, "candidate": 412} if of_transformers else {}

        def length(text: str) -> int:
            found = (values.get(f"{text}_{spelling}") for spelling in ("maxlength", "max_length"))
            value = next((v for v in found if v), defaults.get(text))
            if not isinstance(value, int) or value < 4:
                raise CheckpointError(f"{path}: {text}_maxlength must be a number of tokens above 3, not {value!r}.")
            return value

        def number(name: str, default: Any, kinds: Any) -> Any:
            value = values.get(name) or default
            if not isinstance(value, kinds) or value < 0:
                raise CheckpointError(f"{path}: {name} must be a number, not {value!r}.")
            return value

        return cls(
            "pairranker" if of_transformers else str(values["ranker_type"]),
            str(values.get("model_name") or ""),
            length("source"),
            length("candidate"),
            number("n_tasks", 1, int),
            number("drop_out", 0.0, (int, float)),
            values if of_transformers else {},
        )

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of the head's outputs; 0.0.2 gave them none."""
        return ("preference",) if self.tasks == 1 else tuple(f"task_{i}" for i in range(self.tasks))

    def backbone(self, folder: Path, given: Backbone | None = None) -> dict[str, Any]:
        """Return the encoder's hyper-parameters with the tokenizer's vocabulary size; fetch no weights.

        Args:
            folder: the checkpoint.
            given: the caller's choice instead of `model_name`.

        Raises:
            CheckpointError: they cannot be found.
        """
        if isinstance(given, Mapping):
            values = dict(given)
        elif self.encoder and given is None:
            values = dict(self.encoder)
        else:
            values = self._by_name(folder, given or self.model_name)
        if not values.get("model_type"):
            raise CheckpointError(f"The encoder configuration of {folder} has no model_type.")
        return {**values, "vocab_size": load_tokenizer(folder).get_vocab_size(with_added_tokens=True)}

    def _by_name(self, folder: Path, name: str) -> dict[str, Any]:
        if name in _DEBERTA_V3:
            return _deberta_v3(*_DEBERTA_V3[name])
        try:
            local = folder / name if name else folder
            path = local / "config.json" if name and local.is_dir() else find_config(name)
            return read_config(path.parent)
        except (CheckpointError, NotFoundError) as error:
            raise CheckpointError(
                f"{folder} does not say how its encoder {name!r} is built, and it is not a known one: give its "
                f"configuration, or the folder or Hub name that holds it, as `backbone`. ({error})"
            ) from error


def _deberta_v3(hidden: int, layers: int, intermediate: int) -> dict[str, Any]:
    return {
        "model_type": "deberta-v2",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "intermediate_size": intermediate,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "layer_norm_eps": 1e-7,
        "max_position_embeddings": 512,
        "max_relative_positions": -1,
        "position_biased_input": False,
        "position_buckets": 256,
        "pos_att_type": ["p2c", "c2p"],
        "relative_attention": True,
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "type_vocab_size": 0,
        "pad_token_id": 0,
    }
