"""CPU time and memory of `blend run`, with three LLMs that answer at once.

    python benchmarks/run_load.py
    python benchmarks/run_load.py --rows 300 1000 --ranker longest --against ../other-checkout/src
    python benchmarks/run_load.py --rows 1000 5000 --chars 4000 --ranker longest
    python benchmarks/run_load.py --finished 100000

The LLMs are a server in a process of its own, which keeps connections open (unless ``--close``) and streams each answer
in `--pieces` events, so that the figures are those of the client alone: user and system time, and peak of memory.
Each case begins with an empty store. `ms_a_row` and `kb_a_row` are differences to a run of 10 rows, `rows_a_second` is
the command's own figure. With ``--finished``, a finished job is made up and resumed twice: `writing_cpu_seconds` are
those of the first time, which writes the output, and `cpu_seconds` those of the second, with nothing left to do.
With ``--against``, the sources in that folder run in turns with these. One line of JSON for each run goes to standard
output. Runs on Linux.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import llm_blender
from llm_blender.jobs.job import settings_digest

NAMES = ("a", "b", "c")
_LLMS = """
import asyncio, json, sys
words, close = json.loads(sys.argv[1]), json.loads(sys.argv[2])

def event(delta, **more):
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta, **more}]}).encode() + b"\\n\\n"

def answer(model):
    events = [event({"content": word + " "}) for word in [f"Answer of {model}:", *words]]
    events.append(event({}, finish_reason="stop"))
    usage = {"prompt_tokens": 9, "completion_tokens": 9}
    events += [b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\\n\\n", b"data: [DONE]\\n\\n"]
    body = b"".join(b"%x\\r\\n%b\\r\\n" % (len(each), each) for each in events) + b"0\\r\\n\\r\\n"
    head = b"HTTP/1.1 200 OK\\r\\ncontent-type: text/event-stream\\r\\ntransfer-encoding: chunked\\r\\n"
    return head + b"connection: close\\r\\n" * close + b"\\r\\n" + body

answers = {model: answer(model) for model in sys.argv[3:]}

async def serve(reader, writer):
    try:
        while True:
            lines = (await reader.readuntil(b"\\r\\n\\r\\n")).lower().split(b"\\r\\n")
            size = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
            writer.write(answers[json.loads(await reader.readexactly(size))["model"]])
            if close:
                break
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""
_ANSWER = "The air scatters blue light more than red light so that the sky looks blue in every direction"
_BASE = 10  # rows


def prompts(rows: int, chars: int) -> Iterator[str]:
    """Yield the prompts one by one: the memory of this process counts as that of the command before it begins."""
    return (f"Question {i}? ".ljust(chars, "x") for i in range(rows))


def prepare(folder: Path, port: int, ranker: str, texts: Iterable[str]) -> None:
    """Write the configuration and the prompts of a run."""
    llm = '[[llm]]\nname = "{0}"\nmodel = "{0}"\nbase_url = "http://127.0.0.1:{1}/v1"\nconcurrency = 16\n'
    entries = "".join(llm.format(name, port) for name in NAMES)
    (folder / "blend.toml").write_text(entries + f'[ranker]\nname = "{ranker}"\n')
    with (folder / "in.jsonl").open("w") as file:
        file.writelines(json.dumps({"id": f"p{i}", "prompt": text}) + "\n" for i, text in enumerate(texts))


def run(folder: Path, source: Path) -> dict[str, float]:
    """Run the command, and return its CPU seconds, its peak of memory in KiB, and its rows per second."""
    environment = {**os.environ, "PYTHONPATH": str(source), "LLM_BLENDER_STORE": str(folder / "blend.db")}
    command = [sys.executable, "-m", "llm_blender", "run", "in.jsonl", "-o", "out.jsonl", "--json"]
    with (folder / "errors").open("w") as errors:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=errors)
        assert process.stdout is not None
        summary = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit((folder / "errors").read_text())
    found = json.loads(summary)
    rate = found["rows"] / found["seconds"] if found["seconds"] else 0.0
    return {"cpu": usage.ru_utime + usage.ru_stime, "kib": usage.ru_maxrss, "rate": rate}


def finish(folder: Path, rows: int, chars: int) -> None:
    """Make a finished job of many prompts from the job of the first ones."""
    job = folder / "out.jsonl.job"
    manifest = json.loads((job / "manifest.json").read_text())
    texts = (json.dumps([f"p{i}", text]).encode("ascii") for i, text in enumerate(prompts(rows, chars)))
    digest = hashlib.sha256(b"[" + next(texts))
    for text in texts:
        digest.update(b", " + text)
    digest.update(b"]")
    settings = manifest["settings"]
    settings |= {"prompts": rows, "prompts_sha256": digest.hexdigest()}
    manifest["settings_sha256"] = settings_digest(settings)
    (job / "manifest.json").write_text(json.dumps(manifest))
    for name, entries in (("rows", rows), ("paid", len(NAMES) * rows)):
        path = job / f"{name}.journal.jsonl"
        lines = path.read_text().splitlines()
        with path.open("w") as file:
            for i in range(entries):
                entry = json.loads(lines[i % len(lines)])
                entry["key"] = f"p{i}" if name == "rows" else str(i)
                if name == "rows":
                    entry["value"] |= {"id": f"p{i}", "instruction": f"Question {i}? ".ljust(chars, "x")}
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[300, 1000, 3000])
    parser.add_argument("--ranker", nargs="+", default=["longest", "bundled"])
    parser.add_argument("--chars", type=int, default=100, help="length of a prompt")
    parser.add_argument("--pieces", type=int, default=18, help="events of an answer's stream")
    parser.add_argument("--close", action="store_true", help="let the server close each connection after its answer")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--finished", type=int, help="resume a finished job of so many rows instead")
    parser.add_argument("--against", type=Path, help="the folder `src` of another checkout")
    options = parser.parse_args()
    sources = {"new": Path(llm_blender.__file__).parent.parent}
    if options.against is not None:
        sources = {"old": options.against.absolute(), **sources}
    words = [word for _, word in zip(range(options.pieces), itertools.cycle(_ANSWER.split()), strict=False)]
    server = [sys.executable, "-c", _LLMS, json.dumps(words), json.dumps(options.close), *NAMES]
    llms = subprocess.Popen(server, stdout=subprocess.PIPE, text=True)
    assert llms.stdout is not None
    port = int(llms.stdout.readline())

    def case(rows: int, ranker: str, source: Path, finished: int = 0) -> list[dict[str, float]]:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            prepare(folder, port, ranker, prompts(rows, options.chars))
            ran = [run(folder, source)]
            if finished:
                finish(folder, finished, options.chars)
                prepare(folder, port, ranker, prompts(finished, options.chars))
                ran = [run(folder, source), run(folder, source)]
        return ran

    def show(**values: Any) -> None:
        rounded = {name: round(value, 3) if isinstance(value, float) else value for name, value in values.items()}
        print(json.dumps(rounded), flush=True)

    try:
        for _ in range(options.rounds):
            for ranker in options.ranker:
                base = {name: case(_BASE, ranker, source)[0] for name, source in sources.items()}
                for rows in options.rows if options.finished is None else ():
                    for name, source in sources.items():
                        (ran,), more = case(rows, ranker, source), rows - _BASE
                        show(
                            source=name,
                            ranker=ranker,
                            rows=rows,
                            ms_a_row=1000 * (ran["cpu"] - base[name]["cpu"]) / more,
                            kb_a_row=(ran["kib"] - base[name]["kib"]) * 1.024 / more,
                            base_kib=base[name]["kib"],
                            rows_a_second=ran["rate"],
                        )
                for name, source in sources.items() if options.finished else ():
                    writing, ran = case(_BASE, ranker, source, options.finished)
                    show(
                        source=name,
                        ranker=ranker,
                        finished=options.finished,
                        cpu_seconds=ran["cpu"],
                        writing_cpu_seconds=writing["cpu"],
                        kb_a_row=(ran["kib"] - base[name]["kib"]) * 1.024 / options.finished,
                    )
    finally:
        llms.terminate()
        llms.wait()


if __name__ == "__main__":
    main()
