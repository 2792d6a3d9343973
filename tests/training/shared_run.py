"""Training runs that tests share between processes: `python shared_run.py JSON` under torchrun or accelerate."""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

NAMES = ["sky", "sea", "sun", "moon", "tree", "bird"]
SETTINGS: dict[str, Any] = {"frozen_layers": -1, "learning_rate": 1e-3, "save_every": 10, "steps": 20, "accumulate": 4}
LENGTHS = {"max_length": 64, "source_max_length": 16}
# Every kind has batches of several sizes, and their number is odd: a pass ends with a step of fewer batches.
KINDS: dict[str, dict[str, Any]] = {
    "cross": LENGTHS | {"alone": 0.3, "batch_tokens": 100, "frozen_layers": 0},
    "late": LENGTHS | {"alone": 0.3, "batch_tokens": 64, "alone_layers": 1},
    "summa_reranker": LENGTHS | {"batch_tokens": 140},
    "simcls": LENGTHS | {"batch_tokens": 140},
    "reward_model": LENGTHS | {"batch_tokens": 140},
    "mlm_scoring": LENGTHS | {"batch_tokens": 50, "epochs": 5, "steps": None},
    "llama": {"max_length": 320, "answer_max_length": 32, "batch_tokens": 900},
    "t5": {"max_length": 320, "answer_max_length": 32, "batch_tokens": 900, "epochs": 41, "steps": None},
    "adapter": {"max_length": 320, "answer_max_length": 32, "batch_tokens": 900, "lora_rank": 4},
}
FUSERS = ("llama", "t5", "adapter")
NO_DROPOUT, DROPOUT = 0, 1  # seeds


def run(
    kinds: list[str], backbones: dict[str, str], output: str, *, stop: int = -1, only: int | None = None, **changes: Any
) -> None:
    """Train a model of each kind, and write ``KIND.json``, the log of every step, and ``KIND.safetensors``.

    Args:
        kinds: of `KINDS`.
        backbones: folders by kind.
        output: folder of all that is written.
        stop: steps after which the training of each kind fails; -1 for none.
        only: rank of the process that fails, and ends; None for all of them, which go on to the next kind.
        **changes: settings of the recipes.
    """
    import safetensors.torch
    import torch
    from transformers import Trainer

    from llm_blender.training import loop
    from llm_blender.training.processes import is_main_process, number_of_processes

    folder = Path(output)
    torch.set_num_threads(1)
    arguments, step = loop.TrainingArguments, Trainer.training_step

    def failing(self: Any, *args: Any, **options: Any) -> Any:
        if self.state.global_step == stop and only in (None, self.args.process_index):
            raise ConnectionError("pulled the plug")
        return step(self, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "TrainingArguments", lambda **settings: arguments(**{**settings, "logging_steps": 1}))
        patch.setattr(Trainer, "training_step", failing)
        if changes.get("seed") != DROPOUT:
            patch.setattr(torch, "randn_like", torch.zeros_like)  # noise of SummaReranker's gates
            patch.setattr(torch.nn.functional, "dropout", lambda states, *_, **__: states)
        for kind in kinds:
            try:
                learner, log = _train(kind, backbones[kind], folder, SETTINGS | KINDS[kind] | changes)
            except ConnectionError:
                if only is None:
                    continue
                raise
            if is_main_process():
                weights = {name: value.contiguous().clone() for name, value in learner.model.state_dict().items()}
                safetensors.torch.save_file(weights, folder / f"{kind}.safetensors")
                result = {"processes": number_of_processes(), "log": log}
                (folder / f"{kind}.json").write_text(json.dumps(result))


def _train(kind: str, backbone: str, folder: Path, settings: dict[str, Any]) -> tuple[Any, Any]:
    from llm_blender.training.checkpoints import new_pair_ranker
    from llm_blender.training.fuser import FuserLearner, new_fuser
    from llm_blender.training.fuser_rows import FuserRow
    from llm_blender.training.groups import PREFERENCE
    from llm_blender.training.loop import train
    from llm_blender.training.ranker import PairLearner
    from llm_blender.training.recipes import FuserRecipe, Recipe
    from llm_blender.training.run import _BASELINES

    learner: Any
    if kind in FUSERS:
        recipe = FuserRecipe.model_validate(settings)
        learner = FuserLearner(new_fuser(recipe, backbone), recipe, backbone)
        rows = learner.fit(
            [
                FuserRow(f"Why {one}?", "", (f"the {one}", "bad"), f"the {one} is good " * (1 + number % 3))
                for number, one in enumerate(NAMES * 3)
            ]
        )
        return learner, train(learner, recipe, rows, rows[:7], folder / kind, evaluate_first=True)
    groups, of_ranker = _groups(), Recipe.model_validate(settings)
    if kind in _BASELINES:
        tasks = [(PREFERENCE, "judge")] if kind == "summa_reranker" else []
        with tempfile.TemporaryDirectory() as workspace:
            learner = _BASELINES[kind](of_ranker, backbone, Path(workspace), *tasks)
    else:
        learner = PairLearner(of_ranker, *new_pair_ranker(of_ranker, backbone))
        groups = [scored.group for scored in groups]
    return learner, learner.train(groups, groups[:9], folder / kind)


def _groups() -> list[Any]:
    from llm_blender.training.groups import Preference, ScoredGroup, TrainingGroup

    return [
        ScoredGroup(
            TrainingGroup(
                f"why is the {one}", (f"the {other} is bad", f"the {other} is good"), (Preference(1, 0, 0.9),)
            ),
            {"judge": (0.0, 1.0)},
            f"the {other} is good" if number % 2 else None,
        )
        for number, (one, other) in enumerate(itertools.product(NAMES, NAMES))
    ]


if __name__ == "__main__":
    run(**json.loads(sys.argv[1]))
