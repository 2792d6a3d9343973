"""The configuration of the fuser."""

from __future__ import annotations

from dataclasses import dataclass

from ..common.configs import ConfigRecord

__all__ = ["GenFuserConfig"]


@dataclass
class GenFuserConfig(ConfigRecord):
    """What llm-blender 0.0.2 knew about a fuser.

    Attributes:
        model_name: a Hub name or folder.
        cache_dir: where downloads go.
        max_length: tokens of the whole prompt.
        candidate_maxlength: tokens of each candidate, and of what is written.
        torch_dtype: ``float32``, ``float16``, ``bfloat16`` or ``int8``.
        load_in_4bit: quantise the weights to 4 bits.
        load_in_8bit: quantise the weights to 8 bits.
        device: None picks.
    """

    model_name: str = "llm-blender/gen_fuser_3b"
    cache_dir: str | None = None
    max_length: int = 1024
    candidate_maxlength: int = 128
    torch_dtype: str = "bfloat16"
    load_in_4bit: bool = False
    load_in_8bit: bool = False
    device: str | None = None
