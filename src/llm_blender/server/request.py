"""A request becomes an ensemble of its own: whom it asks, in which mode, within which limits."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llm_blender.calls import most_cost
from llm_blender.ensemble import Ensemble, Limits, Member, Observer
from llm_blender.ensemble.ensemble import AskedMode
from llm_blender.errors import LLMError, NoAnswerError, unknown_name
from llm_blender.fusers.chat_fuser import ChatFuser
from llm_blender.llms.chat_response import tool_calls_text
from llm_blender.llms.openai_compatible import OpenAICompatibleLLM
from llm_blender.server.errors import RefusedError
from llm_blender.server.schemas import BlendOptions, ChatMessage, ChatRequest
from llm_blender.server.service import PRESETS, Service
from llm_blender.store import Store
from llm_blender.types import LLM, Answer, Candidate, Failure, Fuser, Message, OnText, Sampling, Usage

__all__ = ["AskedLLM", "Question", "Wishes", "conversation", "question"]

_SAMPLING = Sampling()
# Not for the LLMs: what the service itself answers to, and what is about the client.
_OWN = frozenset(
    {
        "blend", "function_call", "functions", "logprobs", "max_completion_tokens", "max_tokens", "messages",
        "metadata", "model", "n", "prompt_cache_key", "safety_identifier", "seed", "service_tier", "stop", "store",
        "stream", "stream_options", "temperature", "top_logprobs", "top_p", "user",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Wishes:
    """What a request asks of every LLM.

    Attributes:
        sampling: its options; None leaves them to the LLM.
        messages: the conversation with calls of tools and their results, which only an LLM behind an API
            understands; None where it has none.
        json: answers that are no JSON are none.
        discarded: answers that were paid for and are of the wrong form.
    """

    sampling: Sampling
    messages: tuple[Mapping[str, Any], ...] | None = None
    json: bool = False
    discarded: list[Candidate] = field(default_factory=list)

    @classmethod
    def of(cls, request: ChatRequest) -> Wishes:
        """Those of a request."""
        given = request.model_dump(exclude_unset=True, exclude_none=True)
        extra = {key: value for key, value in given.items() if key not in _OWN}
        stop = request.stop or []
        sampling = Sampling(
            temperature=request.temperature,
            top_p=request.top_p,
            max_tokens=request.max_completion_tokens or request.max_tokens,
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            extra=extra or None,
        )
        with_tools = any(message.role == "tool" or message.tool_calls for message in request.messages)
        messages = tuple(message.model_dump(exclude_unset=True) for message in request.messages)
        wants_json = request.response_format is not None and request.response_format.type != "text"
        return cls(sampling, messages if with_tools else None, wants_json)

    @property
    def need_api(self) -> bool:
        """Whether an LLM must be behind an API to fulfil them."""
        extra = self.sampling.extra or {}
        return self.messages is not None or self.json or "tools" in extra

    def refused_by(self, llm: LLM) -> bool:
        """Whether an LLM cannot fulfil them."""
        return self.need_api and not isinstance(llm, OpenAICompatibleLLM)


class AskedLLM:
    """An LLM that is asked as a request wishes.

    Args:
        llm: who answers.
        wishes: how.
    """

    def __init__(self, llm: LLM, wishes: Wishes) -> None:
        self._llm, self._wishes = llm, wishes

    @property
    def name(self) -> str:
        """Its name in the ensemble."""
        return self._llm.name

    @property
    def identity(self) -> Mapping[str, Any]:
        """What its answers depend on: the LLM, and the wishes."""
        wishes = {"sampling": self._wishes.sampling.to_dict(), "messages": self._wishes.messages}
        return {**self._llm.identity, "wishes": wishes}

    def most_cost(self, messages: Sequence[Message], sampling: Sampling = _SAMPLING) -> float | None:
        """Dollars that an answer costs at most; None where that is unknown."""
        return most_cost(self._llm, self._messages(messages), self._sampling(sampling))

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling = _SAMPLING, *, on_text: OnText | None = None
    ) -> Candidate:
        """Answer a conversation.

        Raises:
            LLMError: there is no answer, or none of the form that is wished for.
        """
        candidate = await self._llm.generate(self._messages(messages), self._sampling(sampling), on_text=on_text)
        if self._wishes.json and candidate.tool_calls is None and not _is_json(candidate.text):
            self._wishes.discarded.append(candidate)
            raise LLMError(self.name, "bad_response", "the answer is not the JSON that response_format asks for")
        return candidate

    def _messages(self, messages: Sequence[Message]) -> Sequence[Any]:
        return messages if self._wishes.messages is None else self._wishes.messages

    def _sampling(self, sampling: Sampling) -> Sampling:
        return replace(self._wishes.sampling, seed=sampling.seed, sample=sampling.sample)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


_NOTHING = BlendOptions()


@dataclass(frozen=True)
class Question:
    """A request that is understood.

    Attributes:
        ensemble: that is asked.
        prompt: the conversation as the ranker reads it.
        seed: the client's, or drawn.
        choices: answers that the client wants.
        model: as the client named it.
        deadline: seconds for all of it.
        begun: when it came, by `time.monotonic`.
        wishes: what is asked of the LLMs.
        left_out: LLMs that are not asked, and why.
    """

    ensemble: Ensemble
    prompt: list[Message]
    seed: int
    choices: int
    model: str
    deadline: float
    begun: float
    wishes: Wishes
    left_out: tuple[Failure, ...]

    @property
    def alone(self) -> bool:
        """Whether there is one answer to wait for, which needs no ranking."""
        return sum(member.samples for member in self.ensemble.members) == 1 and not self.wishes.need_api

    async def ask(self, observer: Observer) -> Answer:
        """The answer, with the LLMs that were left out among its failures, and what was thrown away in its cost.

        What the question waited for its turn is taken from its time.
        """
        left = max(0.0, self.deadline - (time.monotonic() - self.begun))
        self.ensemble.limits = replace(self.ensemble.limits, deadline=left, total=left)
        try:
            answer = await self.ensemble.aask(self.prompt, seed=self.seed, observer=observer)
        except NoAnswerError as error:
            raise NoAnswerError(str(error), (*self.left_out, *error.failures)) from None
        costs = [answer.cost, *(candidate.cost for candidate in self.wishes.discarded)]
        return replace(
            answer,
            failures=(*self.left_out, *answer.failures),
            degraded=answer.degraded or bool(self.left_out),
            usage=sum((candidate.usage or Usage() for candidate in self.wishes.discarded), answer.usage),
            cost=None if any(cost is None for cost in costs) else sum(cost for cost in costs if cost is not None),
        )


def question(service: Service, request: ChatRequest) -> Question:
    """Understand a request.

    Raises:
        NotFoundError: there is no such model, or LLM.
        InputError, RefusedError: a value is wrong, or asks for more than is allowed.
        NoAnswerError: nobody can be asked just now.
    """
    options, wishes = request.blend or _NOTHING, Wishes.of(request)
    base, names = service.ensemble, _names(service, request.model, options)
    members, left_out = _members(service, names, options, wishes)
    if options.keep and service.history is None:
        raise RefusedError(
            400, "no_history", "This service keeps no history: it has no playground, or no store.", param="blend.keep"
        )
    choices = request.n or 1
    answers = sum(member.samples for member in members)
    if choices > answers:  # everybody is asked more often
        times = -(-choices // answers)
        members = [replace(member, samples=member.samples * times) for member in members]
        answers *= times
    if answers > service.config.max_candidates:
        raise RefusedError(
            400,
            "too_many",
            f"That makes {answers} answers, and {service.config.max_candidates} are the most.",
            param="n",
        )
    limits = _limits(base.limits, request.model, options, answers, choices)
    store = None if request.seed is None else base.store  # without a seed, answers are not to be found again
    guard, top_k = options.guard, options.top_k
    ensemble = Ensemble(
        [replace(member, llm=AskedLLM(member.llm, wishes)) for member in members],
        service.ranker,
        strategy=options.strategy or {"blend-fast": "knockout", "blend-best": "full"}.get(request.model, base.strategy),
        budget=options.budget or base.budget,
        limits=limits,
        store=store,
        priors=base.priors,
        mode=_mode(base, request.model, options, wishes),
        fuser=(lambda: _fuser(base.fuser, wishes.sampling, store)) if base.fuses else None,
        top_k=base.top_k if top_k is None else top_k,
        guard=base.guard if guard is None else guard,
        rule=base.rule,
    )
    return Question(
        ensemble,
        conversation(request.messages),
        random.randrange(2**31) if request.seed is None else request.seed % 2**31,
        choices,
        request.model,
        limits.deadline,
        time.monotonic(),
        wishes,
        left_out,
    )


def conversation(messages: Sequence[ChatMessage]) -> list[Message]:
    """The turns as texts: a call of a tool is its JSON, and the result of one is told by the user."""
    turns: list[Message] = []
    for message in messages:
        text = message.text
        if message.tool_calls:
            calls = tool_calls_text([call.model_dump() for call in message.tool_calls])
            text = f"{text}\n{calls}".strip()
        role = "user" if message.role == "tool" else message.role
        turns.append({"role": role, "content": f"Result of a tool: {text}" if message.role == "tool" else text})
    return turns


def _names(service: Service, model: str, options: BlendOptions) -> list[str]:
    """The LLMs that are to be asked."""
    service.check_model(model)
    names = options.llms or (service.llms if model in PRESETS else [model])
    for name in names:
        if name not in service.llms:
            raise unknown_name("LLM", name, service.llms)
    return list(dict.fromkeys(names))


def _members(
    service: Service, names: Sequence[str], options: BlendOptions, wishes: Wishes
) -> tuple[list[Member], tuple[Failure, ...]]:
    """Those who can be asked, and why the others cannot."""
    known = {member.llm.name: member for member in service.ensemble.members}
    members, left_out = [], []
    for name in names:
        member = known[name]
        if wishes.refused_by(member.llm):
            reason = "it knows neither tools nor response_format: only LLMs behind an API do"
            left_out.append(Failure(name, "bad_request", f"{name}: {reason}"))
        elif aside := service.breakers.take(name):
            left_out.append(aside)
        else:
            members.append(member if options.samples is None else replace(member, samples=options.samples))
    if not members:
        reasons = "; ".join(failure.message for failure in left_out)
        raise NoAnswerError(f"Nobody can be asked: {reasons}.", left_out)
    return members, tuple(left_out)


def _limits(base: Limits, model: str, options: BlendOptions, answers: int, choices: int) -> Limits:
    """Those of the configuration, or narrower ones; as many answers are waited for as the client wants choices."""
    deadline = min(options.deadline or base.deadline, base.deadline)
    quorum, grace = options.quorum or base.quorum, base.grace if options.grace is None else options.grace
    if model == "blend-fast":
        quorum, grace = options.quorum or -(-answers // 2), 0.5 if options.grace is None else options.grace
    elif model == "blend-best":
        quorum = options.quorum
    if quorum is not None:
        quorum = min(max(quorum, choices), answers)
    costs = [cost for cost in (options.max_cost, base.max_cost) if cost is not None]
    return replace(base, deadline=deadline, quorum=quorum, grace=grace, max_cost=min(costs, default=None))


def _mode(base: Ensemble, model: str, options: BlendOptions, wishes: Wishes) -> AskedMode:
    if wishes.need_api:  # nobody fuses calls of tools, or JSON
        if options.mode not in (None, "pick"):
            raise RefusedError(
                400, "invalid_value", "Tools and response_format go with the mode pick alone.", param="blend.mode"
            )
        return "pick"
    if options.mode is not None:
        return options.mode
    match model:
        case "blend-fast":
            return "pick"
        case "blend-best":
            return "auto" if base.fuses else "pick"
        case "blend":
            return base.mode
        case _:
            return "pick"


def _fuser(fuser: Fuser, sampling: Sampling, store: Store | None) -> Fuser:
    """A fuser that keeps to the client's max_tokens and stop, and keeps answers in the store, where it is an LLM."""
    if not isinstance(fuser, ChatFuser):
        return fuser
    own = fuser.sampling
    return ChatFuser(
        fuser.llm,
        criteria=fuser.criteria,
        sampling=replace(own, max_tokens=sampling.max_tokens or own.max_tokens, stop=sampling.stop or own.stop),
        max_chars=fuser.max_chars,
        concurrency=fuser.concurrency,
        store=None if store is None else fuser.store,
    )
