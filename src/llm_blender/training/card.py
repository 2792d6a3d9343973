"""Results of training runs, and the model cards written from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, Generic, TypeVar

from llm_blender.data import input_sha256
from llm_blender.rankers.checkpoints import BUNDLED
from llm_blender.training.fuser_rows import FuserRowCount
from llm_blender.training.groups import SourceCount
from llm_blender.training.recipes import FuserRecipe, Recipe
from llm_blender.training.remarks import fuser_remarks, ranker_remarks

_Recipe = TypeVar("_Recipe", Recipe, FuserRecipe)
_Count = TypeVar("_Count", SourceCount, FuserRowCount)


@dataclass(frozen=True)
class Quality:
    """Figures of a ranker on development pairs.

    Attributes:
        dev: agreement with its 95 % interval, calibration, log loss and flip rate, of the int8 model if there is one;
            empty without development pairs.
        temperature: in the checkpoint: fitted on the development pairs, or that of `Recipe.init`.
        int8: the int8 model against the float32 one on the same pairs; empty if there is no int8 model.
        before: the figures of `Recipe.init` on the same pairs, its ``temperature``, and the ``gain`` in agreement over
            it with its interval; empty for a fresh ranker.
        rejected: figures of the trained weights, if they were no better than those of `Recipe.init`, which are kept.
        general: share of its log-odds that the evidence of `Recipe.init` keeps where there are three candidates or
            more and too few pairs, see `recalibrate`; None if temperature and evidence were not fitted anew.
    """

    dev: dict[str, float] = field(default_factory=dict)
    temperature: float = 1.0
    int8: dict[str, float] = field(default_factory=dict)
    before: dict[str, float] = field(default_factory=dict)
    rejected: dict[str, float] = field(default_factory=dict)
    general: float | None = None

    @property
    def kept_first(self) -> bool:
        """Whether the weights are those of `Recipe.init`, since training made it no better."""
        return bool(self.rejected)


@dataclass(frozen=True)
class _Run(Generic[_Recipe, _Count]):
    recipe: _Recipe
    sources: tuple[_Count, ...]
    dev_sources: tuple[_Count, ...]
    excluded: tuple[Path, ...]
    log: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Run(_Run[Recipe, SourceCount]):
    """Training run of a ranker.

    Attributes:
        recipe: of the run.
        sources: counts of the training files.
        dev_sources: counts of the development files.
        excluded: test files whose prompts were left out.
        log: of the trainer, see `llm_blender.training.loop.train`.
        quality: on development pairs.
        seconds: of the training, since it was started or resumed.
    """

    quality: Quality
    seconds: float = 0.0

    @property
    def steps(self) -> int:
        """Number of all steps trained, in all stages."""
        return sum({entry["stage"]: int(entry["step"]) for entry in self.log if "eval_loss" not in entry}.values())

    @property
    def remarks(self) -> list[str]:
        """What makes the run doubtful, each with what to do."""
        return ranker_remarks(self)


@dataclass(frozen=True)
class FuserRun(_Run[FuserRecipe, FuserRowCount]):
    """Training run of a fuser; as `Run`, without `quality`, and with more.

    Attributes:
        too_long: training rows left out, since two of their candidates do not fit into `recipe.max_length`.
        seconds: of training and evaluation, since `resumed`.
        resumed: step of the checkpoint from which this run resumed; 0 for a run from the start.
    """

    too_long: int
    seconds: float
    resumed: int

    @property
    def remarks(self) -> list[str]:
        """What makes the run doubtful, each with what to do."""
        return fuser_remarks(self)

    @property
    def steps(self) -> int:
        """Number of all steps trained, those before `resumed` included."""
        return max((int(entry["step"]) for entry in self.log), default=0)

    @property
    def evaluations(self) -> list[dict[str, float]]:
        """Evaluations on the development rows, the first one before training; empty without development rows.

        Each has ``step``, ``loss`` per token with its 95 % interval ``loss_low``, ``loss_high``, ``rows``, ``tokens``.
        """
        names = ("loss", "loss_low", "loss_high", "rows", "tokens")
        found = [entry for entry in self.log if "eval_loss" in entry]
        return [{"step": entry["step"], **{name: entry[f"eval_{name}"] for name in names}} for entry in found]


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Format a table in Markdown."""
    lines = [f"| {' | '.join(map(str, cells))} |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


NOT_NAMED = "not named"
"""Licence of data whose source names none."""


def _licences(run: Run | FuserRun) -> str:
    """Join the licences of the training data, each once."""
    return "; ".join(dict.fromkeys(count.source.licence or NOT_NAMED for count in run.sources))


def _remarks(found: Sequence[str]) -> list[str]:
    return ["## Remarks", "\n".join(f"- {remark}" for remark in found)] if found else []


def _base_model(name: str) -> str:
    """Return the line of a card's head that names a model of the Hub; nothing for a folder."""
    return "" if Path(name).expanduser().exists() or not name else f"base_model: {name}\n"


def _sources(counts: Sequence[SourceCount | FuserRowCount], columns: Mapping[str, Any], digest: str) -> str:
    """Format a table of data files: name, licence, given columns, and sha256.

    Args:
        counts: of the files.
        columns: head of each column, and the function that makes its cells from a count.
        digest: head of the column with the sha256.
    """
    lines = []
    for count in counts:
        name = count.source.name or count.path.name
        lines.append(
            [
                f"[{name}]({count.source.url})" if count.source.url else name,
                count.source.licence or NOT_NAMED,
                *(cell(count) for cell in columns.values()),
                f"`{input_sha256(count.path)}`",
            ]
        )
    return table(("source", "licence", *columns, digest), lines)


def _test_files(run: Run | FuserRun) -> str:
    """End a sentence about "rows whose prompt is in a test file" with the names of these files."""
    excluded = ", ".join(f"`{path.name}`" for path in run.excluded)
    return f": {excluded}." if excluded else " (none was given)."


def _recipe(run: Run | FuserRun, unused: frozenset[str] = frozenset()) -> str:
    settings = run.recipe.model_dump(exclude={"sources", "dev_sources", *unused})
    settings["steps"] = settings["steps"] or run.steps
    for key in ("init", "backbone"):
        if settings.get(key) and Path(settings[key]).is_dir():
            settings[key] = Path(settings[key]).name
    return "## Recipe\n\n" + table(("setting", "value"), settings.items())


def _join(*sections: str) -> str:
    return "\n\n".join(section.strip() for section in sections if section) + "\n"


_HEAD = """---
library_name: llm-blender
license: {licence}
{base}tags: [ranker, reward-model, best-of-n, llm-ensemble, preference]
---

# A {kind} {title}

{does}

```python
{load}
ranker.rank("Why is the sky blue?", ["Blue light is scattered most.", "Because."]).order
```

## Licence of the weights

The weights are derived from {origin}, and from the data below.

Licence of the data: {licences}.

Whoever passes the weights on or uses them commercially should decide whether these licences bind them."""

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
"""Title, purpose and loading code of each kind of ranker."""
_GROUP_COLUMNS = {
    "rows": attrgetter("rows"),
    "left out": attrgetter("excluded"),
    "groups": attrgetter("groups"),
    "pairs": attrgetter("pairs"),
}
_OF_PAIR_RANKERS = frozenset({"orders", "alone", "compared", "init", "alone_layers", "pooling"})


def model_card(run: Run, folder: Path, *, licence: str = "other") -> str:
    """Write a ranker's card in Markdown: data with licence and sha256, recipe, and figures on development pairs."""
    kind, does, load = _KINDS[run.recipe.ranker]
    init = run.recipe.init if run.recipe.ranker == "pair_ranker" else ""
    started = init or run.recipe.backbone
    name = Path(started).name
    origin = f"`{name}`, which has its own licence"
    if init == BUNDLED:
        name = "the bundled ranker"
        origin = f"{name} of llm-blender, which was trained in part on data for non-commercial use (see its card)"
    head = _HEAD.format(
        licence=licence,
        base=_base_model("" if init == BUNDLED else started),
        kind=kind,
        title=f"trained on from {name}" if init else f"on {name}",
        does=does,
        load=load.format(folder=f'"{folder.name}"', mlm=f'"mlm:{folder.name}"'),
        origin=origin,
        licences=_licences(run),
    )
    held_out = sum(count.held_out for count in run.sources)
    columns = {**_GROUP_COLUMNS, "held out": attrgetter("held_out")} if held_out else _GROUP_COLUMNS
    total = sum(count.pairs for count in run.sources)
    return _join(
        head,
        "## Training data",
        _sources(run.sources, columns, "sha256 of the file"),
        f"{total:,} pairs in all. Left out are rows whose normalised prompt is in a test file{_test_files(run)}",
        _recipe(run, frozenset() if run.recipe.ranker == "pair_ranker" else _OF_PAIR_RANKERS),
        "## Measured",
        *_measured(run),
        *_remarks(run.remarks),
    )


def _took(run: Run) -> str:
    import platform

    import torch

    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    if run.seconds < 1:
        return ""
    return f"Training took {max(run.seconds / 60, 0.1):.1f} minutes on {where} ({platform.machine()})."


def _measured(run: Run) -> list[str]:
    quality = run.quality
    if not quality.dev:
        return ["There were no development pairs.", _took(run)]
    precision, int8 = "", []
    if quality.int8:
        precision = ", int8"
        int8 = [
            f"Against float32 on the same pairs, int8 makes the same decision on "
            f"{100 * quality.int8['same_decision']:.1f} % (agreement {quality.dev['agreement']:.4f}, float32 "
            f"{quality.int8['agreement_fp32']:.4f}; largest difference of a logit "
            f"{quality.int8['largest_difference']:.3f})."
        ]
    held_out = any(count.held_out for count in run.dev_sources)
    origin = "held out from the same files, by instruction" if held_out else "of other files"
    if quality.general is not None:
        calibration = (
            "Temperature and evidence were fitted on these same pairs; the figures after training are those of fits on "
            "other instructions (five folds). Where there are three candidates or more, and too few of these pairs, "
            f"the general evidence (consensus, length) keeps {quality.general:.0%} of its log-odds."
        )
    elif quality.before:
        calibration = "Temperature and evidence are those of the ranker it started from."
    else:
        calibration = "The temperature was fitted on these same pairs, so ECE, Brier and log loss flatter it here."
    figures, before = {**quality.dev, "temperature": quality.temperature}, quality.before
    names = [name for name in figures if not name.startswith("gain") and name not in _INTERVAL]
    head = [f"on development pairs{precision}", *(["before", "after"] if quality.before else [""])]
    lines = [
        [
            name,
            *([_figure(before, name)] if quality.before else []),
            _figure(figures, name),
        ]
        for name in names
    ]
    return [
        f"The development pairs are {origin}. Intervals are of 95 %, resampled by instruction. {calibration}",
        table(head, lines),
        *_gain(quality),
        *int8,
        "Learning curve:",
        _curve(run),
        _took(run),
    ]


_INTERVAL = ("agreement_low", "agreement_high")


def _figure(figures: Mapping[str, float | None], name: str) -> str:
    value = figures.get(name)
    if value is None:
        return ""
    interval = f" ({figures[_INTERVAL[0]]:.4g} to {figures[_INTERVAL[1]]:.4g})" if name == "agreement" else ""
    return f"{value:.4g}{interval}"


def _gain(quality: Quality) -> list[str]:
    if quality.kept_first:
        worse = quality.rejected
        return [
            "Training made it no better on these pairs, and the weights are those from before: trained, it had an "
            f"agreement of {_figure(worse, 'agreement')} and a log loss of {worse['log_loss']:.4g}."
        ]
    if "gain" not in quality.before:
        return []
    gain, low, high = (100 * quality.before[name] for name in ("gain", "gain_low", "gain_high"))
    return [f"Training changed the agreement by {gain:+.1f} points ({low:+.1f} to {high:+.1f}), paired by instruction."]


def _curve(run: Run) -> str:
    measured = {
        "eval_loss": "loss",
        "eval_agreement": "agreement (one order)" if run.quality.int8 else "agreement",
        "eval_prefers_left": "prefers left",
        "eval_accuracy": "masked tokens guessed",
    }
    entries = [entry for entry in run.log if "eval_loss" in entry]
    names = [name for name in measured if any(name in entry for entry in entries)]
    head = ["stage", "step", *(measured[name] for name in names)]
    lines = [[entry["stage"], str(entry["step"]), *(f"{entry[name]:.4f}" for name in names)] for entry in entries]
    return table(head, lines)


_FUSER_HEAD = """---
library_name: {library}
license: {licence}
{base}tags: [fuser, llm-ensemble{lora}]
---

# A GenFuser on {name}

Reads an instruction with the best candidate answers to it and writes one answer from them (arXiv 2306.02561). {kind}

```python
from llm_blender import GenFuser

fuser = GenFuser.from_pretrained("{folder}")
fuser.fuse("Why is the sky blue?", ["Blue light is scattered most.", "Because."]).text
```

## Licence of the weights

The weights are derived from `{name}`, which has its own licence, and from the data below.

Licence of the data: {licences}.

Whoever passes the weights on or uses them commercially should decide whether these licences bind them."""
_TARGETS = {"reference": "references", "merge": "merges closest to the references"}
_ROW_COLUMNS: dict[str, Any] = {
    "rows": attrgetter("rows"),
    "excluded": attrgetter("excluded"),
    "no reference": attrgetter("without_reference"),
    "no candidates": attrgetter("without_candidates"),
    "used": attrgetter("used"),
    "chosen by": lambda count: ", ".join(f"{how} ({number})" for how, number in sorted(count.chosen_by.items())),
    "references": lambda count: count.source.reference_model or "the rows'",
}


def fuser_card(run: FuserRun, folder: Path, *, licence: str = "other") -> str:
    """Write a fuser's card in Markdown: data with licence and sha256, recipe, loss on development rows, time."""
    recipe = run.recipe
    head = _FUSER_HEAD.format(
        library="peft" if recipe.lora_rank else "transformers",
        licence=licence,
        base=_base_model(recipe.backbone),
        lora=", lora" if recipe.lora_rank else "",
        name=Path(recipe.backbone).name,
        licences=_licences(run),
        kind="The weights are a LoRA adapter's; `adapter_config.json` names its base."
        if recipe.lora_rank
        else "The weights are whole.",
        folder=folder.name,
    )
    used = sum(count.used for count in run.sources) - run.too_long
    dev = ["Development rows:", _sources(run.dev_sources, _ROW_COLUMNS, "sha256")] if run.dev_sources else []
    return _join(
        head,
        "## Training data",
        _sources(run.sources, _ROW_COLUMNS, "sha256"),
        f"{used:,} rows in all; {run.too_long:,} of those used were too long and left out. Excluded are rows whose "
        f"normalised prompt is in a test file{_test_files(run)} Candidates are taken best first: by the ranking in the "
        "row, by a score, or, without either, in an order drawn by the seed (chance).",
        *dev,
        _recipe(run),
        "## Measured",
        *_fuser_measured(run),
        *_remarks(run.remarks),
    )


def _fuser_measured(run: FuserRun) -> list[str]:
    since = f", from step {run.resumed} on, where it was resumed" if run.resumed else ""
    took = f"Steps: {run.steps:,}, in {run.seconds / 60:.1f} minutes{since}."
    if not run.evaluations:
        return [f"There were no development rows. {took}"]
    last = run.evaluations[-1]
    rows = [
        (f"{entry['step']:.0f}", f"{entry['loss']:.4f}", f"{entry['loss_low']:.4f} to {entry['loss_high']:.4f}")
        for entry in run.evaluations
    ]
    return [
        f"Loss per token (-log p) of the {_TARGETS[run.recipe.target]} of {last['rows']:.0f} development rows, "
        f"{last['tokens']:.0f} tokens, each read with all its candidates, best first; step 0 is before training. "
        "The intervals are a bootstrap over rows.",
        table(("step", "loss per token", "95 % interval"), rows),
        took,
    ]
