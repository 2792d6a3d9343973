"""What a fuser is trained on and how: the recipe, a TOML file."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from llm_blender.training.recipe import Optimisation, StrictModel

__all__ = ["FuserRecipe", "FuserSource"]


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
            `llm_blender.training.fuser.targets`): nothing but what they say.

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
