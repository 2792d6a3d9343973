"""Providers of LLMs with an OpenAI-compatible API: their addresses, the variables of their keys, and prices."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import urlsplit

from llm_blender.config import LLMConfig, OpenAIConfig, Price
from llm_blender.errors import InputError, unknown_name

_FREE = Price(input=0.0, output=0.0)
_OLLAMA_PORT = 11434
_CLOSED = re.compile(
    r"(?:[\w-]+/)*(?:gpt-(?:3\.5|4|5)|chatgpt-|o[134](?=-|$)|claude-|gemini-|grok-[3-9])",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Provider:
    """A provider.

    Attributes:
        name: first part of ``PROVIDER:MODEL``.
        title: its name as it writes it.
        url: usual base URL, up to and including ``/v1``.
        keys: environment variables that may hold its key, the usual one first; none for a program on this machine.
        models: good models for an ensemble, the best choice first; none where only the server knows.
        url_env: environment variable that may name another base URL.
        start: command that starts it; empty for a cloud.
    """

    name: str
    title: str
    url: str
    keys: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    url_env: str = ""
    start: str = ""

    @property
    def base_url(self) -> str:
        """The base URL in force."""
        given = os.environ.get(self.url_env, "").strip() if self.url_env else ""
        if self.name == "ollama":
            return f"{ollama_url(given)}/v1"
        return given.rstrip("/") or self.url

    @property
    def key_env(self) -> str | None:
        """The variable that holds a key, else the usual one; None if it needs none."""
        given = [name for name in self.keys if os.environ.get(name, "").strip()]
        return (*given, *self.keys)[0] if self.keys else None

    @property
    def has_key(self) -> bool:
        """Whether the environment holds a key."""
        return self.key_env is not None and bool(os.environ.get(self.key_env, "").strip())

    @property
    def local(self) -> bool:
        """Whether it is a program that runs on the user's own machine."""
        return not self.keys

    def price(self, model: str) -> Price | None:
        """Return the price of a model; None if it is unknown."""
        return _FREE if self.local else price_of(self.base_url, model)


_LOCAL = (
    Provider(
        "ollama",
        "Ollama",
        f"http://127.0.0.1:{_OLLAMA_PORT}/v1",
        url_env="OLLAMA_HOST",
        start="ollama serve",
    ),
    Provider("llamacpp", "llama.cpp", "http://127.0.0.1:8080/v1", start="llama-server -m MODEL.gguf --port 8080"),
    Provider("lmstudio", "LM Studio", "http://127.0.0.1:1234/v1", start="lms server start"),
    Provider("vllm", "vLLM", "http://127.0.0.1:8000/v1", start="vllm serve MODEL"),
)
_CLOUDS = (
    Provider(
        "openai",
        "OpenAI",
        "https://api.openai.com/v1",
        ("OPENAI_API_KEY",),
        ("gpt-5.4-mini", "gpt-4.1-mini", "gpt-4o-mini"),
        "OPENAI_BASE_URL",
    ),
    Provider(
        "anthropic",
        "Anthropic",
        "https://api.anthropic.com/v1",
        ("ANTHROPIC_API_KEY",),
        ("claude-haiku-4-5", "claude-sonnet-4-5"),
    ),
    Provider(
        "gemini",
        "Google Gemini",
        "https://generativelanguage.googleapis.com/v1beta/openai",
        ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        ("gemini-3.5-flash", "gemini-2.5-flash", "gemini-2.5-flash-lite"),
    ),
    Provider(
        "openrouter",
        "OpenRouter",
        "https://openrouter.ai/api/v1",
        ("OPENROUTER_API_KEY",),
        (
            "meta-llama/llama-3.3-70b-instruct",
            "qwen/qwen3-235b-a22b-2507",
            "deepseek/deepseek-v3.2",
            "google/gemini-2.5-flash",
            "mistralai/mistral-small-3.2-24b-instruct",
        ),
    ),
    Provider(
        "mistral",
        "Mistral",
        "https://api.mistral.ai/v1",
        ("MISTRAL_API_KEY",),
        ("mistral-small-latest", "mistral-medium-latest"),
    ),
    Provider(
        "groq",
        "Groq",
        "https://api.groq.com/openai/v1",
        ("GROQ_API_KEY",),
        ("llama-3.3-70b-versatile", "openai/gpt-oss-120b", "qwen/qwen3-32b"),
    ),
    Provider("deepseek", "DeepSeek", "https://api.deepseek.com/v1", ("DEEPSEEK_API_KEY",), ("deepseek-chat",)),
    Provider(
        "xai", "xAI", "https://api.x.ai/v1", ("XAI_API_KEY",), ("grok-4-fast-non-reasoning", "grok-4.3", "grok-3-mini")
    ),
    Provider(
        "together",
        "Together",
        "https://api.together.xyz/v1",
        ("TOGETHER_API_KEY",),
        ("meta-llama/Llama-3.3-70B-Instruct-Turbo", "openai/gpt-oss-120b", "Qwen/Qwen3.5-9B"),
    ),
    Provider(
        "fireworks",
        "Fireworks",
        "https://api.fireworks.ai/inference/v1",
        ("FIREWORKS_API_KEY",),
        ("accounts/fireworks/models/gpt-oss-120b", "accounts/fireworks/models/deepseek-v4-flash"),
    ),
    Provider(
        "cerebras", "Cerebras", "https://api.cerebras.ai/v1", ("CEREBRAS_API_KEY",), ("gpt-oss-120b", "qwen-3.8-27b")
    ),
)
PROVIDERS: Mapping[str, Provider] = MappingProxyType({each.name: each for each in (*_LOCAL, *_CLOUDS)})
"""All providers by name, programs on this machine first."""


def llm_by_name(name: str) -> OpenAIConfig | None:
    """Make the ``[[llm]]`` that ``PROVIDER:MODEL`` or ``http://HOST:PORT/v1#MODEL`` names; None for another name.

    Raises:
        InputError: the model is missing.
    """
    provider, colon, model = name.partition(":")
    known = PROVIDERS.get(provider.lower())
    if provider in ("http", "https"):
        base_url, _, model = name.partition("#")
        known = None
    elif known is None or not colon:
        return None
    else:
        base_url = known.base_url
    if not model.strip():
        raise InputError(
            f"The model is missing in {name!r}: write {name.rstrip('#:')}{'#' if known is None else ':'}MODEL."
        )
    entry = {"name": name, "model": model, "base_url": base_url}
    return _checked(entry if known is None else {**entry, "api_key_env": known.key_env, "price": known.price(model)})


def _checked(entry: Mapping[str, object]) -> OpenAIConfig:
    from pydantic import ValidationError

    from llm_blender.errors import first_problem

    try:
        return OpenAIConfig.model_validate(entry)
    except ValidationError as error:
        raise InputError(f"{entry['name']!r} names no LLM: {first_problem(error, OpenAIConfig)}") from None


def unknown_provider(name: str) -> InputError | None:
    """Make the error for a name such as ``olama:llama3.2``, whose provider is unknown; None for another name."""
    provider, colon, model = name.partition(":")
    if not colon and provider.partition("/")[0].lower() in PROVIDERS:  # as other tools write it
        provider, _, model = name.partition("/")
        return InputError(f"Unknown LLM {name!r}: did you mean '{provider.lower()}:{model}'?")
    if not colon or "/" in provider or len(provider) < 2:  # a path, or a drive
        return None
    return unknown_name("provider", provider, PROVIDERS)


def provider_at(base_url: str) -> Provider | None:
    """Return the provider with this base URL; None if there is none."""
    at = _place(base_url)
    return next((each for each in PROVIDERS.values() if at in (_place(each.base_url), _place(each.url))), None)


def _place(url: str) -> tuple[str, int | None]:
    parts = urlsplit(url)
    host = parts.hostname or ""
    return ("127.0.0.1" if host in ("localhost", "::1") else host), parts.port


def may_be_billed(entry: LLMConfig) -> bool:
    """Check whether an LLM that is free since it is on this machine may be that of a proxy to a cloud.

    It has no `price` of its own, and its model's weights are not published. Models with open weights, which clouds sell
    too, run on this machine.
    """
    given = "price" in entry.model_fields_set
    return isinstance(entry, OpenAIConfig) and not given and entry.price == _FREE and bool(_CLOSED.match(entry.model))


def has_prices() -> bool:
    """Return whether the library of prices, the extra ``prices``, is installed."""
    try:
        import genai_prices  # noqa: F401
    except ImportError:
        return False
    return True


def price_of(base_url: str, model: str) -> Price | None:
    """Look the price of a model up in `genai-prices`; None if it is unknown, or the library is not installed.

    The price is that of short prompts; no request is made.
    """
    if not has_prices():
        return None
    from genai_prices import Usage, calc_price

    each = 1_000  # tokens: prices are for each million, and some rise with the length of the prompt
    try:
        found = calc_price(Usage(input_tokens=each, output_tokens=each), model, provider_api_url=base_url)
    except (LookupError, ValueError):
        return None
    dollars = (float(found.input_price) * 1e6 / each, float(found.output_price) * 1e6 / each)
    return Price(input=round(dollars[0], 6), output=round(dollars[1], 6))


def ollama_url(host: str) -> str:
    """Parse ``OLLAMA_HOST`` as Ollama does: scheme, port and host are each optional."""
    try:
        parts = urlsplit(host if "://" in host else f"http://{host}")
        name, port = parts.hostname or "127.0.0.1", parts.port or _OLLAMA_PORT
    except ValueError:
        return f"http://127.0.0.1:{_OLLAMA_PORT}"
    if name in ("0.0.0.0", "::"):  # an address to listen on, not to connect to
        name = "127.0.0.1"
    return f"{parts.scheme}://{f'[{name}]' if ':' in name else name}:{port}"
