"""The judge of close calls: an LLM, or a ranker, whose verdict is one more piece of evidence."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from llm_blender.calls import Budget, Caller, CallStore, call_many
from llm_blender.ensemble.rank_batcher import arank_best
from llm_blender.errors import Failure, LLMBlenderError, LLMError, NotFoundError
from llm_blender.rankers.llm_judge import SAMPLING, LLMJudge
from llm_blender.ranking import CloseCalls, add_verdicts, closest_pair, verdict_of
from llm_blender.types import LLM, Comparison, Instruction, Judging, Ranker, Ranking, Verdict

_CONCURRENCY = 32  # of a judge's calls; an LLM's own `concurrency` is the limit
_PREFIX = "judge:"  # of an LLM among the names of rankers


@dataclass(frozen=True)
class _Pair:
    """A close pair of one prompt.

    Attributes:
        row: 0-based number of the prompt.
        a: its best candidate.
        b: the closest opponent.
    """

    row: int
    a: int
    b: int


@dataclass(frozen=True)
class _Work:
    """The prompts of one call of `Judge.judge`, and what an LLM judge needs for each."""

    prompts: Sequence[Instruction]
    texts: Sequence[Sequence[str]]
    budgets: Sequence[Budget]
    store: CallStore | None

    def caller(self, llm: LLM, row: int) -> Caller:
        """Return the caller of an LLM for one prompt."""
        return Caller(llm, self.store, self.budgets[row] if self.budgets else None)


class Judge:
    """A judge of close calls: it compares candidates that the evidence does not tell apart, in both orders.

    Args:
        name: name in rankings and failures.
        ranker: an `LLMJudge`, any other ranker, or a function that loads one, called on first use.
        writers: names under which an LLM judge also writes candidates.

    Attributes:
        name: see above.
        writers: see above; empty for a ranker.

    Examples:
        >>> from llm_blender.testing import FakeLLM
        >>> judge = Judge("strong", LLMJudge(FakeLLM("strong", "A")), {"strong"})
        >>> judge.is_among(["weak", "strong"])
        True
    """

    def __init__(self, name: str, ranker: Ranker | Callable[[], Ranker], writers: Collection[str] = ()) -> None:
        self.name, self.writers = name, frozenset(writers)
        self._ranker, self._ready = ranker, ranker if isinstance(ranker, Ranker) else None
        self._loading = threading.Lock()

    @property
    def ranker(self) -> Ranker:
        """The ranker behind the judge; loaded on first use."""
        with self._loading:
            if self._ready is None:
                self._ready = cast("Callable[[], Ranker]", self._ranker)()
            return self._ready

    @property
    def loaded(self) -> bool:
        """Whether the ranker is loaded."""
        return self._ready is not None

    @property
    def llm(self) -> LLM | None:
        """The LLM of an LLM judge; None for any other ranker."""
        return self._ready.llm if isinstance(self._ready, LLMJudge) else None

    def is_among(self, models: Iterable[str | None]) -> bool:
        """Return whether the judge is one of the LLMs that write candidates: LLMs prefer their own answers."""
        return not self.writers.isdisjoint(filter(None, models))

    async def judge(
        self,
        rankings: Sequence[Ranking],
        prompts: Sequence[Instruction],
        texts: Sequence[Sequence[str]],
        rule: CloseCalls,
        *,
        models: Sequence[Sequence[str | None]] = (),
        cut: Sequence[Sequence[bool]] = (),
        seconds: float | None = None,
        budgets: Sequence[Budget] = (),
        store: CallStore | None = None,
    ) -> list[Ranking]:
        """Add verdicts on close calls to the evidence of rankings.

        A judge that fails, is late, or costs more than is left costs its verdict only: that ranking stays as it is,
        with the failure in `Evidence.judging`.

        Args:
            rankings: one for each prompt.
            prompts: prompts or conversations.
            texts: candidates of each.
            rule: which pairs to compare.
            models: LLM of each candidate; empty if unknown.
            cut: which candidates were cut off, and rank behind the whole ones; empty for none.
            seconds: maximum time for all of them together; None is no limit.
            budgets: limit of the cost of each prompt, for an LLM judge; empty for none.
            store: cache of an LLM judge's replies; None caches none.
        """
        found, work = list(rankings), _Work(prompts, texts, budgets, store)

        def close_pairs() -> list[_Pair]:
            given = zip(found, texts, cut or [()] * len(found), strict=True)
            close = [closest_pair(ranking, own, rule, broken) for ranking, own, broken in given]
            return [_Pair(row, *pair) for row, pair in enumerate(close) if pair is not None]

        def record(pair: _Pair, result: Comparison | Failure) -> None:
            evidence = found[pair.row].evidence
            judging = None if evidence is None else evidence.judging
            if judging is None:
                judging = Judging(self.name, bool(models) and self.is_among(models[pair.row]))
            if isinstance(result, Failure):
                judging = replace(judging, failure=result)
            else:
                verdict = Verdict(pair.a, pair.b, verdict_of(result))
                judging = replace(judging, verdicts=(*judging.verdicts, verdict))
            found[pair.row] = add_verdicts(found[pair.row], judging, rule)

        if not self.loaded and close_pairs():
            await asyncio.to_thread(lambda: self.ranker)
        try:
            async with asyncio.timeout(seconds):
                while pairs := close_pairs():
                    await self._compare(pairs, work, record)
        except TimeoutError:
            late = f"{self.name}: no verdict within {seconds:g} s"
            for pair in close_pairs():
                record(pair, Failure(self.name, "timeout", late, own=False))
        return found

    async def _compare(
        self, pairs: Sequence[_Pair], work: _Work, record: Callable[[_Pair, Comparison | Failure], None]
    ) -> None:
        """Compare the two candidates of each pair, and record each result as it comes."""
        judge = self.ranker
        if isinstance(judge, LLMJudge):

            async def call(pair: _Pair) -> None:
                a, b = (work.texts[pair.row][i] for i in (pair.a, pair.b))
                caller = work.caller(judge.llm, pair.row)
                try:
                    record(pair, await judge.acompare(work.prompts[pair.row], a, b, caller=caller))
                except LLMError as error:
                    record(pair, Failure.of(error))

            await call_many(pairs, call, concurrency=_CONCURRENCY)
            return
        prompts = [work.prompts[pair.row] for pair in pairs]
        texts = [[work.texts[pair.row][i] for i in (pair.a, pair.b)] for pair in pairs]
        results: Sequence[Comparison | Failure]
        try:
            rankings = await arank_best(judge, prompts, texts, strategy="full")
            results = [Comparison.from_ranking(ranking) for ranking in rankings]
        except LLMBlenderError as error:
            results = [Failure(self.name, "bad_response", f"{self.name}: {error}")] * len(pairs)
        for pair, result in zip(pairs, results, strict=True):
            record(pair, result)


def load_judge(
    name: str, llms: Sequence[LLM], store: CallStore | None, on_torch: Mapping[str, Any] | None = None
) -> Judge:
    """Make the judge of a name: one of the LLMs, else a ranker that is loaded on first use.

    Args:
        name: of an LLM, or a name for `llm_blender.rankers.load_ranker`.
        llms: all LLMs of the configuration.
        store: cache of an LLM's replies.
        on_torch: arguments of `llm_blender.rankers.load_ranker` for a ranker that runs on torch.
    """
    by_name = {llm.name: llm for llm in llms}
    llm = by_name.get(name.removeprefix(_PREFIX))
    if llm is None:
        return Judge(name, lambda: _load_ranker(name, by_name, on_torch or {}))
    model = llm.identity.get("model")
    writers = {llm.name} if model is None else {str(model), llm.name, *_names(llms, model)}
    sampling = replace(SAMPLING, max_tokens=max(SAMPLING.max_tokens or 0, _most_tokens(llm)))
    return Judge(llm.name, LLMJudge(llm, sampling=sampling, concurrency=_CONCURRENCY, store=store), writers)


def _most_tokens(llm: LLM) -> int:
    """Return the LLM's own maximum of tokens, which an LLM that reasons first needs; 0 without one."""
    most: int | None = (llm.identity.get("sampling") or {}).get("max_tokens")
    return most or 0


def _names(llms: Sequence[LLM], model: object) -> list[str]:
    """List the LLMs that are the same model."""
    return [llm.name for llm in llms if llm.identity.get("model") == model]


def _load_ranker(name: str, llms: Iterable[str], on_torch: Mapping[str, Any]) -> Ranker:
    from llm_blender.rankers import load_ranker, runs_model

    try:
        return load_ranker(name, **(on_torch if runs_model(name) else {}))
    except NotFoundError as error:
        known = f" LLMs: {', '.join(llms)}." if llms else ""
        raise NotFoundError(f"The judge {name} is neither an [[llm]] nor a ranker: {error}{known}") from None
