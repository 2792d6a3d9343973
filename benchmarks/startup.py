"""CPU time of a start of the command and of the package, in new processes.

    python benchmarks/startup.py
    python benchmarks/startup.py --against ../other-checkout/src --rounds 15

Each case starts a process that does little work, and counts its user and system time: other processes disturb it less
than the time on the clock. ``python`` alone is the floor. `blend ask` asks two replayed LLMs, so that no model but the
ranker runs. With ``--against``, the sources in that folder run in turns with these. The cache of the models begins
empty and is filled by a first round, which is printed as ``first`` and not counted. A table goes to standard error, one
line of JSON (medians, in milliseconds) to standard output. The bytecode of the sources is kept beside them, as that of
an installed package is. Runs on Unix.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import llm_blender

QUESTION, ANSWERS = "Why is the sky blue?", ["Air scatters blue light more than red light.", "I do not know."]
CONFIG = """
[[llm]]
name = "{name}"
provider = "replay"
rows = "rows.jsonl"
model = "{name}"
"""
BLEND = ["-m", "llm_blender"]
CASES = {
    "python": ["-c", "pass"],
    "import llm_blender": ["-c", "import llm_blender"],
    "import PairRanker": ["-c", "from llm_blender import PairRanker"],
    "blend --help": [*BLEND, "--help"],
    "blend compare --help": [*BLEND, "compare", "--help"],
    "blend compare": [*BLEND, "compare", QUESTION, *ANSWERS],
    "blend rank": [*BLEND, "rank", "rows.jsonl"],
    "blend ask": [*BLEND, "ask", QUESTION, "--config", "replay.toml"],
}


def cpu_seconds(arguments: list[str], folder: Path, source: Path) -> float:
    """Run Python on a source tree, and return the user and system time of the process."""
    places = {"LLM_BLENDER_STORE": "blend.db", "LLM_BLENDER_CACHE": "cache", "XDG_CONFIG_HOME": "none"}
    environment = {**os.environ, **{name: str(folder / place) for name, place in places.items()}}
    environment |= {"PYTHONPATH": str(source), "LLM_BLENDER_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": ""}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def prepare(folder: Path) -> None:
    """Write the rows and the configuration that the cases read."""
    folder.mkdir()
    named = [{"model": name, "text": text} for name, text in zip(("one", "two"), ANSWERS, strict=True)]
    (folder / "rows.jsonl").write_text(json.dumps({"id": "1", "instruction": QUESTION, "candidates": named}) + "\n")
    (folder / "replay.toml").write_text("".join(CONFIG.format(name=each["model"]) for each in named))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--against", type=Path, help="the folder `src` of another checkout")
    parser.add_argument("--case", nargs="+", choices=list(CASES), default=list(CASES))
    options = parser.parse_args()
    sources = {"new": Path(llm_blender.__file__).parent.parent}
    if options.against is not None:
        sources = {"old": options.against.absolute(), **sources}
    taken: dict[str, dict[str, list[float]]] = {case: {name: [] for name in sources} for case in options.case}
    with tempfile.TemporaryDirectory() as temporary:
        folders = {name: Path(temporary) / name for name in sources}
        for folder in folders.values():
            prepare(folder)
        for _ in range(options.rounds + 1):
            for case, times in taken.items():
                for name, source in sources.items():
                    times[name].append(1000 * cpu_seconds(CASES[case], folders[name], source))
    results = {}
    print(f"{'ms of CPU':22}" + "".join(f"{name:>8}{'first':>8}" for name in sources) + "   ratio", file=sys.stderr)
    for case, times in taken.items():
        medians = {name: round(statistics.median(values[1:]), 1) for name, values in times.items()}
        results[case] = medians | {f"{name}_first": round(values[0], 1) for name, values in times.items()}
        line = "".join(f"{medians[name]:8.0f}{values[0]:8.0f}" for name, values in times.items())
        print(f"{case:22}{line}   {medians['new'] / medians[next(iter(sources))]:.2f}", file=sys.stderr)
    print(json.dumps({"rounds": options.rounds, "milliseconds": results}))


if __name__ == "__main__":
    main()
