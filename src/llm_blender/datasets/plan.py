"""What to build, and who takes part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from llm_blender.config import Config, LLMConfig, OpenAIConfig, Price, ReplayConfig
from llm_blender.data import NO_LENGTHS, STDIO, Lengths
from llm_blender.errors import ConfigError, InputError, NotFoundError, unknown_name
from llm_blender.llms import load_llm
from llm_blender.metrics import METRICS
from llm_blender.rankers.checkpoints import BUNDLED, find_checkpoint
from llm_blender.rankers.llm_judge import CRITERIA
from llm_blender.types import LLM, Sampling

__all__ = ["BuildPlan", "Participant", "judge_in_pool", "load_participants", "token_counter"]

SPLIT = "{split}"
_FREE = Price(input=0.0, output=0.0)
_ANSWERS_AT_ONCE = 4  # of an LLM in this process, which keeps its own queue
_JUDGE_TOKENS = 512  # one that thinks aloud first needs them


@dataclass(frozen=True)
class BuildPlan:
    """What to build.

    Attributes:
        sources: files of instructions, or data sets on the Hub (``owner/name`` or ``owner/name:split``).
        out: the file to write; with a split, its path holds ``{split}``.
        n: how many instructions are drawn; None takes all that pass.
        lengths: filter by tokens of prompt and reference.
        tokenizer: what counts them: ``bundled`` (the bundled ranker's), or the path of a ``tokenizer.json``.
        exclude: files of rows; what asks the same as one of them is left out.
        split: shares by name; empty makes one file.
        max_tokens: of an answer, where the configuration does not say it.
        metrics: names of `llm_blender.metrics.METRICS`; empty measures nothing.
        judge: name of the LLM that judges; None judges nothing.
        orders: ``both`` asks for every pair in both orders, ``one`` in the one that the seed draws.
        criteria: what makes an answer better, in whole sentences.
        check: pairs that are asked once more, and turned round where ``orders`` is ``one``, to see whether the judge
            agrees with itself.
        seed: of all that is drawn, and of the LLMs.
        max_cost: dollars, for all runs of the build together; None is only enough where nothing costs anything.
        allow_unpriced: ask LLMs whose price is not known; their calls are counted, and not as free.
        drop_incomplete: leave out rows that lack an LLM's answer.
        skip_bad: leave out and count instructions that cannot be read.
        name: of the data set, for the card; by default that of the output.
        licence: of the instructions, for the card, where the rows do not say it.
    """

    sources: tuple[str, ...]
    out: str
    n: int | None = None
    lengths: Lengths = NO_LENGTHS
    tokenizer: str = "bundled"
    exclude: tuple[Path, ...] = ()
    split: Mapping[str, float] = field(default_factory=dict)
    max_tokens: int = 512
    metrics: tuple[str, ...] = tuple(METRICS)
    judge: str | None = None
    orders: Literal["both", "one"] = "both"
    criteria: str = CRITERIA
    check: int = 40
    seed: int = 0
    max_cost: float | None = None
    allow_unpriced: bool = False
    drop_incomplete: bool = False
    skip_bad: bool = False
    name: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot be done before anything is read.

        Raises:
            InputError: an option is wrong.
        """
        if self.out == STDIO:
            raise InputError("A build is gone on with where it stopped, so its output is a file: name one with -o.")
        if not Path(self.out).parent.is_dir():
            raise InputError(f"There is no folder {Path(self.out).parent} to write {Path(self.out).name} to.")
        if self.split and SPLIT not in self.out:
            raise InputError(f"With --split, the path of the output holds {SPLIT}, such as rows.{SPLIT}.jsonl.")
        if not self.split and SPLIT in self.out:
            raise InputError(
                f"The path of the output holds {SPLIT}: say which splits, such as --split train=0.9,dev=0.1."
            )
        for metric in self.metrics:
            if metric not in METRICS:
                raise unknown_name("metric", metric, METRICS)

    @property
    def job_folder(self) -> Path:
        """Where it is remembered what was done."""
        return Path(f"{self.out.replace(SPLIT, 'all')}.job")

    @property
    def title(self) -> str:
        """The name of the data set."""
        return self.name or Path(self.out.replace(f".{SPLIT}", "").replace(SPLIT, "rows")).name.partition(".")[0]


@dataclass(frozen=True)
class Participant:
    """An LLM that writes candidates, or judges.

    Attributes:
        entry: of the configuration.
        llm: itself.
        sampling: how it writes, besides what the entry says.
    """

    entry: LLMConfig
    llm: LLM
    sampling: Sampling

    @property
    def name(self) -> str:
        """In the configuration, and in the rows."""
        return self.llm.name

    @property
    def price(self) -> Price | None:
        """None where it is not known; what runs in this process is free."""
        return self.entry.price if isinstance(self.entry, OpenAIConfig) else _FREE

    @property
    def lane(self) -> int:
        """How many calls are made at once."""
        return self.entry.concurrency if isinstance(self.entry, OpenAIConfig) else _ANSWERS_AT_ONCE

    @property
    def decoding(self) -> str:
        """MixInstruct's ``decoding_method``."""
        if isinstance(self.entry, ReplayConfig):
            return "replay"
        return "greedy" if self.entry.temperature == 0 else "top_p_sampling"

    @property
    def model(self) -> str:
        """What the server, or the file of rows, calls it."""
        return self.entry.model

    def candidate_names(self) -> list[str]:
        """The names of its candidates, one a sample."""
        return [self.name if sample == 0 else f"{self.name}#{sample + 1}" for sample in range(self.entry.samples)]

    def settings(self) -> dict[str, Any]:
        """What its answers depend on."""
        return {
            "identity": dict(self.llm.identity),
            "sampling": self.sampling.to_dict(),
            "samples": self.entry.samples,
        }


def load_participants(plan: BuildPlan, config: Config) -> tuple[list[Participant], Participant | None]:
    """Those who write candidates, and the judge.

    Raises:
        InputError: there is no such judge, nobody writes, a name cannot stand in ``cmp_results``, a price is not known.
    """
    if not config.llm:
        raise ConfigError(f"{config.path or 'The configuration'} names no LLM: add an [[llm]].")
    entries = {entry.name: entry for entry in config.llm}
    if plan.judge is not None and plan.judge not in entries:
        raise unknown_name("LLM", plan.judge, entries)
    pool = [_writer(entry, plan, config) for entry in config.llm if entry.samples]
    judge = None if plan.judge is None else _judge(entries[plan.judge], plan, config)
    names = [name for participant in pool for name in participant.candidate_names()]
    for name in names:
        if judge is not None and "," in name:
            raise InputError(f"The LLM {name!r} has a comma in its name, which divides the names of judged pairs.")
        if names.count(name) > 1:
            raise InputError(f"Two candidates of a row would be called {name!r}: give the LLMs other names.")
    for participant in [*pool, *([judge] if judge else [])]:
        if participant.price is None and not plan.allow_unpriced:
            raise InputError(
                f"The price of {participant.name} is not known, and is not taken for zero: add `price` to its [[llm]] "
                f"(zeros where it is free), or allow it with --allow-unknown-prices."
            )
    return pool, judge


def judge_in_pool(judge: Participant, pool: Sequence[Participant]) -> list[str]:
    """The LLMs of the pool that are the judge itself: the same entry, or the same model by the same name."""
    return [writer.name for writer in pool if writer.name == judge.name or _same_model(writer.entry, judge.entry)]


def _same_model(one: LLMConfig, other: LLMConfig) -> bool:
    return one.model.lower() == other.model.lower()  # recorded answers of the judge are its own, too


def _writer(entry: LLMConfig, plan: BuildPlan, config: Config) -> Participant:
    tokens = None if isinstance(entry, ReplayConfig) else entry.max_tokens or plan.max_tokens
    return Participant(entry, load_llm(entry, config.folder), Sampling(max_tokens=tokens, seed=plan.seed))


def _judge(entry: LLMConfig, plan: BuildPlan, config: Config) -> Participant:
    if isinstance(entry, ReplayConfig):
        raise InputError(f"{entry.name} gives back recorded answers and cannot judge: name another LLM.")
    sampling = Sampling(
        temperature=0.0 if entry.temperature is None else entry.temperature,
        max_tokens=entry.max_tokens or _JUDGE_TOKENS,
        seed=plan.seed,  # with another sample it is another seed: asked again, a server's cache does not answer
    )
    return Participant(entry, load_llm(entry, config.folder), sampling)


def token_counter(name: str) -> Callable[[str], int]:
    """Counts the tokens of a text, without special ones.

    Args:
        name: ``bundled`` is the bundled ranker's tokenizer; else the path of a ``tokenizer.json``, or its folder.

    Raises:
        NotFoundError: there is no such file.
        InputError: it is no tokenizer.
    """
    from tokenizers import Tokenizer

    path = find_checkpoint(BUNDLED) if name == BUNDLED else Path(name).expanduser()
    path = path / "tokenizer.json" if path.is_dir() else path
    if not path.is_file():
        raise NotFoundError(f"There is no tokenizer {path}: give `bundled`, or the path of a tokenizer.json.")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"{path} is no tokenizer that the tokenizers library reads: {error}.") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
