"""Training runs that two processes share."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_blender.errors import InputError, WorkError
from llm_blender.training.processes import check_processes, is_main_process, number_of_processes

from .conftest import calm, write_rows
from .shared_run import DROPOUT, FUSERS, KINDS, NAMES, run

TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node=2")
ACCELERATE = ("accelerate.commands.accelerate_cli", "launch", "--multi_gpu", "--num_processes=2", "--num_machines=1")
ACCELERATE += ("--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0")


def environment() -> dict[str, str]:
    return {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


def launch(launcher: tuple[str, ...], *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in two processes on the CPU."""
    return subprocess.run(
        [sys.executable, "-m", *launcher, *command], env=environment(), capture_output=True, text=True, timeout=300
    )


def launch_run(launcher: tuple[str, ...], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `shared_run.run` in two processes."""
    return launch(launcher, str(Path(__file__).with_name("shared_run.py")), json.dumps(options))


@pytest.fixture(scope="module")
def backbones(
    tiny_encoder: Path, tiny_llama: Path, tiny_t5: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    without_dropout = calm(tiny_t5, tmp_path_factory.mktemp("t5"), initializer_factor=0.5, dropout_rate=0.0)
    fusers = {"llama": str(tiny_llama), "t5": str(without_dropout), "adapter": str(tiny_llama)}
    return dict.fromkeys(KINDS, str(tiny_encoder)) | fusers


@pytest.fixture(scope="module")
def alone(backbones: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    run(list(KINDS), backbones, str(folder))
    return folder


@pytest.fixture(scope="module", params=[TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def shared(request: Any, backbones: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    done = launch_run(request.param, kinds=list(KINDS), backbones=backbones, output=str(folder))
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def result(folder: Path, kind: str, processes: int) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Return the log of a run and its final weights in one row."""
    import safetensors.numpy

    found = json.loads((folder / f"{kind}.json").read_text())
    assert found["processes"] == processes
    weights = safetensors.numpy.load_file(folder / f"{kind}.safetensors")
    return found["log"], np.concatenate([weights[name].ravel() for name in sorted(weights)])


def of_log(log: list[dict[str, Any]], name: str) -> list[tuple[str, int, float]]:
    return [(entry["stage"], entry["step"], entry[name]) for entry in log if name in entry]


@pytest.mark.slow
class TestTwoProcesses:
    @pytest.mark.parametrize("kind", KINDS)
    def test_train_as_one_does(self, alone: Path, shared: Path, kind: str) -> None:
        (one, ended), (two, ended_in_two) = result(alone, kind, 1), result(shared, kind, 2)
        figures = ("eval_loss", "eval_rows", "eval_tokens") if kind in FUSERS else ("eval_loss",)
        figures += () if kind in FUSERS else ("eval_accuracy",) if kind == "mlm_scoring" else ("eval_agreement",)
        for name in ("loss", "grad_norm", *figures):
            expected, found = of_log(one, name), of_log(two, name)
            assert expected
            assert [entry[:2] for entry in found] == [entry[:2] for entry in expected]
            np.testing.assert_allclose([e[2] for e in found], [e[2] for e in expected], atol=1e-5)
        assert len(of_log(one, "loss")) == (20 if KINDS[kind].get("steps", 20) else one[-1]["step"])
        assert float(np.abs(ended - ended_in_two).max()) < 1e-4
        assert float(np.linalg.norm(ended - ended_in_two) / np.linalg.norm(ended)) < 1e-5

    def test_resume_to_the_same_weights(self, backbones: dict[str, str], tmp_path: Path) -> None:
        options = {"kinds": ["cross", "reward_model", "llama"], "backbones": backbones, "seed": DROPOUT}
        for name, stops in (("whole", (-1,)), ("cut", (13, -1))):
            for stop in stops:
                done = launch_run(TORCHRUN, **options, output=str(tmp_path / name), stop=stop)
                assert done.returncode == 0, done.stderr[-4000:]
                left = (tmp_path / name / "llama.json").exists()
                assert left == (stop == -1)
        for kind in options["kinds"]:
            (_, whole), (log, resumed) = result(tmp_path / "whole", kind, 2), result(tmp_path / "cut", kind, 2)
            assert (whole == resumed).all()
            assert log[-1]["step"] == (14 if kind == "cross" else 20)

    def test_resume_what_one_process_began(self, alone: Path, backbones: dict[str, str], tmp_path: Path) -> None:
        options: dict[str, Any] = {
            "kinds": ["late", "simcls", "llama"],
            "backbones": backbones,
            "output": str(tmp_path),
        }
        run(**options, stop=13)
        done = launch_run(TORCHRUN, **options)
        assert done.returncode == 0, done.stderr[-4000:]
        for kind in options["kinds"]:
            (_, whole), (_, resumed) = result(alone, kind, 1), result(tmp_path, kind, 2)
            np.testing.assert_allclose(resumed, whole, atol=1e-3)
            assert float(np.linalg.norm(resumed - whole) / np.linalg.norm(whole)) < 1e-4

    def test_the_failure_of_one_ends_both(self, backbones: dict[str, str], tmp_path: Path) -> None:
        done = launch_run(TORCHRUN, kinds=["late"], backbones=backbones, output=str(tmp_path), stop=3, only=1)
        assert done.returncode == 1
        assert "ConnectionError: pulled the plug" in done.stderr

    def test_an_interrupt_ends_both(self, command: list[str], tmp_path: Path, interruptible: None) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", *TORCHRUN, "-m", "llm_blender", *command, "--epochs", "100000"],
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stderr is not None
        for line in process.stderr:
            if "step 2" in line:
                break
        os.killpg(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode != 0
        assert "interrupted" in stderr
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)

    @pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
    def test_only_the_main_one_writes(self, command: list[str], tmp_path: Path, launcher: tuple[str, ...]) -> None:
        done = launch(launcher, "-m", "llm_blender", *command, "--epochs", "2", "--json")
        assert done.returncode == 0, done.stderr[-4000:]
        (line,) = done.stdout.splitlines()
        assert json.loads(line)["dev"]["pairs"] > 0
        assert done.stderr.count("step 2 of ") == 1
        output = Path(command[command.index("-o") + 1])
        assert {path.name for path in output.iterdir()} == {
            "README.md",
            "config.json",
            "model.safetensors",
            "seen.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "trainer",
        }

    def test_what_they_cannot_share_is_refused(self, command: list[str]) -> None:
        done = launch(TORCHRUN, "-m", "llm_blender", *command, "--accumulate", "3")
        assert done.returncode == 1
        assert "2 processes cannot share the batches of a step evenly: accumulate is 3." in done.stderr
        assert not Path(command[command.index("-o") + 1]).exists()


@pytest.fixture
def command(tiny_encoder: Path, tmp_path: Path) -> list[str]:
    """The arguments of a command that trains a reward model."""
    rows = [
        {
            "instruction": f"why is the {one}",
            "candidates": [
                {"text": f"the {one} is {word}", "scores": {"s": score}} for word, score in (("good", 1), ("bad", 0))
            ],
        }
        for one in NAMES
    ]
    data = str(write_rows(tmp_path / "rows.jsonl", rows))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'ranker = "reward_model"\nmax_length = 64\nsource_max_length = 16\nbatch_tokens = 16\nsave_every = 2\n'
        f'sources = [{{file = "{data}"}}]\ndev_sources = [{{file = "{data}"}}]\n'
    )
    options = ("--backbone", str(tiny_encoder), "-o", str(tmp_path / "out"), "--accumulate", "2")
    return ["train", "ranker", "--recipe", str(recipe), *options]


class TestRefusals:
    """Of what training does not support, before anything is read or written."""

    @pytest.fixture(autouse=True)
    def _two(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in {"LOCAL_RANK": 1, "RANK": 1, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}.items():
            monkeypatch.setenv(name, str(value))

    def test_none(self) -> None:
        check_processes(4)
        assert number_of_processes() == 2
        assert not is_main_process()

    def test_a_step_that_they_cannot_share(self) -> None:
        with pytest.raises(
            InputError, match=r"accumulate is 1\. Set it to a multiple of 2 \(--accumulate 2\), and lower"
        ):
            check_processes(1)

    @pytest.mark.parametrize("library", ["DeepSpeed", "FSDP"])
    def test_libraries(self, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
        monkeypatch.setenv(f"ACCELERATE_USE_{library.upper()}", "true")
        with pytest.raises(InputError, match=f"does not support {library}"):
            check_processes(2)

    def test_another_precision(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
        with pytest.raises(InputError, match="replace --mixed_precision fp16 by `no`"):
            check_processes(2)

    def test_more_than_gpus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import torch

        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        with pytest.raises(InputError, match="2 processes need as many GPUs, and this machine shows 1"):
            check_processes(2)
        monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
        check_processes(2)

    def test_mpi(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("LOCAL_RANK")
        monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
        assert number_of_processes() == 1
        with pytest.raises(InputError, match="MPI"):
            check_processes(2)

    def test_votes(self, tmp_path: Path) -> None:
        from llm_blender.training.votes import SplitVotes, train_on_votes

        with pytest.raises(InputError, match="one process learns from them"):
            train_on_votes(SplitVotes((), (), ()), tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_one_gpu_a_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from transformers import TrainingArguments

    from llm_blender.training.loop import _arguments
    from llm_blender.training.recipes import Recipe

    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: getattr(self, "_n_gpu", 3)))
    arguments = _arguments(Recipe(), tmp_path)
    assert arguments.train_batch_size == 1


def test_the_end_of_another_process_is_named(
    monkeypatch: pytest.MonkeyPatch, backbones: dict[str, str], tmp_path: Path
) -> None:
    from transformers import Trainer

    from llm_blender.training import loop

    def closed(*_: Any, **__: Any) -> None:
        raise RuntimeError("[pair.cc:553] Connection closed by peer [127.0.0.1]:26754.")

    monkeypatch.setattr(Trainer, "train", closed)
    options: dict[str, Any] = {"kinds": ["reward_model"], "backbones": backbones, "output": str(tmp_path)}
    with pytest.raises(RuntimeError, match="closed by peer"):
        run(**options)
    monkeypatch.setattr(loop, "number_of_processes", lambda: 2)
    with pytest.raises(WorkError, match="Another process of the run ended early"):
        run(**options)


def test_a_resumed_run_does_not_write_its_fingerprint_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from llm_blender.training.loop import check_fingerprint

    (tmp_path / "late" / "checkpoint-1").mkdir(parents=True)
    check_fingerprint(tmp_path, "recipe")
    # Of several processes, one would read a file that another has just emptied.
    monkeypatch.setattr(Path, "write_text", lambda *_: pytest.fail("written again"))
    check_fingerprint(tmp_path, "recipe")
    with pytest.raises(InputError, match="another recipe or other data"):
        check_fingerprint(tmp_path, "other recipe")
