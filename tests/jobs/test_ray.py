"""A Ray cluster as the place of work: the rows are those of one process, also when an actor or a node is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llm_blender.cli import app
from llm_blender.errors import InputError, LLMBlenderError
from llm_blender.stages import RankRows

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray's own warnings

ROWS, CHUNKS = 64 * 5 + 9, 6


def make(count: int) -> list[dict[str, Any]]:
    draw = random.Random(0)
    words = [
        "water",
        "light",
        "sleep",
        "because",
        "energy",
        "number",
        "people",
        "often",
        "reason",
        "small",
        "answer",
        "early",
    ]
    return [
        {"id": i, "instruction": f"Why {words[i % 12]}?",
         "candidates": [{"model": m, "text": " ".join(draw.choices(words, k=draw.randint(5, 25)))} for m in "abc"]}
        for i in range(count)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    rows = make(ROWS)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pyarrow = pytest.importorskip("pyarrow.parquet")
    pyarrow.write_table(__import__("pyarrow").Table.from_pylist(rows), folder / "rows.parquet")
    for kind in ("jsonl", "parquet"):
        rank(folder / f"rows.{kind}", folder / f"whole.{kind}")
    return folder


def rank(source: Path, out: Path, *options: object) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["rank", str(source), "-o", str(out), "--json", *map(str, options)])
    assert result.exit_code == 0, result.stderr
    summary: dict[str, Any] = json.loads(result.stdout)
    return summary


class Cluster:
    """A head node with room for all actors, and a second node."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster as Nodes

        self.nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        self.second = self.nodes.add_node(num_cpus=1)
        ray.init(address=self.nodes.address, log_to_driver=False)

    def lose_node(self) -> None:
        self.nodes.remove_node(self.second, allow_graceful=False)

    def lose_actor(self) -> None:
        found = subprocess.run(["pgrep", "-f", "ray::MapWorker"], capture_output=True, text=True, check=True)
        os.kill(int(found.stdout.split()[0]), signal.SIGKILL)

    def close(self) -> None:
        ray.shutdown()
        self.nodes.shutdown()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.close()


def after_first_chunk(journal: Path, act: Callable[[], None]) -> tuple[threading.Thread, list[int]]:
    """Act once the job has kept a chunk; return the thread, and the chunks that were kept when it acted."""
    kept: list[int] = []

    def run() -> None:
        until = time.monotonic() + 120
        while not (journal.exists() and journal.stat().st_size) and time.monotonic() < until:
            time.sleep(0.02)
        kept.append(len(journal.read_text().splitlines()))
        act()

    thread = threading.Thread(target=run)
    thread.start()
    return thread, kept


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize("actors", [1, 2])
@pytest.mark.parametrize("fault", ["actor", "node"])
def test_the_rows_are_those_of_one_process(
    folder: Path, tmp_path: Path, cluster: Cluster, kind: str, actors: int, fault: str
) -> None:
    out = tmp_path / f"out.{kind}"
    lose = cluster.lose_actor if fault == "actor" else cluster.lose_node
    thread, kept = after_first_chunk(Path(f"{out}.job/chunks.journal.jsonl"), lose)
    summary = rank(folder / f"rows.{kind}", out, "--engine", "ray", "--actors", actors)
    thread.join()
    assert kept[0] < CHUNKS  # it was not over yet
    assert summary["rows"] == ROWS
    assert out.read_bytes() == (folder / f"whole.{kind}").read_bytes()
    assert len(Path(f"{out}.job/chunks.journal.jsonl").read_text().splitlines()) == CHUNKS  # each kept once


def test_what_a_cluster_has_done_is_resumed_here_and_an_error_is_that_of_the_stage(
    folder: Path, tmp_path: Path, cluster: Cluster
) -> None:
    from llm_blender.jobs.backends import RayBackend

    out = tmp_path / "out.jsonl"
    rank(folder / "rows.jsonl", out, "--engine", "ray")
    made = out.read_bytes()
    out.unlink()
    assert rank(folder / "rows.jsonl", out, "--engine", "ray")["resumed"] == ROWS
    assert out.read_bytes() == made
    assert rank(folder / "rows.jsonl", out)["resumed"] == ROWS
    nowhere = RankRows("./nowhere")
    with pytest.raises(LLMBlenderError, match=r"No ranker '\./nowhere'"):
        next(RayBackend().map(nowhere, iter([make(2)]), 1))

    def broken() -> Iterator[list[dict[str, Any]]]:
        yield make(2)
        raise InputError("The file is damaged.")

    with pytest.raises(InputError, match="The file is damaged"):
        list(RayBackend().map(RankRows("longest"), broken(), 2))
    with pytest.raises(InputError, match="fewer rows than when they were checked"):
        list(RayBackend().map(RankRows("longest"), iter([make(2)]), 2))
