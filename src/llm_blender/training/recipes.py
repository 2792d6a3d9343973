"""Recipes of training runs: TOML files with the data, the model and the optimisation of a run."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from llm_blender.errors import ConfigError, NotFoundError, problems

RankerKind = Literal["pair_ranker", "summa_reranker", "simcls", "reward_model", "mlm_scoring"]
"""Rankers that can be trained: the PairRanker and the paper's baselines."""
RANKERS: tuple[str, ...] = get_args(RankerKind)


LossName = Literal["logistic", "soft_logistic", "bce", "mse", "open_instruct_bce", "instructgpt"]
"""Keys of `llm_blender.training.losses.LOSSES`."""


class _Strict(BaseModel):
    """Frozen; refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Strict):
    """A file of rows from which groups of candidates are drawn for a ranker.

    Attributes:
        file: file name, in the folder given to the command, or a path.
        pairs: ``implied`` by differing scores of comparable candidates, ``labelled`` in the rows, or ``reference``: the
            row's reference against `negatives`. ``auto`` is ``implied`` if a candidate of the file has a score, else
            ``labelled``.
        scores: names of the scores that imply pairs; empty for all scores of the rows.
        exclude_models: LLMs whose candidates are left out.
        max_groups: number of groups drawn, evenly over the rows.
        candidates: candidates per group of ``implied`` pairs.
        min_gap: least difference of two scores, as a share of the file's candidates with a score between them.
        comparable: greatest difference between an LLM's mean mid-rank (0 worst, 1 best) and that of the LLM around
            which a group is drawn, so that a group teaches which answer is better and not which LLM.
        distractors: share of the ``implied`` groups that get one more text, which loses: a better LLM's answer to a
            similar instruction.
        negatives: texts that lose against a reference: the reference of a similar instruction (``neighbour``), that of
            any other one (``other``), the reference itself, broken off (``cut``).
        name: of the data set, for the model card; by default, with `url` and `licence`, that of the card ``FILE.md``
            which ``blend data import`` writes.
        url: of the data set.
        licence: of the data.
    """

    file: str
    pairs: Literal["auto", "implied", "labelled", "reference"] = "auto"
    scores: tuple[str, ...] = ()
    exclude_models: tuple[str, ...] = ()
    max_groups: int = Field(default=2_000, ge=1)
    candidates: int = Field(default=2, ge=2)
    min_gap: float = Field(default=0.2, ge=0, le=1)
    comparable: float = Field(default=0.25, ge=0, le=1)
    distractors: float = Field(default=0, ge=0, le=1)
    negatives: tuple[Literal["neighbour", "other", "cut"], ...] = ("neighbour", "other", "cut")
    name: str = ""
    url: str = ""
    licence: str = ""


class FuserSource(_Strict):
    """A file of rows with references and candidates, from which a fuser learns.

    A row's candidates are taken best first: by the row's `ranking`, as ``blend rank`` writes it; else by `score`;
    without either, in an order drawn by the seed.

    Attributes:
        file: file name, in the folder given to the command, or a path.
        score: name of the score that orders the candidates, higher first; candidates without it are left out.
        models: LLMs whose candidates are taken; empty for all.
        exclude_models: LLMs whose candidates are left out.
        reference_model: LLM whose answer is the reference, and no candidate; it replaces the row's own reference. Empty
            for the row's own.
        max_rows: number of rows drawn; None for all.
        name: of the public data set, for the model card.
        url: of the data set.
        licence: of the data.
    """

    file: str
    score: str = ""
    models: tuple[str, ...] = ()
    exclude_models: tuple[str, ...] = ()
    reference_model: str = ""
    max_rows: int | None = Field(default=None, ge=1)
    name: str = ""
    url: str = ""
    licence: str = ""


class Optimisation(_Strict):
    """Optimisation settings, the part that every recipe has.

    Attributes:
        learning_rate: peak of a linear schedule.
        warmup: share of the steps.
        weight_decay: of AdamW.
        batch_tokens: tokens per batch, padding included.
        accumulate: batches per step. The processes of a run share them, so that their number must divide it.
        epochs: passes over the data, each in another order.
        steps: steps of the whole run, whatever the amount of data; None for as many as the epochs make.
        bf16: compute in bfloat16: faster on accelerators and on CPUs with AVX512-BF16 or AMX. Trained weights stay
            float32.
        seed: of everything drawn: data, order, fresh weights, dropout.
        save_every: steps between checkpoints, and between evaluations.
    """

    learning_rate: float = Field(default=5e-5, gt=0)
    warmup: float = Field(default=0.06, ge=0, lt=1)
    weight_decay: float = Field(default=0.01, ge=0)
    batch_tokens: int = Field(default=8_192, ge=1)
    accumulate: int = Field(default=1, ge=1)
    epochs: int = Field(default=1, ge=1)
    steps: int | None = Field(default=None, ge=1)
    bf16: bool = False
    seed: int = Field(default=0, ge=0)
    save_every: int = Field(default=100, ge=1)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a TOML file; its ``base`` names another recipe in the same folder, whose values it starts from.

        Raises:
            NotFoundError: there is no such file.
            ConfigError: it is not TOML, or a key or value is wrong.
        """
        files = [(path, *_read(path))]
        values = files[0][2]
        base = values.pop("base", None)
        if base is not None:
            files.append((path.parent / str(base), *_read(path.parent / str(base))))
            if "base" in files[1][2]:
                raise ConfigError(f"{path}: its base {base} has a base of its own, and only one level is read.")
            values = files[1][2] | values
        texts = [(str(place), text) for place, text, _ in files]
        return cls.parse(values, str(path), texts)

    @classmethod
    def parse(cls, values: Mapping[str, Any], place: str, texts: Sequence[tuple[str, str]] = ()) -> Self:
        """Make a recipe of values.

        Args:
            values: by field.
            place: of the values, for errors.
            texts: files that hold them, by name: an error names the first one with its key, and the line.

        Raises:
            ConfigError: a key or value is wrong; the message names all that are.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            found = [(_where(problem.keys, texts), problem.words) for problem in problems(error, cls)]
        if len(found) == 1:
            (where, words), *_ = found
            raise ConfigError(_at("" if where.startswith(place) else place, where, words))
        listed = " ".join(f"({number}) {_at('', where, words)}" for number, (where, words) in enumerate(found, 1))
        raise ConfigError(f"{place}: {len(found)} problems: {listed}")


def _at(place: str, where: str, words: str) -> str:
    return ": ".join(part for part in (place, where, words) if part)


def _where(keys: Sequence[int | str], texts: Sequence[tuple[str, str]]) -> str:
    """Return the file and line of a key; empty if no file holds it."""
    found = [(name, line) for name, text in texts if (line := find_line(text, keys)) is not None]
    return f"{found[0][0]}, line {found[0][1]}" if found else ""


_HEADER = re.compile(r"\s*\[\[?\s*([\w.-]+)\s*\]")
_KEY = re.compile(r"\s*[\"']?([\w-]+)[\"']?\s*=")


def find_line(text: str, keys: Sequence[int | str]) -> int | None:
    """Find the line of a key in TOML, from 1.

    Args:
        text: the TOML.
        keys: ``["epochs"]``, or ``["sources", 1, "file"]`` for a key of the second table of that name; if the table has
            no such key, the line is the table's.
    """
    name, index, inner = (*keys, None, None, None)[:3]
    section, count, found = None, -1, None
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            section = header[1]
            count += section == name
            if section == name and found is None and index in (None, count):
                found = number
        elif key := _KEY.match(line):
            if section is None and key[1] == name:
                return number
            if section == name and index in (None, count) and key[1] == inner:
                return number
    return found


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except FileNotFoundError:
        raise NotFoundError(f"There is no recipe {path}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}.") from None


class Recipe(Optimisation):
    """Training run of a ranker; its fields, and those of `Optimisation`, are the options of ``blend train ranker``.

    A PairRanker's pointwise and pairwise stage share `steps` as `alone` divides the groups.

    **Data**

    Attributes:
        sources: files of rows.
        dev_sources: files of rows for evaluation.
        hold_out: without `dev_sources`, the share of the instructions of `sources` that is held out for evaluation.
        orders: of a PairRanker. ``both`` reads every pair in both orders, ``one`` in one order, with the better one
            alternately left and right: twice the pairs for the same work. Without effect if `alone_layers` is above 0.
        alone: of a PairRanker. Share of the groups for the pointwise stage, which comes first and scores candidates one
            by one.
        compared: of a PairRanker. Share of the groups for the pairwise stage, if fewer than are left.
        soft_labels: learn the judges' probabilities; else 1 and 0 for the likelier winner.

    **Model**

        ranker: kind of ranker. Fields "of a PairRanker" have no effect on the others.
        backbone: Hub name or folder of an encoder.
        init: of a PairRanker. The PairRanker that is trained on, ``bundled``, a folder or a Hub name; empty for a
            fresh one on `backbone`. What a recipe does not set of `alone_layers`, `pooling` and the lengths is as in
            `init`; all else of its configuration is kept.
        keep_init: share of `init`'s weights in the final ones, to keep what `init` knew (arXiv 2109.01903).
        alone_layers: of a PairRanker, see `PairRankerConfig`; that of an `init` without any can be raised.
        pooling: of a PairRanker, see `PairRankerConfig`.
        max_length: tokens of a pair; of the others, of an instruction with one candidate.
        source_max_length: tokens of the instruction.
        frozen_layers: number of lowest encoder layers that are not trained, nor are the embeddings; -1 trains
            everything.

    **Optimisation**

        loss: of a PairRanker or a reward model, one of `llm_blender.training.losses.LOSSES`.
        keep_best: keep the checkpoint with the least loss on the development rows, in place of the last one; and
            `init`, unless the trained ranker's log loss on them is lower, and its agreement is not.
    """

    sources: tuple[Source, ...] = ()
    dev_sources: tuple[Source, ...] = ()
    hold_out: float = Field(default=0, ge=0, lt=1)
    orders: Literal["both", "one"] = "both"
    alone: float = Field(default=0.3, ge=0, le=1)
    compared: float = Field(default=1, ge=0, le=1)
    soft_labels: bool = True

    ranker: RankerKind = "pair_ranker"
    backbone: str = "sentence-transformers/all-MiniLM-L6-v2"
    init: str = ""
    keep_init: float = Field(default=0, ge=0, le=1)
    alone_layers: int = Field(default=0, ge=0)
    pooling: Literal["mean", "marker"] = "mean"
    max_length: int = Field(default=384, ge=32)
    source_max_length: int = Field(default=128, ge=8)
    frozen_layers: int = Field(default=0, ge=-1)

    loss: LossName = "soft_logistic"
    keep_best: bool = False

    @model_validator(mode="after")
    def _leave_room(self) -> Self:
        if self.max_length - self.source_max_length < 32:
            raise ValueError("source_max_length must leave at least 32 tokens of max_length to the candidates")
        return self


FEW_PAIRS: Mapping[str, Any] = MappingProxyType(
    {
        "alone": 0.0,  # each pair is a comparison, so there is no pointwise stage
        "learning_rate": 2e-5,
        "batch_tokens": 4_096,
        "keep_init": 0.3,
    }
)
"""What all settings of a `Recipe` for some hundred pairs have in common."""
TRAINING_ON: Mapping[str, Any] = MappingProxyType(
    {**FEW_PAIRS, "epochs": 3, "hold_out": 0.2, "keep_best": True, "save_every": 20}
)
"""Settings of a `Recipe` that trains a ranker on, with some hundred pairs."""


class FuserRecipe(Optimisation):
    """Training run of a fuser; its fields, and those of `Optimisation`, are the options of ``blend train fuser``.

    An example longer than `batch_tokens` is a batch of its own. With `bf16`, the weights under an adapter are stored in
    bfloat16 as well.

    **Data**

    Attributes:
        sources: files of rows.
        dev_sources: files of rows for evaluation.
        top_k: number of best candidates of a row that are read.
        fewer: share of the examples that read fewer candidates, drawn evenly from 1 to `top_k` - 1.
        order: ``shuffled`` anew each time, or ``best_first``, as in the paper: then the fuser knows the best candidate
            by its place.
        target: the ``reference``, or the ``merge`` of the candidates read that comes closest to it (see
            `llm_blender.training.fuser_rows`), which holds nothing but what they hold.

    **Model**

        backbone: Hub name or folder of a sequence-to-sequence model or a causal LLM.
        max_length: tokens of prompt and answer. Candidates are shortened evenly until the prompt fits; the task at its
            end is never cut.
        candidate_max_length: tokens of a candidate.
        answer_max_length: tokens of an answer that are learnt; the end of a longer one is not.
        frozen_layers: number of lowest layers that are not trained, nor are the embeddings; -1 trains everything. With
            an adapter, which never changes the embeddings, layers without one: such a layer costs half the time.
        lora_rank: rank of an adapter (arXiv 2106.09685) that is trained in place of the model; 0 trains the model.
        lora_alpha: scale of the adapter: its output is multiplied by `lora_alpha` / `lora_rank`.
        lora_targets: names of the layers with an adapter; empty for all linear ones but the last.
    """

    sources: tuple[FuserSource, ...] = ()
    dev_sources: tuple[FuserSource, ...] = ()
    top_k: int = Field(default=3, ge=1)
    fewer: float = Field(default=0.25, ge=0, le=1)
    order: Literal["shuffled", "best_first"] = "shuffled"
    target: Literal["reference", "merge"] = "reference"

    backbone: str = "google/flan-t5-large"
    max_length: int = Field(default=1_024, ge=64)
    candidate_max_length: int = Field(default=128, ge=1)
    answer_max_length: int = Field(default=128, ge=1)
    frozen_layers: int = Field(default=0, ge=-1)
    lora_rank: int = Field(default=0, ge=0)
    lora_alpha: int = Field(default=32, ge=1)
    lora_targets: tuple[str, ...] = ()

    learning_rate: float = Field(default=1e-4, gt=0)
    batch_tokens: int = Field(default=4_096, ge=1)

    @model_validator(mode="after")
    def _leave_room(self) -> Self:
        if self.max_length - self.answer_max_length < 32:
            raise ValueError("answer_max_length must leave at least 32 tokens of max_length to the prompt")
        return self
