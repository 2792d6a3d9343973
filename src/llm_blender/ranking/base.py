"""Base classes of rankers: a subclass supplies logits or scores, the base ranks with them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from typing import Any, ClassVar, TypedDict, Unpack, cast

from llm_blender._inputs import check_inputs
from llm_blender.ranking.engine import Compare, rank_with
from llm_blender.ranking.evidence import EvidenceWeights
from llm_blender.ranking.strategies import DEFAULT_BUDGET, DEFAULT_TOP_K
from llm_blender.types import Comparison, Instruction, OnProgress, Ranker, Ranking, instruction_text


class RankerOptions(TypedDict, total=False):
    """Options of `Ranker.rank_many`, which every ranker takes."""

    strategy: str
    seed: int
    budget: int
    progress: OnProgress | None


class RankOptions(RankerOptions, total=False):
    """Options of `BaseRanker.rank` and `BaseRanker.rank_many`."""

    k: int


class BaseRanker(ABC):
    """Base of all rankers; a subclass implements `_rank_many`.

    Attributes:
        quick: whether it ranks short texts in microseconds, so that no thread is worth it.
    """

    quick: ClassVar[bool] = False

    def rank_many(
        self,
        instructions: Sequence[Instruction],
        candidates: Sequence[Sequence[str]],
        *,
        strategy: str = "auto",
        seed: int = 0,
        budget: int = DEFAULT_BUDGET,
        k: int = DEFAULT_TOP_K,
        progress: OnProgress | None = None,
    ) -> list[Ranking]:
        """Rank the candidates of many instructions.

        A pairwise ranker batches the comparisons of all instructions. A pointwise ranker scores each candidate once;
        its `Ranking.comparisons` is 0, a logit is a difference of scores, and it ignores strategy, budget and k.

        Args:
            instructions: prompts or conversations.
            candidates: texts of each; lists may differ in length.
            strategy: one of `llm_blender.ranking.STRATEGIES`, or `llm_blender.ranking.DUEL`.
            seed: of the strategies, and of a ranker that draws.
            budget: comparisons per instruction for ``auto`` and ``active``.
            k: number of candidates that ``top_k`` puts in order.
            progress: called with (done, total), in comparisons or texts.

        Returns:
            One ranking per instruction.

        Raises:
            InputError: the lists differ in length, an instruction has no candidates, a candidate is not a string, or
                an option is out of range.
            LLMError: a call of an LLM judge failed. Its other replies are kept, so that the next call resumes.
        """
        check_inputs(instructions, candidates)
        options = RankOptions(strategy=strategy, seed=seed, budget=budget, k=k, progress=progress)
        return self._rank_many(instructions, candidates, options)

    @abstractmethod
    def _rank_many(
        self, instructions: Sequence[Instruction], candidates: Sequence[Sequence[str]], options: RankOptions
    ) -> list[Ranking]:
        """Rank checked inputs; all options are set."""

    def rank(self, instruction: Instruction, candidates: Sequence[str], **options: Unpack[RankOptions]) -> Ranking:
        """Rank the candidates of one instruction; for options and errors see `rank_many`."""
        (ranking,) = self.rank_many([instruction], [candidates], **options)
        return ranking

    def compare(self, instruction: Instruction, a: str, b: str) -> Comparison:
        """Compare candidate `a` with candidate `b`, in both orders."""
        return Comparison.from_ranking(self.rank(instruction, [a, b], strategy="full"))


def model_alone(ranker: Ranker) -> Ranker:
    """Return a ranker whose model alone counts, without further evidence; one without any is returned unchanged."""
    if getattr(ranker, "evidence_weights", EvidenceWeights()) == EvidenceWeights():
        return ranker
    other: Any = copy(ranker)
    other.evidence_weights = EvidenceWeights()
    return cast(Ranker, other)


class PairwiseRanker(BaseRanker):
    """Base of rankers that compare ordered pairs; a subclass implements `_comparer`.

    Attributes:
        temperature: of probabilities.
        evidence_weights: of the subclass's logits and of what else the candidates' texts show.
    """

    temperature: float = 1.0
    evidence_weights: EvidenceWeights = EvidenceWeights()

    @abstractmethod
    def _comparer(self, instructions: Sequence[Instruction], candidates: Sequence[Sequence[str]]) -> Compare:
        """Return the function from ordered pairs of these candidates to logits."""

    def _finish(self, rankings: list[Ranking], compare: Any) -> list[Ranking]:
        """Add what only the subclass knows once all pairs are compared.

        Args:
            rankings: one per instruction.
            compare: what `_comparer` returned.
        """
        return rankings

    def _rank_many(
        self, instructions: Sequence[Instruction], candidates: Sequence[Sequence[str]], options: RankOptions
    ) -> list[Ranking]:
        compare = self._comparer(instructions, candidates)
        rankings = rank_with(
            candidates,
            compare,
            temperature=self.temperature,
            evidence_weights=self.evidence_weights,
            instructions=[instruction_text(instruction) for instruction in instructions],
            **options,
        )
        return self._finish(rankings, compare)
