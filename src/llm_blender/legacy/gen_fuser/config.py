"""The configuration of the fuser."""

from __future__ import annotations

from dataclasses import dataclass

from ..common.configs import ConfigRecord

__all__ = ["GenFuserConfig"]


@dataclass
class GenFuserConfig(ConfigRecord):
    """The fuser settings of llm-blender 0.0.2.

    Attributes:
        model_name: Hub name or folder.
        cache_dir: folder for downloads.
        max_length: maximum number of tokens of the prompt.
        candidate_maxlength: maximum number of tokens of each candidate and of the fused text.
        torch_dtype: ``float32``, ``float16``, ``bfloat16`` or ``int8``.
        load_in_4bit: quantise the weights to 4 bits.
        load_in_8bit: quantise the weights to 8 bits.
        device: None takes that of `BlenderConfig`.
    """

    model_name: str = "llm-blender/gen_fuser_3b"
    cache_dir: str | None = None
    max_length: int = 1024
    candidate_maxlength: int = 128
    torch_dtype: str = "bfloat16"
    load_in_4bit: bool = False
    load_in_8bit: bool = False
    device: str | None = None
