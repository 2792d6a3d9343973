"""Speed of `Blender`, against llm-blender 0.0.2 on the same checkpoint and the same texts.

0.0.2 runs in a virtual environment of its own, created at the first run. Both sides are processes with one
thread each that take turns, so that a busy machine slows both; every figure is a median over the rounds.

    python benchmarks/versus_reference.py
    python benchmarks/versus_reference.py --candidates 8 --lengths short --calls full best_of_n --rounds 3
    python benchmarks/versus_reference.py --factors --candidates 8 11

On Linux, ``--torch-index https://download.pytorch.org/whl/cpu`` spares the CUDA build of torch.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from _reference_side import Side, environment, make_checkpoint
from _workload import LENGTHS, Workload

CALLS = ["full", "best_of_n", "rank_with_ref", "compare"]


@dataclass(frozen=True)
class Measured:
    """A call on one side: its first run was looked at, the others were timed."""

    times: list[float]
    peak: float
    rows: int
    tokens: int
    padding: int
    result: list[Any]
    numbers: list[Any]

    @property
    def seconds(self) -> float:
        """Median over the rounds."""
        return statistics.median(self.times)

    def over(self, other: Measured) -> float:
        """Return how many times longer it takes than another: the median ratio over the rounds."""
        return statistics.median(a / b for a, b in zip(self.times, other.times, strict=True))


def measure(sides: Sequence[Side], do: str, workload: Workload, options: argparse.Namespace) -> list[Measured]:
    """Make a call on every side, in turns, each round in the opposite order of the last."""
    texts = {"inputs": workload.inputs, "candidates": workload.candidates}
    request = {"do": do, **texts, "batch_size": options.batch_size, "clock": options.clock}
    looked = [side.ask(**request, look=True) for side in sides]  # the warm-up too
    timed: list[list[dict[str, Any]]] = [[] for _ in sides]
    for number in range(options.rounds):
        for i in range(len(sides))[:: 1 if number % 2 else -1]:
            timed[i].append(sides[i].ask(**request, look=False))
    return [
        Measured(
            [run["seconds"] for run in runs],
            max(run["peak"] for run in runs),
            *(look[name] for name in ("rows", "tokens", "padding")),
            runs[0]["result"],
            look["result"],
        )
        for look, runs in zip(looked, timed, strict=True)
    ]


def agreement(do: str, theirs: Measured, ours: Measured) -> str:
    """Describe how many results are equal, and how far the numbers behind them differ."""
    same = sum(a == b for a, b in zip(theirs.result, ours.result, strict=True))
    text = f"{same}/{len(theirs.result)}"
    if do == "best_of_n":
        return text
    return f"{text} (±{np.abs(np.subtract(theirs.numbers, ours.numbers)).max():.0e})"


def table(theirs: Side, ours: Side, options: argparse.Namespace) -> Iterator[str]:
    """Yield a table of both sides, call by call."""
    yield (
        "| call | N | lengths | 0.0.2, s | ours, s | ratio | pairs 0.0.2 | pairs ours | tokens 0.0.2 | tokens ours "
        "| equal | MiB 0.0.2 | MiB ours |"
    )
    yield "|---|" + "---:|" * 12
    for lengths in options.lengths:
        for count in options.candidates:
            workload = Workload.make(options.inputs, count, LENGTHS[lengths], options.seed)
            full: list[list[int]] = []
            for do in options.calls:
                a, b = measure([theirs, ours], do, workload, options)
                equal = agreement(do, a, b)
                if do == "full":
                    full = b.result
                elif do == "best_of_n" and full:
                    best = [texts[r.index(1)] for r, texts in zip(full, workload.candidates, strict=True)]
                    of_full = sum(x == y for x, y in zip(best, b.result, strict=True))
                    equal += f"; {of_full}/{len(best)} our full's"
                yield (
                    f"| {do} | {count} | {lengths} | {a.seconds:.3f} | {b.seconds:.3f} | {a.over(b):.2f} "
                    f"| {a.rows:,} | {b.rows:,} | {a.tokens:,} | {b.tokens:,} | {equal} "
                    f"| {a.peak:.0f} | {b.peak:.0f} |"
                )


def factors(theirs: Side, ours: Side, plain: Side, options: argparse.Namespace) -> Iterator[str]:
    """Yield a table of the effect of each difference."""
    yield "| | N | lengths | s | speed-up | over the line above | pairs | tokens | padding | µs a token |"
    yield "|---|" + "---:|" * 9
    for lengths in options.lengths:
        for count in options.candidates:
            workload = Workload.make(options.inputs, count, LENGTHS[lengths], options.seed)
            sides = [theirs, plain, ours]
            full = measure(sides, "full", workload, options)
            best = measure([ours, theirs], "best_of_n", workload, options)
            steps = {
                "0.0.2, full": full[0],
                "shared batches, sorted by length": full[1],
                "and our encoder": full[2],
                "and 2(N − 1) comparisons": best[0],
            }
            last = full[0]
            for name, step in [*steps.items(), ("0.0.2, bubble", best[1])]:
                than_last = f"{last.over(step):.2f}" if name in steps and step is not full[0] else ""
                yield (
                    f"| {name} | {count} | {lengths} | {step.seconds:.3f} | {full[0].over(step):.2f} | {than_last} "
                    f"| {step.rows:,} | {step.tokens:,} | {step.padding / step.tokens:.1%} "
                    f"| {1e6 * step.seconds / step.tokens:.0f} |"
                )
                last = step


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    cache = platformdirs.user_cache_path("llm-blender") / "reference-0.0.2"
    parser.add_argument("--reference-env", type=Path, default=cache, help="virtual environment of 0.0.2")
    parser.add_argument("--torch-index", help="where pip finds torch for it")
    parser.add_argument("--checkpoint", help="a ranker in 0.0.2's layout instead of a random one, e.g. a trained one")
    parser.add_argument("--backbone", help="its encoder; what its config.json says, if left out")
    for name, value in {"layers": 6, "hidden": 256, "intermediate": 1_024, "buckets": 256, "pieces": 4_000}.items():
        parser.add_argument(f"--{name}", type=int, default=value, help="of the random one")
    parser.add_argument("--calls", nargs="+", choices=CALLS, default=CALLS)
    parser.add_argument("--candidates", type=int, nargs="+", default=[3, 8, 11])
    parser.add_argument("--lengths", nargs="+", choices=list(LENGTHS), default=list(LENGTHS))
    parser.add_argument("--inputs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=8, help="0.0.2's: inputs at a time")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: on a machine that others use")
    parser.add_argument("--factors", action="store_true", help="show what each difference contributes")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    python = environment(options.reference_env, options.torch_index)
    with contextlib.ExitStack() as stack:
        ranker, backbone = options.checkpoint, options.backbone
        if ranker is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "checkpoint"
            size = {n: getattr(options, n) for n in ("layers", "hidden", "intermediate", "buckets", "pieces")}
            # Not the texts that are ranked: a tokenizer has never seen those.
            make_checkpoint(python, folder, Workload.make(100, 8, LENGTHS["mixed"], options.seed + 1).texts, size)
            ranker, backbone = str(folder / "PairRM"), str(folder / "backbone")

        def side(interpreter: Path | str, encoder: str = "own") -> Side:
            return stack.enter_context(
                contextlib.closing(Side(interpreter, ranker, backbone, options.threads, encoder))
            )

        theirs, ours = side(python), side(sys.executable)
        for name, one in {"0.0.2": theirs, "ours": ours}.items():
            versions = ", ".join(f"{package} {number}" for package, number in one.versions.items())
            print(f"{name}: {versions}; {one.peak:.0f} MiB at most while loading")
        of = "random weights" if options.checkpoint is None else options.checkpoint
        how = f"{options.inputs} inputs, threads: {options.threads}, {options.clock} time, median of {options.rounds}"
        print(f"{of}, {how}\n", flush=True)
        if options.factors:
            lines = factors(theirs, ours, side(sys.executable, "transformers"), options)
        else:
            lines = table(theirs, ours, options)
        for line in lines:
            print(line, flush=True)
        print(f"\nMemory at most: 0.0.2 {theirs.peak:.0f} MiB, ours {ours.peak:.0f} MiB")


if __name__ == "__main__":
    main()
