"""The model card, written from the run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_blender._hub import file_sha256
from llm_blender.training.fuser_rows import FuserRowCount
from llm_blender.training.groups import SourceCount
from llm_blender.training.recipes import FuserRecipe, Recipe

__all__ = ["FuserRun", "Run", "Trained", "fuser_card", "model_card", "table"]


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
