"""Process that answers requests with `Blender`, the one of its interpreter; one of the two sides.

A request is a line of JSON on stdin, an answer one on stdout. The first loads a ranker; each further one is a call.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import torch

from llm_blender import Blender, BlenderConfig


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # 0.0.2 prints
    logging.disable(logging.WARNING)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    load = json.loads(sys.stdin.readline())
    blender = Blender(BlenderConfig(device="cpu", use_tqdm=False))
    blender.loadranker(load["ranker"], device="cpu", **({"model_name": load["backbone"]} if load["backbone"] else {}))
    if load["encoder"] == "transformers":
        use_encoder_of_transformers(blender.ranker.backend.model, blender.ranker.config.backbone)
    names = ["llm-blender", "transformers", "torch"]
    answer(answers, {"versions": {name: version(name) for name in names}, "peak": peak()})
    for line in sys.stdin:
        answer(answers, call(blender, **json.loads(line)))


def answer(to: TextIO, values: dict[str, Any]) -> None:
    to.write(json.dumps(values) + "\n")
    to.flush()


def call(
    blender: Blender,
    do: str,
    inputs: list[str],
    candidates: list[list[str]],
    batch_size: int,
    clock: str,
    look: bool,
) -> dict[str, Any]:
    """Make one call and time it.

    With `look`, count its rows and tokens and return the numbers behind the result; its time is void then.
    """
    texts = {"inputs": inputs, "candidates": candidates, "batch_size": batch_size}
    pair = {"candidates_A": [c[0] for c in candidates], "candidates_B": [c[1] for c in candidates]}
    work = {
        "full": lambda: blender.rank(**texts, return_scores=look, disable_tqdm=True),
        "best_of_n": lambda: blender.get_best_of_n(**texts),
        "rank_with_ref": lambda: blender.rank_with_ref(**texts, return_scores=look),
        "compare": lambda: blender.compare(
            inputs, **pair, batch_size=batch_size, return_logits=look, disable_tqdm=True
        ),
    }[do]
    counts = {"rows": 0, "tokens": 0, "padding": 0}

    def count(_module: Any, arguments: tuple[torch.Tensor, ...]) -> None:
        (ids,) = arguments
        counts["rows"] += ids.shape[0]
        counts["tokens"] += ids.numel()
        counts["padding"] += int((ids == 0).sum())  # [PAD]

    # Each side hands every batch to the table of word embeddings, once.
    hook = embeddings(blender).register_forward_pre_hook(count) if look else None
    reset_peak()
    torch.manual_seed(0)
    now = {"wall": time.perf_counter, "cpu": time.process_time}[clock]
    started = now()
    result = work()
    seconds = now() - started
    if hook is not None:
        hook.remove()
    values = result if isinstance(result, list) else result.tolist()
    return {"seconds": seconds, "result": values, "peak": peak(), **counts}


def embeddings(blender: Blender) -> torch.nn.Module:
    model = blender.ranker if isinstance(blender.ranker, torch.nn.Module) else blender.ranker.backend.model
    (found,) = [module for name, module in model.named_modules() if name.endswith("word_embeddings")]
    return found


def use_encoder_of_transformers(model: torch.nn.Module, values: dict[str, Any]) -> None:
    """Put transformers' `DebertaV2Model` in the place of ours, with the same weights."""
    from llm_blender.rankers.encoders import make_encoder

    encoder = make_encoder(values, own=False).eval()
    encoder.load_state_dict(model.pretrained_model.state_dict())
    model.pretrained_model = encoder


def reset_peak() -> None:
    """Forget the peak of memory so far, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak() -> float:
    """Peak of resident memory in MiB: since `reset_peak` on Linux, else of the process."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) / 1_024
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (1_024**2 if sys.platform == "darwin" else 1_024)


if __name__ == "__main__":
    main()
