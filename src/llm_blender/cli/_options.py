"""Options that several commands share, and groups of them.

An option group is a frozen dataclass whose fields are annotated like the parameters of a command. A command takes a
group as one parameter; `with_options` expands it.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from llm_blender.cli._completion import complete_fuser, complete_llm, complete_ranker, complete_strategy
from llm_blender.cli._output import note, print_json
from llm_blender.errors import InputError, NotFoundError, unknown_name

if TYPE_CHECKING:
    from llm_blender.config import Config, LLMConfig, RankerConfig
    from llm_blender.jobs import Backend
    from llm_blender.rankers.heuristics import Heuristic
    from llm_blender.rankers.pair_ranker import PairRanker
    from llm_blender.rankers.pointwise import PointwiseRanker
    from llm_blender.types import Ranker

STDIO = "-"
"""File name that means standard input or output; `llm_blender.data.STDIO` without the import of numpy."""

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Read this configuration, not ./blend.toml or the one in the user's configuration folder.",
    ),
]
OrderOption = Annotated[
    Literal["best_first", "best_last", "shuffled"],
    typer.Option(help="Show the candidates to the fuser in this order."),
]
FuserOption = Annotated[
    str | None,
    typer.Option(
        "--fuser",
        metavar="NAME",
        help="Fuse with `chat` (the first LLM), `chat:NAME`, `consensus` (adds to the best candidate what the "
        "others agree on), `longest`, `embedded:DIR` (an adapter of the embedded LLM), a folder, or a Hub repository "
        "[default: as configured; consensus where only the embedded LLM answers, else chat].",
        autocompletion=complete_fuser,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
MarkdownOption = Annotated[bool, typer.Option("--markdown", help="Print Markdown tables.")]
PlainOption = Annotated[
    bool, typer.Option("--plain", help="Print the text as it is on a terminal, too, without rendering its Markdown.")
]
OutOption = Annotated[
    str,
    typer.Option(
        "--out", "-o", metavar="FILE", help="Write to FILE, in the format of its extension; - is standard output."
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed everything that is drawn at random.")]
SkipBadOption = Annotated[bool, typer.Option("--skip-bad", help="Skip and count malformed rows.")]
StrictOption = Annotated[bool, typer.Option("--strict", help="Exit with status 3 if the result is degraded.")]
RankerOption = Annotated[
    str | None,
    typer.Option(
        "--ranker",
        metavar="NAME",
        help="Load `bundled`, a folder, or a Hub repository (owner/name) [default: as configured; bundled].",
        autocompletion=complete_ranker,
    ),
]
LLMOption = Annotated[
    list[str] | None,
    typer.Option(
        "--llm",
        metavar="NAME",
        help="Query only this LLM: one of the configuration, PROVIDER:MODEL (ollama, llamacpp, lmstudio, vllm, openai, "
        "anthropic, gemini, openrouter, mistral, groq, deepseek, …), http://HOST:PORT/v1#MODEL, an embedded one "
        "(`blend models list`), or a GGUF file. Repeatable.",
        autocompletion=complete_llm,
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME,…",
        help="Run the models on cpu, cuda, cuda:1, mps, …, or share the work among several (cuda:0,cuda:1); a ranker "
        "then runs on torch.",
    ),
]
DTypeOption = Annotated[
    Literal["float32", "bfloat16", "float16"] | None,
    typer.Option(
        "--dtype",
        help="Run the ranker's model on torch in this precision; below float32, a logit depends on its batch by some "
        "0.01.",
        show_default="float32",
    ),
]
BatchOption = Annotated[
    int | None,
    typer.Option(
        "--max-tokens",
        min=1,
        help="Put at most so many tokens, padding included, into a batch of the ranker [default: 2048 on a CPU, 32768 "
        "on another device].",
    ),
]
StrategyOption = Annotated[
    str,
    typer.Option(
        "--strategy",
        metavar="NAME",
        help="Choose the pairs to compare: auto, full, single, bubble, knockout, top_k or active.",
        autocompletion=complete_strategy,
    ),
]
BlindOnlyOption = Annotated[
    bool, typer.Option("--blind-only", help="Leave out votes of people who saw names or ranks.")
]
ModelsOption = Annotated[str, typer.Option("--models", metavar="A,B,…", help="Keep only the candidates of these LLMs.")]
PriorsOption = Annotated[
    Path | None,
    typer.Option(
        "--priors",
        metavar="FILE",
        help="Add the LLMs' strengths to the ranker's logits; `blend priors fit` learns them.",
    ),
]
ComparisonsOption = Annotated[
    Path | None,
    typer.Option(
        "--comparisons",
        metavar="FILE",
        help="Cache comparisons in this file: none is computed twice, and an interrupted run resumes.",
    ),
]
MetricOption = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        "--metrics",
        metavar="NAME[=MODEL]",
        help="Compute bleu, rouge1, rouge2, rougeL, rougeLsum, bertscore, bartscore or bleurt. The last three load a "
        "model (a folder or Hub repository), by default that of the paper. Repeatable.",
    ),
]
LimitOption = Annotated[
    int | None,
    typer.Option("--limit", metavar="N", min=1, help="Take only the first N rows of each FILE; JSON then has `limit`."),
]
PlotOption = Annotated[
    Path | None, typer.Option("--plot", metavar="DIR", help="Draw the results as PNG and SVG; matplotlib is an extra.")
]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write a self-contained page with the results.")
]


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace a command's option groups, the parameters annotated with a dataclass, by the fields of each.

    Groups may share a field: it is one option, with the help of the first.
    """
    parameters: dict[str, inspect.Parameter] = {}
    groups: dict[str, tuple[Any, list[str]]] = {}
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        options = [parameter]
        if is_dataclass(parameter.annotation):
            options = _parameters(parameter.annotation)
            groups[parameter.name] = parameter.annotation, [option.name for option in options]
        for option in options:
            parameters.setdefault(option.name, option.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def run(**values: Any) -> None:
        filled = {name: group(**{field: values[field] for field in its}) for name, (group, its) in groups.items()}
        grouped = {field for _, its in groups.values() for field in its}
        command(**{name: value for name, value in values.items() if name not in grouped}, **filled)

    run.__signature__ = inspect.Signature([*parameters.values()])  # type: ignore[attr-defined]
    run.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
    return run


def _parameters(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]


@dataclass(frozen=True)
class RequiredOutputOptions:
    """Output file of the rows, and the format of the summary.

    Raises:
        InputError: rows cannot be written in the format that the file's extension names.
    """

    out: OutOption
    as_json: JsonOption = False

    def __post_init__(self) -> None:
        from llm_blender.data import check_output

        check_output(self.out)

    @property
    def show_progress(self) -> bool:
        """Whether a progress bar leaves the rows readable: False where both go to one terminal."""
        return self.out != STDIO or not sys.stdout.isatty()

    def print_summary(self, summary: Any) -> None:
        """Print the summary of a run with --json, unless standard output holds the rows."""
        if self.as_json and self.out != STDIO:
            print_json(summary)


@dataclass(frozen=True)
class OutputOptions(RequiredOutputOptions):
    """The same, by default with the rows on standard output."""

    out: OutOption = STDIO


@dataclass(frozen=True)
class StrategyOptions:
    """Pairs that a ranker compares."""

    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy",
            metavar="NAME",
            help="Choose the pairs to compare: auto, full, single, bubble, knockout, top_k or active "
            "[default: as configured, where a configuration is read; auto].",
            autocompletion=complete_strategy,
        ),
    ] = None
    budget: Annotated[
        int | None,
        typer.Option(min=2, help="Limit the comparisons per row, for auto and active [default: as configured; 40]."),
    ] = None
    seed: SeedOption = 0

    def __post_init__(self) -> None:
        from llm_blender.ranking import comparison_count

        if self.strategy is not None:
            comparison_count(self.strategy, 2)

    def settings(self, configured: RankerConfig | None = None) -> dict[str, Any]:
        """Return the arguments of `Ranker.rank_many`, with what is configured in place of missing options."""
        from llm_blender.config import RankerConfig

        configured = configured or RankerConfig()
        return {
            "strategy": self.strategy or configured.strategy,
            "budget": self.budget or configured.budget,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class BackendOptions:
    """Backend of a ranker. The fields are arguments of `load_ranker`."""

    backend: Annotated[
        Literal["onnx", "openvino", "torch"] | None,
        typer.Option(help="Run the ranker on ONNX Runtime, OpenVINO or torch; two are extras.", show_default="onnx"),
    ] = None
    device: DeviceOption = None
    dtype: DTypeOption = None
    max_tokens: BatchOption = None
    precision: Annotated[
        Literal["int8", "fp32", "bf16"] | None,
        typer.Option(help="Choose the precision: int8 or fp32 on onnx, fp32 or bf16 on openvino.", show_default="int8"),
    ] = None

    @property
    def given(self) -> list[str]:
        """Names of the options that are given."""
        names = [field.name for field in fields(BackendOptions)]
        return [f"--{name.replace('_', '-')}" for name in names if getattr(self, name) is not None]

    def arguments(self, name: str, configured: RankerConfig | None = None) -> dict[str, Any]:
        """Return the arguments of `load_ranker`.

        Args:
            name: of the ranker.
            configured: device, dtype and max_tokens for a model on torch, in place of missing options.
        """
        from llm_blender.rankers import runs_model

        settings: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(BackendOptions)}
        if configured is not None and self.backend in (None, "torch") and self.precision is None and runs_model(name):
            own = {key: value for key, value in settings.items() if value is not None}
            settings |= {**configured.on_torch, **own}
        return settings

    def load(
        self, name: str, configured: RankerConfig | None = None, *, evidence: bool = True
    ) -> PairRanker | PointwiseRanker | Heuristic:
        """Load a ranker; without `evidence`, the logits of a PairRanker's model alone count. See `arguments`."""
        from llm_blender.rankers import load_ranker

        return load_ranker(name, evidence=evidence, **self.arguments(name, configured))


def cached_ranker(ranker: Ranker, name: str, comparisons: Path | None) -> Ranker:
    """Wrap a ranker with the cache of ``--comparisons``; without a file, return the ranker itself."""
    if comparisons is None:
        return ranker
    from llm_blender.bench import CachedRanker

    return CachedRanker(ranker, comparisons, name)


@dataclass(frozen=True)
class LLMOptions:
    """Configuration, and the LLMs of it that answer."""

    samples: Annotated[
        int | None,
        typer.Option("-n", metavar="N", min=1, max=200, help="Sample N answers per LLM [default: as configured; 5]."),
    ] = None
    llm: LLMOption = None
    device: DeviceOption = None
    dtype: DTypeOption = None
    config: ConfigOption = None

    def load_config(self) -> Config:
        """Load the configuration, with the options in place of its values."""
        from llm_blender.config import load_config

        config = load_config(self.config)
        given = {"device": self.device, "dtype": self.dtype, "max_tokens": self._batch}
        changed = {key: value for key, value in given.items() if value is not None}
        return config.model_copy(update={"ranker": config.ranker.model_copy(update=changed)}) if changed else config

    @property
    def _batch(self) -> int | None:
        """Tokens of a batch of the ranker; None is as configured."""
        return None

    def apply(self, entry: LLMConfig) -> LLMConfig:
        """Return an ``[[llm]]`` with the options in place of its values; one with 0 samples keeps them, as it fuses."""
        if self.samples is None or not entry.samples:
            return entry
        return entry.model_copy(update={"samples": self.samples})


@dataclass(frozen=True)
class ServeOptions(LLMOptions):
    """The same, with the size of the ranker's batches."""

    max_tokens: BatchOption = None

    @property
    def _batch(self) -> int | None:
        return self.max_tokens


@dataclass(frozen=True)
class EnsembleOptions(LLMOptions):
    """LLMs, and what happens to their answers."""

    mode: Annotated[
        Literal["pick", "fuse", "auto"] | None,
        typer.Option(
            help="pick the best candidate, fuse the best ones, or fuse only where it is likely to help "
            "[default: as configured; pick]."
        ),
    ] = None
    fuser: FuserOption = None

    def load_config(self) -> Config:
        """Load the configuration, with the options in place of its values."""
        config = super().load_config()
        if self.mode is not None:
            config = config.model_copy(update={"ensemble": config.ensemble.model_copy(update={"mode": self.mode})})
        if self.fuser is not None:
            config = config.model_copy(update={"fuser": config.fuser.model_copy(update={"name": self.fuser})})
        return config


@dataclass(frozen=True)
class AskOptions(EnsembleOptions):
    """LLMs, how each is called, and what happens to their answers."""

    system: Annotated[
        str | None,
        typer.Option("--system", "-s", metavar="TEXT", help="Send this system message (a text, or @FILE)."),
    ] = None
    temperature: Annotated[float | None, typer.Option(min=0, help="Sample at this temperature.")] = None
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Limit the tokens of each answer.")] = None
    max_cost: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="DOLLARS",
            help="Call no LLM whose answer might cost more than is left.",
        ),
    ] = None
    ranker: RankerOption = None

    @functools.cached_property
    def system_text(self) -> str | None:
        """Text of the system message."""
        return None if self.system is None else read_text(self.system)

    def load_config(self) -> Config:
        """Load the configuration, with the options in place of its values.

        Raises:
            InputError: the ranker is the configured judge, or an LLM.
        """
        config = super().load_config()
        if self.ranker is not None and self.ranker == config.ranker.judge:
            raise InputError(f"--ranker {self.ranker}: it is the judge of the configuration; name another one.")
        if self.ranker is not None and self.ranker.startswith("judge:"):
            raise InputError(
                f"--ranker {self.ranker}: an LLM judges close calls beside a ranker; see `[ranker] judge`."
            )
        given = {
            "ranker": config.ranker if self.ranker is None else config.ranker.model_copy(update={"name": self.ranker}),
            "limits": config.limits
            if self.max_cost is None
            else config.limits.model_copy(update={"max_cost": self.max_cost}),
        }
        return config.model_copy(update=given)

    def apply(self, entry: LLMConfig) -> LLMConfig:
        """Return an ``[[llm]]`` with the options in place of its values, and name those that its kind has not."""
        entry = super().apply(entry)
        given: dict[str, Any] = {
            "system": self.system_text,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }
        given = {key: value for key, value in given.items() if value is not None}
        if lost := [f"--{key.replace('_', '-')}" for key in given if not hasattr(entry, key)]:
            note(f"{entry.name} replays recorded answers: {' and '.join(lost)} not used")
        return entry.model_copy(update={key: value for key, value in given.items() if hasattr(entry, key)})


@dataclass(frozen=True)
class JobOptions:
    """Limits of a resumable job."""

    max_cost: Annotated[
        float | None, typer.Option(min=0, metavar="DOLLARS", help="Limit what all runs of this job cost together.")
    ] = None
    allow_unpriced: Annotated[
        bool,
        typer.Option(
            "--allow-unknown-prices", help="Query LLMs without a price too; their calls are counted, not priced."
        ),
    ] = False
    restart: Annotated[
        bool, typer.Option("--restart", help="Discard what an earlier run did; the store still holds its answers.")
    ] = False


@dataclass(frozen=True)
class RowJobOptions:
    """A resumable job on the rows of files, and where it works."""

    restart: Annotated[bool, typer.Option("--restart", help="Discard what an earlier run did.")] = False
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Work again on the chunks in which a row failed.")
    ] = False
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(help="Work in this process, or in actors of a Ray cluster (the extra `ray`)."),
    ] = "local"
    actors: Annotated[int | None, typer.Option(min=1, help="Start N actors.", show_default="1")] = None
    cpus: Annotated[
        float | None,
        typer.Option("--cpus-per-actor", min=0.1, help="Give each actor N processors.", show_default="1"),
    ] = None
    gpus: Annotated[
        float | None,
        typer.Option("--gpus-per-actor", min=0, help="Give each actor N accelerators.", show_default="0"),
    ] = None
    address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Use this Ray cluster: auto, the one of this node, or HOST:PORT.",
            show_default="one on this machine",
        ),
    ] = None

    def __post_init__(self) -> None:
        given = {
            "--actors": self.actors,
            "--cpus-per-actor": self.cpus,
            "--gpus-per-actor": self.gpus,
            "--address": self.address,
        }
        if self.engine == "local" and (names := [name for name, value in given.items() if value is not None]):
            raise InputError(f"{' and '.join(names)} need --engine ray.")

    def backend(self) -> Backend:
        """Make the backend of the job."""
        from llm_blender.jobs.backends import LocalBackend, RayBackend

        if self.engine == "local":
            return LocalBackend()
        return RayBackend(self.actors or 1, self.cpus or 1.0, self.gpus or 0.0, self.address)


@dataclass(frozen=True)
class DatasetOptions:
    """Selection, split and provenance of the rows of a data set."""

    name: Annotated[
        str, typer.Option(metavar="TEXT", help="Name the data, for the card and the rows.", show_default="FILE")
    ] = ""
    licence: Annotated[
        str, typer.Option(metavar="TEXT", help="State the licence of rows that hold none, for the card.")
    ] = ""
    split: Annotated[
        str,
        typer.Option(
            metavar="NAME=SHARE,…",
            help="Split the rows over several files, e.g. train=0.8,dev=0.1,test=0.1; FILE contains {split}.",
        ),
    ] = ""
    exclude: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Leave out prompts that a row of this file holds too. Repeatable."),
    ] = None
    seed: SeedOption = 0
    skip_bad: SkipBadOption = False

    def settings(self) -> dict[str, Any]:
        """Return the arguments of `ImportPlan` and `BuildPlan`."""
        from llm_blender.datasets import parse_split

        split = parse_split(self.split) if self.split else {}
        return {**vars(self), "split": split, "exclude": tuple(self.exclude or ())}


@dataclass(frozen=True)
class TrainingOptions:
    """Data and length of a training run.

    Raises:
        NotFoundError: the development rows do not exist.
    """

    recipe: Annotated[
        Path | None, typer.Option(metavar="TOML", help="Read sources and settings of the run from this recipe.")
    ] = None
    data: Annotated[Path, typer.Option(metavar="DIR", help="Look for the recipe's sources in this folder.")] = Path()
    dev: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|FILE", help="Evaluate on a file of rows, or find the recipe's dev sources in a folder."
        ),
    ] = None
    exclude: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Leave out training rows whose prompt this test file holds too. Repeatable."),
    ] = None
    backbone: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Start from this model: a Hub name or a folder [default: the recipe's]."),
    ] = None
    epochs: Annotated[int | None, typer.Option(min=1, help="Set the number of passes over the training data.")] = None
    accumulate: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Set the number of batches per step, a multiple of the number of processes [default: the recipe's].",
        ),
    ] = None
    seed: Annotated[int | None, typer.Option(min=0, help="Seed everything that is drawn at random.")] = None
    licence: Annotated[
        str, typer.Option(metavar="TEXT", help="Name the licence of FILE in the model card [default: of its card].")
    ] = ""
    push_to_hub: Annotated[
        str, typer.Option(metavar="OWNER/NAME", help="Push the result with its card to this repository of the Hub.")
    ] = ""
    private: Annotated[bool, typer.Option("--private", help="Make a new repository of the Hub private.")] = False

    def check_push(self) -> None:
        """Check before the training what can be checked of --push-to-hub."""
        if self.push_to_hub:
            from llm_blender._hub import check_push

            check_push(self.push_to_hub)
        elif self.private:
            raise InputError("--private needs --push-to-hub: name the repository.")

    def push(self, folder: Path) -> str | None:
        """Push a checkpoint where --push-to-hub names a repository; return its URL."""
        if not self.push_to_hub:
            return None
        from llm_blender._hub import push_folder

        url = push_folder(folder, self.push_to_hub, private=self.private or None)
        note(f"pushed to {url}")
        return url

    def __post_init__(self) -> None:
        if self.dev is not None and not self.dev.exists():
            raise NotFoundError(f"There is no file or folder {self.dev}.")

    @property
    def dev_file(self) -> Path | None:
        """File of development rows, if --dev is one."""
        return self.dev if self.dev is not None and self.dev.is_file() else None

    @property
    def dev_folder(self) -> Path:
        """Folder of the recipe's development sources."""
        if self.dev is None:
            return self.data
        return self.dev if self.dev.is_dir() else self.dev.parent


def split_names(names: str) -> list[str]:
    """Split a list of names at its commas."""
    return [name for name in (part.strip() for part in names.split(",")) if name]


def read_text(argument: str) -> str:
    """Read the text of an argument: the argument itself, ``@file``, or ``-`` for standard input.

    Trailing line ends of a file or of standard input are removed, as ``$(cat file)`` does. ``@@`` at the beginning
    means a literal @.
    """
    if argument == STDIO:
        return _decode(sys.stdin.buffer.read(), "Standard input").rstrip("\r\n")
    if argument.startswith("@") and not argument.startswith("@@"):
        return read_file(argument[1:], "; a text that begins with @ is written @@")
    # Bytes of the command line that are not UTF-8 arrive as lone surrogates.
    return _decode(os.fsencode(argument.removeprefix("@")), "An argument")


def read_file(name: str, hint: str = "") -> str:
    """Read a text file, without its trailing line ends; `hint` ends the message if there is none."""
    return _decode(_read(name, hint), name).rstrip("\r\n")


def _read(name: str, hint: str) -> bytes:
    try:
        return Path(name).expanduser().read_bytes()
    except FileNotFoundError:
        raise NotFoundError(f"There is no file {name!r}{hint}.") from None
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}.") from None


def _decode(data: bytes, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{what} is not UTF-8 (byte {error.start}): convert it, e.g. with iconv.") from None


_BY_MODEL = ("bertscore", "bartscore", "bleurt")


def metric_settings(names: list[str], device: str | None) -> dict[str, dict[str, Any]]:
    """Parse metrics, ``NAME`` or ``NAME=MODEL``, into settings by name for `llm_blender.metrics.evaluate`."""
    from llm_blender.metrics import METRICS

    wanted: dict[str, dict[str, Any]] = {}
    for given in names:
        name, _, model = given.partition("=")
        if name not in METRICS:
            raise unknown_name("metric", name, METRICS)
        if model and name not in _BY_MODEL:
            raise InputError(f"--metric {given}: {name} takes no model; these do: {', '.join(_BY_MODEL)}.")
        own = {"device": device} if device and name in _BY_MODEL else {}
        wanted[name] = own | ({"model": model} if model else {})
    return wanted
