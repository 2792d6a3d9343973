"""Read a chat request: which LLMs to ask, with which options, under which settings of the ensemble."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from pydantic import BaseModel

from llm_blender.calls import WrappedLLM
from llm_blender.ensemble import Ensemble, EnsembleSettings, Form, Limits, Member
from llm_blender.errors import (
    NoAnswerError,
    describe_failures,
    sentence,
    unknown_name,
)
from llm_blender.fusers.chat_fuser import ChatFuser
from llm_blender.llms.openai_compatible import OpenAICompatibleLLM
from llm_blender.server.errors import RefusedError
from llm_blender.server.schemas import BlendOptions, ChatRequest
from llm_blender.server.service import PRESETS, Service
from llm_blender.types import LLM, Candidate, Failure, Fuser, Message, OnText, Sampling

_SAMPLING = Sampling()
_NO_OPTIONS = BlendOptions()
# Keys of the schema, and further ones that open servers understand, that go to the LLMs as they are.
_HANDED_ON = (
    "presence_penalty", "frequency_penalty", "logit_bias", "reasoning_effort", "verbosity", "tools", "tool_choice",
    "parallel_tool_calls", "response_format",
)  # fmt: skip
_ALSO_HANDED_ON = frozenset(
    {
        "chat_template_kwargs", "enable_thinking", "min_p", "min_tokens", "repeat_penalty", "repetition_penalty",
        "thinking", "thinking_budget", "top_k", "typical_p",
    }
)  # fmt: skip
# Keys about the client or its account, which clients send without expecting an effect on the answer.
_ABOUT_THE_CLIENT = frozenset(
    {"metadata", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "service_tier", "store", "user"}
)
# Keys of a request to keep with its answer: with a conversation, they ask again in the same way.
_KEPT = frozenset(
    {
        "model", "n", "stop", "max_tokens", "max_completion_tokens", "temperature", "top_p", "presence_penalty",
        "frequency_penalty", "seed", "reasoning_effort", "verbosity", "blend",
    }
)  # fmt: skip
_NOT_KEPT = frozenset({"candidates", "keep", "watch"})  # of `blend`
_MOST_IGNORED = 20  # names of ignored keys in an answer


@dataclass(frozen=True)
class Question:
    """A chat request, read and checked.

    Attributes:
        prompt: the conversation, as an LLM behind an API gets it.
        seed: the client's seed, or a random one.
        cache: whether the client gave a seed: only then the store can find the answers again.
        members: the LLMs to ask, each with the options of the request.
        settings: the ensemble's settings with the changes of the request.
        fuser: loads the ensemble's fuser with the options of the request.
        left_out: the LLMs that are not available, and why.
        form: form that the request requires of an answer; None if it requires none.
        ignored: keys of the request without an effect.
        choices: number of answers to return.
        single: whether there is one answer to wait for, so that its text can be streamed while the LLM writes it.
        model: the `model` of the request.
        options: the `blend` of the request.
        given: keys of the request to keep with its answer.
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
    form: Form | None
    ignored: tuple[str, ...]
    choices: int
    single: bool
    model: str
    options: BlendOptions
    given: Mapping[str, Any]
    usage: bool
    begun: float


def read_question(service: Service, body: ChatRequest) -> Question:
    """Read a chat request.

    Raises:
        NotFoundError: there is no such model, or LLM.
        InputError, RefusedError: a value is wrong, or above a limit of the service.
        NoAnswerError: no LLM is available.
    """
    options, ensemble = body.blend or _NO_OPTIONS, service.ensemble
    call = _CallOptions.of(body, service.config.pass_)
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
        prompt=body.messages,
        seed=random.randrange(2**31) if body.seed is None else read_seed(body.seed),
        cache=cache,
        members=tuple(replace(member, llm=_OptionsLLM(member.llm, call)) for member in members),
        settings=settings,
        fuser=lambda: _fuser(ensemble.fuser, call.sampling, cache=cache),
        left_out=left_out,
        form=call.form,
        ignored=call.ignored,
        choices=choices,
        single=answers == 1 and not call.need_api,
        model=body.model,
        options=options,
        given=_given(body) if options.keep else {},
        usage=body.stream_options is not None and bool(body.stream_options.include_usage),
        begun=time.monotonic(),
    )


def _given(body: ChatRequest) -> dict[str, Any]:
    given = body.model_dump(mode="json", include=set(_KEPT), exclude_unset=True, exclude_none=True)
    given["blend"] = {key: value for key, value in given["blend"].items() if key not in _NOT_KEPT}
    return given


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
        tools: whether tools are offered, or the conversation has calls of tools: only LLMs behind an API support them.
        form: form that the request requires of an answer; None if it requires none.
        ignored: keys of the request without an effect.
    """

    sampling: Sampling
    tools: bool = False
    form: Form | None = None
    ignored: tuple[str, ...] = ()

    @classmethod
    def of(cls, body: ChatRequest, passed: Sequence[str]) -> _CallOptions:
        """Read the options of a request; `passed` are further keys to hand on."""
        further = body.model_extra or {}
        extra = {name: getattr(body, name) for name in _HANDED_ON}
        extra |= {name: value for name, value in further.items() if name in _ALSO_HANDED_ON or name in passed}
        if not body.tools:  # servers refuse the others then
            extra |= dict.fromkeys(("tools", "tool_choice", "parallel_tool_calls"))
        if extra["tool_choice"] == "any":  # Mistral's word
            extra["tool_choice"] = "required"
        if body.response_format == {"type": "text"}:
            extra["response_format"] = None
        extra = {name: value for name, value in extra.items() if value is not None}
        sampling = Sampling(
            temperature=body.temperature,
            top_p=body.top_p,
            max_tokens=body.max_completion_tokens or body.max_tokens,
            stop=body.stop or (),
            extra=extra or None,
        )
        tools = "tools" in extra or any(turn["role"] == "tool" or "tool_calls" in turn for turn in body.messages)
        ignored = sorted(name for name in further if name not in extra and name not in _ABOUT_THE_CLIENT)
        return cls(sampling, tools, body.form, tuple(ignored[:_MOST_IGNORED]))

    @property
    def need_api(self) -> bool:
        """Whether only an LLM behind an API supports them."""
        return self.tools or self.form is not None


class _OptionsLLM(WrappedLLM):
    """An LLM that is called with the options of a request."""

    def __init__(self, llm: LLM, options: _CallOptions) -> None:
        super().__init__(llm)
        self._options = options

    @property
    def identity(self) -> Mapping[str, Any]:
        return {**super().identity, "wishes": {"sampling": self._options.sampling.to_dict()}}

    def most_cost(self, messages: Sequence[Message], sampling: Sampling = _SAMPLING) -> float | None:
        return super().most_cost(messages, self._sampling(sampling))

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling = _SAMPLING, *, on_text: OnText | None = None
    ) -> Candidate:
        return await super().generate(messages, self._sampling(sampling), on_text=on_text)

    def _sampling(self, sampling: Sampling) -> Sampling:
        return replace(self._options.sampling, seed=sampling.seed, sample=sampling.sample)
