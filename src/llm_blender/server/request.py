"""Read a chat request: which LLMs to ask, with which options, under which settings of the ensemble."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from pydantic import BaseModel

from llm_blender.calls import WrappedLLM
from llm_blender.ensemble import Ensemble, EnsembleSettings, Limits, Member
from llm_blender.errors import LLMError, NoAnswerError, describe_failures, sentence, unknown_name
from llm_blender.fusers.chat_fuser import ChatFuser
from llm_blender.llms.chat_response import tool_calls_text
from llm_blender.llms.openai_compatible import OpenAICompatibleLLM
from llm_blender.server.errors import RefusedError
from llm_blender.server.schemas import BlendOptions, ChatMessage, ChatRequest
from llm_blender.server.service import PRESETS, Service
from llm_blender.types import LLM, Candidate, Failure, Fuser, Message, OnText, Sampling

_SAMPLING = Sampling()
_NO_OPTIONS = BlendOptions()
# Keys of the body that do not go to the LLMs: the service acts on them, or they are about the client.
_OWN = frozenset(
    {
        "blend", "function_call", "functions", "logprobs", "max_completion_tokens", "max_tokens", "messages",
        "metadata", "model", "n", "prompt_cache_key", "safety_identifier", "seed", "service_tier", "stop", "store",
        "stream", "stream_options", "temperature", "top_logprobs", "top_p", "user",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Question:
    """A chat request, read and checked.

    Attributes:
        prompt: the conversation as the ranker reads it.
        seed: the client's seed, or a random one.
        cache: whether the client gave a seed: only then the store can find the answers again.
        members: the LLMs to ask, each with the options of the request.
        settings: the ensemble's settings with the changes of the request.
        fuser: loads the ensemble's fuser with the options of the request.
        left_out: the LLMs that are not available, and why.
        discarded: fills with answers that were paid for and have the wrong form.
        choices: number of answers to return.
        single: whether there is one answer to wait for, so that its text can be streamed while the LLM writes it.
        model: the `model` of the request.
        options: the `blend` of the request.
        usage: whether a stream ends with the number of tokens.
        begun: when the request came, by `time.monotonic`.
    """

    prompt: list[Message]
    seed: int
    cache: bool
    members: tuple[Member, ...]
    settings: EnsembleSettings
    fuser: Callable[[], Fuser]
    left_out: tuple[Failure, ...]
    discarded: list[Candidate]
    choices: int
    single: bool
    model: str
    options: BlendOptions
    usage: bool
    begun: float


def read_question(service: Service, body: ChatRequest) -> Question:
    """Read a chat request.

    Raises:
        NotFoundError: there is no such model, or LLM.
        InputError, RefusedError: a value is wrong, or above a limit of the service.
        NoAnswerError: no LLM is available.
    """
    options, call, ensemble = body.blend or _NO_OPTIONS, _CallOptions.of(body), service.ensemble
    members, left_out = _members(service, _names(service, body.model, options), options, call)
    if options.keep and service.history is None:
        raise RefusedError(
            400, "no_history", "This service keeps no history: it has no playground, or no store.", param="blend.keep"
        )
    choices = body.n or 1
    answers = sum(member.samples for member in members)
    if choices > answers:  # more samples of each
        times = -(-choices // answers)
        members = [replace(member, samples=member.samples * times) for member in members]
        answers *= times
    if answers > service.config.max_candidates:
        raise RefusedError(
            400,
            "too_many",
            f"This request needs {answers} answers; the maximum is {service.config.max_candidates}.",
            param="n",
        )
    if call.need_api and options.mode not in (None, "pick"):
        raise RefusedError(
            400, "invalid_value", "Tools and response_format work in the mode pick only.", param="blend.mode"
        )
    settings = override(_preset(ensemble, body.model), options)
    limits = _limits(settings.limits, body.model, options, len(members), choices)
    settings = replace(settings, limits=limits, mode="pick" if call.need_api else settings.mode)
    ensemble.check(settings)
    cache = body.seed is not None
    return Question(
        prompt=conversation(body.messages),
        seed=random.randrange(2**31) if body.seed is None else read_seed(body.seed),
        cache=cache,
        members=tuple(replace(member, llm=_OptionsLLM(member.llm, call)) for member in members),
        settings=settings,
        fuser=lambda: _fuser(ensemble.fuser, call.sampling, cache=cache),
        left_out=left_out,
        discarded=call.discarded,
        choices=choices,
        single=answers == 1 and not call.need_api,
        model=body.model,
        options=options,
        usage=body.stream_options is not None and body.stream_options.include_usage,
        begun=time.monotonic(),
    )


def override(settings: EnsembleSettings, body: BaseModel) -> EnsembleSettings:
    """Replace the settings that the body of a request names; None keeps a setting.

    Raises:
        InputError: a value is wrong.
    """
    given = body.model_dump(include={each.name for each in fields(settings)}, exclude_none=True)
    return replace(settings, **given)


def read_seed(given: int) -> int:
    """Map any seed of a client to the range that every LLM accepts."""
    return given % 2**31


def conversation(messages: Sequence[ChatMessage]) -> list[Message]:
    """Render the turns as text: a tool call as its JSON, a tool's result as a turn of the user."""
    turns: list[Message] = []
    for message in messages:
        text = message.text
        if message.tool_calls:
            calls = tool_calls_text([call.model_dump() for call in message.tool_calls])
            text = f"{text}\n{calls}".strip()
        role = "user" if message.role == "tool" else message.role
        turns.append({"role": role, "content": f"Result of a tool: {text}" if message.role == "tool" else text})
    return turns


def _preset(ensemble: Ensemble, model: str) -> EnsembleSettings:
    """Choose the settings that the model of a request names."""
    match model:
        case "blend":
            return ensemble.settings
        case "blend-fast":
            return replace(ensemble.settings, strategy="knockout", mode="pick")
        case "blend-best":
            return replace(ensemble.settings, strategy="full", mode="auto" if ensemble.fuses else "pick")
        case _:
            return replace(ensemble.settings, mode="pick")


def _limits(base: Limits, model: str, options: BlendOptions, llms: int, choices: int) -> Limits:
    """Narrow the configured limits to those of the request; a quorum gives at least one answer for each choice."""
    deadline = min(options.deadline or base.deadline, base.deadline)
    quorum, grace = options.quorum or base.quorum, base.grace if options.grace is None else options.grace
    if model == "blend-fast":
        quorum, grace = options.quorum or -(-llms // 2), 0.5 if options.grace is None else options.grace
    elif model == "blend-best":
        quorum = options.quorum
    costs = [cost for cost in (options.max_cost, base.max_cost) if cost is not None]
    return replace(
        base, deadline=deadline, quorum=quorum, grace=grace, answers=choices, max_cost=min(costs, default=None)
    )


def _names(service: Service, model: str, options: BlendOptions) -> list[str]:
    """List the names of the LLMs to ask."""
    service.check_model(model)
    names = options.llms or (service.llms if model in PRESETS else [model])
    for name in names:
        if name not in service.llms:
            raise unknown_name("LLM", name, service.llms)
    return list(dict.fromkeys(names))


def _members(
    service: Service, names: Sequence[str], options: BlendOptions, call: _CallOptions
) -> tuple[list[Member], tuple[Failure, ...]]:
    """Split the LLMs into those that are available, and failures that explain why the others are not."""
    known = {member.llm.name: member for member in service.ensemble.members}
    members, left_out = [], []
    for name in names:
        member = known[name]
        if call.need_api and not isinstance(member.llm, OpenAICompatibleLLM):
            reason = "it supports neither tools nor response_format: only LLMs behind an API do"
            left_out.append(Failure(name, "bad_request", f"{name}: {reason}"))
        elif refusal := service.breakers.refusal(name):
            left_out.append(refusal)
        else:
            members.append(member if options.samples is None else replace(member, samples=options.samples))
    if not members:
        raise NoAnswerError(f"No LLM is available: {sentence(describe_failures(left_out))}", left_out)
    return members, tuple(left_out)


def _fuser(fuser: Fuser, sampling: Sampling, *, cache: bool) -> Fuser:
    """Apply the client's max_tokens and stop to an LLM that fuses; without `cache` it does not use its store."""
    if not isinstance(fuser, ChatFuser):
        return fuser
    own = fuser.sampling
    both = replace(own, max_tokens=sampling.max_tokens or own.max_tokens, stop=sampling.stop or own.stop)
    return fuser.replace(sampling=both, store=fuser.store if cache else None)


@dataclass(frozen=True)
class _CallOptions:
    """Options of a request for every call of an LLM.

    Attributes:
        sampling: the sampling options; None leaves an option to the LLM.
        messages: the conversation with tool calls and their results, which only LLMs behind an API support; None if
            it has none.
        json: whether an answer that is not JSON is a failure.
        discarded: fills with answers that were paid for and have the wrong form.
    """

    sampling: Sampling
    messages: tuple[Mapping[str, Any], ...] | None = None
    json: bool = False
    discarded: list[Candidate] = field(default_factory=list)

    @classmethod
    def of(cls, body: ChatRequest) -> _CallOptions:
        """Read the options of a request."""
        given = body.model_dump(exclude_unset=True, exclude_none=True)
        extra = {key: value for key, value in given.items() if key not in _OWN}
        stop = body.stop or []
        sampling = Sampling(
            temperature=body.temperature,
            top_p=body.top_p,
            max_tokens=body.max_completion_tokens or body.max_tokens,
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            extra=extra or None,
        )
        with_tools = any(message.role == "tool" or message.tool_calls for message in body.messages)
        messages = tuple(message.model_dump(exclude_unset=True) for message in body.messages)
        wants_json = body.response_format is not None and body.response_format.type != "text"
        return cls(sampling, messages if with_tools else None, wants_json)

    @property
    def need_api(self) -> bool:
        """Whether only an LLM behind an API supports them."""
        extra = self.sampling.extra or {}
        return self.messages is not None or self.json or "tools" in extra


class _OptionsLLM(WrappedLLM):
    """An LLM that is called with the options of a request."""

    def __init__(self, llm: LLM, options: _CallOptions) -> None:
        super().__init__(llm)
        self._options = options

    @property
    def identity(self) -> Mapping[str, Any]:
        wishes = {"sampling": self._options.sampling.to_dict(), "messages": self._options.messages}
        return {**super().identity, "wishes": wishes}

    def most_cost(self, messages: Sequence[Message], sampling: Sampling = _SAMPLING) -> float | None:
        return super().most_cost(self._messages(messages), self._sampling(sampling))

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling = _SAMPLING, *, on_text: OnText | None = None
    ) -> Candidate:
        candidate = await super().generate(self._messages(messages), self._sampling(sampling), on_text=on_text)
        if self._options.json and candidate.tool_calls is None and not _is_json(candidate.text):
            self._options.discarded.append(candidate)
            raise LLMError(self.name, "bad_response", "the answer is not the JSON that response_format requires")
        return candidate

    def _messages(self, messages: Sequence[Message]) -> Sequence[Any]:
        return messages if self._options.messages is None else self._options.messages

    def _sampling(self, sampling: Sampling) -> Sampling:
        return replace(self._options.sampling, seed=sampling.seed, sample=sampling.sample)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
