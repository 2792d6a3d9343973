"""Base classes of rankers: a subclass supplies logits or scores, the base ranks with them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from typing import Any, ClassVar, TypedDict, Unpack, cast

from llm_blender._inputs import check_inputs
from llm_blender.ranking.engine import Compare, rank_with
from llm_blender.ranking.evidence import EvidenceWeights
from llm_blender.ranking.strategies import DEFAULT_BUDGET
from llm_blender.types import Comparison, Instruction, OnProgress, Ranker, Ranking, instruction_text


class RankerOptions(TypedDict, total=False):
    """Options of `Ranker.rank_many`, which every ranker takes."""

    strategy: str
    seed: int
    budget: int
    progress: OnProgress | None


class RankOptions(RankerOptions, total=False):
    """Options of `BaseRanker.rank` and `BaseRanker.rank_many`."""

    k: int | None


class BaseRanker(ABC):
    """Base of all rankers; a subclass implements `_rank_many`.

    Attributes:
        quick: whether it ranks short texts in microseconds, so that no thread is worth it.
        position_bias: whether a logit depends on which candidate is read first. If False, l(j, i) is −l(i, j) by
            construction: a pairwise ranker computes each pair once then, and a comparison is one unordered pair.
    """

    quick: ClassVar[bool] = False
    position_bias: bool = False

    def rank_many(
        self,
        instructions: Sequence[Instruction],
        candidates: Sequence[Sequence[str]],
        *,
        strategy: str = "auto",
        seed: int = 0,
        budget: int = DEFAULT_BUDGET,
        k: int | None = None,
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
            k: number of candidates wanted in order, for ``auto`` and ``top_k``: 1 for only the best; None for an order
                of all, see `make_strategy`.
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


def has_position_bias(ranker: Ranker) -> bool:
    """Return whether a ranker's logits depend on which candidate is read first; True if it does not say."""
    return bool(getattr(ranker, "position_bias", True))


def rank_best(
    ranker: Ranker,
    instructions: Sequence[Instruction],
    candidates: Sequence[Sequence[str]],
    k: int | None,
    **options: Unpack[RankerOptions],
) -> list[Ranking]:
    """Rank where only the k best are wanted, in order, see `BaseRanker.rank_many`; any other `Ranker` ranks as it does.

    Args:
        ranker: any ranker; `k` is no part of the protocol.
        instructions: prompts or conversations.
        candidates: texts of each.
        k: number of candidates wanted in order; None for an order of all.
        **options: of `Ranker.rank_many`.
    """
    if isinstance(ranker, BaseRanker):
        return ranker.rank_many(instructions, candidates, k=k, **options)
    return ranker.rank_many(instructions, candidates, **options)


class PairwiseRanker(BaseRanker):
    """Base of rankers that compare ordered pairs; a subclass implements `_comparer`.

    Attributes:
        position_bias: True unless a subclass knows better, see `BaseRanker`.
        temperature: of probabilities.
        evidence_weights: of the subclass's logits and of what else the candidates' texts show.
    """

    position_bias: bool = True
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
            position_bias=self.position_bias,
            temperature=self.temperature,
            evidence_weights=self.evidence_weights,
            instructions=[instruction_text(instruction) for instruction in instructions],
            **options,
        )
        return self._finish(rankings, compare)
