"""A distilabel step that ranks the generations of an instruction."""

# Without `from __future__ import annotations`: distilabel reads the annotations of `process` as objects.

import math
from typing import Any

from llm_blender.integrations._shared import MissingLibraryError
from llm_blender.llms.chat_response import split_reasoning
from llm_blender.rankers import load_ranker
from llm_blender.ranking import DEFAULT_BUDGET
from llm_blender.types import Ranker, Ranking

try:
    from distilabel.mixins.runtime_parameters import RuntimeParameter
    from distilabel.steps.base import Step, StepInput
    from distilabel.typing import StepColumns, StepOutput
    from pydantic import Field, PositiveInt, PrivateAttr
except ImportError as error:  # distilabel 1.5.3 imports requests, and installs it no more
    raise MissingLibraryError("llm_blender.integrations.distilabel", "distilabel requests") from error

__all__ = ["RankGenerations"]


class RankGenerations(Step):  # type: ignore[misc]  # the library has no types
    """Rank the generations of an instruction by comparing them in pairs.

    Other columns are read and written by distilabel's mappings: ``input_mappings={"instruction": "messages"}``
    reads a conversation, ``output_mappings={"scores": "ratings"}`` writes what ``FormatTextGenerationDPO`` reads.
    For a `Ranker` that has no name, override `make_ranker`.

    Attributes:
        ranker: ``bundled``, a folder, or a Hub repository.
        device: of the torch backend, such as ``cuda``; None takes ONNX Runtime on the CPU.
        strategy: one of `llm_blender.ranking.STRATEGIES`; ``full`` for scores of all that can be compared.
        budget: comparisons per instruction for ``auto`` and ``active``.

    Input columns:
        - instruction (`str` or `ChatType`): what was asked.
        - generations (`List[Union[str, None]]`): the answers; None is one that failed.

    Output columns:
        - ranks (`List[int]`): of each generation, 1 is the best; ties share the smaller rank, failures the last.
        - ranked_generations (`List[Union[str, None]]`): the generations, best first.
        - scores (`List[Union[float, None]]`): of each generation, higher is better; None for failures.
        - winner_probability (`Union[float, None]`): that the best is better than the runner-up; None where there
            are not two, or where they were not compared.
        - ranker_name (`str`): `ranker`, the name. (Not ``model_name``, which holds the LLM that wrote the answers.)

    Categories:
        - preference

    References:
        - [LLM-Blender: Ensembling Large Language Models with Pairwise Ranking and Generative Fusion](https://arxiv.org/abs/2306.02561)

    Examples:
        Rank two generations:

        ```python
        from llm_blender.integrations.distilabel import RankGenerations

        step = RankGenerations()
        step.load()
        row = {"instruction": "Why is the sky blue?", "generations": ["Because.", "Air scatters blue light most."]}
        (ranked,) = next(step.process([row]))
        ranked["ranks"]  # [2, 1]
        ranked["ranked_generations"][0]  # 'Air scatters blue light most.'
        ```
    """

    ranker: RuntimeParameter[str] = Field(default="bundled", description="`bundled`, a folder, or a Hub repository.")
    device: str | None = None
    strategy: RuntimeParameter[str] = Field(default="auto", description="Which pairs are compared.")
    budget: RuntimeParameter[PositiveInt] = Field(
        default=DEFAULT_BUDGET, description="Comparisons per instruction for `auto` and `active`."
    )
    _loaded: Any = PrivateAttr(default=None)

    def make_ranker(self) -> Ranker:
        """The ranker; called once, in the process that runs the step.

        Raises:
            InputError: see `load_ranker`.
        """
        return load_ranker(str(self.ranker), device=self.device)

    def load(self) -> None:
        """Load the ranker."""
        super().load()
        self._loaded = self.make_ranker()

    def unload(self) -> None:
        """Give the ranker's memory back."""
        self._loaded = None
        super().unload()

    @property
    def inputs(self) -> StepColumns:
        """The columns that are read."""
        return ["instruction", "generations"]

    @property
    def outputs(self) -> StepColumns:
        """The columns that are written."""
        return ["ranks", "ranked_generations", "scores", "winner_probability", "ranker_name"]

    def process(self, inputs: StepInput) -> StepOutput:
        """Rank the generations of a batch of rows, all their comparisons together."""
        answered = [[i for i, text in enumerate(row["generations"]) if text is not None] for row in inputs]
        ranked = [i for i, kept in enumerate(answered) if kept]
        rankings = self._loaded.rank_many(
            [inputs[i]["instruction"] for i in ranked],
            [[split_reasoning(inputs[i]["generations"][j])[0] for j in answered[i]] for i in ranked],
            strategy=self.strategy,
            budget=self.budget,
        )
        ranking_of = dict(zip(ranked, rankings, strict=True))
        for i, (row, kept) in enumerate(zip(inputs, answered, strict=True)):
            row.update(_columns(row["generations"], kept, ranking_of.get(i)))
            row["ranker_name"] = self.ranker
        yield inputs


def _columns(generations: list[str | None], kept: list[int], ranking: Ranking | None) -> dict[str, Any]:
    """What a row learns from the ranking of those of its generations that stand at `kept`."""
    ranks: list[int] = [len(kept) + 1] * len(generations)
    scores: list[float | None] = [None] * len(generations)
    order: list[int] = []
    certainty = math.nan
    if ranking is not None:
        for i, rank, score in zip(kept, ranking.ranks, ranking.scores, strict=True):
            ranks[i], scores[i] = rank, score
        order = [kept[i] for i in ranking.order]
        if len(order) > 1:
            certainty = ranking.probability(*ranking.order[:2])
    failed = sorted(set(range(len(generations))) - set(kept))
    return {
        "ranks": ranks,
        "ranked_generations": [generations[i] for i in [*order, *failed]],
        "scores": scores,
        "winner_probability": None if math.isnan(certainty) else certainty,
    }
