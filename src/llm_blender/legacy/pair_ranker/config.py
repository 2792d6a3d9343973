"""The configuration of a ranker, in the format that 0.0.2 stored with the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ..common.configs import ConfigRecord

__all__ = ["RankerConfig"]


@dataclass
class RankerConfig(ConfigRecord):
    """The ranker settings of llm-blender 0.0.2.

    `Blender` reads `load_checkpoint`, `cache_dir`, `model_name`, the two lengths, `fp16` and `device`; the others are
    training settings of 0.0.2 (now ``blend train ranker``).

    Attributes:
        ranker_type: ``pairranker``, ``summareranker``, ``simcls`` or ``dual``; others are reward models.
        model_type: architecture of the encoder.
        model_name: Hub name or folder of the encoder; only its configuration is read.
        cache_dir: folder for downloads.
        load_checkpoint: Hub name or folder of the checkpoint.
        source_maxlength: maximum number of tokens of the instruction with its input.
        candidate_maxlength: maximum number of tokens of a candidate; both candidates share the rest of the sequence.
        n_tasks: number of outputs of the head.
        num_pos: training only, like all settings from here to `drop_out`.
        fp16: half precision on ``cuda`` and ``mps``.
        device: None takes that of `BlenderConfig`.
    """

    ranker_type: str | None = None
    model_type: str | None = None
    model_name: str | None = None
    cache_dir: str | None = None
    load_checkpoint: str | None = None
    source_maxlength: int | None = None
    candidate_maxlength: int | None = None
    n_tasks: int = 1
    num_pos: int = 1
    num_neg: int = 1
    sub_sampling_mode: str = "all_pair"
    sub_sampling_ratio: float = 0.5
    loss_type: str = "instructgpt"
    reduce_type: str = "linear"
    inference_mode: str = "bubble"
    drop_out: float = 0.05
    fp16: bool = True
    device: Any = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make a configuration from the result of `to_dict`; ``source_max_length`` is a second spelling."""
        lengths = {f"{text}_maxlength": values.get(f"{text}_max_length") for text in ("source", "candidate")}
        return super().from_dict({**{name: value for name, value in lengths.items() if value}, **values})
