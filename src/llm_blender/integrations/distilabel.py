"""A distilabel step that ranks the generations of an instruction."""

# Without `from __future__ import annotations`: distilabel reads the annotations of `process` as objects.

import math
from typing import Any

from llm_blender.errors import MissingLibraryError
from llm_blender.llms.chat_response import split_reasoning
from llm_blender.rankers import load_ranker
from llm_blender.ranking import DEFAULT_BUDGET
from llm_blender.types import Ranker, Ranking

try:
    from distilabel.mixins.runtime_parameters import RuntimeParameter
    from distilabel.steps.base import Step, StepInput
    from distilabel.typing import StepColumns, StepOutput
    from pydantic import Field, PositiveInt, PrivateAttr
except ImportError as error:  # distilabel 1.5.3 imports requests without depending on it
    raise MissingLibraryError("llm_blender.integrations.distilabel", "distilabel requests") from error

__all__ = ["RankGenerations"]


class RankGenerations(Step):  # type: ignore[misc]  # the library has no types
    """Rank the generations of an instruction by pairwise comparison.

    distilabel's mappings read and write other columns: ``input_mappings={"instruction": "messages"}``
    reads a conversation, ``output_mappings={"scores": "ratings"}`` writes what ``FormatTextGenerationDPO`` reads.
    Override `make_ranker` to use a `Ranker` object.

    Attributes:
        ranker: ``bundled``, a folder, or a Hub repository.
        device: device of the torch backend, such as ``cuda``; None takes ONNX Runtime on the CPU.
        strategy: one of `llm_blender.ranking.STRATEGIES`; ``full`` makes the scores of all generations comparable.
        budget: comparisons per instruction for ``auto`` and ``active``.

    Input columns:
        - instruction (`str` or `ChatType`): the prompt or conversation.
        - generations (`List[Union[str, None]]`): the answers; None for a failed call.

    Output columns:
        - ranks (`List[int]`): rank of each generation, 1 is best; ties share the smaller rank, failures the last.
        - ranked_generations (`List[Union[str, None]]`): the generations, best first.
        - scores (`List[Union[float, None]]`): score of each generation, higher is better; None for failures.
        - winner_probability (`Union[float, None]`): P(the best is better than the runner-up); None for fewer than two
            generations, or if the two were not compared.
        - ranker_name (`str`): the value of `ranker`. (``model_name`` is the LLM that wrote the answers.)

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
        """Load the ranker; called once, in the process that runs the step.

        Raises:
            InputError: see `load_ranker`.
        """
        return load_ranker(str(self.ranker), device=self.device)

    def load(self) -> None:
        """Set the step up."""
        super().load()
        self._loaded = self.make_ranker()

    def unload(self) -> None:
        """Release the ranker's memory."""
        self._loaded = None
        super().unload()

    @property
    def inputs(self) -> StepColumns:
        """Names of the input columns."""
        return ["instruction", "generations"]

    @property
    def outputs(self) -> StepColumns:
        """Names of the output columns."""
        return ["ranks", "ranked_generations", "scores", "winner_probability", "ranker_name"]

    def process(self, inputs: StepInput) -> StepOutput:
        """Rank the generations of a batch of rows, with the comparisons of all rows pooled."""
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
    """Make the output columns of a row from the ranking of its generations with the indices `kept`."""
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
