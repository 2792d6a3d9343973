"""The model card, written from the run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_blender.training.recipe import Recipe
from llm_blender.training.sources import SourceCount

__all__ = ["Run", "model_card"]


@dataclass(frozen=True)
class Run:
    """What a training run used and found; what the model card is written from.

    Attributes:
        recipe: the recipe.
        sources: what the training files gave.
        dev_sources: what the development files gave.
        excluded: test files whose prompts were left out.
        log: the trainer's.
        temperature: fitted on the development pairs.
        dev: agreement, calibration and flip rate on the development pairs, of the int8 model.
        int8: its agreement with the float32 model on the development pairs.
    """

    recipe: Recipe
    sources: tuple[SourceCount, ...]
    dev_sources: tuple[SourceCount, ...]
    excluded: tuple[Path, ...]
    log: tuple[dict[str, Any], ...]
    temperature: float
    dev: dict[str, float]
    int8: dict[str, float]


_HEAD = """---
library_name: llm-blender
license: {licence}
base_model: {backbone}
tags: [ranker, reward-model, best-of-n, llm-ensemble, preference]
---

# A PairRanker on {name}

Reads an instruction with two candidate answers and says which is better (arXiv 2306.02561).

```python
from llm_blender import PairRanker

ranker = PairRanker.from_pretrained({load})
ranker.rank("Why is the sky blue?", ["Blue light is scattered most.", "Because."]).order
```
"""


def model_card(run: Run, folder: Path, *, licence: str = "other") -> str:
    """The card's Markdown: data with licence and sha256, recipe, and what was measured on development pairs."""
    name = run.recipe.backbone.rpartition("/")[2]
    parts = [
        _HEAD.format(licence=licence, backbone=run.recipe.backbone, name=name, load=f'"{folder.name}"'),
        "## Licence of the weights\n\nThe weights are derived from the encoder and from the data below; parts of the "
        "data are for non-commercial use (see the table), and whoever uses the weights commercially should decide "
        "whether that binds them.",
        _data(run),
        _settings(run.recipe),
        _measured(run),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _data(run: Run) -> str:
    lines = [
        "## Training data",
        "",
        "| source | licence | rows | left out | groups | pairs | sha256 of the file |",
        "|---|---|---|---|---|---|---|",
    ]
    for count in run.sources:
        source = count.source
        name = source.name or count.path.name
        link = f"[{name}]({source.url})" if source.url else name
        lines.append(
            f"| {link} | {source.licence or 'unknown'} | {count.rows} | {count.excluded} | {count.groups} | "
            f"{count.pairs} | `{_sha256(count.path)}` |"
        )
    total = sum(count.pairs for count in run.sources)
    excluded = ", ".join(f"`{path.name}`" for path in run.excluded)
    lines += ["", f"{total:,} pairs in all. Left out are rows whose normalised prompt stands in a test file"]
    lines[-1] += f": {excluded}." if excluded else " (none was given)."
    return "\n".join(lines)


def _settings(recipe: Recipe) -> str:
    values = recipe.model_dump(exclude={"sources", "dev_sources"})
    rows = "\n".join(f"| {key} | {value} |" for key, value in values.items())
    return f"## Recipe\n\n| setting | value |\n|---|---|\n{rows}"


def _measured(run: Run) -> str:
    if not run.dev:
        return "## Measured\n\nThere were no development pairs."
    rows = [f"| {key} | {value:.4g} |" for key, value in {**run.dev, "temperature": run.temperature}.items()]
    table = "\n".join(["| on development pairs, int8 | |", "|---|---|", *rows])
    int8 = (
        f"Against float32 on the same pairs, int8 makes the same decision on {100 * run.int8['same_decision']:.1f} % "
        f"(agreement {run.dev['agreement']:.4f}, float32 {run.int8['agreement_fp32']:.4f}; largest difference of a "
        f"logit {run.int8['largest_difference']:.3f})."
    )
    fitted = "The temperature was fitted on these same pairs, so ECE and Brier flatter it here."
    curve = ["| stage | step | loss | agreement (one order) | prefers left |", "|---|---|---|---|---|"]
    curve += [
        f"| {e['stage']} | {e['step']} | {e['eval_loss']:.4f} | {e['eval_agreement']:.4f} | "
        f"{e['eval_prefers_left']:.3f} |"
        for e in run.log
        if "eval_agreement" in e
    ]
    return f"## Measured\n\n{table}\n\n{fitted}\n\n{int8}\n\nLearning curve:\n\n" + "\n".join(curve)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
