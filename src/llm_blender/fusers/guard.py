"""GuardedFuser: fuse if it promises a gain, and return the fused text only if the ranker prefers it."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from llm_blender.errors import InputError, WorkError
from llm_blender.fusers.base import fuser_rows
from llm_blender.ranking import DUEL
from llm_blender.types import (
    Fuser,
    Fusion,
    FusionReason,
    FusionReport,
    Instruction,
    OnProgress,
    OnText,
    Ranker,
    Ranking,
)

DEFAULT_TOP_K = 3
"""Number of candidates to fuse, as in the paper (arXiv 2306.02561)."""

# Words of four letters or more, numbers, and the characters of scripts without spaces between words.
_CONTENT = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\d_]{4,}|\d+")


@dataclass(frozen=True)
class FusionRule:
    """Thresholds of fusing.

    Attributes:
        close: ``auto`` fuses if the best candidate is better than the next one with less than this probability.
        overlap: ``auto`` fuses if the best candidate contains less than this share of the others' content.
        prefer: the guard returns a fused text only if it is better than the best candidate with more than this
            probability.

    Raises:
        InputError: a threshold is not between 0 and 1.
    """

    close: float = 0.55
    overlap: float = 0.3
    prefer: float = 0.5

    def __post_init__(self) -> None:
        for name in ("close", "overlap", "prefer"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"The threshold {name} is a number from 0 to 1, not {getattr(self, name)}.")

    def reason(self, lead: float | None, overlap: float) -> Literal["close", "complementary", "clear"]:
        """Return why ``auto`` fuses, or ``clear`` if it does not: see `Decision`."""
        if lead is not None and lead < self.close:
            return "close"
        return "complementary" if overlap < self.overlap else "clear"


DEFAULT_RULE = FusionRule()


@dataclass(frozen=True)
class Decision:
    """A decision whether to fuse, with its reason.

    Attributes:
        fuse: True to fuse.
        reason: ``close`` if the first two candidates are about equally good, ``complementary`` if the others have
            content that the best lacks, ``clear`` otherwise.
        lead: probability that the best candidate is better than the next one; None if it was not compared.
        overlap: see `content_overlap`.
    """

    fuse: bool
    reason: Literal["close", "complementary", "clear"]
    lead: float | None
    overlap: float


def decide(
    ranking: Ranking, texts: Sequence[str], rule: FusionRule = DEFAULT_RULE, top_k: int = DEFAULT_TOP_K
) -> Decision:
    """Decide whether the best `top_k` candidates of a ranking should be fused; copies of a text count as one.

    Args:
        ranking: of the candidates.
        texts: of the candidates, in the order in which they were ranked.
        rule: thresholds.
        top_k: number of candidates to fuse.
    """
    different = _without_copies(ranking.order, texts)
    lead = ranking.lead_over(different)
    best, *others = [texts[i] for i in different[:top_k]]
    overlap = content_overlap(best, others)
    reason = rule.reason(lead, overlap)
    return Decision(reason != "clear", reason, lead, overlap)


def _without_copies(order: Sequence[int], texts: Sequence[str]) -> list[int]:
    """List candidates in an order of ranks; of equal texts, the best one at its place."""
    first: dict[str, int] = {}
    for i in order:
        first.setdefault(" ".join(texts[i].split()), i)
    return list(first.values())


def content_overlap(best: str, others: Sequence[str]) -> float:
    """Compute how much of the others' content the best text contains: the mean share of their content words.

    It is 1 if there are no others, or they have no content words.
    """
    own = _content(best)
    shares = [len(words & own) / len(words) for words in map(_content, others) if words]
    return sum(shares) / len(shares) if shares else 1.0


def _content(text: str) -> set[str]:
    return set(_CONTENT.findall(text.casefold()))


Order = Literal["best_first", "best_last", "shuffled"]
"""Order in which a fuser reads the candidates; ``shuffled`` depends on the seed and the candidates alone."""


@dataclass(frozen=True)
class _Plan:
    """The plan for the candidates of one instruction.

    Attributes:
        best: index of the best candidate.
        chosen: indices of the candidates to fuse, in reading order; empty if there is nothing to fuse.
        reason: why there is nothing to fuse.
        decision: of ``auto``, in any mode.
    """

    best: int
    chosen: tuple[int, ...] = ()
    reason: FusionReason | None = None
    decision: Decision | None = None


class GuardedFuser:
    """A fuser under guard: a ranker compares the fused text with the best candidate.

    The comparison is by the same evidence as the ranking: the other candidates count in it, for example in
    the consensus, but are not compared again. Empty candidates and duplicates of better ones are not fused. If the
    fused text has a flaw (empty, a loop, an echo of the prompt), or the ranker does not prefer it to the best candidate
    in both orders together, the best candidate is returned, and the report gives the reason.

    Args:
        fuser: writes the fused texts.
        ranker: compares them.
        mode: ``fuse`` always fuses; ``auto`` fuses if `llm_blender.fusers.guard.decide` does.
        top_k: most candidates to fuse; with 1, the fuser rewrites the best one.
        order: in which the fuser reads them.
        guard: False returns every fused text without a flaw, and compares none.
        rule: thresholds.

    Raises:
        InputError: `top_k` is below 1, or there is no such mode or order.
    """

    def __init__(
        self,
        fuser: Fuser,
        ranker: Ranker,
        *,
        mode: Literal["fuse", "auto"] = "fuse",
        top_k: int = DEFAULT_TOP_K,
        order: Order = "best_first",
        guard: bool = True,
        rule: FusionRule = DEFAULT_RULE,
    ) -> None:
        if mode not in ("fuse", "auto"):
            raise InputError(f"The mode of a fuser is fuse or auto, not {mode!r}.")
        if order not in get_args(Order):
            raise InputError(f"The order of candidates is one of {', '.join(get_args(Order))}, not {order!r}.")
        if top_k < 1:
            raise InputError(f"At least one candidate is fused, not {top_k}: raise top_k.")
        self.fuser, self.ranker = fuser, ranker
        self._agrees = bool(getattr(fuser, "maximises_agreement", False))
        self.mode: Literal["fuse", "auto"] = mode
        self.top_k, self.order, self.guard, self.rule = top_k, order, guard, rule

    def fuse_many(
        self,
        instructions: Sequence[Instruction],
        candidates: Sequence[Sequence[str]],
        rankings: Sequence[Ranking],
        *,
        inputs: Sequence[str] | None = None,
        seed: int = 0,
        progress: OnProgress | None = None,
    ) -> list[FusionReport]:
        """Fuse the candidates of many instructions in one batch, then compare the fused texts in one batch.

        Args:
            instructions: prompts or conversations.
            candidates: texts of each.
            rankings: of the candidates of each.
            inputs: MixInstruct's second field of each; None leaves it empty.
            seed: of the fuser.
            progress: called with the number of finished rows and of all rows.

        Returns:
            One report per instruction.

        Raises:
            InputError: the lists differ in length, or a candidate is not a text.
            WorkError: the fuser or the ranker failed.
        """
        if len({len(instructions), len(candidates), len(rankings)}) > 1:
            raise InputError(
                f"{len(instructions)} instructions need as many lists of candidates and rankings, not "
                f"{len(candidates)} and {len(rankings)}."
            )
        given = fuser_rows(instructions, candidates, inputs)
        plans = [self._plan(texts, ranking, seed) for texts, ranking in zip(candidates, rankings, strict=True)]
        rows = [i for i, plan in enumerate(plans) if plan.chosen]
        idle = len(plans) - len(rows)
        fusions = self.fuser.fuse_many(
            [instructions[i] for i in rows],
            [[candidates[i][j] for j in plans[i].chosen] for i in rows],
            inputs=[given[i].input for i in rows],
            seed=seed,
            progress=None if progress is None else lambda done, total: progress(idle + done, idle + total),
        )
        written = {i: _as_given(fusion, plans[i]) for i, fusion in zip(rows, fusions, strict=True)}
        doubtful = [i for i in rows if self._is_doubtful(written[i], candidates[i][plans[i].best])]
        started = time.perf_counter()
        verdicts = self._verdicts(
            [given[i].full_instruction for i in doubtful],
            [self._in_view(candidates[i], plans[i].best, written[i].text) for i in doubtful],
        )
        each = (time.perf_counter() - started) / max(len(doubtful), 1)
        compared = dict(zip(doubtful, verdicts, strict=True))
        return [
            self._report(plan, candidates[i][plan.best], written.get(i), compared.get(i), each)
            for i, plan in enumerate(plans)
        ]

    async def afuse(
        self,
        instruction: Instruction,
        candidates: Sequence[str],
        ranking: Ranking,
        *,
        input: str = "",
        seed: int = 0,
        deadline: float | None = None,
        on_text: OnText | None = None,
        rank: Callable[..., Awaitable[list[Ranking]]] | None = None,
    ) -> FusionReport:
        """Fuse the candidates of one instruction; if the fuser fails or is late, return the best candidate.

        Args:
            instruction: a prompt or a conversation.
            candidates: texts.
            ranking: of the candidates.
            input: MixInstruct's second field.
            seed: of the fuser.
            deadline: time limit of the fuser in seconds; None for no limit.
            on_text: called with each piece of the fused text, which may not be the text that is returned.
            rank: ranks for the guard, called with the ranker and the arguments of its `rank_many`; None ranks in a
                thread.

        Raises:
            InputError: there are no candidates, or one is not a text.
            WorkError: the ranker failed.
        """
        (row,) = fuser_rows([instruction], [candidates], [input])
        plan = self._plan(candidates, ranking, seed)
        best = candidates[plan.best]
        if not plan.chosen:
            return self._report(plan, best, None, None, 0.0)
        started = time.perf_counter()
        chosen = [candidates[i] for i in plan.chosen]
        try:
            async with asyncio.timeout(deadline):
                fusion = await self.fuser.afuse(instruction, chosen, input=input, seed=seed, on_text=on_text)
        except TimeoutError:
            if deadline is None:  # the fuser's own
                raise
            fusion = Fusion("", self.fuser.name, flaw="failed", error=f"no fused answer within {deadline:g} s")
        except WorkError as error:
            fusion = Fusion("", self.fuser.name, flaw="failed", error=str(error))
        fusion = replace(_as_given(fusion, plan), seconds=time.perf_counter() - started)
        verdict, started = None, time.perf_counter()
        if self._is_doubtful(fusion, best):
            texts = self._in_view(candidates, plan.best, fusion.text)
            (verdict,) = await (rank or _rank_in_thread)(self.ranker, [row.full_instruction], [texts], strategy=DUEL)
        return self._report(plan, best, fusion, verdict, time.perf_counter() - started)

    def _plan(self, texts: Sequence[str], ranking: Ranking, seed: int) -> _Plan:
        filled = [i for i in ranking.order if texts[i].strip()]
        if not filled:
            return _Plan(ranking.best, reason="no_candidates")
        if len(filled) == 1:
            return _Plan(filled[0], reason="one_candidate")
        different = _without_copies(filled, texts)
        if len(different) == 1:
            return _Plan(filled[0], reason="same_candidates")
        decision = decide(ranking, texts, self.rule, self.top_k)
        if self.mode == "auto" and not decision.fuse:
            return _Plan(filled[0], reason="clear", decision=decision)
        if self._agrees:
            return _Plan(filled[0], tuple(different), decision=decision)
        return _Plan(filled[0], tuple(self._in_order(different[: self.top_k], texts, seed)), decision=decision)

    def _in_order(self, chosen: Sequence[int], texts: Sequence[str], seed: int) -> list[int]:
        """Bring the chosen candidates into the order in which the fuser reads them."""
        if self.order == "best_first":
            return list(chosen)
        if self.order == "best_last":
            return list(chosen)[::-1]
        key = "\n".join([str(seed), *(texts[i] for i in chosen)])
        drawn = random.Random(key.encode("utf-8", "surrogatepass"))
        return drawn.sample(chosen, len(chosen))

    def _is_doubtful(self, fusion: Fusion, best: str) -> bool:
        return self.guard and fusion.flaw is None and fusion.text != best.strip()

    def _in_view(self, candidates: Sequence[str], best: int, fused: str) -> list[str]:
        """Return the best candidate, the fused text, and the other candidates as evidence, without copies.

        A fuser that maximises the agreement with the candidates cannot be checked by it: there are no others then.
        """
        if self._agrees:
            return [candidates[best], fused]
        others = (text for i, text in enumerate(candidates) if i != best and text.strip() != fused)
        return [candidates[best], fused, *others]

    def _verdicts(self, instructions: Sequence[Instruction], texts: Sequence[Sequence[str]]) -> list[Ranking]:
        return self.ranker.rank_many(instructions, texts, strategy=DUEL) if texts else []

    def _report(
        self, plan: _Plan, best: str, fusion: Fusion | None, verdict: Ranking | None, seconds: float
    ) -> FusionReport:
        probability = None if verdict is None else verdict.probability(1, 0)
        reason = plan.reason
        if reason is None and fusion is not None:
            if fusion.flaw is not None:
                reason = fusion.flaw
            elif fusion.text == best.strip():
                reason = "copy"
            elif probability is None:
                reason = "unguarded"
            else:
                reason = "better" if probability > self.rule.prefer else "worse"
        fused = reason in ("better", "unguarded")
        return FusionReport(
            asked=self.mode,
            returned="fuse" if fused else "pick",
            reason=reason or "no_candidates",
            answer=fusion.text if fused and fusion is not None else best,
            probability=probability,
            lead=None if plan.decision is None else plan.decision.lead,
            overlap=None if plan.decision is None else plan.decision.overlap,
            comparisons=0 if verdict is None else verdict.comparisons,
            seconds=(0.0 if fusion is None else fusion.seconds) + (0.0 if verdict is None else seconds),
            fusion=fusion,
        )


async def _rank_in_thread(
    ranker: Ranker, instructions: Sequence[Instruction], texts: Sequence[Sequence[str]], *, strategy: str
) -> list[Ranking]:
    return await asyncio.to_thread(ranker.rank_many, instructions, texts, strategy=strategy)


def _as_given(fusion: Fusion, plan: _Plan) -> Fusion:
    """Convert `used` from indices of the chosen candidates to indices of all."""
    return replace(fusion, used=tuple(plan.chosen[i] for i in fusion.used))
