"""Fusers, which write one answer from several candidates, and the guard that compares it with the best candidate."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_blender._hub import find_folder
from llm_blender.errors import InputError, unknown_name
from llm_blender.fusers.consensus_fuser import ConsensusFuser, LongestFuser
from llm_blender.fusers.guard import DEFAULT_RULE, DEFAULT_TOP_K, Decision, FusionRule, GuardedFuser, Order, decide
from llm_blender.types import LLM

if TYPE_CHECKING:
    from llm_blender.calls import CallStore
    from llm_blender.fusers.chat_fuser import ChatFuser
    from llm_blender.fusers.embedded_fuser import AdaptableLLM, EmbeddedFuser
    from llm_blender.fusers.gen_fuser import GenFuser

__all__ = [
    "CHAT",
    "CONSENSUS",
    "DEFAULT_RULE",
    "DEFAULT_TOP_K",
    "EMBEDDED",
    "LONGEST",
    "ConsensusFuser",
    "Decision",
    "FusionRule",
    "GuardedFuser",
    "LongestFuser",
    "Order",
    "base_model",
    "decide",
    "load_fuser",
]

CHAT = "chat"
"""Name of the fuser by the first of the LLMs; ``chat:NAME`` takes another one."""
EMBEDDED = "embedded"
"""Kind of the fusers by an adapter of the embedded LLM: ``embedded:FOLDER``."""
CONSENSUS = "consensus"
"""Name of the fuser that adds to the best candidate the sentences on which the others agree."""
LONGEST = "longest"
"""Name of the baseline: the longest candidate, unchanged."""

_SELECTING: dict[str, type[ConsensusFuser | LongestFuser]] = {CONSENSUS: ConsensusFuser, LONGEST: LongestFuser}
_CONCURRENCY = 32  # an LLM's own `concurrency` is the limit


def load_fuser(
    name: str | os.PathLike[str] = CHAT,
    *,
    llms: Mapping[str, LLM] | None = None,
    store: CallStore | None = None,
    device: Any = None,
    run: Callable[[str], AdaptableLLM] | None = None,
) -> ChatFuser | ConsensusFuser | EmbeddedFuser | GenFuser | LongestFuser:
    """Load a fuser by name.

    Args:
        name: ``chat``, the first of the LLMs; ``chat:NAME``, one of them; ``consensus``, the best candidate with
            sentences on which the others agree; ``longest``, the longest candidate; ``embedded:`` and a folder or Hub
            repository, an adapter of the embedded LLM (of a folder, the path alone will do); or a folder or Hub
            repository with a sequence-to-sequence model such as ``llm-blender/gen_fuser_3b``, a causal LLM, or a LoRA
            adapter of one. Write ``./chat`` for a folder with one of these names.
        llms: LLMs by name.
        store: keeps the answers of an LLM; None keeps none.
        device: of a model that runs on torch: ``cpu``, ``cuda``, ``mps``, …, or a list of devices.
        run: makes an embedded LLM from the name of its model, for an adapter whose base is not among `llms`.

    Raises:
        NotFoundError: there is no such checkpoint; the message lists where it was looked for.
        CheckpointError: the checkpoint is not a fuser.
        MissingExtraError: ``torch``, or for an adapter ``lora``, is not installed.
        InputError: there is no such LLM, ``embedded`` has no folder, or a device is given for a fuser without torch.
    """
    text, known = os.fspath(name), llms or {}
    if text in _SELECTING and device is None:
        return _SELECTING[text]()
    chat, _, wanted = text.partition(":")
    embedded = None if chat == CHAT else _embedded_folder(text)
    if chat != CHAT and embedded is None and text not in _SELECTING:
        from llm_blender.fusers.gen_fuser import GenFuser

        return GenFuser.from_pretrained(name, device=device)
    if device is not None:
        raise InputError(f"The device {device!r} is for a fuser that runs on torch, not for {text}: leave it out.")
    if embedded is not None:
        from llm_blender.fusers.embedded_fuser import EmbeddedFuser

        return EmbeddedFuser.load(embedded, known.values(), run, name=text)
    if not known:
        raise InputError(f"The fuser {text} is an LLM, and none is configured: add an [[llm]] to blend.toml.")
    wanted = wanted or next(iter(known))
    if wanted not in known:
        raise unknown_name("LLM", wanted, known)
    from llm_blender.fusers.chat_fuser import ChatFuser

    return ChatFuser(known[wanted], concurrency=_CONCURRENCY, store=store)


def base_model(name: str | os.PathLike[str]) -> str | None:
    """Return the embedded model that a fuser adapts; None for a fuser of another kind.

    Raises:
        NotFoundError: there is no such adapter.
        CheckpointError: a file of it is missing or damaged.
        InputError: ``embedded`` has no folder.
    """
    folder = _embedded_folder(os.fspath(name))
    if folder is None:
        return None
    from llm_blender.fusers.embedded_fuser import Settings

    return Settings.load(folder).base.model


def _embedded_folder(name: str) -> Path | None:
    """Return the folder of an embedded fuser; None if the name is of another kind of fuser.

    Raises:
        NotFoundError: there is no such folder or repository.
        InputError: ``embedded`` has no folder.
    """
    kind, _, place = name.partition(":")
    if kind != EMBEDDED:
        folder = Path(name).expanduser()
        return folder if (folder / "adapter.gguf").is_file() else None
    if not place:
        raise InputError(
            f"No adapter of the embedded LLM is bundled: write {EMBEDDED}:FOLDER for one that `blend export` made, or "
            f"take the fuser {CONSENSUS}, which needs none."
        )
    return find_folder("embedded fuser", place)
