"""Settings of a build, and the LLMs that take part in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from llm_blender.calls import first_seeds
from llm_blender.config import Config, LLMConfig, OpenAIConfig, Price, ReplayConfig
from llm_blender.data import NO_LENGTHS, STDIO, Lengths
from llm_blender.errors import ConfigError, InputError, NotFoundError, unknown_name
from llm_blender.llms import load_llm
from llm_blender.metrics import METRICS
from llm_blender.rankers.checkpoints import BUNDLED, find_checkpoint
from llm_blender.rankers.llm_judge import CRITERIA
from llm_blender.types import LLM, Sampling

SPLIT = "{split}"
_FREE = Price(input=0.0, output=0.0)
_ANSWERS_AT_ONCE = 4  # concurrent calls of an LLM in this process, which has its own queue
_JUDGE_TOKENS = 512  # a judge that reasons first needs them


@dataclass(frozen=True)
class BuildPlan:
    """Settings of a build.

    Attributes:
        sources: files of instructions, or data sets on the Hub (``owner/name`` or ``owner/name:split``).
        out: output file; with a split, its path contains ``{split}``.
        n: number of instructions to draw; None takes all that pass.
        lengths: limits of prompt and reference in tokens.
        tokenizer: ``bundled`` (the bundled ranker's), or the path of a ``tokenizer.json``.
        exclude: files of rows whose prompts are left out.
        split: shares by name; empty makes one file.
        max_tokens: maximum tokens of an answer, if the configuration sets none.
        metrics: names in `llm_blender.metrics.METRICS`; empty measures nothing.
        judge: name of the LLM that judges; None judges nothing.
        orders: ``both`` judges every pair in both orders, ``one`` in the one that the seed draws.
        criteria: criteria of a better answer, in whole sentences.
        check: number of pairs judged a second time, and in the other order if ``orders`` is ``one``, to measure
            whether the judge agrees with itself.
        seed: seed of all draws and of the LLMs.
        max_cost: maximum cost of all runs of the build in dollars; None allows only work that costs nothing.
        allow_unpriced: query LLMs without a known price; their calls are counted, not taken as free.
        drop_incomplete: leave out rows that lack an LLM's answer.
        skip_bad: skip and count malformed instructions instead of raising.
        name: name of the data set, for the card; by default that of the output.
        licence: licence of instructions whose rows state none, for the card.

    Raises:
        InputError: an option is wrong.
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
        """Check the settings before anything is read."""
        if self.out == STDIO:
            raise InputError("A build is resumable, so its output is a file: name one with -o.")
        if not Path(self.out).parent.is_dir():
            raise InputError(f"There is no folder {Path(self.out).parent} to write {Path(self.out).name} to.")
        if self.split and SPLIT not in self.out:
            raise InputError(f"With --split, the path of the output holds {SPLIT}, such as rows.{SPLIT}.jsonl.")
        if not self.split and SPLIT in self.out:
            raise InputError(f"The path of the output holds {SPLIT}: give the splits, e.g. --split train=0.9,dev=0.1.")
        for metric in self.metrics:
            if metric not in METRICS:
                raise unknown_name("metric", metric, METRICS)

    @property
    def job_folder(self) -> Path:
        """Folder of the job's journals."""
        return Path(f"{self.out.replace(SPLIT, 'all')}.job")

    @property
    def title(self) -> str:
        """Name of the data set."""
        return self.name or Path(self.out.replace(f".{SPLIT}", "").replace(SPLIT, "rows")).name.partition(".")[0]


@dataclass(frozen=True)
class Participant:
    """LLM that writes candidates or judges.

    Attributes:
        entry: its entry in the configuration.
        llm: the LLM.
        sampling: sampling settings, besides those of the entry.
    """

    entry: LLMConfig
    llm: LLM
    sampling: Sampling

    @property
    def name(self) -> str:
        """Name in the configuration and in the rows."""
        return self.llm.name

    @property
    def price(self) -> Price | None:
        """Price per million tokens; None if unknown. An LLM in this process is free."""
        return self.entry.price if isinstance(self.entry, OpenAIConfig) else _FREE

    @property
    def lane(self) -> int:
        """Number of concurrent calls."""
        return self.entry.concurrency if isinstance(self.entry, OpenAIConfig) else _ANSWERS_AT_ONCE

    @property
    def decoding(self) -> str:
        """MixInstruct's ``decoding_method``."""
        if isinstance(self.entry, ReplayConfig):
            return "replay"
        return "greedy" if self.entry.temperature == 0 else "top_p_sampling"

    def candidate_names(self) -> list[str]:
        """List the names of its candidates, one per sample."""
        return [self.name if sample == 0 else f"{self.name}#{sample + 1}" for sample in range(self.entry.samples)]

    def settings(self) -> dict[str, Any]:
        """Return the settings that its answers depend on."""
        sampling = self.sampling.to_dict()
        return {"identity": dict(self.llm.identity), "sampling": sampling, "samples": self.entry.samples}


def load_participants(plan: BuildPlan, config: Config) -> tuple[list[Participant], Participant | None]:
    """Load the LLMs that write candidates, and the judge.

    Raises:
        InputError: there is no such judge, no LLM writes, a name is not usable in ``cmp_results``, or a price is
            unknown.
    """
    if not config.llm:
        raise ConfigError(f"{config.path or 'The configuration'} names no LLM: add an [[llm]].")
    entries = {entry.name: entry for entry in config.llm}
    if plan.judge is not None and plan.judge not in entries:
        raise unknown_name("LLM", plan.judge, entries)
    writers = [(entry, load_llm(entry, config.folder)) for entry in config.llm if entry.samples]
    seeds = first_seeds(((llm, entry.samples) for entry, llm in writers), plan.seed)
    pool = [_writer(entry, llm, plan, seed) for (entry, llm), seed in zip(writers, seeds, strict=True)]
    judge = None if plan.judge is None else _judge(entries[plan.judge], plan, config)
    names = [name for participant in pool for name in participant.candidate_names()]
    for name in names:
        if judge is not None and "," in name:
            raise InputError(f"The LLM {name!r} has a comma in its name, which separates the names of judged pairs.")
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
    """List the LLMs of the pool that are the judge, by entry or by model name; its recorded answers count too."""
    model = judge.entry.model.lower()
    return [writer.name for writer in pool if writer.name == judge.name or writer.entry.model.lower() == model]


def _writer(entry: LLMConfig, llm: LLM, plan: BuildPlan, seed: int) -> Participant:
    tokens = None if isinstance(entry, ReplayConfig) else entry.max_tokens or plan.max_tokens
    return Participant(entry, llm, Sampling(max_tokens=tokens, seed=seed))


def _judge(entry: LLMConfig, plan: BuildPlan, config: Config) -> Participant:
    if isinstance(entry, ReplayConfig):
        raise InputError(f"{entry.name} returns recorded answers and cannot judge: name another LLM.")
    sampling = Sampling(
        temperature=0.0 if entry.temperature is None else entry.temperature,
        max_tokens=entry.max_tokens or _JUDGE_TOKENS,
        seed=plan.seed,  # a second judgement is another sample, hence another seed: a server's cache does not answer it
    )
    return Participant(entry, load_llm(entry, config.folder), sampling)


def token_counter(name: str) -> Callable[[str], int]:
    """Load a tokenizer, see `BuildPlan.tokenizer`, and return a function that counts tokens, without special ones.

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
