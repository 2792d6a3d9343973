"""One prompt → one Answer: generate, rank, pick or fuse (arXiv 2306.02561, figure 2)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

from llm_blender.calls import Budget, Caller, run_to_end
from llm_blender.config import Config, EmbeddedConfig, load_config
from llm_blender.ensemble.gathering import Call, Gathered, Limits, Observer, gather
from llm_blender.errors import ConfigError, InputError, NoAnswerError, unknown_name
from llm_blender.fusers import (
    CHAT,
    DEFAULT_RULE,
    DEFAULT_TOP_K,
    EMBEDDED,
    FusionRule,
    GuardedFuser,
    base_model,
    load_fuser,
)
from llm_blender.fusers.chat_fuser import ChatFuser, within_budget
from llm_blender.fusers.embedded_fuser import AdaptableLLM, EmbeddedFuser
from llm_blender.llms import load_llm
from llm_blender.ranking import DEFAULT_BUDGET, Priors, comparison_count
from llm_blender.store import Store
from llm_blender.types import (
    LLM,
    Answer,
    Fuser,
    FusionReport,
    Instruction,
    Ranker,
    Ranking,
    Sampling,
    Usage,
    to_messages,
)

__all__ = ["DEFAULT_SAMPLES", "MODES", "AskedMode", "Ensemble", "Member", "fuser_name"]

AskedMode = Literal["pick", "fuse", "auto"]
"""What is done with the candidates."""
MODES: tuple[AskedMode, ...] = get_args(AskedMode)

DEFAULT_SAMPLES = 5
"""Answers of the embedded model, when nothing else is configured: best-of-n."""

_LIMITS = Limits()


@dataclass(frozen=True)
class Member:
    """An LLM of an ensemble and the number of answers it is asked for."""

    llm: LLM
    samples: int = 1


class Ensemble:
    """Several LLMs, a ranker that orders their answers, and perhaps a fuser that makes one of the best.

    ``async with ensemble:`` keeps the LLMs' connections open between prompts, and closes the embedded ones at its
    end.

    Args:
        members: the LLMs.
        ranker: who compares; or a function that loads it, called while the LLMs write.
        strategy: which pairs are compared, see `llm_blender.ranking.STRATEGIES`.
        budget: comparisons per prompt for ``auto`` and ``active``.
        limits: when to stop waiting.
        store: where answers are kept, and found again when the same is asked with the same seed; None keeps none.
        priors: strengths of the LLMs, by their names, added to the ranker's evidence; None adds none.
        mode: ``pick`` gives back the best candidate; ``fuse`` a text that the fuser makes of the best ones, ``auto``
            where the rule says so, both unless the guard prefers the best candidate, see `GuardedFuser`.
        fuser: who fuses; or a function that loads it, called while the LLMs write; None where nobody fuses.
        top_k: candidates to fuse, at most.
        guard: False gives back fused texts unseen by the ranker.
        rule: the thresholds of guard and ``auto``.

    Raises:
        InputError: there are no members, two have one name, the strategy or the mode is unknown, nobody fuses, or
            `top_k` is below 2.
    """

    def __init__(
        self,
        members: Sequence[Member],
        ranker: Ranker | Callable[[], Ranker],
        *,
        strategy: str = "auto",
        budget: int = DEFAULT_BUDGET,
        limits: Limits = _LIMITS,
        store: Store | None = None,
        priors: Priors | None = None,
        mode: AskedMode = "pick",
        fuser: Fuser | Callable[[], Fuser] | None = None,
        top_k: int = DEFAULT_TOP_K,
        guard: bool = True,
        rule: FusionRule = DEFAULT_RULE,
    ) -> None:
        if not members:
            raise InputError("An ensemble needs at least one LLM.")
        names = [member.llm.name for member in members]
        if len(set(names)) < len(names):
            raise InputError(f"Two LLMs have the same name: {', '.join(sorted(names))}.")
        comparison_count(strategy, 2, budget=budget)  # refuses an unknown strategy before anybody is asked
        self.members = tuple(members)
        self.strategy, self.budget, self.limits, self.store = strategy, budget, limits, store
        self.priors = priors
        self._ranker, self._fuser = ranker, fuser
        if top_k < 2:
            raise InputError(f"At least two candidates are fused, not {top_k}: raise top_k.")
        self.top_k, self.guard, self.rule = top_k, guard, rule
        self.mode = self._checked(mode)
        self._loading = threading.Lock()

    @classmethod
    def from_config(cls, config: Config | str | Path, *, store: Store | None = None) -> Self:
        """From a ``blend.toml``.

        Raises:
            ConfigError: something in it is wrong, or a key's environment variable is not set.
            NotFoundError: the file, its priors, or an embedded model, is not there.
            InputError: its priors are not what they should be.
        """
        if not isinstance(config, Config):
            config = load_config(Path(config))
        if not config.llm:
            raise ConfigError(f"{config.path or 'The configuration'} names no LLM: add an [[llm]].")
        limits = Limits(**config.limits.model_dump())
        store = Store() if store is None else store
        members = [Member(load_llm(entry, config.folder), entry.samples) for entry in config.llm]
        thresholds = config.fuser.model_dump(include={"close", "overlap", "prefer"}, exclude_none=True)
        return cls(
            [member for member in members if member.samples],
            lambda: _load_ranker(config.ranker.name),
            strategy=config.ranker.strategy,
            budget=config.ranker.budget,
            limits=limits,
            store=store,
            priors=None if config.priors_path is None else Priors.load(config.priors_path),
            mode=config.ensemble.mode,
            fuser=_fuser(
                fuser_name(config),
                [member.llm for member in members],
                store,
                wanted=config.fuser.name is not None or config.ensemble.mode != "pick",
            ),
            top_k=config.fuser.top_k,
            guard=config.fuser.guard,
            rule=FusionRule(**thresholds),
        )

    @classmethod
    def default(cls, *, samples: int = DEFAULT_SAMPLES, store: Store | None = None) -> Self:
        """The embedded demonstration model, asked several times, the bundled ranker and the bundled fuser.

        Raises:
            NotFoundError, DownloadError: the model is not on this machine and cannot be fetched.
        """
        from llm_blender.llms.embedded import EmbeddedLLM
        from llm_blender.llms.models import DEFAULT_MODEL, pull

        pull(DEFAULT_MODEL)
        llm, store = EmbeddedLLM(DEFAULT_MODEL, DEFAULT_MODEL), Store() if store is None else store
        fuser = _fuser(EMBEDDED, [llm], store, wanted=False)
        return cls([Member(llm, samples)], lambda: _load_ranker("bundled"), store=store, fuser=fuser)

    async def __aenter__(self) -> Self:
        for llm in self._managed:
            await llm.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for llm in self._managed:
            await llm.__aexit__(None, None, None)

    @property
    def _managed(self) -> list[AbstractAsyncContextManager[Any]]:
        llms: list[object] = [member.llm for member in self.members]
        if isinstance(self._fuser, ChatFuser | EmbeddedFuser) and self._fuser.llm not in llms:
            llms.append(self._fuser.llm)
        return [llm for llm in llms if isinstance(llm, AbstractAsyncContextManager)]

    @property
    def ranker(self) -> Ranker:
        """Who compares; loaded with the first use."""
        with self._loading:
            if not isinstance(self._ranker, Ranker):
                self._ranker = self._ranker()
            return self._ranker

    async def _loaded_ranker(self) -> Ranker:
        return self._ranker if isinstance(self._ranker, Ranker) else await asyncio.to_thread(lambda: self.ranker)

    @property
    def fuses(self) -> bool:
        """Whether somebody fuses."""
        return self._fuser is not None

    @property
    def fuser(self) -> Fuser:
        """Who fuses; loaded with the first use.

        Raises:
            InputError: nobody does.
        """
        with self._loading:
            if self._fuser is None:
                raise InputError("This ensemble has no fuser: give it one, or ask it in the mode pick.")
            if not isinstance(self._fuser, Fuser):
                self._fuser = self._fuser()
            return self._fuser

    def ask(
        self,
        prompt: Instruction,
        *,
        seed: int = 0,
        observer: Observer | None = None,
        mode: AskedMode | None = None,
    ) -> Answer:
        """`aask`, for code that is not asynchronous; also inside a notebook, whose event loop is taken."""
        return run_to_end(lambda: self.aask(prompt, seed=seed, observer=observer, mode=mode))

    async def aask(
        self,
        prompt: Instruction,
        *,
        seed: int = 0,
        observer: Observer | None = None,
        mode: AskedMode | None = None,
    ) -> Answer:
        """Ask all LLMs, rank their answers, give back the best or what the fuser makes of the best ones.

        A fuser that fails or is late does not cost the answer: then it is the best candidate, and is `degraded`.

        Args:
            prompt: a text or a conversation.
            seed: of the LLMs (where they know seeds), of the strategy and of the fuser.
            observer: told what happens.
            mode: in place of the ensemble's own.

        Raises:
            InputError: the prompt is empty, the mode is unknown, nobody fuses, or there is a `Limits.max_cost` and an
                LLM of which nobody knows what an answer may cost.
            NoAnswerError: no LLM gave an answer within the deadline.
        """
        started = time.perf_counter()
        mode = self.mode if mode is None else self._checked(mode)
        observer = observer or Observer()
        messages = to_messages(prompt)
        budget = Budget(self.limits.max_cost, allow_unpriced=self.limits.allow_unpriced)
        calls = [
            Call(Caller(member.llm, self.store, budget), Sampling(seed=seed, sample=sample))
            for member in self.members
            for sample in range(member.samples)
        ]
        for call in calls:
            budget.check(call.caller.llm, messages, call.sampling)
        observer.started([call.caller.llm.name for call in calls])
        limits = self.limits.for_llms(fusing=mode != "pick")
        try:
            async with asyncio.TaskGroup() as tasks:  # what fails ends the other, and waits for its end
                loading = tasks.create_task(self._loaded_ranker())
                if mode != "pick":
                    tasks.create_task(asyncio.to_thread(lambda: self.fuser))
                gathering = tasks.create_task(gather(calls, messages, limits, observer))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        gathered, ranker = gathering.result(), loading.result()
        if not gathered.candidates:
            failures = tuple(gathered.failures.values())
            reasons = "; ".join(dict.fromkeys(failure.message.rstrip(".") for failure in failures))
            raise NoAnswerError(f"No LLM gave an answer: {reasons}.", failures)
        texts = [candidate.text for candidate in gathered.candidates.values()]
        ranking = await self.arank(prompt, texts, seed=seed, observer=observer)
        if self.priors is not None:
            ranking = self.priors.apply(ranking, [candidate.model for candidate in gathered.candidates.values()])
        report = None
        if mode != "pick":
            fuser, left = within_budget(self.fuser, budget), self.limits.for_fuser(time.perf_counter() - started)
            report = await self._fuse(mode, fuser, left, ranker, prompt, texts, ranking, seed, observer)
        return _answer(calls, gathered, ranking, report, time.perf_counter() - started)

    async def _fuse(
        self,
        mode: Literal["fuse", "auto"],
        fuser: Fuser,
        seconds: float,
        ranker: Ranker,
        prompt: Instruction,
        texts: list[str],
        ranking: Ranking,
        seed: int,
        observer: Observer,
    ) -> FusionReport:
        guarded = GuardedFuser(fuser, ranker, mode=mode, top_k=self.top_k, guard=self.guard, rule=self.rule)
        return await guarded.afuse(prompt, texts, ranking, seed=seed, deadline=seconds, on_text=observer.fusing)

    def _checked(self, mode: AskedMode) -> AskedMode:
        if mode not in MODES:
            raise unknown_name("mode", mode, MODES)
        if mode != "pick" and self._fuser is None:
            raise InputError(f"The mode {mode} needs a fuser: give the ensemble one.")
        return mode

    async def arank(
        self, prompt: Instruction, texts: Sequence[str], *, seed: int = 0, observer: Observer | None = None
    ) -> Ranking:
        """Rank texts with the ensemble's ranker and strategy, without its priors, in a thread; cancelling ends it."""
        watched = observer or Observer()
        cancelled = threading.Event()

        def progress(done: int, total: int) -> None:
            if cancelled.is_set():
                raise RuntimeError("cancelled")  # ends the thread, which nobody waits for any more
            watched.comparing(done, total)

        def rank() -> list[Ranking]:
            return self.ranker.rank_many(
                [prompt], [texts], strategy=self.strategy, seed=seed, budget=self.budget, progress=progress
            )

        try:
            (ranking,) = await asyncio.to_thread(rank)
        finally:
            cancelled.set()
        return ranking


def _answer(
    calls: Sequence[Call], gathered: Gathered, ranking: Ranking, report: FusionReport | None, seconds: float
) -> Answer:
    candidates = tuple(gathered.candidates.values())
    costs = [candidate.cost for candidate in gathered.new]
    usage = sum((candidate.usage for candidate in gathered.new if candidate.usage), Usage())
    if report is not None and report.fusion is not None and not report.fusion.stored:
        costs.append(report.fusion.cost)
        usage += report.fusion.usage
    failed = report is not None and report.reason in ("failed", "too_small")
    return Answer(
        text=candidates[ranking.best].text if report is None else report.answer,
        mode="pick" if report is None else report.returned,
        candidates=candidates,
        ranking=ranking,
        failures=tuple(gathered.failures.values()),
        usage=usage,
        cost=None if any(cost is None for cost in costs) else sum(cost for cost in costs if cost is not None),
        seconds=seconds,
        degraded=failed or len(candidates) < len(calls),
        fusion=report,
    )


def fuser_name(config: Config) -> str:
    """Who fuses: as configured; else the bundled adapter of the embedded LLM where that alone answers, or an LLM."""
    if config.fuser.name is not None:
        return config.fuser.name
    from llm_blender.llms.models import DEFAULT_MODEL

    alone = all(isinstance(entry, EmbeddedConfig) and entry.model == DEFAULT_MODEL for entry in config.llm)
    return EMBEDDED if alone else CHAT


def _fuser(name: str, llms: Sequence[LLM], store: Store, *, wanted: bool) -> Fuser | Callable[[], Fuser]:
    """The fuser, or what makes it when it is needed; one that somebody wanted is looked at before anybody is asked."""

    def load() -> Fuser:
        return load_fuser(name, llms={llm.name: llm for llm in llms}, store=store, run=_embedded)

    if name.partition(":")[0] == CHAT or (wanted and base_model(name) is not None):
        return load()
    return load


def _embedded(model: str) -> AdaptableLLM:
    from llm_blender.llms.embedded import EmbeddedLLM

    return EmbeddedLLM(model, model, parallel=1)


def _load_ranker(name: str) -> Ranker:
    from llm_blender.rankers import load_ranker

    return load_ranker(name)
