"""A plugin for the command ``llm`` (simonw/llm): the model ``blend`` answers with the ensemble of ``blend.toml``.

``llm`` imports this module when it starts, so the ensemble is loaded only when it answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from llm_blender.errors import InputError, MissingLibraryError

try:
    import llm
    from pydantic import Field
except ImportError as error:
    raise MissingLibraryError("llm_blender.integrations.llm", "llm") from error

if TYPE_CHECKING:
    from llm_blender.ensemble import Ensemble
    from llm_blender.types import Message

__all__ = ["Blend", "register_models"]


class Blend(llm.Model):  # type: ignore[misc]  # the library is not installed where types are checked
    """The ensemble of the configuration as a model of ``llm``; without a configuration, the embedded model.

    An answer comes whole, as all candidates are ranked first. `llm logs --json` shows the candidates and the ranking.
    """

    model_id = "blend"
    can_stream = False

    class Options(llm.Options):  # type: ignore[misc]
        """Options of a prompt: ``llm -m blend -o mode fuse -o samples 3``."""

        mode: Literal["pick", "fuse", "auto"] | None = Field(
            description="pick the best answer, fuse the best ones, or fuse where it is likely to help", default=None
        )
        samples: int | None = Field(description="number of answers of each LLM", default=None, ge=1)

    def __init__(self) -> None:
        self._ensembles: dict[int | None, Ensemble] = {}

    def execute(
        self, prompt: llm.Prompt, stream: bool, response: llm.Response, conversation: llm.Conversation | None
    ) -> Iterator[str]:
        """Answer a prompt, or the next turn of a conversation.

        Raises:
            InputError: the conversation has attachments or calls of tools.
            LLMBlenderError: the configuration is wrong, or no LLM gave an answer.
        """
        messages = _messages(prompt)
        samples = prompt.options.samples
        if samples not in self._ensembles:
            self._ensembles[samples] = _load_ensemble(samples)
        answer = self._ensembles[samples].ask(messages, mode=prompt.options.mode)
        response.response_json = answer.to_dict()
        response.set_usage(input=answer.usage.prompt_tokens, output=answer.usage.completion_tokens)
        yield answer.text


@llm.hookimpl  # type: ignore[untyped-decorator]
def register_models(register: Callable[[llm.Model], None]) -> None:
    """Register the model ``blend``."""
    register(Blend())


def _load_ensemble(samples: int | None) -> Ensemble:
    from llm_blender.config import load_config
    from llm_blender.ensemble import DEFAULT_SAMPLES, Ensemble

    config = load_config()
    if not config.llm:
        return Ensemble.default(samples=samples or DEFAULT_SAMPLES)
    if samples is not None:  # an LLM with 0 samples fuses or judges
        entries = [entry.model_copy(update={"samples": samples}) if entry.samples else entry for entry in config.llm]
        config = config.model_copy(update={"llm": tuple(entries)})
    return Ensemble.from_config(config)


def _messages(prompt: llm.Prompt) -> list[Message]:
    """Read the system prompt, the turns before and the prompt; each part must be a text."""
    messages: list[Any] = []
    for message in prompt.messages:
        parts = [part.to_dict() for part in message.parts]
        if any(part["type"] != "text" for part in parts):
            raise InputError("The model blend reads texts only: leave attachments and tools out.")
        messages.append({"role": message.role, "content": "".join(part["text"] for part in parts)})
    return messages
