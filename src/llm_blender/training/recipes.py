"""What a ranker is trained on and how: the recipe, a TOML file that stands beside the weights it made."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from llm_blender.errors import ConfigError, NotFoundError, first_problem

__all__ = ["RANKERS", "FuserRecipe", "FuserSource", "Optimisation", "RankerKind", "Recipe", "Source", "StrictModel"]

RankerKind = Literal["pair_ranker", "summa_reranker", "simcls", "reward_model", "mlm_scoring"]
"""What can be trained: the PairRanker and the paper's baselines."""
RANKERS: tuple[str, ...] = get_args(RankerKind)


class StrictModel(BaseModel):
    """Refuses unknown keys, and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Optimisation(StrictModel):
    """What every recipe says of the way to its weights.

    Attributes:
        learning_rate: peak of a linear schedule.
        warmup: share of the steps.
        weight_decay: of AdamW.
        batch_tokens: tokens of a batch, padding included.
        epochs: passes over the data, each in another order.
        steps: of the whole run, whatever there is to learn from; None is as many as the epochs make.
        bf16: compute in bfloat16: faster on accelerators and on CPUs with AVX512-BF16 or AMX. What is trained stays
            float32.
        seed: of everything drawn: data, order, fresh weights, dropout.
        save_every: steps between checkpoints (and evaluations).
    """

    learning_rate: float = Field(default=5e-5, gt=0)
    warmup: float = Field(default=0.06, ge=0, lt=1)
    weight_decay: float = Field(default=0.01, ge=0)
    batch_tokens: int = Field(default=8_192, ge=1)
    epochs: int = Field(default=1, ge=1)
    steps: int | None = Field(default=None, ge=1)
    bf16: bool = False
    seed: int = 0
    save_every: int = Field(default=100, ge=1)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a TOML file; its ``base`` names another recipe beside it, whose values it starts from.

        Raises:
            NotFoundError: there is none.
            ConfigError: it is no TOML, or a key or value is wrong.
        """
        values = _read(path)
        base = values.pop("base", None)
        if base is not None:
            values = _read(path.parent / str(base)) | values
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"{path}: {first_problem(error)}.") from None


class Source(StrictModel):
    """One file of rows and the groups to make of it.

    Attributes:
        file: name of the file, in the folder given to the command (or a path).
        pairs: ``implied`` by differing scores of comparable candidates, ``labelled`` in the rows, or
            ``reference``: the row's reference against `negatives`.
        scores: which scores imply pairs; empty means all that the rows have.
        exclude_models: candidates of these LLMs are left out.
        max_groups: groups drawn; spread evenly over the rows.
        candidates: in a group of ``implied`` pairs.
        min_gap: least difference of two scores, as a share of the file's candidates that lie between them.
        comparable: greatest difference between an LLM's mean standing (0 worst, 1 best) and that of the one which a
            group is drawn around, so that it teaches what is better here and not which LLM is better.
        distractors: share of the ``implied`` groups that get one more text, which loses: an answer of one of the
            better LLMs to a similar instruction.
        negatives: what a reference is set against: the reference of a similar instruction (``neighbour``), that of
            any (``other``), itself broken off (``cut``).
        name: of the public data set, for the model card.
        url: where to get it.
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


class Recipe(Optimisation):
    """A whole training run; its fields, and those of `Optimisation`, are the options of ``blend train ranker``.

    A batch is a step. With `steps`, a PairRanker's two stages share them as `alone` says.

    **Data**

    Attributes:
        sources: files of rows.
        dev_sources: rows that measure the model while it trains.
        orders: of a PairRanker. ``both`` reads every pair in both orders, ``one`` in one order, as often with the
            better one left as right: twice the pairs for the same work. Without a meaning where `alone_layers` is
            above 0.
        alone: of a PairRanker. Share of the groups whose candidates are first read alone, pointwise, before
            others are compared.
        compared: of a PairRanker. Share of the groups that are compared then, if fewer than are left.
        soft_labels: learn how sure the judges are; else 1 and 0, as soon as they lean to one side.

    **Model**

        ranker: what is trained. Fields that are said to be of a PairRanker mean nothing to the others.
        backbone: an encoder, by its Hub name or folder.
        init: of a PairRanker. One whose weights are the first ones, ``bundled`` or a folder; empty for a fresh one on
            `backbone`.
        keep_init: share of `init`'s weights in the final ones, so that what is learned does not cost what was known
            (arXiv 2109.01903).
        alone_layers: of a PairRanker, see `PairRankerConfig`.
        pooling: of a PairRanker, see `PairRankerConfig`.
        max_length: tokens of a pair; of the others, of an instruction with one candidate.
        source_max_length: tokens of the instruction.
        frozen_layers: lowest encoder layers that stay as they are, with the embeddings; -1 freezes nothing.

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


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFoundError(f"There is no recipe {path}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}.") from None


class FuserSource(StrictModel):
    """One file of rows with references and candidates.

    A row's candidates are taken best first: by the `ranking` that stands in it, as ``blend rank`` writes it; else by
    `score`; where there is neither, in an order drawn by the seed.

    Attributes:
        file: name of the file, in the folder given to the command (or a path).
        score: which of the candidates' scores orders them, higher first; candidates without it are left out.
        models: candidates of these LLMs alone; empty means all.
        exclude_models: candidates of these LLMs are left out.
        reference_model: what this LLM answered is the reference, and no candidate: what stands in the row as its
            reference does not count then. Empty means the row's own.
        max_rows: rows drawn; None takes all.
        name: of the public data set, for the model card.
        url: where to get it.
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


class FuserRecipe(Optimisation):
    """A whole training run; its fields, and those of `Optimisation`, are the options of ``blend train fuser``.

    An example that is longer than `batch_tokens` is a batch of its own. With `bf16`, the weights beside an adapter are
    held in it, too.

    **Data**

    Attributes:
        sources: files of rows.
        dev_sources: rows that measure the model while it trains.
        top_k: best candidates of a row that are read.
        fewer: share of the examples that read fewer of them, drawn evenly from 1 to `top_k` - 1.
        order: ``shuffled``, each time in another one, or ``best_first``, as in the paper: then the fuser knows the best
            candidate by its place.
        target: the ``reference`` is learnt, or the ``merge`` of the candidates read that comes closest to it (see
            `llm_blender.training.fuser_rows`): nothing but what they say.

    **Model**

        backbone: a sequence-to-sequence model or a causal LLM, by its Hub name or folder.
        max_length: tokens of prompt and answer. Candidates are shortened evenly until the prompt fits, and the task
            that stands at its end is never cut.
        candidate_max_length: tokens of a candidate.
        answer_max_length: tokens of an answer that are learnt; where there are more, its end is not.
        frozen_layers: lowest layers that stay as they are, with the embeddings; -1 freezes nothing. Of an adapter,
            which never changes the embeddings, layers without one: they cost a step half of what others do.
        lora_rank: of an adapter (arXiv 2106.09685) that is trained in the model's place; 0 trains the model itself.
        lora_alpha: of the adapter: its part is scaled by `lora_alpha` / `lora_rank`.
        lora_targets: names of the layers that it adapts; empty means all linear ones but the last.

    **Optimisation**

        accumulate: batches a step.
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
    accumulate: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _leave_room(self) -> Self:
        if self.max_length - self.answer_max_length < 32:
            raise ValueError("answer_max_length must leave at least 32 tokens of max_length to the prompt")
        return self
