"""The model card, written from the run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_blender.training.recipe import Recipe
from llm_blender.training.sources import SourceCount

__all__ = ["Run", "Trained", "file_sha256", "model_card", "table"]


@dataclass(frozen=True)
class Trained:
    """What training came to.

    Attributes:
        log: the trainer's.
        dev: agreement and calibration on the development pairs; empty where there are none.
        temperature: fitted on them.
        int8: the int8 model against the float32 one, on the same pairs; empty where there is no int8 model.
    """

    log: tuple[dict[str, Any], ...]
    dev: dict[str, float]
    temperature: float
    int8: dict[str, float] = field(default_factory=dict)


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
        dev: agreement, calibration and flip rate on the development pairs, of the int8 model where there is one.
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

# A {kind} on {name}

{does}

```python
{load}
ranker.rank("Why is the sky blue?", ["Blue light is scattered most.", "Because."]).order
```
"""

_LOAD = "from llm_blender.rankers import load_ranker\n\nranker = load_ranker({folder})"
_KINDS: dict[str, tuple[str, str, str]] = {
    "pair_ranker": (
        "PairRanker",
        "Reads an instruction with two candidate answers and says which is better (arXiv 2306.02561).",
        "from llm_blender import PairRanker\n\nranker = PairRanker.from_pretrained({folder})",
    ),
    "summa_reranker": (
        "SummaReranker",
        "Reads an instruction with one candidate answer and says how likely that is the best one, by several metrics "
        "(arXiv 2203.06569); a baseline of arXiv 2306.02561.",
        _LOAD,
    ),
    "simcls": (
        "SimCLS",
        "Reads instruction and candidate answers apart and takes the candidate that is nearest (arXiv 2106.01890); a "
        "baseline of arXiv 2306.02561.",
        _LOAD,
    ),
    "reward_model": (
        "reward model",
        "Reads an instruction with one candidate answer and gives it a score, by the model of Bradley and Terry.",
        _LOAD,
    ),
    "mlm_scoring": (
        "masked language model",
        "Says how likely a text is, whatever it answers (MLM-scoring, arXiv 1910.14659); a baseline of arXiv "
        "2306.02561. Trained is the head that guesses masked tokens, with the layers that are not frozen.",
        _LOAD.replace("({folder})", "({mlm})"),
    ),
}
"""Title, what it does, how it is loaded."""
_OF_PAIR_RANKERS = {"orders", "alone", "compared", "init", "alone_layers", "pooling"}


def model_card(run: Run, folder: Path, *, licence: str = "other") -> str:
    """The card's Markdown: data with licence and sha256, recipe, and what was measured on development pairs."""
    kind, does, load = _KINDS[run.recipe.ranker]
    parts = [
        _HEAD.format(
            licence=licence,
            backbone=run.recipe.backbone,
            kind=kind,
            name=run.recipe.backbone.rpartition("/")[2],
            does=does,
            load=load.format(folder=f'"{folder.name}"', mlm=f'"mlm:{folder.name}"'),
        ),
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
            f"{count.pairs} | `{file_sha256(count.path)}` |"
        )
    total = sum(count.pairs for count in run.sources)
    excluded = ", ".join(f"`{path.name}`" for path in run.excluded)
    lines += ["", f"{total:,} pairs in all. Left out are rows whose normalised prompt stands in a test file"]
    lines[-1] += f": {excluded}." if excluded else " (none was given)."
    return "\n".join(lines)


def _settings(recipe: Recipe) -> str:
    useless = set() if recipe.ranker == "pair_ranker" else _OF_PAIR_RANKERS
    values = recipe.model_dump(exclude={"sources", "dev_sources", *useless})
    return "## Recipe\n\n" + table(("setting", "value"), values.items())


def _measured(run: Run) -> str:
    if not run.dev:
        return "## Measured\n\nThere were no development pairs."
    precision = ", int8" if run.int8 else ""
    found = {**run.dev, "temperature": run.temperature}
    measured = table((f"on development pairs{precision}", ""), ((key, f"{value:.4g}") for key, value in found.items()))
    fitted = "The temperature was fitted on these same pairs, so ECE and Brier flatter it here."
    return "\n\n".join(["## Measured", measured, fitted, *_int8(run), "Learning curve:", _curve(run)])


def _int8(run: Run) -> list[str]:
    if not run.int8:
        return []
    return [
        f"Against float32 on the same pairs, int8 makes the same decision on {100 * run.int8['same_decision']:.1f} % "
        f"(agreement {run.dev['agreement']:.4f}, float32 {run.int8['agreement_fp32']:.4f}; largest difference of a "
        f"logit {run.int8['largest_difference']:.3f})."
    ]


def _curve(run: Run) -> str:
    measured = {
        "eval_loss": "loss",
        "eval_agreement": "agreement (one order)" if run.int8 else "agreement",
        "eval_prefers_left": "prefers left",
        "eval_accuracy": "masked tokens guessed",
    }
    entries = [entry for entry in run.log if "eval_loss" in entry]
    names = [name for name in measured if any(name in entry for entry in entries)]
    head = ["stage", "step", *(measured[name] for name in names)]
    lines = [[entry["stage"], str(entry["step"]), *(f"{entry[name]:.4f}" for name in names)] for entry in entries]
    return table(head, lines)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(map(str, cells))} |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def file_sha256(path: Path) -> str:
    """Of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
