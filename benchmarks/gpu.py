"""Check the rankers' logits on an accelerator against the CPU's, and measure pairs per second by size of batch.

    python benchmarks/gpu.py                                 # CUDA; the bundled ranker, and PairRM's size at random
    python benchmarks/gpu.py --ranker llm-blender/PairRM --json
    python benchmarks/gpu.py --device cpu --prompts 2 --layers 2 --width 128 --tokens 512 2048

The bundled ranker compares late; the second one has the layout of llm-blender/PairRM, a cross-encoder. Without
``--ranker`` its weights are random, in the shape of PairRM unless ``--layers`` and ``--width`` say otherwise. Logits of
float32 on the CPU are the reference. The largest difference, as a share of the largest logit, may be 0.001 in float32
and 0.15 in bfloat16. With several devices, two of them share the same work, with the same tolerance.

Speed is that of a whole call: all pairs of some prompts with five candidates, tokenising and evidence included; median
of the rounds after one that is not counted.

Exit status: 0; 1 if a difference is too large; 2 without the device.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from llm_blender._torch import available_devices, parse_devices
from llm_blender.bench import Table
from llm_blender.errors import InputError
from llm_blender.rankers.checkpoints import BUNDLED, find_checkpoint, load_tokenizer
from llm_blender.rankers.pair_ranker import PairRanker, PairRankerConfig
from llm_blender.rankers.pair_ranker.modeling import make_model
from llm_blender.testing import chat_texts

TOLERANCES = {"float32": 0.001, "bfloat16": 0.15}
"""Largest difference from float32 on the CPU, as a share of the largest logit.

In bfloat16 on a CPU, it is 0.02 for the bundled ranker, and 0.05 for two layers of random weights.
"""
RANDOM = "PairRM's layout, random weights"
CANDIDATES = 5


@dataclass(frozen=True)
class Check:
    """Logits of a ranker on a device against float32 on the CPU; `difference` is a share of the largest logit."""

    ranker: str
    device: str
    dtype: str
    pairs: int
    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the logits are finite and near."""
        return self.difference <= self.tolerance  # False for NaN


@dataclass(frozen=True)
class Speed:
    """Pairs per second of a ranker, with so many tokens a batch."""

    ranker: str
    device: str
    dtype: str
    max_tokens: int
    pairs: int
    pairs_per_second: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="such as cuda, cuda:0,cuda:1 or cpu")
    parser.add_argument("--ranker", help="a checkpoint in PairRM's layout [default: random weights]")
    parser.add_argument("--layers", type=int, default=24, help="of the random weights")
    parser.add_argument("--width", type=int, default=1_024, help="of the random weights")
    parser.add_argument("--tokens", type=int, nargs="+", default=[2_048, 32_768, 131_072], help="of a batch")
    parser.add_argument("--prompts", type=int, default=256, help="to measure the speed on")
    parser.add_argument("--checked", type=int, default=4, help="prompts whose logits are checked")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON, not Markdown")
    given = parser.parse_args()
    try:
        devices = [str(place) for place in parse_devices(given.device)]
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    with tempfile.TemporaryDirectory() as folder:
        second = given.ranker or random_checkpoint(Path(folder), given.layers, given.width)
        rankers = {BUNDLED: BUNDLED, given.ranker or RANDOM: second}
        checks = [
            check
            for name, place in rankers.items()
            for check in check_logits(name, place, given.checked, devices_to_check(devices))
        ]
        speeds = [
            measure(name, place, given.device, dtype, tokens, given.prompts, given.rounds)
            for name, place in rankers.items()
            for dtype in TOLERANCES
            for tokens in given.tokens
        ]
    where = {"machine": machine(devices), "torch": torch.__version__}
    if given.json:
        results = [{**asdict(check), "passed": check.passed} for check in checks]
        print(json.dumps({**where, "checks": results, "speeds": [asdict(speed) for speed in speeds]}, indent=2))
    else:
        print(f"{where['machine']}, torch {where['torch']}\n\n{check_table(checks).markdown()}\n")
        print(speed_table(speeds).markdown())
    failed = [check for check in checks if not check.passed]
    for check in failed:
        message = f"differs by {check.difference:.2g} of the largest logit, more than {check.tolerance}"
        sys.stderr.write(f"{check.ranker} in {check.dtype} on {check.device} {message}\n")
    sys.exit(1 if failed else 0)


def devices_to_check(devices: Sequence[str]) -> list[str]:
    """Return the first device, and two of them where there are two of its kind."""
    kind = devices[0].partition(":")[0]
    alike = [name for name in available_devices() if name.partition(":")[0] == kind]
    pair = devices[:2] if len(devices) > 1 else alike[:2] if len(alike) > 1 else ["cpu", "cpu"] if kind == "cpu" else []
    return [devices[0], *([",".join(pair)] if pair else [])]


def machine(devices: Sequence[str]) -> str:
    """Name the devices."""
    return ", ".join(torch.cuda.get_device_name(name) if name.startswith("cuda") else name for name in devices)


def random_checkpoint(folder: Path, layers: int, width: int) -> str:
    """Write a checkpoint with PairRM's layout and random weights, with the tokenizer of the bundled ranker."""
    tokenizer = load_tokenizer(find_checkpoint(BUNDLED))
    tokenizer.add_special_tokens(list(PairRankerConfig().markers))
    backbone = {
        "model_type": "deberta-v2",
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
        "intermediate_size": 4 * width,
        "max_position_embeddings": 512,
        "norm_rel_ebd": "layer_norm",
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "position_buckets": 256,
        "relative_attention": True,
        "share_att_key": True,
        "type_vocab_size": 0,
    }
    config = PairRankerConfig(backbone=backbone, special_tokens="each_text", pooling="marker", source_tail=0.0)
    torch.manual_seed(0)
    model = make_model(config.with_lengths(1_224, 412))
    config.with_lengths(1_224, 412).save(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file(model.state_dict(), folder / "model.safetensors")
    return str(folder)


def check_logits(name: str, place: str, prompts: int, devices: Sequence[str]) -> Iterator[Check]:
    """Compare the logits on each of some devices, or lists of devices, with those on the CPU."""
    instructions, candidates = chat_texts(prompts, CANDIDATES)
    pairs = [(prompt, i, j) for prompt in range(prompts) for i in range(CANDIDATES) for j in range(i)]

    def logits(device: str, dtype: str) -> np.ndarray:
        ranker = PairRanker.from_pretrained(place, backend="torch", device=device, dtype=dtype, evidence=False)
        return ranker.pair_logits(instructions, candidates, pairs)

    exact = logits("cpu", "float32")
    for device in devices:
        for dtype, tolerance in TOLERANCES.items():
            difference = float(np.abs(logits(device, dtype) - exact).max() / np.abs(exact).max())
            yield Check(name, device, dtype, len(pairs), difference, tolerance)


def measure(name: str, place: str, device: str, dtype: str, tokens: int, prompts: int, rounds: int) -> Speed:
    """Measure a ranker's pairs per second."""
    ranker = PairRanker.from_pretrained(place, backend="torch", device=device, dtype=dtype, max_tokens=tokens)
    texts, seconds, pairs = chat_texts(prompts, CANDIDATES), [], 0
    for _ in range(rounds + 1):
        started = time.perf_counter()
        pairs = sum(ranking.comparisons for ranking in ranker.rank_many(*texts, strategy="full"))
        seconds.append(time.perf_counter() - started)
    return Speed(name, device, dtype, tokens, pairs, pairs / statistics.median(seconds[1:]))


def check_table(checks: Sequence[Check]) -> Table:
    """Make the table of the checks."""
    columns = ("ranker", "device", "dtype", "pairs", "largest difference / largest logit", "tolerance", "passed")
    rows = [
        (
            c.ranker,
            c.device,
            c.dtype,
            f"{c.pairs:,}",
            f"{c.difference:.1e}",
            f"{c.tolerance}",
            "yes" if c.passed else "no",
        )
        for c in checks
    ]
    return Table(columns, tuple(rows), names=3)


def speed_table(speeds: Sequence[Speed]) -> Table:
    """Make the table of the speeds."""
    columns = ("ranker", "device", "dtype", "tokens a batch", "pairs", "pairs/s")
    rows = [
        (s.ranker, s.device, s.dtype, f"{s.max_tokens:,}", f"{s.pairs:,}", f"{s.pairs_per_second:,.1f}") for s in speeds
    ]
    return Table(columns, tuple(rows), names=3)


if __name__ == "__main__":
    main()
