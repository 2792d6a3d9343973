"""``blend.toml``: the LLMs, the ranker, the fuser and the limits of an ensemble, and the options of the service.

Loading reads nothing from the environment, not even an API key: the file names the variable that holds the key, and
the LLM's client reads the variable.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import platformdirs
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from llm_blender.errors import ConfigError, NotFoundError, field_names, nearest, one_problem
from llm_blender.types import Sampling, Usage

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = [
    "AUTO",
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
    "is_loopback",
    "load_config",
]

CONFIG_NAME = "blend.toml"
AUTO = "auto"
"""Value of ``[ranker] priors`` that means the record."""


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError('should be a URL such as "http://localhost:11434/v1"')
    if parts.username or parts.password:
        raise ValueError("must not hold a user name or password; use api_key_env")
    return value.rstrip("/")


def _variable(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value) and value not in os.environ:
        raise ValueError('should be the name of a variable of the environment, such as "OPENAI_API_KEY", not the key')
    return value


def _name(value: str) -> str:
    if not value.strip() or value != value.strip():
        raise ValueError("should be a text without spaces around it")
    return value


def _joined(value: Any) -> Any:
    return ",".join(value) if isinstance(value, list | tuple) and all(isinstance(v, str) for v in value) else value


Name = Annotated[str, AfterValidator(_name)]
Devices = Annotated[str, BeforeValidator(_joined), AfterValidator(_name)]
"""Names of devices, separated by commas; a list of them is joined."""
DType = Literal["float32", "bfloat16", "float16"]
Variable = Annotated[str, AfterValidator(_variable)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
Seconds = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    # Most commands need few of the sections: each is built when it is first used.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)


class Price(_Section):
    """Price of tokens, in dollars per million.

    Attributes:
        input: price of prompt tokens.
        output: price of completion tokens.
    """

    input: float = Field(ge=0)
    output: float = Field(ge=0)

    def cost(self, usage: Usage) -> float:
        """Compute the cost of a call in dollars."""
        return (self.input * usage.prompt_tokens + self.output * usage.completion_tokens) / 1e6


def is_loopback(host: str) -> bool:
    """Check whether only this machine can reach an address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _usual_price(values: Mapping[str, Any]) -> Price | None:
    """Return the price of an ``[[llm]]`` without one: zero on this machine, unknown elsewhere."""
    host = urlsplit(values.get("base_url", "")).hostname or ""
    return Price(input=0, output=0) if is_loopback(host) else None


class _LLMConfig(_Section):
    name: Name
    model: Name
    samples: int = Field(default=1, ge=0)
    temperature: float | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, ge=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    system: str | None = None

    @property
    def sampling(self) -> Sampling:
        """The sampling options of the file; None leaves an option to the LLM."""
        return Sampling(temperature=self.temperature, top_p=self.top_p, max_tokens=self.max_tokens)


class OpenAIConfig(_LLMConfig):
    """An ``[[llm]]`` behind an OpenAI-compatible API: Ollama, vLLM, llama.cpp, LM Studio, a cloud.

    Attributes:
        name: name of the LLM in the ensemble.
        model: name of the model on the server.
        base_url: URL of the API, up to and including ``/v1``.
        api_key_env: environment variable that holds the API key; None for a server without keys.
        samples: number of answers; 0 for an LLM that only fuses or judges.
        temperature: sampling temperature; None leaves it to the server, as for the next two.
        top_p: share of the probability mass to sample from.
        max_tokens: maximum number of tokens of an answer.
        system: system message for conversations without one.
        timeout: seconds for one call, its retries included.
        concurrency: maximum number of simultaneous calls.
        rpm: maximum number of calls a minute, spread evenly; None is no limit.
        tpm: maximum number of tokens a minute of prompts and answers, likewise.
        price: price of its tokens; by default zero at a loopback address, such as localhost, else None: unknown.
        extra: additional keys of the request's body, passed on unchanged; they replace those of a request.
    """

    provider: Literal["openai"] = "openai"
    base_url: HttpUrl
    api_key_env: Variable | None = None
    timeout: Seconds = 60.0
    concurrency: int = Field(default=4, ge=1)
    rpm: float | None = Field(default=None, gt=0)
    tpm: float | None = Field(default=None, gt=0)
    price: Price | None = Field(default_factory=_usual_price)
    extra: dict[str, Any] = Field(default={})


class EmbeddedConfig(_LLMConfig):
    """An ``[[llm]]`` that runs inside this process, with llama.cpp.

    Attributes:
        name: name of the LLM in the ensemble.
        model: a name in ``blend models list``, ``repo/file.gguf`` on the Hub, or a local file.
        samples: number of answers; 0 for an LLM that only fuses or judges.
        temperature: sampling temperature; None leaves it to the LLM, as for the next two.
        top_p: share of the probability mass to sample from.
        max_tokens: maximum number of tokens of an answer.
        system: system message for conversations without one.
        context: maximum tokens of prompt and answer together.
    """

    provider: Literal["embedded"]
    context: int = Field(default=4096, ge=256)


class ReplayConfig(_Section):
    """An ``[[llm]]`` that replays the answers in a file of rows, without calling a model.

    Attributes:
        name: name of the LLM in the ensemble.
        rows: the file, in MixInstruct's format, relative to the folder of this file.
        model: name of the model whose candidates to replay.
        samples: number of answers; 0 for an LLM that only fuses.
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
"""One ``[[llm]]``; ``provider`` names its kind, by default ``"openai"``."""


class EnsembleConfig(_Section):
    """``[ensemble]``: what happens to the candidates.

    Attributes:
        mode: ``pick`` returns the best candidate as it is, ``fuse`` a text made from the best ones, ``auto`` decides
            for each prompt.
    """

    mode: Literal["pick", "fuse", "auto"] = "pick"


class RankerConfig(_Section):
    """``[ranker]``: the ranker that compares the candidates.

    Attributes:
        name: ``bundled``, a checkpoint on the Hub, or a folder; ``./…`` may be relative to the folder of this file.
        strategy: pairs to compare; ``auto`` chooses by what is wanted, the best one or an order, and by the budget.
        budget: maximum number of comparisons for one prompt.
        priors: file of LLM strengths by ``blend priors fit``, relative to the folder of this file; ``auto`` learns them
            from the ensemble's own record once it is large enough; None adds none.
        record: keep the outcome of each ranking in the store, without texts.
        judge: an ``[[llm]]``, or another ranker, that compares the candidates that the evidence does not tell apart;
            None is no judge.
        judge_margin: it compares the best candidate with the next one if P(the best is better) is within this of ½.
        judge_pairs: maximum number of pairs that it compares for one prompt, each in both orders.
        device: of the ranker's model, and of a judge that is a ranker: ``cpu``, ``cuda``, ``cuda:0,cuda:1``, …; with a
            device or a dtype, it runs on torch. None picks one.
        dtype: of the model's weights; None is ``float32``.
        max_tokens: of a batch; None is 2,048 on a CPU and 32,768 on another device.
    """

    name: Name = "bundled"
    strategy: Name = "auto"
    budget: int = Field(default=40, ge=1)
    priors: Name | None = None
    record: bool = True
    judge: Name | None = None
    judge_margin: float = Field(default=0.25, ge=0, le=0.5)
    judge_pairs: int = Field(default=1, ge=1)
    device: Devices | None = None
    dtype: DType | None = None
    max_tokens: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _another_ranker(self) -> Self:
        if self.judge == self.name:
            raise ValueError(f'the judge "{self.judge}" is the ranker itself: name an [[llm]] or another ranker')
        return self

    @property
    def on_torch(self) -> dict[str, Any]:
        """The keys that the file sets of where and how the model runs, as arguments of `load_ranker`."""
        return self.model_dump(include={"device", "dtype", "max_tokens"}, exclude_none=True)


class FuserConfig(_Section):
    """``[fuser]``: the fuser that writes the fused answer, and when that is returned.

    Attributes:
        name: ``chat`` (the first ``[[llm]]``), ``chat:NAME`` (that one), ``consensus`` (no model), ``embedded:DIR``
            (an adapter of the embedded LLM), a checkpoint on the Hub, or a folder, as for the ranker. None is
            ``consensus`` if all answers come from the embedded demonstration model, else ``chat``.
        top_k: maximum number of candidates to fuse, the best ones.
        guard: return a fused text only if the ranker prefers it to the best candidate.
        prefer: probability above which the ranker prefers it; None, as for the next two, is the default of
            `llm_blender.fusers.FusionRule`.
        close: ``auto`` fuses if the best candidate is better than the next one with less than this probability.
        overlap: ``auto`` fuses if the best candidate contains less than this share of the others' content.
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
    """``[limits]``: when to stop waiting, and the maximum cost of a prompt.

    Attributes:
        deadline: seconds for the LLMs to answer one prompt, and then for the fuser.
        quorum: number of LLMs whose answers suffice, however many samples each gives; None waits for all of them, up to
            the deadline.
        grace: seconds for the other LLMs after the quorum; None is as long again as the quorum took, and at least 10.
        max_cost: maximum cost of one prompt in dollars; an LLM whose answer might cost more than is left is not
            called. None means no cap.
        allow_unpriced: with a `max_cost`, also call LLMs without a price or `max_tokens`, and count them as free.
    """

    deadline: Seconds = 120.0
    quorum: int | None = Field(default=None, ge=1)
    grace: float | None = Field(default=None, ge=0)
    max_cost: float | None = Field(default=None, gt=0)
    allow_unpriced: bool = False


_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+", re.IGNORECASE)


class ServerConfig(_Section):
    """``[server]``: options of `blend serve`, where the deadline of ``[limits]`` covers the whole request.

    Attributes:
        host: address to bind to; any address other than loopback needs a key.
        port: port to bind to; 0 takes a free one.
        keys_env: environment variable with the API keys of the clients, separated by commas; optional.
        keys_file: file with the SHA-256 of a client's key, in hex, on each line; relative to the folder of this file.
        origins: origins of pages of other hosts that may use the service, ``https://chat.example.com``; ``*`` is every
            page, and needs keys.
        concurrency: maximum number of running requests; fewer run if the LLMs take fewer at once.
        queue: maximum number of waiting requests; further ones are refused.
        max_body: maximum size of a request in bytes.
        max_candidates: maximum number of texts to rank, or of answers to generate, in one request.
        max_documents: maximum number of documents to rerank in one request.
        max_messages: maximum number of messages in one request.
        max_chars: maximum length of one text, and of a whole conversation, in characters.
        heartbeat: seconds between comments that keep a stream alive.
        drain: seconds for running requests to finish when the service ends.
        failures: failures in a row after which an LLM is set aside.
        set_aside: seconds for which an LLM is set aside; doubled by each further failure, up to ten minutes.
        playground: serve the page at ``/``, and keep its questions and votes in the store.
        pass_: ``pass`` in the file: further keys of a client's request to hand on to the LLMs, such as ``provider``.
    """

    host: Name = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    keys_env: Variable = "LLM_BLENDER_KEYS"
    keys_file: Name | None = None
    origins: list[str] = Field(default=[])
    concurrency: int = Field(default=32, ge=1)
    queue: int = Field(default=64, ge=0)
    max_body: int = Field(default=4 * 1024 * 1024, ge=1024)
    max_candidates: int = Field(default=64, ge=2)
    max_documents: int = Field(default=1000, ge=2)
    max_messages: int = Field(default=1000, ge=1)
    max_chars: int = Field(default=1_000_000, ge=1)
    heartbeat: Seconds = 10.0
    drain: float = Field(default=30.0, ge=0)
    failures: int = Field(default=3, ge=1)
    set_aside: Seconds = 15.0
    playground: bool = True
    pass_: tuple[Name, ...] = Field(default=(), alias="pass", strict=False)

    @field_validator("origins")
    @classmethod
    def _are_origins(cls, origins: list[str]) -> list[str]:
        for origin in origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is no origin: write it as https://chat.example.com, without a path")
        return [origin.lower() for origin in origins]


class Config(_Section):
    """A whole ``blend.toml``.

    Attributes:
        llm: the LLMs; empty means the embedded default.
        ensemble: what happens to their answers.
        ranker: the ranker that compares the answers.
        fuser: the fuser that fuses the best ones.
        limits: when to stop waiting, and the maximum cost.
        server: options of `blend serve`.
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
        """The file that the configuration comes from; None for the defaults."""
        return self._path

    @property
    def folder(self) -> Path:
        """The folder that its file names are relative to."""
        return Path() if self.path is None else self.path.parent

    @property
    def priors_path(self) -> Path | None:
        """The file that ``[ranker] priors`` names; None for ``auto`` and without priors."""
        if self.ranker.priors in (None, AUTO):
            return None
        return self.folder / Path(self.ranker.priors).expanduser()

    @classmethod
    def from_toml(cls, text: str, path: str | Path | None = None) -> Self:
        """Parse and validate the text of a ``blend.toml``; `path` is named in errors.

        Raises:
            ConfigError: the text is not TOML, or a key or a value in it is wrong.
        """
        where = str(path or CONFIG_NAME)
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{where}: this is not TOML: {error}.") from None
        try:
            config = cls.model_validate(values)
        except ValidationError as error:
            # The text of the error would show the values, and an API key might be among them.
            raise ConfigError(f"{where}: {_explain(error, values)}") from None
        if path is not None:
            folder = Path(path).parent
            ranker = config.ranker.model_copy(update={"name": _beside(folder, config.ranker.name)})
            fuser = config.fuser.model_copy(update={"name": _beside(folder, config.fuser.name)})
            config = config.model_copy(update={"ranker": ranker, "fuser": fuser})
            config._path = Path(path)
        return config

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [entry.name for entry in self.llm]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f'two [[llm]] are named "{name}"; give each its own name, or ask one for several samples'
                )
        writers = sum(entry.samples > 0 for entry in self.llm)
        if self.llm and not writers:
            raise ValueError("every [[llm]] has 0 `samples`: give at least one of them more")
        if self.llm and self.limits.quorum and self.limits.quorum > writers:
            raise ValueError(
                f"[limits] wants a quorum of {self.limits.quorum}, but only {writers} [[llm]] give answers; it counts "
                f"LLMs, not samples"
            )
        return self

    def resolved(self) -> dict[str, Any]:
        """Return the configuration in force as JSON values, defaults included; of an API key only whether it is set."""
        values = self.model_dump(mode="json", exclude_none=True, by_alias=True)
        for entry in values["llm"]:
            if "api_key_env" in entry:
                entry["api_key_set"] = bool(os.environ.get(entry["api_key_env"]))
        return {"path": None if self.path is None else str(self.path), **values}


def load_config(path: str | Path | None = None) -> Config:
    """Load the configuration in `path`, else in ``./blend.toml``, else in the user's configuration folder.

    Without any of these files, return the defaults, which name no LLM.

    Raises:
        NotFoundError: `path` does not exist.
        ConfigError: the file cannot be read, or something in it is wrong.
    """
    if path is not None:
        path = Path(path)
        if not path.exists():
            raise NotFoundError(f"There is no configuration file {path} (looked in {Path.cwd()}).")
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


def _beside(folder: Path, name: str | None) -> str | None:
    """Return the path of a model that the file names as ``./…``, where it is in the folder of the file only."""
    if name is None or not name.startswith(("./", "../")) or Path(name).exists() or not (folder / name).exists():
        return name
    return str(folder / name)


_SHOWN = 3  # problems in one message


def _explain(error: ValidationError, values: Mapping[str, Any]) -> str:
    """Describe the first errors in one line; an unknown key comes first, as it often explains a missing one."""
    problems = error.errors(include_url=False, include_input=False)
    problems = [each for each in problems if each["type"] != "default_factory_not_called"]  # beside the fault itself
    problems.sort(key=lambda each: each["type"] != "extra_forbidden")
    meant = {
        (*each["loc"][:-1], nearest(str(each["loc"][-1]), field_names(_locate(each["loc"], values)[1])))
        for each in problems
        if each["type"] == "extra_forbidden"
    }
    shown = [each for each in problems if each["type"] != "missing" or each["loc"] not in meant]
    lines = list(dict.fromkeys(_describe(each, values) for each in shown))
    if (more := len(lines) - _SHOWN) > 0:
        lines[_SHOWN:] = [f"And {more} more"]
    return "".join(f"{line} " if line.endswith("?") else f"{line}. " for line in lines[:-1]) + lines[-1]


def _describe(problem: ErrorDetails, values: Mapping[str, Any]) -> str:
    place, model = _locate(problem["loc"], values)
    if problem["loc"] == ("llm",):
        return "LLMs are written as [[llm]], each with its own keys"
    last = problem["loc"][-1] if problem["loc"] else None
    named = problem["type"] == "extra_forbidden" or last in field_names(model)
    if problem["type"] == "extra_forbidden" and last == "api_key":
        words = 'unknown key "api_key": the file must not hold keys; name an environment variable with "api_key_env"'
    elif last == "price" and problem["type"] != "extra_forbidden":
        words = '"price" should be a table such as { input = 0.15, output = 0.6 }, in dollars per million tokens'
    else:
        words = one_problem(problem, [last] if named and last is not None else [], model)
    return f"{place}: {words}" if place else words


def _locate(loc: tuple[int | str, ...], values: Mapping[str, Any]) -> tuple[str, type[BaseModel]]:
    """Return the place of an error as the file writes it, and the model whose keys are known there."""
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
