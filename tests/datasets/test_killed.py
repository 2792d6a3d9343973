"""A killed build resumes, and repeats no finished call."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llm_blender.cli import app
from llm_blender.store import Store

from .conftest import Server, config_text, write_prompts

pytestmark = pytest.mark.skipif(os.name == "nt", reason="SIGKILL")


def build(*options: str) -> subprocess.Popen[str]:
    command = ["from llm_blender.cli import main; main()", "data", "build", "in.jsonl", "-o", "rows.jsonl", *options]
    return subprocess.Popen([sys.executable, "-c", *command], text=True, stdout=-1, stderr=-1)


def finished() -> set[str]:
    """Return the calls whose answers are in the store."""
    with Store(Path("blend.db")) as store:
        return {call.candidate.text.split()[-1] for call in store}


def settle(server: Server) -> None:
    """Wait for the calls that were on their way to the server when the process died."""
    calls = -1
    while calls != server.calls:
        calls = server.calls
        time.sleep(0.2)


def survive(instructions: int, writers: tuple[str, ...], kills: int, seed: int, options: list[str]) -> None:
    pairs = len(writers) * (len(writers) - 1) // 2
    total = instructions * (len(writers) + pairs)
    moments = sorted(random.Random(seed).sample(range(2, total), kills))
    write_prompts(Path("in.jsonl"), instructions)
    with ExitStack() as stack:
        server = Server(stack, (*writers, "judge"), delay=0.002)
        Path("blend.toml").write_text(config_text(server.fake.base_url, writers, concurrency=4))
        lost = 0
        before: set[str] = set()
        for moment in [*moments, None]:
            begun = server.calls
            process = build(*options)

            def kill(number: int, moment: int | None = moment, process: subprocess.Popen[str] = process) -> None:
                if moment is not None and number >= moment:  # calls of the killed process may come late
                    process.kill()

            server.on_call = kill
            try:
                out, err = process.communicate(timeout=900)  # many times what it takes on a machine with nothing else
            finally:
                process.kill()
            settle(server)
            repeated = server.digests[begun:]
            assert not before & set(repeated), "a call that was finished is made again"
            before = finished()
            if moment is None:
                assert process.returncode == 0, err
            else:
                assert process.returncode == -signal.SIGKILL, err
                assert not Path("rows.jsonl").exists()
            lost += sum(digest not in before for digest in repeated)
        # Only calls running at a kill are repeated: at most four per LLM.
        assert len(set(server.digests)) == total
        assert server.calls == total + lost
        assert lost <= kills * 4 * len(writers)
        assert server.calls > total or lost == 0

        summary = json.loads(out)
        rows = [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()]
        assert [row["instruction"] for row in rows] == [f"Question {i}?" for i in range(instructions)]
        assert all([candidate["model"] for candidate in row["candidates"]] == list(writers) for row in rows)
        assert all(len(row["cmp_results"]) == pairs and len(row["pairs"]) == pairs for row in rows)
        assert all(candidate["scores"].keys() == {"bleu"} for row in rows for candidate in row["candidates"])
        assert summary["complete"]

        # The same build, undisturbed and from the store alone, gives the same rows.
        calls = server.calls
        Path("rows.jsonl").rename("killed.jsonl")
        undisturbed = CliRunner().invoke(app, ["data", "build", "in.jsonl", "-o", "rows.jsonl", *options, "--restart"])
        assert undisturbed.exit_code == 0, undisturbed.stderr
        assert server.calls == calls
        assert Path("rows.jsonl").read_bytes() == Path("killed.jsonl").read_bytes()


OPTIONS = ["--judge", "judge", "--orders", "one", "--check", "0", "--metrics", "bleu", "--max-cost", "5", "--json"]


def test_a_small_build_survives_three_kills() -> None:
    survive(12, ("ann", "bob", "cy"), kills=3, seed=1, options=OPTIONS)


@pytest.mark.slow
def test_a_build_of_200_by_5_survives_three_kills() -> None:
    survive(200, ("ann", "bob", "cy", "dan", "eve"), kills=3, seed=0, options=OPTIONS)
