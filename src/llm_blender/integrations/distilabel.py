"""A distilabel step that ranks the generations of an instruction."""

# Without `from __future__ import annotations`: distilabel reads the annotations of `process` as objects.

import logging
import math
from typing import Any

from llm_blender._inputs import check_inputs
from llm_blender.errors import InputError, MissingLibraryError
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

logger = logging.getLogger(__name__)


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
        - instruction (`str` or `ChatType`): the prompt or conversation, also with parts of text and turns of tools.
        - generations (`List[Union[str, None]]`): the answers; None for a failed call.

    Output columns:
        - ranks (`List[Union[int, None]]`): rank of each generation, 1 is best; ties share the smaller rank, failures
            the last. None in a row that cannot be read, such as one without an instruction.
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
        """Rank the generations of a batch of rows, with the comparisons of all rows pooled.

        A row that cannot be read (no instruction, an image, a generation that is no text) gets None for each rank and
        score, and a warning; the other rows of the batch are ranked.
        """
        readable: dict[int, dict[int, str]] = {}
        for i, row in enumerate(inputs):
            try:
                readable[i] = _texts(row["instruction"], row["generations"])
            except InputError as error:
                logger.warning("row %d of the batch is not ranked: %s", i, error)
        ranked = [i for i, texts in readable.items() if texts]
        rankings = self._loaded.rank_many(
            [inputs[i]["instruction"] for i in ranked],
            [list(readable[i].values()) for i in ranked],
            strategy=self.strategy,
            budget=self.budget,
        )
        ranking_of = dict(zip(ranked, rankings, strict=True))
        for i, row in enumerate(inputs):
            generations = row["generations"]
            if i in readable:
                row.update(_columns(generations, list(readable[i]), ranking_of.get(i)))
            else:
                nothing = [None] * len(generations) if isinstance(generations, list) else None
                row.update(ranks=nothing, ranked_generations=generations, scores=nothing, winner_probability=None)
            row["ranker_name"] = self.ranker
        yield inputs


def _texts(instruction: Any, generations: Any) -> dict[int, str]:
    """Return the generations of a row by their indices, without failed ones and without thoughts.

    Raises:
        InputError: the instruction or a generation cannot be read.
    """
    if not isinstance(generations, list):
        raise InputError(f"`generations` must be a list, not {type(generations).__name__}.")
    texts = {i: text for i, text in enumerate(generations) if text is not None}
    check_inputs([instruction], [list(texts.values()) or [""]])
    return {i: split_reasoning(text)[0] for i, text in texts.items()}


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
