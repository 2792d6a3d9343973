"""Where the time of ranking goes, for any ranker and backend, side by side.

    python benchmarks/ranking.py
    python benchmarks/ranking.py $DATA/test/alpacaeval_v1.jsonl.zst --models pool-claude --rows 24 --threads 1 \
        --run int8= --run fp32=precision=fp32 --run torch=backend=torch --peers pointwise --json --picture docs/pictures

Without a file, the texts are made by a seed, with the lengths of chat answers. ``--run NAME=key=value,…`` adds a run:
``ranker``, ``backend``, ``precision``, ``dtype``, ``strategy``, ``budget``, ``k``, ``max_tokens``, ``prompts`` (ranked
in one call), ``evidence``; other keys are those of the command. After a warm-up all runs take turns, in both orders;
each figure is the median over the rounds.

The share of the peak is useful operations (`_accounting`) over seconds over the float32 peak of the same round. It is
the product of four factors, which the picture shows:

- products: speed of the batches' bare matrix products, run alone in the same round, over the peak;
- padding: useful over computed operations;
- the rest of the model: time of these products over that of the model. What lies between them (softmax, norms,
  activations, copies) makes it less than one; kernels of lower precision can make it more;
- outside the model: time of the model over that of the whole call.

Outside the model, ``tokenising`` includes the cuts to length, ``evidence`` is what the texts themselves show,
``packing`` makes batches and collects results, and the rest, ``engine``, is strategies and results. Times inside the
model are those of one device: with several, its batches overlap, and these shares are wrong.

``--peers`` adds other libraries with the weights of the bundled ranker's encoder and a random head (`_peers`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from _accounting import Products, Shape, processor
from _peers import PEERS, make_peers

from llm_blender.bench import Table
from llm_blender.bench.plots import bar_axis, headline, new_figure, require_matplotlib, save_figures
from llm_blender.bench.report import NOTHING, Theme, format_number
from llm_blender.data import read_rows
from llm_blender.errors import CheckpointError, NotFoundError
from llm_blender.rankers import load_ranker
from llm_blender.rankers.pair_ranker import PairRanker
from llm_blender.rankers.pair_ranker.backends import available_processors
from llm_blender.ranking.evidence import Features
from llm_blender.testing import CountedBatch, CountingBackend, chat_texts, work_of
from llm_blender.types import Ranker

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Clock = Callable[[], float]
OUTSIDE = ("tokenising", "evidence", "packing", "engine")
FACTORS = ("products", "padding", "rest of the model", "outside the model")


@dataclass(frozen=True)
class Run:
    """One way to rank; None leaves the default.

    Attributes:
        prompts: number of prompts in one call; 0 for all.
    """

    name: str
    ranker: str = "bundled"
    backend: str | None = None
    precision: str | None = None
    dtype: str | None = None
    strategy: str = "auto"
    budget: int | None = None
    k: int | None = None
    max_tokens: int | None = None
    prompts: int = 1
    evidence: bool = True

    @classmethod
    def parse(cls, text: str, defaults: dict[str, Any]) -> Run:
        """Read ``NAME=key=value,…``."""
        name, _, settings = text.partition("=")
        values = dict(defaults)
        for setting in filter(None, settings.split(",")):
            key, _, value = setting.partition("=")
            if key not in {known.name for known in fields(cls)} - {"name"} or not value:
                raise SystemExit(f"--run {text}: {setting!r} is not a setting with a value.")
            numbers = ("budget", "k", "max_tokens", "prompts")
            values[key] = int(value) if key in numbers else value == "true" if key == "evidence" else value
        return cls(name, **values)

    def some(self, *names: str) -> dict[str, Any]:
        """Return the settings that are given, of these names."""
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


class Watch:
    """Seconds by name of what runs; those of a part inside another count in both."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Measure the ``with`` block."""
        started = self._clock()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + self._clock() - started

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that measures each of its calls."""

        def run(*args: Any, **kwargs: Any) -> Any:
            with self.measure(name):
                return work(*args, **kwargs)

        return run


class Ours:
    """A ranker of this package under measurement.

    Attributes:
        batches: that its model computed in the last pass; none of a ranker that has no pairs.
        shape: of its encoder.
        watch: seconds of the last pass.
    """

    def __init__(self, run: Run, threads: int, clock: Clock) -> None:
        self.run, self.name, self._clock = run, run.name, clock
        self.ranker = loaded(run, threads)
        self.shape = Shape.of(self.ranker.config) if isinstance(self.ranker, PairRanker) else None
        self.batches: list[CountedBatch] = []
        self.watch = Watch(clock)

    def rank(self, prompts: Sequence[str], candidates: Sequence[Sequence[str]]) -> int:
        """Rank all once and return the number of comparisons that count."""
        self.watch, size = Watch(self._clock), self.run.prompts or len(prompts)
        options = {"strategy": self.run.strategy, **self.run.some("budget", "k")}
        comparisons = 0
        with self._watched():
            for start in range(0, len(prompts), size):
                part = slice(start, start + size)
                rankings = self.ranker.rank_many(prompts[part], candidates[part], **options)
                comparisons += sum(ranking.comparisons for ranking in rankings)
        return comparisons

    @contextmanager
    def _watched(self) -> Iterator[None]:
        ranker, watch = self.ranker, self.watch
        if not isinstance(ranker, PairRanker):
            yield
            return
        bare, make = ranker.backend, ranker._comparer
        counting = CountingBackend(bare, self._clock)

        def comparer(*args: Any) -> Any:
            with watch.measure("tokenising"):
                compare = make(*args)
            timed: Any = watch.timed("comparing", compare)
            timed.texts = compare.texts
            return timed

        with ExitStack() as stack:
            for name in ("read", "weigh"):
                stack.enter_context(patch.object(Features, name, watched_method(Features, name, watch)))
            stack.enter_context(patch.multiple(ranker, backend=counting, _comparer=comparer))
            yield
        self.batches = counting.batches


def watched_method(owner: type, name: str, watch: Watch) -> Any:
    """Return a method, or a class method, that also measures itself as ``evidence``."""
    own = owner.__dict__[name]
    if isinstance(own, classmethod):
        return classmethod(watch.timed("evidence", own.__func__))
    return watch.timed("evidence", own)


def loaded(run: Run, threads: int) -> Ranker:
    """Load the ranker of a run; the torch backend takes its threads from `Products`."""
    try:
        settings = run.some("backend", "precision", "dtype", "max_tokens", "evidence")
        return PairRanker.from_pretrained(run.ranker, threads=threads, **settings)
    except (CheckpointError, NotFoundError):
        return load_ranker(run.ranker, **run.some("backend"))


@dataclass
class Measured:
    """Figures of one run.

    Attributes:
        seconds: a prompt, over the rounds.
        peaks: operations a second, float32, over the rounds.
        inside: seconds of each part of the model, over all prompts, of each round.
        products: seconds of the bare products of the same batches, of each round.
        outside: seconds of each of `OUTSIDE`, of each round.
    """

    name: str
    prompts: int
    all_pairs: int
    comparisons: int = 0
    batches: list[CountedBatch] = field(default_factory=list)
    shape: Shape | None = None
    work: dict[str, Any] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)
    inside: list[dict[str, float]] = field(default_factory=list)
    products: list[float] = field(default_factory=list)
    outside: list[dict[str, float]] = field(default_factory=list)

    @property
    def second(self) -> float:
        """Seconds a prompt."""
        return statistics.median(self.seconds)

    @property
    def pairs(self) -> int:
        """Pairs computed in all prompts."""
        return sum(batch.pairs for batch in self.batches)

    def padding(self, *parts: str) -> float | None:
        """Return tokens over computed tokens of some parts."""
        of = [batch for batch in self.batches if batch.part in parts]
        computed = sum(sum(batch.widths) for batch in of)
        return sum(sum(batch.lengths) for batch in of) / computed if computed else None

    def share_outside(self, name: str | None = None) -> float | None:
        """Return the share of the time that is spent outside the model, or in one of `OUTSIDE`."""
        shares = [
            (sum(parts.values()) if name is None else parts[name]) / (seconds * self.prompts)
            for parts, seconds in zip(self.outside, self.seconds, strict=True)
        ]
        return statistics.median(shares) if self.batches else None

    def of_peak(self) -> float | None:
        """Return useful operations a second over the peak."""
        if self.shape is None:
            return None
        useful = self.shape.useful(self.batches) / self.prompts
        return statistics.median(useful / s / peak for s, peak in zip(self.seconds, self.peaks, strict=True))

    def factors(self) -> dict[str, float]:
        """Return the factors of `of_peak`; their product differs from it by what medians differ."""
        if self.shape is None:
            return {}
        computed = self.shape.computed(self.batches)
        models = [sum(parts.values()) for parts in self.inside]
        values = (
            statistics.median(computed / p / peak for p, peak in zip(self.products, self.peaks, strict=True)),
            self.shape.useful(self.batches) / computed,
            statistics.median(p / model for p, model in zip(self.products, models, strict=True)),
            1 - (self.share_outside() or 0),
        )
        return dict(zip(FACTORS, values, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        parts = ("read", "compare", "pairs")
        tokens = sum(sum(batch.lengths) for batch in self.batches)
        found = {
            "seconds_a_prompt": self.second,
            "seconds_of_rounds": self.seconds,
            "prompts_per_second": 1 / self.second,
            "pairs_per_second": self.pairs / self.prompts / self.second,
            "tokens_per_second": tokens / self.prompts / self.second,
            "comparisons_a_prompt": self.comparisons / self.prompts,
            "pairs_a_prompt": self.pairs / self.prompts,
            "pairs_of_all": self.pairs / self.all_pairs if self.all_pairs else None,
            "padding": {part: share for part in parts if (share := self.padding(part)) is not None},
            "work": self.work,
            "outside": self.share_outside(),
        }
        if self.batches:
            found["outside_parts"] = {name: self.share_outside(name) for name in self.outside[0]}
            found["inside_parts"] = {
                part: statistics.median(
                    one[part] / s / self.prompts for one, s in zip(self.inside, self.seconds, strict=True)
                )
                for part in self.inside[0]
            }
        if self.shape is not None:
            found |= {
                "useful_flops_a_prompt": self.shape.useful(self.batches) / self.prompts,
                "least_flops_a_prompt": self.shape.least(self.batches) / self.prompts,
                "computed_flops_a_prompt": self.shape.computed(self.batches) / self.prompts,
                "of_peak": self.of_peak(),
                "factors": self.factors(),
            }
        return found


def measure(
    runners: Sequence[Any],
    prompts: Sequence[str],
    texts: Sequence[Sequence[str]],
    rounds: int,
    bare: Products,
    clock: Clock,
) -> list[Measured]:
    """Let all take turns, after a pass to warm up."""
    all_pairs = sum(len(set(of)) * (len(set(of)) - 1) // 2 for of in texts)
    found = [Measured(runner.name, len(prompts), all_pairs, shape=runner.shape) for runner in runners]
    for runner in runners:
        runner.rank(prompts, texts)
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        turns = list(zip(runners, found, strict=True))
        for runner, result in turns[:: -1 if number % 2 else 1]:
            result.peaks.append(bare.peak())
            started = clock()
            result.comparisons = runner.rank(prompts, texts)
            total = clock() - started
            result.seconds.append(total / len(prompts))
            result.batches = runner.batches
            if isinstance(runner, Ours) and runner.batches:
                result.work = {
                    part: asdict(work) for part, work in work_of(runner.batches, runner.ranker.config).items()
                }
            note_times(result, total, runner.watch.seconds)
            if runner.shape is not None:
                result.products.append(bare.seconds(runner.shape, runner.batches))
    return found


def note_times(result: Measured, total: float, watched: dict[str, float]) -> None:
    """Divide the time of a pass."""
    parts = dict.fromkeys((batch.part for batch in result.batches), 0.0)
    for batch in result.batches:
        parts[batch.part] += batch.seconds
    model = sum(parts.values())
    result.inside.append(dict(parts))
    if "comparing" not in watched:
        result.outside.append({"all": total - model})
        return
    outside = {
        "tokenising": watched["tokenising"],
        "evidence": watched.get("evidence", 0.0),
        "packing": watched["comparing"] - model,
    }
    result.outside.append(outside | {"engine": total - model - sum(outside.values())})


def table(found: Sequence[Measured]) -> Table:
    """Return a line for each run."""
    columns = (
        "run", "s a prompt", "speed-up", "prompts/s", "pairs/s", "tokens/s", "GFLOP a prompt", "of the peak, %",
        "padding, reading", "padding, comparing", "pairs of N(N-1)/2, %", "outside, %",
    )  # fmt: skip
    lines = []
    for result in found:
        tokens = sum(sum(batch.lengths) for batch in result.batches)
        useful = None if result.shape is None else result.shape.useful(result.batches) / result.prompts
        lines.append(
            (
                result.name,
                f"{result.second:.3f}",
                f"{found[0].second / result.second:.2f}",
                f"{1 / result.second:.2f}",
                f"{result.pairs / result.prompts / result.second:.1f}" if result.pairs else NOTHING,
                f"{tokens / result.prompts / result.second:,.0f}" if tokens else NOTHING,
                format_number(useful, ".1f", 1e-9),
                format_number(result.of_peak(), ".1f", 100),
                format_number(result.padding("read"), ".3f"),
                format_number(result.padding("compare", "pairs"), ".3f"),
                f"{100 * result.pairs / result.all_pairs:.0f}" if result.pairs else NOTHING,
                format_number(result.share_outside(), ".1f", 100),
            )
        )
    return Table(columns, tuple(lines), names=1)


def details(found: Sequence[Measured]) -> Table:
    """Return a line for each run with the factors of its share of the peak, and what is outside the model."""
    lines = []
    for result in found:
        factors = result.factors()
        outside = result.outside[0] if result.batches else {}
        lines.append(
            (
                result.name,
                *(format_number(factors.get(name), ".3f") for name in FACTORS),
                *(
                    format_number(result.share_outside(name) if name in outside else None, ".1f", 100)
                    for name in OUTSIDE
                ),
            )
        )
    columns = ("run", *(f"factor: {name}" for name in FACTORS), *(f"{name}, %" for name in OUTSIDE))
    return Table(columns, tuple(lines), names=1)


def draw(found: Sequence[Measured], remark: str, theme: Theme) -> Figure:
    """Draw for each run what is left of the peak after each factor."""
    drawn = [result for result in found if result.shape is not None]
    figure = new_figure(7.6, 0.5 + 1.75 * len(drawn))
    axes = figure.subplots(len(drawn), squeeze=False, sharex=True)[:, 0]
    widest = 100.0
    for axis, result in zip(axes, drawn, strict=True):
        headline(axis, result.name, f"{result.second:.3f} s a prompt", theme)
        losses = ("products slower than the peak", *FACTORS[1:])
        bar_axis(axis, ["peak of float32 products", *losses, "reaches the user"], theme)
        left, rate = 100.0, 1 / result.second / (result.of_peak() or 1)
        bars = [(0.0, left, theme.baseline)]
        for factor in result.factors().values():
            after = left * factor
            bars.append((after, left, theme.accents[1 if after <= left else 2]))
            left = after
            widest = max(widest, left)
        bars.append((0.0, left, theme.accents[0]))
        for row, (start, end, colour) in enumerate(bars):
            axis.barh(row, end - start, left=start, height=0.66, color=colour)
            ends = row in (0, len(bars) - 1)
            words = (
                f"{end:.0f} %, {rate * end / 100:.2g} prompts/s" if ends else f"{start - end:+.0f}".replace("-", "−")
            )
            axis.annotate(
                words, (max(start, end), row), (4, 0), textcoords="offset points", va="center", fontsize=7.5,
                color=theme.ink if ends else theme.quiet,
            )  # fmt: skip
    axes[-1].set_xlabel(f"% of the peak. {remark}")
    axes[-1].set_xlim(0, 1.28 * widest)
    return figure


def read_texts(options: argparse.Namespace) -> tuple[list[str], list[list[str]]]:
    """Read rows with N different candidates of the LLMs, or make texts."""
    if options.file is None:
        return chat_texts(options.rows, options.candidates, words=options.words, seed=options.seed)
    from ranker_quality import POOLS

    pools = {pool.name: pool.models for pool in POOLS}
    wanted = pools.get(options.models, tuple(filter(None, options.models.split(","))))
    prompts, texts = [], []
    for row in read_rows(options.file):
        of = list(dict.fromkeys(c.text for c in row.candidates if not wanted or c.model in wanted))
        if len(of) >= options.candidates:
            prompts.append(row.prompt)
            texts.append(of[: options.candidates])
    if not prompts:
        raise SystemExit(f"{options.file} has no row with {options.candidates} different candidates: see --candidates.")
    return prompts[: options.rows], texts[: options.rows]


def main() -> None:
    """Measure, print a table or JSON, draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", nargs="?", help="rows [default: texts made by --seed]")
    parser.add_argument(
        "--models", default="", help="only these LLMs' candidates, or those of a pool of ranker_quality"
    )
    parser.add_argument("--rows", type=int, default=8, help="number of prompts")
    parser.add_argument("--candidates", type=int, default=11, help="of each prompt")
    parser.add_argument("--words", type=float, default=120, help="median of a made candidate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", action="append", dest="runs", metavar="NAME=key=value,…", help="see above")
    parser.add_argument("--ranker", default="bundled")
    parser.add_argument("--backend", choices=("onnx", "torch", "openvino"))
    parser.add_argument("--precision")
    parser.add_argument("--strategy", default="auto")
    parser.add_argument("--prompts", type=int, default=1, help="prompts ranked in one call; 0 for all")
    parser.add_argument("--peers", action="append", choices=PEERS, default=[], help="other libraries, where installed")
    parser.add_argument(
        "--peer-tokens", type=int, default=256, help="longest input of a pointwise peer; pairs take twice"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=("cpu", "wall"), help="[default: cpu for one thread, else wall]")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--picture", type=Path, help="folder of ranking.svg and ranking.png")
    options = parser.parse_args()
    if options.picture is not None:
        require_matplotlib()
    clock = options.clock or ("cpu" if options.threads == 1 else "wall")
    read_clock: Clock = time.process_time if clock == "cpu" else time.perf_counter
    defaults = {name: getattr(options, name) for name in ("ranker", "backend", "precision", "strategy", "prompts")}
    runs = [Run.parse(text, defaults) for text in options.runs or [f"{options.ranker}="]]
    prompts, texts = read_texts(options)
    bare = Products(options.threads, read_clock)
    with tempfile.TemporaryDirectory() as folder:
        runners: list[Any] = [Ours(run, options.threads, read_clock) for run in runs]
        peers, notes = make_peers(options.peers, Path(folder), options.threads, options.peer_tokens, read_clock)
        found = measure([*runners, *peers], prompts, texts, options.rounds, bare, read_clock)
    peak = statistics.median(value for result in found for value in result.peaks)
    threads = f"{options.threads} thread{'s' * (options.threads > 1)}"
    about = {
        "processor": processor(),
        "threads": options.threads,
        "clock": clock,
        "rounds": options.rounds,
        "prompts": len(prompts),
        "candidates": options.candidates,
        "peak_gflops": peak / 1e9,
        "peak_library": bare.library,
        "notes": notes,
    }
    if options.json:
        values = {"about": about, "runs": {result.name: result.to_dict() for result in found}}
        print(json.dumps(values, indent=1, ensure_ascii=False))
    else:
        print(
            f"{about['processor']}; {threads} of {available_processors()}; {clock} time, median of "
            f"{options.rounds} rounds; {len(prompts)} prompts of {options.candidates} candidates; float32 peak "
            f"{peak / 1e9:.0f} GFLOP/s ({bare.library})\n"
        )
        print(table(found).markdown(), details(found).markdown(), *notes, sep="\n\n")
    if options.picture is not None:
        remark = f"{threads}, {peak / 1e9:.0f} GFLOP/s, {options.candidates} candidates"
        save_figures({"ranking": lambda theme: draw(found, remark, theme)}, options.picture)


if __name__ == "__main__":
    main()
