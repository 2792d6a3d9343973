"""Who writes the final answer: fusers of one interface, and the guard that compares what they write."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llm_blender._names import unknown_name
from llm_blender.errors import InputError
from llm_blender.fusers.guard import GuardedFuser
from llm_blender.fusers.rule import DEFAULT_RULE, DEFAULT_TOP_K, Decision, FusionRule, decide
from llm_blender.types import LLM

if TYPE_CHECKING:
    from llm_blender._calls import CallStore
    from llm_blender.fusers.chat_fuser import ChatFuser
    from llm_blender.fusers.gen_fuser import GenFuser

__all__ = [
    "CHAT",
    "DEFAULT_RULE",
    "DEFAULT_TOP_K",
    "Decision",
    "FusionRule",
    "GuardedFuser",
    "decide",
    "load_fuser",
]

CHAT = "chat"
"""Name of the fuser that is the first of the LLMs; with a colon and a name, another one of them."""

_CONCURRENCY = 32  # an LLM's own `concurrency` is the limit


def load_fuser(
    name: str | os.PathLike[str] = CHAT,
    *,
    llms: Mapping[str, LLM] | None = None,
    store: CallStore | None = None,
    device: Any = None,
) -> ChatFuser | GenFuser:
    """The fuser of that name; the one door from names to fusers.

    Args:
        name: ``chat``, the first of the LLMs; ``chat:NAME``, one of them; or a folder or Hub repository: a
            sequence-to-sequence model such as ``llm-blender/gen_fuser_3b``, a causal LLM, or a LoRA adapter of one.
            A folder of such a name is ``./chat``.
        llms: by their names.
        store: where the answers of an LLM are kept; None keeps none.
        device: of a model that runs here: ``cpu``, ``cuda``, ``mps``, …, or a list of devices.

    Raises:
        NotFoundError: there is no such checkpoint; the message says where it was looked for.
        CheckpointError: it is no fuser.
        MissingExtraError: ``torch``, or for an adapter ``lora``, is not installed.
        InputError: there is no such LLM, or a device for one.
    """
    text, known = os.fspath(name), llms or {}
    chat, _, wanted = text.partition(":")
    if chat != CHAT:
        from llm_blender.fusers.gen_fuser import GenFuser

        return GenFuser.from_pretrained(name, device=device)
    if device is not None:
        raise InputError(f"The device {device!r} is for a fuser that runs here, not for {text}: leave it out.")
    if not known:
        raise InputError(f"The fuser {text} is an LLM, and none is configured: add an [[llm]] to blend.toml.")
    wanted = wanted or next(iter(known))
    if wanted not in known:
        raise unknown_name("LLM", wanted, known)
    from llm_blender.fusers.chat_fuser import ChatFuser

    return ChatFuser(known[wanted], concurrency=_CONCURRENCY, store=store)
