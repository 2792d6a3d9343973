"""``blend.toml``: which LLMs to ask, how to rank their answers, within which limits.

Loading reads nothing from the environment, not even a key: the file names the variable that holds it, and
whoever calls the LLM looks there.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import platformdirs
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    ValidationError,
    model_validator,
)

from llm_blender.errors import ConfigError, NotFoundError
from llm_blender.types import Sampling, Usage

__all__ = [
    "CONFIG_NAME",
    "Config",
    "EmbeddedConfig",
    "EnsembleConfig",
    "FuserConfig",
    "LLMConfig",
    "LimitsConfig",
    "OpenAIConfig",
    "Price",
    "RankerConfig",
    "ServerConfig",
    "load_config",
]

CONFIG_NAME = "blend.toml"


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError('should be a URL such as "http://localhost:11434/v1"')
    if parts.username or parts.password:
        raise ValueError("must not hold a user name or password; use api_key_env")
    return value.rstrip("/")


def _name(value: str) -> str:
    if not value.strip() or value != value.strip():
        raise ValueError("should be a text without spaces around it")
    return value


Name = Annotated[str, AfterValidator(_name)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
Seconds = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Price(_Section):
    """Dollars per million tokens.

    Attributes:
        input: of prompt tokens.
        output: of completion tokens.
    """

    input: float = Field(ge=0)
    output: float = Field(ge=0)

    def cost(self, usage: Usage) -> float:
        """Dollars of a call."""
        return (self.input * usage.prompt_tokens + self.output * usage.completion_tokens) / 1e6


class _LLMConfig(_Section):
    name: Name
    model: Name
    samples: int = Field(default=1, ge=0)
    temperature: float | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    system: str | None = None

    @property
    def sampling(self) -> Sampling:
        """The file's sampling options; what is None there is left to the LLM."""
        return Sampling(temperature=self.temperature, top_p=self.top_p, max_tokens=self.max_tokens)


class OpenAIConfig(_LLMConfig):
    """An ``[[llm]]`` that speaks the OpenAI API: Ollama, vLLM, llama.cpp, LM Studio, a cloud.

    Attributes:
        name: its name in the ensemble.
        model: the name under which the server knows the model.
        base_url: up to and including ``/v1``.
        api_key_env: the environment variable that holds the key; None where the server wants no key.
        samples: answers to ask for; 0 is for an LLM that only fuses.
        temperature: None leaves it to the server, as with the next two.
        top_p: share of the probability mass to sample from.
        max_tokens: most tokens of an answer.
        system: system message for conversations that bring none.
        timeout: seconds for one call, its retries included.
        concurrency: most calls at once.
        price: None if unknown.
        extra: further keys for the request's body, as they are.
    """

    provider: Literal["openai"] = "openai"
    base_url: HttpUrl
    api_key_env: Name | None = None
    timeout: Seconds = 60.0
    concurrency: int = Field(default=4, ge=1)
    price: Price | None = None
    extra: dict[str, Any] = Field(default_factory=dict)


class EmbeddedConfig(_LLMConfig):
    """An ``[[llm]]`` that runs inside this process, by llama.cpp.

    Attributes:
        name: its name in the ensemble.
        model: a name that ``blend models list`` knows, ``repo/file.gguf`` on the Hub, or a local file.
        samples: answers to ask for; 0 is for an LLM that only fuses.
        temperature: None leaves it to the LLM, as with the next two.
        top_p: share of the probability mass to sample from.
        max_tokens: most tokens of an answer.
        system: system message for conversations that bring none.
    """

    provider: Literal["embedded"]


class ReplayConfig(_Section):
    """An ``[[llm]]`` that gives back the answers that stand in a file of rows, and asks nobody.

    Attributes:
        name: its name in the ensemble.
        rows: the file, in MixInstruct's format, seen from the folder of this file.
        model: whose candidates are given back.
        samples: answers to ask for; 0 is for an LLM that only fuses.
    """

    provider: Literal["replay"]
    name: Name
    rows: Name
    model: Name
    samples: int = Field(default=1, ge=0)


def _provider(entry: Any) -> Any:
    return entry.get("provider", "openai") if isinstance(entry, Mapping) else getattr(entry, "provider", None)


LLMConfig = Annotated[
    Annotated[OpenAIConfig, Tag("openai")]
    | Annotated[EmbeddedConfig, Tag("embedded")]
    | Annotated[ReplayConfig, Tag("replay")],
    Discriminator(
        _provider,
        custom_error_type="provider",
        custom_error_message='provider should be "openai", "embedded" or "replay"',
    ),
]
"""One ``[[llm]]``; ``provider`` says which kind, ``"openai"`` if it is missing."""


class EnsembleConfig(_Section):
    """``[ensemble]``: what is done with the candidates.

    Attributes:
        mode: ``pick`` gives back the best candidate as it is, ``fuse`` a text made of the best ones, ``auto`` decides
            row by row.
    """

    mode: Literal["pick", "fuse", "auto"] = "pick"


class RankerConfig(_Section):
    """``[ranker]``: who compares the candidates.

    Attributes:
        name: ``bundled``, a checkpoint on the Hub, or a folder.
        strategy: which pairs are compared; ``auto`` chooses by the budget.
        budget: most comparisons for one prompt.
        priors: file of LLM strengths by ``blend priors fit``, seen from the folder of this file; None adds none.
    """

    name: Name = "bundled"
    strategy: Name = "auto"
    budget: int = Field(default=40, ge=1)
    priors: Name | None = None


class FuserConfig(_Section):
    """``[fuser]``: who writes the fused answer, and when it is given back.

    Attributes:
        name: ``chat`` (the first ``[[llm]]``), ``chat:NAME`` (that one), ``consensus`` (no model), ``embedded`` (the
            bundled adapter of the embedded LLM) or ``embedded:DIR``, a checkpoint on the Hub, or a folder. None is
            ``embedded`` where the embedded LLM alone answers, else ``chat``.
        top_k: candidates that are fused, the best ones.
        guard: give back a fused text only where the ranker prefers it to the best candidate.
        prefer: with more than this probability; None leaves this and the next two to `llm_blender.fusers.guard`.
        close: ``auto`` fuses where the best candidate is better than the next one with less than this probability.
        overlap: ``auto`` fuses where the best candidate holds less than this share of the others' content.
    """

    name: Name | None = None
    top_k: int = Field(default=3, ge=2)
    guard: bool = True
    prefer: Share | None = None
    close: Share | None = None
    overlap: Share | None = None

    @property
    def thresholds(self) -> dict[str, float]:
        """The thresholds that the file sets, by name."""
        return self.model_dump(include={"prefer", "close", "overlap"}, exclude_none=True)


class LimitsConfig(_Section):
    """``[limits]``: when to stop waiting, and what a prompt may cost.

    Attributes:
        deadline: seconds that the LLMs have for one prompt, and then the fuser.
        quorum: answers that suffice; None waits for everybody, up to the deadline.
        grace: seconds that stragglers get once the quorum is there.
        max_cost: dollars that one prompt may cost; an LLM whose answer might cost more than is left is not asked.
        allow_unpriced: ask LLMs without a price or `max_tokens` in spite of `max_cost`, and count them as free.
    """

    deadline: Seconds = 120.0
    quorum: int | None = Field(default=None, ge=1)
    grace: float = Field(default=3.0, ge=0)
    max_cost: float | None = Field(default=None, gt=0)
    allow_unpriced: bool = False


class ServerConfig(_Section):
    """``[server]``: `blend serve`. The deadline of ``[limits]`` counts there for the whole of a request.

    Attributes:
        host: the address to bind to; any other than loopback needs a key.
        port: 0 takes a free one.
        keys_env: the environment variable with the keys of the clients, separated by commas; looked at if it is set.
        keys_file: a file with the SHA-256 of a client's key, in hex, on each line; seen from the folder of this file.
        concurrency: requests that are worked on at once.
        queue: requests that wait for their turn; more are sent away.
        max_body: bytes of a request.
        max_candidates: texts to rank in one request, or answers to ask for.
        max_chars: characters of one text.
        heartbeat: seconds between signs of life in a stream.
        drain: seconds that requests under way get when the service ends.
        failures: failures in a row after which an LLM is set aside.
        set_aside: seconds for which it is; twice as long after each further failure, up to ten minutes.
        playground: show the page at ``/``, and keep its questions and votes in the store.
    """

    host: Name = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    keys_env: Name = "LLM_BLENDER_KEYS"
    keys_file: Name | None = None
    concurrency: int = Field(default=32, ge=1)
    queue: int = Field(default=64, ge=0)
    max_body: int = Field(default=4 * 1024 * 1024, ge=1024)
    max_candidates: int = Field(default=64, ge=2)
    max_chars: int = Field(default=200_000, ge=1)
    heartbeat: Seconds = 10.0
    drain: float = Field(default=30.0, ge=0)
    failures: int = Field(default=3, ge=1)
    set_aside: Seconds = 15.0
    playground: bool = True


class Config(_Section):
    """A whole ``blend.toml``.

    Attributes:
        llm: the LLMs to ask; empty means the embedded default.
        ensemble: what is done with their answers.
        ranker: who compares them.
        fuser: who fuses them.
        limits: when to stop waiting, and what it may cost.
        server: how `blend serve` serves.
    """

    llm: tuple[LLMConfig, ...] = Field(default=(), strict=False)
    ensemble: EnsembleConfig = EnsembleConfig()
    ranker: RankerConfig = RankerConfig()
    fuser: FuserConfig = FuserConfig()
    limits: LimitsConfig = LimitsConfig()
    server: ServerConfig = ServerConfig()
    _path: Path | None = PrivateAttr(default=None)

    @property
    def path(self) -> Path | None:
        """The file it was read from; None if there is none."""
        return self._path

    @property
    def folder(self) -> Path:
        """From which the files that it names are seen."""
        return Path() if self.path is None else self.path.parent

    @property
    def priors_path(self) -> Path | None:
        """Where ``[ranker] priors`` lies; None if there are none."""
        if self.ranker.priors is None:
            return None
        return self.folder / Path(self.ranker.priors).expanduser()

    @classmethod
    def from_toml(cls, text: str, path: Path | None = None) -> Self:
        """Parse and validate the text of a ``blend.toml``; `path` is named in errors.

        Raises:
            ConfigError: it is no TOML, or a key or a value in it is wrong.
        """
        where = str(path or CONFIG_NAME)
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{where}: this is not TOML: {error}.") from None
        try:
            config = cls.model_validate(values)
        except ValidationError as error:
            # The error's text would show the values, and somebody's key might be among them.
            raise ConfigError(f"{where}: {_explain(error, values)}") from None
        config._path = path
        return config

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [entry.name for entry in self.llm]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f'two [[llm]] are named "{name}"; give each its own name, or ask one for several samples'
                )
        answers = sum(entry.samples for entry in self.llm)
        if self.llm and not answers:
            raise ValueError("no [[llm]] is asked: give one of them at least one of `samples`")
        if self.llm and self.limits.quorum and self.limits.quorum > answers:
            raise ValueError(f"[limits] wants a quorum of {self.limits.quorum}, but the [[llm]] give only {answers}")
        return self

    def resolved(self) -> dict[str, Any]:
        """What is in force, as plain JSON values: defaults filled in, and of a key only whether it is set."""
        values = self.model_dump(mode="json", exclude_none=True)
        for entry in values["llm"]:
            if "api_key_env" in entry:
                entry["api_key_set"] = bool(os.environ.get(entry["api_key_env"]))
        return {"path": None if self.path is None else str(self.path), **values}


def load_config(path: Path | None = None) -> Config:
    """The configuration in `path`, else in ``./blend.toml``, else in the user's configuration folder.

    Without a file, the defaults, with no LLM named.

    Raises:
        NotFoundError: `path` is given and does not exist.
        ConfigError: the file cannot be read, or something in it is wrong.
    """
    if path is not None:
        if not path.exists():
            raise NotFoundError(f"There is no configuration file {path}; check --config.")
        return _read(path)
    for found in (Path(CONFIG_NAME), platformdirs.user_config_path("llm-blender") / CONFIG_NAME):
        if found.is_file():
            return _read(found)
    return Config()


def _read(path: Path) -> Config:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: this is not UTF-8 text; save it as UTF-8.") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error}).") from None
    return Config.from_toml(text, path)


def _explain(error: ValidationError, values: Mapping[str, Any]) -> str:
    """What is wrong first, in one line; an unknown key leads, as it often explains a missing one."""
    problems = error.errors(include_url=False, include_input=False)
    problem = min(problems, key=lambda each: each["type"] != "extra_forbidden")
    place, model = _locate(problem["loc"], values)
    prefix = f"{place}: " if place else ""
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if problem["type"] == "extra_forbidden":
        return prefix + _unknown(str(problem["loc"][-1]), model) + more
    if problem["type"] == "missing":
        return f'{prefix}"{problem["loc"][-1]}" is missing{more}'
    if problem["loc"] == ("llm",):
        return "LLMs are written as [[llm]], each with its own keys"
    message = problem["msg"].removeprefix("Value error, ")
    last = problem["loc"][-1] if problem["loc"] else None
    key = f'"{last}": ' if isinstance(last, str) and last in model.model_fields else ""
    return f"{prefix}{key}{message[0].lower()}{message[1:]}{more}"


def _locate(loc: tuple[int | str, ...], values: Mapping[str, Any]) -> tuple[str, type[BaseModel]]:
    """The place of an error as the user wrote it, and the model whose keys are known there."""
    match loc:
        case ("llm", int(index), *rest):
            kind = _PROVIDERS.get(str(rest[0]), OpenAIConfig) if rest else OpenAIConfig
            entry = values["llm"][index]
            name = entry.get("name") if isinstance(entry, Mapping) else None
            place = f"[[llm]] #{index + 1}" + (f' "{name}"' if isinstance(name, str) else "")
            return (f"{place}, price", Price) if rest[1:2] == ["price"] and len(rest) > 2 else (place, kind)
        case (str(section), _, *_) if section in _SECTIONS:
            return f"[{section}]", _SECTIONS[section]
    return "", Config


_PROVIDERS: dict[str, type[BaseModel]] = {"openai": OpenAIConfig, "embedded": EmbeddedConfig, "replay": ReplayConfig}
_SECTIONS: dict[str, type[BaseModel]] = {
    "ensemble": EnsembleConfig,
    "ranker": RankerConfig,
    "fuser": FuserConfig,
    "limits": LimitsConfig,
    "server": ServerConfig,
}


def _unknown(key: str, model: type[BaseModel]) -> str:
    if key == "api_key":
        return 'unknown key "api_key": a key never stands in the file; name its variable with "api_key_env"'
    near = difflib.get_close_matches(key, model.model_fields, n=1, cutoff=0.5)
    hint = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(sorted(model.model_fields))}"
    return f'unknown key "{key}"; {hint}'
