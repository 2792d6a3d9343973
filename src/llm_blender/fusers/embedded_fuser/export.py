"""From a trained LoRA adapter to the folder of an embedded fuser."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from llm_blender.errors import CheckpointError, InputError
from llm_blender.fusers.embedded_fuser.lora import Model, write_gguf_adapter
from llm_blender.fusers.embedded_fuser.settings import ADAPTER, SETTINGS, TOKENIZER, Base, Settings
from llm_blender.fusers.gen_fuser.lengths import Lengths
from llm_blender.fusers.gen_fuser.loading import load_tokenizer

__all__ = ["export_fuser"]

_CARD = "README.md"
_CONTEXT = 4096  # of `llm_blender.llms.embedded.EmbeddedLLM`
_LENGTHS = Lengths(max_length=3584, candidate_max_length=512, max_new_tokens=512)
_PROBES = ("Below.\n\n### Task [0a1b]\nReply.", "a {x} b")


def export_fuser(
    adapter: Path,
    target: Path,
    *,
    model: str,
    base: Path,
    max_length: int | None = None,
    candidate_max_length: int | None = None,
    max_new_tokens: int | None = None,
) -> list[Path]:
    """Write what `EmbeddedFuser` loads: the adapter for llama.cpp, the tokenizer and the settings.

    Args:
        adapter: folder in peft's layout; its tokenizer stands in it, or in the base that it names.
        target: folder to write to.
        model: name of the embedded model, for the settings.
        base: its GGUF file.
        max_length: tokens of the prompt; None is what the adapter was trained with, where it says so, else 3,584.
        candidate_max_length: tokens of each candidate; None likewise, else 512.
        max_new_tokens: most tokens of the answer; None likewise, else 512.

    Returns:
        The files.

    Raises:
        CheckpointError: a file is missing or damaged, the adapter is not one of the base or of a kind that llama.cpp
            does not know, or its chat template cannot be written down as what stands around a message.
        NotFoundError: the adapter has no tokenizer, and its base is not there.
        InputError: `target` is the adapter's own folder, or prompt and answer are longer than 4,096 tokens.
    """
    if target.resolve() == adapter.resolve():
        raise InputError(f"{target} is the adapter's own folder: give another one.")
    lengths = _lengths(adapter, max_length, candidate_max_length, max_new_tokens)
    described = Model.read(base)
    tokenizer = load_tokenizer(adapter)
    settings = Settings(base=Base.of(model, base), chat=_around(tokenizer), **lengths.model_dump())
    target.mkdir(parents=True, exist_ok=True)
    (target / SETTINGS).unlink(missing_ok=True)  # written last: without it, the folder is no fuser
    write_gguf_adapter(adapter, described, target / ADAPTER)
    tokenizer.backend_tokenizer.save(str(target / TOKENIZER))
    if (adapter / _CARD).is_file():
        shutil.copyfile(adapter / _CARD, target / _CARD)
    settings.save(target)
    return sorted(path for path in target.iterdir() if path.is_file())


def _lengths(adapter: Path, *given: int | None) -> Lengths:
    trained = Lengths.of_training(adapter) or _LENGTHS
    names = ("max_length", "candidate_max_length", "max_new_tokens")
    known = {name: number for name, number in zip(names, given, strict=True) if number is not None}
    lengths = trained.model_copy(update=known)
    if lengths.max_length + lengths.max_new_tokens > _CONTEXT:
        raise InputError(
            f"An embedded LLM reads and writes {_CONTEXT:,} tokens, not {lengths.max_length:,} and "
            f"{lengths.max_new_tokens:,}: lower max-length or max-new-tokens."
        )
    return lengths


def _around(tokenizer: Any) -> tuple[str, str] | None:
    """What the chat template writes before and after the message of a user."""
    if not tokenizer.chat_template:
        return None
    try:
        rendered = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": probe}], tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
            for probe in _PROBES
        ]
    except Exception as error:  # a template refuses in words of its own
        raise CheckpointError(f"The chat template of the adapter's tokenizer refuses a prompt: {error}") from error
    before, _, after = rendered[0].partition(_PROBES[0])
    if [f"{before}{probe}{after}" for probe in _PROBES] != rendered:
        raise CheckpointError("The chat template of the adapter's tokenizer changes the user's message.")
    return before, after
