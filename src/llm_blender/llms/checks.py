"""Check of an LLM with a few short questions: whether it answers, how fast, at what cost, and what it supports."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llm_blender.config import EmbeddedConfig, LLMConfig, OpenAIConfig, ReplayConfig
from llm_blender.errors import InputError, LLMBlenderError, LLMError, nearest
from llm_blender.llms import load_llm
from llm_blender.llms.local_servers import list_models
from llm_blender.llms.openai_compatible import OpenAICompatibleLLM
from llm_blender.llms.pacing import Backoff
from llm_blender.llms.providers import provider_at
from llm_blender.types import LLM, Candidate, Sampling

TOKENS, THINKING_TOKENS = 64, 1024
"""Maximum tokens of an answer, and of an LLM that thinks before it answers."""
_LONGEST = 60.0  # seconds for one question
_SHOWN = 8  # models of a server
_QUESTION = "Invent a village by the sea. Write its name and its motto, in one line."
_TOOL_QUESTION = "What is the weather in Paris now? Call the function."
_JSON_QUESTION = 'Answer with a JSON object only: the capital of France, under the key "capital".'
_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Return the weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@dataclass
class LLMCheck:
    """Findings about an LLM; None is not known.

    Attributes:
        name: its name in the ensemble.
        model: name of the model.
        base_url: of its server; None without a server.
        works: whether it answered.
        first_token: seconds to the first part of the answer.
        tokens_per_second: of the answer, after its first part.
        seed: whether the same seed gave the same text twice.
        stream: whether the answer was streamed.
        tools: whether it called a tool.
        json: whether it answered with a JSON object where `response_format` requires one.
        calls: number of requests.
        cost: dollars of all of them; None if a price is unknown.
        problem: the fault; None if it works.
        fix: what to do about it; None where the problem says it.
    """

    name: str
    model: str
    base_url: str | None = None
    works: bool = False
    first_token: float | None = None
    tokens_per_second: float | None = None
    seed: bool | None = None
    stream: bool | None = None
    tools: bool | None = None
    json: bool | None = None
    calls: int = 0
    cost: float | None = 0.0
    problem: str | None = None
    fix: str | None = None
    _limit: int = field(default=TOKENS, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {name: value for name, value in asdict(self).items() if not name.startswith("_")}


def cost_of_check(entry: LLMConfig, *, quick: bool = False) -> tuple[float, float] | None:
    """Estimate what `check_llm` costs: the usual dollars, and the most; None if the price is unknown."""
    if not isinstance(entry, OpenAIConfig):
        return 0.0, 0.0
    if entry.price is None:
        return None
    calls = 1 if quick else 4
    prompt = 200 * entry.price.input / 1e6  # tokens, a tool's description included
    usual = calls * (prompt + TOKENS * entry.price.output / 1e6)
    return usual, (calls + 1) * (prompt + THINKING_TOKENS * entry.price.output / 1e6)


async def check_llm(entry: LLMConfig, folder: Path | None = None, *, quick: bool = False) -> LLMCheck:
    """Ask an LLM a question; if it answers, ask it for the same text, for a call of a tool and for JSON, all at once.

    It never raises for a fault of the LLM. Answers do not come from the store, nor go there.

    Args:
        entry: its ``[[llm]]``.
        folder: base of relative paths in the entry.
        quick: ask only the first question.
    """
    found = LLMCheck(entry.name, entry.model, entry.base_url if isinstance(entry, OpenAIConfig) else None)
    try:
        llm = _load(entry, folder)
        if llm is None:  # recorded answers: the file is there
            found.works = True
            return found
        connected = llm if isinstance(llm, OpenAICompatibleLLM) else nullcontext()  # its set-up is not measured
        async with asyncio.timeout(_LONGEST * 2), connected:
            first = await _first(llm, found)
            found.works = True
            if not quick and isinstance(entry, OpenAIConfig):
                await asyncio.gather(_seed(llm, found, first), _tools(llm, found), _json(llm, found))
    except LLMError as error:
        found.problem = str(error).removeprefix(f"{entry.name}: ")
        found.fix = await _fix(error, entry)
    except TimeoutError:
        if not found.works:
            found.problem, found.fix = "no answer in time", "try again: a server may load the model first"
    except LLMBlenderError as error:
        found.problem = str(error).removeprefix(f"{entry.name}: ")
        if isinstance(entry, OpenAIConfig) and entry.api_key_env:
            found.fix = f"export {entry.api_key_env}=…"
    return found


def _load(entry: LLMConfig, folder: Path | None) -> LLM | None:
    """Make the LLM, with one attempt for each call; None for recorded answers.

    Raises:
        LLMBlenderError: it cannot be made.
    """
    if isinstance(entry, OpenAIConfig):
        return OpenAICompatibleLLM(
            entry.name,
            entry.model,
            entry.base_url,
            api_key_env=entry.api_key_env,
            extra=entry.extra,
            timeout=min(entry.timeout, _LONGEST),
            concurrency=entry.concurrency,
            price=entry.price,
            backoff=Backoff(attempts=1),
        )
    if isinstance(entry, EmbeddedConfig):
        from llm_blender.llms.models import resolve

        if resolve(entry.model) is None:
            raise InputError(f"the model is not downloaded: `blend models pull {entry.model}`")
    llm = load_llm(entry, folder)
    return None if isinstance(entry, ReplayConfig) else llm


async def _call(llm: LLM, found: LLMCheck, question: str, sampling: Sampling, on_text: Any = None) -> Candidate:
    found.calls += 1
    try:
        answer = await llm.generate([{"role": "user", "content": question}], sampling, on_text=on_text)
    except LLMError as error:
        _pay(found, error.cost)
        raise
    _pay(found, answer.cost)
    return answer


def _pay(found: LLMCheck, cost: float | None) -> None:
    found.cost = None if found.cost is None or cost is None else found.cost + cost


async def _first(llm: LLM, found: LLMCheck) -> Candidate:
    """Ask the first question, with more tokens if the LLM only thinks, and measure the answer."""
    try:
        return await _measured(llm, found)
    except LLMError as error:
        if error.reason != "empty":
            raise
    found._limit = THINKING_TOKENS
    return await _measured(llm, found)


async def _measured(llm: LLM, found: LLMCheck) -> Candidate:
    times: list[float] = []
    started = time.perf_counter()
    answer = await _call(llm, found, _QUESTION, _sampling(found), lambda _: times.append(time.perf_counter()))
    ended = time.perf_counter()
    found.first_token = round(times[0] - started, 3) if times else None
    found.stream = llm.streamed if isinstance(llm, OpenAICompatibleLLM) else len(times) > 1
    if answer.usage is not None:
        whole, rest = ended - started, ended - (times[0] if times else ended)
        seconds = rest if len(times) > 1 else whole
        found.tokens_per_second = round(answer.usage.completion_tokens / seconds, 1)
    return answer


def _sampling(found: LLMCheck, **extra: Any) -> Sampling:
    return Sampling(temperature=1.0, max_tokens=found._limit, seed=1, extra=extra or None)


async def _seed(llm: LLM, found: LLMCheck, first: Candidate) -> None:
    try:
        again = await _call(llm, found, _QUESTION, _sampling(found))
    except LLMError:
        return
    found.seed = again.text == first.text


async def _tools(llm: LLM, found: LLMCheck) -> None:
    try:
        answer = await _call(llm, found, _TOOL_QUESTION, _sampling(found, tools=[_TOOL]))
    except LLMError as error:
        found.tools = None if error.reason in ("timeout", "rate_limit", "connection") else False
        return
    found.tools = bool(answer.tool_calls)


async def _json(llm: LLM, found: LLMCheck) -> None:
    wanted = {"type": "json_object"}
    try:
        answer = await _call(llm, found, _JSON_QUESTION, _sampling(found, response_format=wanted))
        found.json = isinstance(json.loads(answer.text), Mapping)
    except ValueError:
        found.json = False
    except LLMError as error:
        found.json = None if error.reason in ("timeout", "rate_limit", "connection") else False


async def _fix(error: LLMError, entry: LLMConfig) -> str | None:
    """Describe what the user can do about a failure; None where the message says it."""
    if not isinstance(entry, OpenAIConfig):
        return None
    provider, variable = provider_at(entry.base_url), entry.api_key_env
    match error.reason:
        case "auth" if "credit" in str(error):
            return "pay for more credit at the provider, or remove this LLM"
        case "auth" if variable is None:
            usual = provider.key_env if provider is not None and provider.key_env else "MY_KEY"
            return f'api_key_env = "{usual}", and export {usual}=…'
        case "auth":
            return f"export {variable}=… with a valid key"
        case "connection" if provider is not None and provider.start:
            return f"start it: {provider.start}"
        case "connection":
            return "start the server, or correct base_url"
        case "timeout":
            return "try again: a server may load the model first; else raise timeout"
        case "rate_limit":
            return "wait, or set rpm for this LLM"
        case "not_found" | "bad_request" | "server" | "bad_response":
            return await _fix_of_model(entry, pulls=provider is not None and provider.name == "ollama")
    return None


async def _fix_of_model(entry: OpenAIConfig, *, pulls: bool) -> str | None:
    """Describe the models of the server if it has no such one, and the right URL if /v1 is missing."""
    key = os.environ.get(entry.api_key_env or "", "").strip() or None
    try:
        models = await list_models(entry.base_url, key)
        longer = f"{entry.base_url}/v1"
        if not models and not entry.base_url.endswith("/v1") and await list_models(longer, key):
            return f'base_url = "{longer}"'
    except PermissionError:
        return None
    if not models or entry.model in models:
        return None
    pull = f", or `ollama pull {entry.model}`" if pulls else ""
    return f"{_known(entry.model, models)}{pull}"


def _known(model: str, models: Sequence[str]) -> str:
    near = nearest(model, models)
    more = f", … ({len(models)})" if len(models) > _SHOWN else ""
    first = f"model = {json.dumps(near, ensure_ascii=False)}; " if near is not None else ""
    return f"{first}the server has {', '.join(models[:_SHOWN])}{more}"
