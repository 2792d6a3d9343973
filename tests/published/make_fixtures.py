"""Make the checkpoints and golden numbers of ``fixtures/`` with llm-blender 0.0.2, in an environment of its own.

    python3 -m venv reference
    reference/bin/pip install torch==2.13.0 transformers==4.57.3 sentencepiece protobuf scipy llm-blender==0.0.2 pytest
    reference/bin/python tests/published/make_fixtures.py

On Linux, install a CPU build of torch first. The seed is fixed: another run gives the same numbers, but for the noise
of floating point.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ |= {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}

import fixture_goldens
import fixture_goldens_others
import torch
from fixture_checkpoints import REWARD_MODEL, SEED, make_backbone, make_checkpoints
from fixture_texts import CASES

from llm_blender import Blender, BlenderConfig

HERE = Path(__file__).parent
FOLDERS = ["PairRM", "pair-ranker", "PairRM-hf", "SummaReranker", "SimCLS", REWARD_MODEL]
TOKENIZER = ["tokenizer.json", "spm.model"]  # of every folder the same, but for the tokens added: kept once


def main() -> None:
    """Make everything in a folder of its own, then keep what tests need."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE / "fixtures")
    out = parser.parse_args().out
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_backbone(root / "backbone")
        make_checkpoints(root)
        golden = make_golden(root)
        shutil.rmtree(out, ignore_errors=True)
        keep(root, out)
    lines = [f"{json.dumps(name)}: {_dumps(value)}" for name, value in golden.items()]
    (out / "golden.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def make_golden(root: Path) -> dict[str, Any]:
    """Compute the results of 0.0.2 with the checkpoints under `root`."""
    backbone = root / "backbone"
    blender = Blender(BlenderConfig(device="cpu", use_tqdm=False))
    blender.loadranker(str(root / "PairRM"), device="cpu", model_name=str(backbone))
    tokenizer = blender.ranker_tokenizer
    names = ["<|source|>", "<|candidate1|>", "<|candidate2|>", "<|candidate|>"]
    names += ["[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"]
    short, truncated = CASES[0], next(case for case in CASES if case.name == "trunc_source")
    golden = {
        "meta": {
            **{name.replace("-", "_"): version(name) for name in ["llm-blender", "transformers", "torch"]},
            "dtype": "float32",
            "device": "cpu",
            "seed": SEED,
            "bubble_seed": fixture_goldens.BUBBLE_SEED,
            "special_ids": {name: tokenizer.convert_tokens_to_ids(name) for name in names},
            "len_tokenizer": len(tokenizer),
        },
        "state_dict_shapes": {name: list(t.shape) for name, t in blender.ranker.state_dict().items()},
        "cases": [fixture_goldens.case(blender, case) for case in CASES],
        "conversations": fixture_goldens.conversations(blender),
        "pairrm_hf": [
            fixture_goldens.pairrm_hf(root / "PairRM-hf", tokenizer, case, **lengths)
            for lengths in ({}, {"source_max_length": 24, "candidate_max_length": 16})
            for case in (short, truncated)
        ],
        "other_rankers": {
            name: fixture_goldens_others.direct(root / name, backbone, SEED) for name in ["SummaReranker", "SimCLS"]
        },
        "bin_layout_equal": _bin_layout_equal(root),
        "losses": fixture_goldens_others.losses(backbone),
        "aggregation": fixture_goldens_others.aggregation(SEED),
        "gpt_rank": fixture_goldens_others.gpt_rank(),
        "correlation": fixture_goldens_others.correlation(SEED),
    }
    blender.loadranker(str(root / REWARD_MODEL), device="cpu")
    golden["reward_model"] = fixture_goldens_others.reward_model(blender)
    return golden


def _bin_layout_equal(root: Path) -> bool:
    """Return whether 0.0.2 ranks equally with the pickled layout; its lengths have other names and must be given."""
    lengths = {"source_maxlength": 1224, "candidate_maxlength": 412}
    scores = []
    for name in ["PairRM", "pair-ranker"]:
        blender = Blender(BlenderConfig(device="cpu", use_tqdm=False))
        blender.loadranker(str(root / name), device="cpu", model_name=str(root / "backbone"), **lengths)
        scores.append(blender.rank(CASES[0].inputs, CASES[0].candidates, return_scores=True).tolist())
    return bool(scores[0] == scores[1])


def keep(root: Path, out: Path) -> None:
    """Keep the folders without the files they share, and only the configuration of the backbone.

    Raises:
        RuntimeError: a tokenizer.json differs from what `conftest.py` will put in their place.
    """
    ignore = shutil.ignore_patterns(*TOKENIZER, "training_args.bin")
    for name in FOLDERS:
        shutil.copytree(root / name, out / name, ignore=ignore)
    (out / "backbone").mkdir()
    shutil.copy(root / "backbone" / "config.json", out / "backbone")
    (out / "tokenizer").mkdir()
    for name in TOKENIZER:
        shutil.copy(root / "backbone" / name, out / "tokenizer")
    for name in FOLDERS:
        _check_tokenizer(root / name, out)
    for path in out.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _check_tokenizer(folder: Path, out: Path) -> None:
    from conftest import tokenizer_with

    added = json.loads((folder / "added_tokens.json").read_text(encoding="utf-8"))
    written = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    made = tokenizer_with(json.loads((out / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8")), added)
    for tokenizer in (written, made):  # what the last call left: settings of a call, not of the tokenizer
        tokenizer["truncation"] = tokenizer["padding"] = None
        tokenizer["model"]["vocab"] = [[piece, round(score, 9)] for piece, score in tokenizer["model"]["vocab"]]
    if made != written or (folder / "spm.model").read_bytes() != (out / "tokenizer" / "spm.model").read_bytes():
        raise RuntimeError(f"{folder.name} has another tokenizer than its added tokens say.")


def _dumps(value: Any) -> str:
    """Write one line per element of a list of objects, so that the diff of two runs is readable."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(json.dumps(item, ensure_ascii=False) for item in value) + "\n]"
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    main()
