"""Recipes of training runs: TOML files with the data, the model and the optimisation of a run."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from llm_blender.errors import ConfigError, NotFoundError, first_problem

RankerKind = Literal["pair_ranker", "summa_reranker", "simcls", "reward_model", "mlm_scoring"]
"""Rankers that can be trained: the PairRanker and the paper's baselines."""
RANKERS: tuple[str, ...] = get_args(RankerKind)


class _Strict(BaseModel):
    """Frozen; refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Strict):
    """A file of rows from which groups of candidates are drawn for a ranker.

    Attributes:
        file: file name, in the folder given to the command, or a path.
        pairs: ``implied`` by differing scores of comparable candidates, ``labelled`` in the rows, or ``reference``: the
            row's reference against `negatives`.
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
        name: of the public data set, for the model card.
        url: of the data set.
        licence: of the data.
    """

    file: str
    pairs: Literal["implied", "labelled", "reference"] = "implied"
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
    seed: int = 0
    save_every: int = Field(default=100, ge=1)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a TOML file; its ``base`` names another recipe in the same folder, whose values it starts from.

        Raises:
            NotFoundError: there is no such file.
            ConfigError: it is not TOML, or a key or value is wrong.
        """
        values = _read(path)
        base = values.pop("base", None)
        if base is not None:
            of_base = _read(path.parent / str(base))
            if "base" in of_base:
                raise ConfigError(f"{path}: its base {base} has a base of its own, and only one level is read.")
            values = of_base | values
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"{path}: {first_problem(error, cls)}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
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
        orders: of a PairRanker. ``both`` reads every pair in both orders, ``one`` in one order, with the better one
            alternately left and right: twice the pairs for the same work. Without effect if `alone_layers` is above 0.
        alone: of a PairRanker. Share of the groups for the pointwise stage, which comes first and scores candidates one
            by one.
        compared: of a PairRanker. Share of the groups for the pairwise stage, if fewer than are left.
        soft_labels: learn the judges' probabilities; else 1 and 0 for the likelier winner.

    **Model**

        ranker: kind of ranker. Fields "of a PairRanker" have no effect on the others.
        backbone: Hub name or folder of an encoder.
        init: of a PairRanker. The PairRanker whose weights are the first ones, ``bundled`` or a folder; empty for a
            fresh one on `backbone`.
        keep_init: share of `init`'s weights in the final ones, to keep what `init` knew (arXiv 2109.01903).
        alone_layers: of a PairRanker, see `PairRankerConfig`.
        pooling: of a PairRanker, see `PairRankerConfig`.
        max_length: tokens of a pair; of the others, of an instruction with one candidate.
        source_max_length: tokens of the instruction.
        frozen_layers: number of lowest encoder layers that are not trained, nor are the embeddings; -1 trains
            everything.

    **Optimisation**

        loss: of a PairRanker or a reward model, one of `llm_blender.training.losses.LOSSES`.
    """

    sources: tuple[Source, ...] = ()
    dev_sources: tuple[Source, ...] = ()
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

    loss: str = "soft_logistic"

    @model_validator(mode="after")
    def _leave_room(self) -> Self:
        if self.max_length - self.source_max_length < 32:
            raise ValueError("source_max_length must leave at least 32 tokens of max_length to the candidates")
        return self


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
