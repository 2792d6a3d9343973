"""The model card of a fuser, written from its run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_blender.training.card import file_sha256, table
from llm_blender.training.fuser.recipe import FuserRecipe
from llm_blender.training.fuser.rows import FuserRowCount

__all__ = ["FuserRun", "fuser_card"]


@dataclass(frozen=True)
class FuserRun:
    """What a training run used and found; what the model card is written from.

    Attributes:
        recipe: the recipe.
        sources: what the training files gave.
        dev_sources: what the development files gave.
        excluded: test files whose prompts were left out.
        too_long: training rows left out since two of their candidates do not fit into `recipe.max_length`.
        log: the trainer's.
        seconds: of training and measuring, since `resumed`.
        resumed: step of the checkpoint from which this run went on; 0 from the beginning.
    """

    recipe: FuserRecipe
    sources: tuple[FuserRowCount, ...]
    dev_sources: tuple[FuserRowCount, ...]
    excluded: tuple[Path, ...]
    too_long: int
    log: tuple[dict[str, Any], ...]
    seconds: float
    resumed: int

    @property
    def steps(self) -> int:
        """All that were trained, those before `resumed` among them."""
        return max((int(entry["step"]) for entry in self.log), default=0)

    @property
    def evaluations(self) -> list[dict[str, float]]:
        """On the development rows: ``step``, and ``loss`` per token with its 95 % interval ``loss_low``, ``loss_high``.

        The first one is from before the first step; there are none without development rows.
        """
        names = ("loss", "loss_low", "loss_high", "rows", "tokens")
        found = [entry for entry in self.log if "eval_loss" in entry]
        return [{"step": entry["step"], **{name: entry[f"eval_{name}"] for name in names}} for entry in found]


_TARGETS = {"reference": "references", "merge": "merges closest to the references"}
_CARD = """---
library_name: {library}
license: {licence}
base_model: {backbone}
tags: [fuser, llm-ensemble{lora}]
---

# A GenFuser on {name}

Reads an instruction with the best candidate answers to it and writes one answer from them (arXiv 2306.02561). {kind}

```python
from llm_blender import GenFuser

fuser = GenFuser.from_pretrained("{folder}")
fuser.fuse("Why is the sky blue?", ["Blue light is scattered most.", "Because."]).text
```

## Licence of the weights

The weights are derived from {name} and from the data below; whoever uses them should decide whether the licences of
both bind them.

{data}

## Recipe

{settings}

## Measured

{measured}
"""


def fuser_card(run: FuserRun, folder: Path, *, licence: str = "other") -> str:
    """The card's Markdown: data with licence and sha256, recipe, loss on development rows, time."""
    recipe = run.recipe
    settings = recipe.model_dump(exclude={"sources", "dev_sources"})
    name = recipe.backbone.rpartition("/")[2]
    adapter = "The weights are a LoRA adapter's; `adapter_config.json` names its base."
    return _CARD.format(
        library="peft" if recipe.lora_rank else "transformers",
        licence=licence,
        backbone=recipe.backbone,
        lora=", lora" if recipe.lora_rank else "",
        name=name,
        kind=adapter if recipe.lora_rank else "The weights are whole.",
        folder=folder.name,
        data=_fuser_data(run),
        settings=table(("setting", "value"), settings.items()),
        measured=_fuser_measured(run),
    )


def _fuser_data(run: FuserRun) -> str:
    used = sum(count.used for count in run.sources) - run.too_long
    excluded = ", ".join(f"`{path.name}`" for path in run.excluded)
    return "\n\n".join(
        [
            "## Training data",
            _sources(run.sources),
            f"{used:,} rows in all; {run.too_long:,} of those used were too long and left out. Excluded are rows whose "
            f"normalised prompt stands in a test file{f': {excluded}' if excluded else ' (none was given)'}. "
            "Candidates are taken best first: by the ranking that stands in the row, by a score, or, where there is "
            "neither, in an order drawn by the seed (chance).",
            *(["Development rows:", _sources(run.dev_sources)] if run.dev_sources else []),
        ]
    )


def _sources(counts: Sequence[FuserRowCount]) -> str:
    head = (
        *("source", "licence", "rows", "excluded", "no reference", "no candidates", "used", "chosen by"),
        *("references", "sha256"),
    )
    return table(head, [_source(count) for count in counts])


def _source(count: FuserRowCount) -> tuple[Any, ...]:
    source = count.source
    name = source.name or count.path.name
    return (
        f"[{name}]({source.url})" if source.url else name,
        source.licence or "unknown",
        count.rows,
        count.excluded,
        count.without_reference,
        count.without_candidates,
        count.used,
        ", ".join(f"{how} ({number})" for how, number in sorted(count.chosen_by.items())),
        source.reference_model or "the rows'",
        f"`{file_sha256(count.path)}`",
    )


def _fuser_measured(run: FuserRun) -> str:
    since = f", from step {run.resumed} on, where it was resumed" if run.resumed else ""
    took = f"Steps: {run.steps:,}, in {run.seconds / 60:.1f} minutes{since}."
    if not run.evaluations:
        return f"There were no development rows. {took}"
    last = run.evaluations[-1]
    rows = [
        (f"{entry['step']:.0f}", f"{entry['loss']:.4f}", f"{entry['loss_low']:.4f} to {entry['loss_high']:.4f}")
        for entry in run.evaluations
    ]
    return "\n\n".join(
        [
            f"Loss per token (-log p) of the {_TARGETS[run.recipe.target]} of {last['rows']:.0f} development rows, "
            f"{last['tokens']:.0f} tokens, each read with all its candidates, best first; step 0 is before training. "
            "The intervals are a bootstrap over rows.",
            table(("step", "loss per token", "95 % interval"), rows),
            took,
        ]
    )
