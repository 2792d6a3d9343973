"""Who writes the final answer: fusers of one interface, and the guard that compares what they write."""

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
"""Name of the fuser that is the first of the LLMs; with a colon and a name, another one of them."""
EMBEDDED = "embedded"
"""Name of the bundled adapter of the embedded LLM; with a colon, of another one."""
CONSENSUS = "consensus"
"""Name of the fuser that puts into the best candidate what the others agree on."""
LONGEST = "longest"
"""Name of the fuser that copies the longest candidate, the baseline."""

_SELECTING: dict[str, type[ConsensusFuser | LongestFuser]] = {CONSENSUS: ConsensusFuser, LONGEST: LongestFuser}
_BUNDLED = Path(__file__).parents[1] / "bundled" / "fuser"
_CONCURRENCY = 32  # an LLM's own `concurrency` is the limit


def load_fuser(
    name: str | os.PathLike[str] = CHAT,
    *,
    llms: Mapping[str, LLM] | None = None,
    store: CallStore | None = None,
    device: Any = None,
    run: Callable[[str], AdaptableLLM] | None = None,
) -> ChatFuser | ConsensusFuser | EmbeddedFuser | GenFuser | LongestFuser:
    """The fuser of that name; the one door from names to fusers.

    Args:
        name: ``chat``, the first of the LLMs; ``chat:NAME``, one of them; ``embedded``, the bundled adapter of the
            embedded LLM; ``embedded:`` and a folder or Hub repository, that one, where for a folder its name alone
            does, too; ``consensus``, which puts into the best candidate what the others agree on; ``longest``, which
            copies the longest one; or a folder or Hub repository with a sequence-to-sequence model such as
            ``llm-blender/gen_fuser_3b``, a causal LLM, or a LoRA adapter of one. A folder of such a name is
            ``./chat``.
        llms: by their names.
        store: where the answers of an LLM are kept; None keeps none.
        device: of a model that runs on torch: ``cpu``, ``cuda``, ``mps``, …, or a list of devices.
        run: makes an embedded LLM from the name of its model, where an adapter needs one that none of `llms` is.

    Raises:
        NotFoundError: there is no such checkpoint; the message says where it was looked for.
        CheckpointError: it is no fuser.
        MissingExtraError: ``torch``, or for an adapter ``lora``, is not installed.
        InputError: there is no such LLM, or a device for one.
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
    """The embedded model that the fuser of that name is an adapter of; None for a fuser of another kind.

    Raises:
        NotFoundError: there is no such adapter.
        CheckpointError: a file of it is missing or damaged.
    """
    folder = _embedded_folder(os.fspath(name))
    if folder is None:
        return None
    from llm_blender.fusers.embedded_fuser import Settings

    return Settings.load(folder).base.model


def _embedded_folder(name: str) -> Path | None:
    """The folder of an embedded fuser; None where the name means another one."""
    kind, _, place = name.partition(":")
    if kind != EMBEDDED:
        folder = Path(name).expanduser()
        return folder if (folder / "adapter.gguf").is_file() else None
    return find_folder("embedded fuser", place) if place else _BUNDLED
