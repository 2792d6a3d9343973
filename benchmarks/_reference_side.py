"""Environment of llm-blender 0.0.2, and processes that rank in it or in this one."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
REQUIREMENTS = ["transformers==4.57.3", "sentencepiece", "protobuf", "llm-blender==0.0.2"]
_CHECK = "from importlib.metadata import version; assert version('llm-blender') == '0.0.2'"


def environment(folder: Path, torch_index: str | None) -> Path:
    """Return the interpreter of a virtual environment with 0.0.2 and this environment's version of torch.

    Args:
        folder: of the environment, created if it is not there.
        torch_index: of torch, e.g. of its CPU builds; None is pip's own.
    """
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not python.exists():
        venv.create(folder, with_pip=True)
    if subprocess.run([python, "-c", _CHECK], capture_output=True, check=False).returncode:
        index = ["--index-url", torch_index] if torch_index else []
        install = [python, "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, *index, f"torch=={torch.__version__.split('+')[0]}"], check=True)
        subprocess.run([*install, *REQUIREMENTS], check=True)
    return python


def make_checkpoint(python: Path, folder: Path, texts: list[str], size: dict[str, int]) -> None:
    """Write ``PairRM`` and its ``backbone`` to `folder` with 0.0.2's own classes."""
    subprocess.run(
        [python, HERE / "_reference_checkpoint.py", folder],
        input=json.dumps({"texts": texts, **size}),
        text=True,
        env=_environment(1),
        check=True,
    )


class Side:
    """A process that ranks.

    Args:
        python: its interpreter.
        ranker: the checkpoint.
        backbone: its encoder.
        threads: that it calculates with.
        encoder: ``own``, or ``transformers`` in the place of ours.
    """

    def __init__(
        self, python: Path | str, ranker: str, backbone: str | None, threads: int, encoder: str = "own"
    ) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (as long as the process); progress bars too
        self._process = subprocess.Popen(
            [python, "-W", "ignore", HERE / "_blender_worker.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=_environment(threads),
        )
        self.peak = 0.0  # MiB of memory, so far
        self.versions: dict[str, str] = self.ask(ranker=ranker, backbone=backbone, encoder=encoder)["versions"]

    def ask(self, **request: Any) -> dict[str, Any]:
        """Return the answer to a request."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # its errors explain it
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise SystemExit(f"A side ended with {self._process.wait()}:\n{self._errors.read()[-3_000:]}")
        answer: dict[str, Any] = json.loads(line)
        self.peak = max(self.peak, answer["peak"])
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._errors.close()


def _environment(threads: int) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    numbers = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    return {**kept, **numbers, "TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}
