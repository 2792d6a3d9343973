"""The configuration of a ranker, as 0.0.2 wrote it beside the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ..common.configs import ConfigRecord

__all__ = ["RankerConfig"]


@dataclass
class RankerConfig(ConfigRecord):
    """What llm-blender 0.0.2 knew about a ranker.

    `Blender` reads `load_checkpoint`, `cache_dir`, `model_name`, the two lengths, `fp16` and `device`; the others
    belonged to the training of that time (now ``blend train ranker``).

    Attributes:
        ranker_type: ``pairranker``, ``summareranker``, ``simcls`` or ``dual``; others are reward models.
        model_type: kind of the encoder.
        model_name: the encoder, as a Hub name or folder; only its configuration is read.
        cache_dir: where downloads go.
        load_checkpoint: the checkpoint, as a Hub name or folder.
        source_maxlength: tokens of the instruction with its input.
        candidate_maxlength: tokens of a candidate; both candidates share what the instruction leaves.
        n_tasks: outputs of the head.
        num_pos: for training, as are those that follow.
        num_neg: …
        sub_sampling_mode: …
        sub_sampling_ratio: …
        loss_type: …
        reduce_type: …
        inference_mode: …
        drop_out: …
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
        """The inverse of `to_dict`; the spelling ``source_max_length`` of llm-blender/pair-ranker is read as well."""
        lengths = {f"{text}_maxlength": values.get(f"{text}_max_length") for text in ("source", "candidate")}
        return super().from_dict({**{name: value for name, value in lengths.items() if value}, **values})
