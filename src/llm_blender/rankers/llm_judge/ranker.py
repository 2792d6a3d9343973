"""LLMJudge: an LLM is shown two answers at a time and says which is better."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llm_blender._inputs import check_inputs, clean
from llm_blender.errors import InputError
from llm_blender.rankers.llm_judge.calls import CallStore, JudgeCalls, JudgeTotals
from llm_blender.rankers.llm_judge.prompt import CRITERIA, judge_messages
from llm_blender.rankers.llm_judge.verdict import read_verdict
from llm_blender.ranking import DEFAULT_BUDGET, DEFAULT_TOP_K, Advance, Pool, rank_with
from llm_blender.types import LLM, Comparison, Instruction, OnProgress, Ranking, Sampling, instruction_text

__all__ = ["LLMJudge"]

_SAMPLING = Sampling(temperature=0.0, max_tokens=512)
_CONCURRENCY = 4


class LLMJudge:
    """Any `LLM` as a pairwise ranker, through the same strategies and the same engine as a PairRanker.

    A verdict is worth a logit of c = log(certainty / (1 − certainty)) for the answer that is preferred, and 0 for a
    tie, so that an answer which is preferred in both orders is better with that probability; one that is preferred
    in one order alone, the other being a tie, counts half as much, and contradicting verdicts cancel out. A reply
    without a verdict counts as a tie and is counted in `totals`.

    Replies are remembered: whatever strategy asks, no comparison is paid for twice, and after an error the next call
    goes on where this one stopped. With a store that holds across processes.

    Args:
        llm: the judge.
        criteria: what makes an answer better, in whole sentences.
        sampling: how the judge writes; one that thinks aloud first needs more `max_tokens`.
        certainty: how often a judge that prefers the same answer in both orders is right; above ½ and below 1. Strong
            LLMs agree with each other on about three pairs of four.
        concurrency: calls under way at a time.
        store: where replies are kept, such as a `llm_blender.store.Store`; None keeps them in memory alone.

    Raises:
        InputError: `certainty` or `concurrency` is out of range.

    Example:
        >>> from llm_blender.testing import FakeLLM
        >>> judge = LLMJudge(FakeLLM("judge", "A"))  # one that always prefers what it reads first
        >>> judge.compare("Why is the sky blue?", "Blue light scatters most.", "Because.").winner
        'tie'
    """

    def __init__(
        self,
        llm: LLM,
        *,
        criteria: str = CRITERIA,
        sampling: Sampling = _SAMPLING,
        certainty: float = 0.75,
        concurrency: int = _CONCURRENCY,
        store: CallStore | None = None,
    ) -> None:
        if not 0.5 < certainty < 1:
            raise InputError(f"The certainty of a judge is above 0.5 and below 1, not {certainty}.")
        if concurrency < 1:
            raise InputError(f"A judge needs at least one call at a time, not {concurrency}.")
        self.criteria, self.certainty = criteria, certainty
        self._worth = math.log(certainty / (1 - certainty))
        self._calls = JudgeCalls(llm, sampling, concurrency, store)
        self._unreadable: dict[str, str] = {}

    @property
    def llm(self) -> LLM:
        """The judge."""
        return self._calls.llm

    @property
    def totals(self) -> JudgeTotals:
        """Calls, tokens and dollars so far, and the replies that held no verdict."""
        return self._calls.totals(self._unreadable)

    def rank(
        self,
        instruction: Instruction,
        candidates: Sequence[str],
        *,
        strategy: str = "auto",
        seed: int = 0,
        budget: int = DEFAULT_BUDGET,
        k: int = DEFAULT_TOP_K,
        progress: OnProgress | None = None,
    ) -> Ranking:
        """Rank the candidates of one instruction; see `rank_many`."""
        (ranking,) = self.rank_many(
            [instruction], [candidates], strategy=strategy, seed=seed, budget=budget, k=k, progress=progress
        )
        return ranking

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
        """Rank the candidates of many instructions; the comparisons of all are asked for at the same time.

        Args:
            instructions: prompts or conversations.
            candidates: texts of each; lists may differ in length.
            strategy: one of `llm_blender.ranking.STRATEGIES`.
            seed: of the strategies.
            budget: comparisons per instruction for ``auto`` and ``active``.
            k: how many ``top_k`` puts in order.
            progress: called with comparisons done and expected.

        Raises:
            InputError: the lists differ in length, an instruction has no candidates, a text is no text.
            LLMError: a call failed; all replies that came are kept, and the next `rank_many` goes on from there.
            StoreError: the store cannot be read.
        """
        check_inputs(instructions, candidates)
        prompts = [clean(instruction_text(instruction)) for instruction in instructions]

        def compare(pool: Pool, advance: Advance) -> list[float]:
            conversations = [
                judge_messages(prompts[i], clean(candidates[i][left]), clean(candidates[i][right]), self.criteria)
                for i, left, right in pool
            ]
            replies = self._calls.replies(conversations, advance)
            return [
                self._logit(str(messages), reply.text) for messages, reply in zip(conversations, replies, strict=True)
            ]

        return rank_with(candidates, compare, strategy=strategy, seed=seed, budget=budget, k=k, progress=progress)

    def compare(self, instruction: Instruction, a: str, b: str) -> Comparison:
        """Candidate `a` against candidate `b`, in both orders."""
        ranking = self.rank(instruction, [a, b], strategy="full")
        forward, backward = (0.0, 0.0) if a == b else (ranking.logits[0, 1], ranking.logits[1, 0])
        return Comparison.from_logits(float(forward), float(backward))

    def _logit(self, asked: str, reply: str) -> float:
        verdict = read_verdict(reply)
        if verdict is None:
            self._unreadable.setdefault(asked, reply)
        return {"A": self._worth, "B": -self._worth}.get(verdict or "tie", 0.0)
