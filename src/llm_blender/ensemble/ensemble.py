"""One prompt → one Answer: generate, rank, pick (arXiv 2306.02561, figure 2)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from llm_blender._calls import run_to_end
from llm_blender.config import Config, OpenAIConfig, load_config
from llm_blender.ensemble.gathering import Call, Gathered, Limits, gather
from llm_blender.ensemble.observer import Observer
from llm_blender.errors import ConfigError, InputError, NoAnswerError
from llm_blender.ranking import DEFAULT_BUDGET, Priors, comparison_count
from llm_blender.store import Store
from llm_blender.types import LLM, Answer, Instruction, Ranker, Ranking, Sampling, Usage, to_messages

__all__ = ["DEFAULT_SAMPLES", "Ensemble", "Member"]

DEFAULT_SAMPLES = 5
"""Answers of the embedded model, when nothing else is configured: best-of-n."""

_LIMITS = Limits()


@dataclass(frozen=True)
class Member:
    """An LLM of an ensemble and the number of answers it is asked for."""

    llm: LLM
    samples: int = 1


class Ensemble:
    """Several LLMs and a ranker that picks the best of their answers.

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

    Raises:
        InputError: there are no members, two have one name, or the strategy is unknown.
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
        self._ranker = ranker
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
        limits = Limits(config.limits.deadline, config.limits.quorum, config.limits.grace)
        return cls(
            [Member(_llm(entry), entry.samples) for entry in config.llm],
            lambda: _load_ranker(config.ranker.name),
            strategy=config.ranker.strategy,
            budget=config.ranker.budget,
            limits=limits,
            store=Store() if store is None else store,
            priors=None if config.priors_path is None else Priors.load(config.priors_path),
        )

    @classmethod
    def default(cls, *, samples: int = DEFAULT_SAMPLES, store: Store | None = None) -> Self:
        """The embedded demonstration model, asked several times, and the bundled ranker.

        Raises:
            NotFoundError, DownloadError: the model is not on this machine and cannot be fetched.
        """
        from llm_blender.llms.embedded import EmbeddedLLM
        from llm_blender.llms.models import DEFAULT_MODEL, pull

        pull(DEFAULT_MODEL)
        members = [Member(EmbeddedLLM(DEFAULT_MODEL, DEFAULT_MODEL), samples)]
        return cls(members, lambda: _load_ranker("bundled"), store=Store() if store is None else store)

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
        return [llm for llm in llms if isinstance(llm, AbstractAsyncContextManager)]

    @property
    def ranker(self) -> Ranker:
        """Who compares; loaded with the first use."""
        with self._loading:
            if not isinstance(self._ranker, Ranker):
                self._ranker = self._ranker()
            return self._ranker

    def ask(self, prompt: Instruction, *, seed: int = 0, observer: Observer | None = None) -> Answer:
        """`aask`, for code that is not asynchronous; also inside a notebook, whose event loop is taken."""
        return run_to_end(lambda: self.aask(prompt, seed=seed, observer=observer))

    async def aask(self, prompt: Instruction, *, seed: int = 0, observer: Observer | None = None) -> Answer:
        """Ask all LLMs, rank their answers, give back the best.

        Args:
            prompt: a text or a conversation.
            seed: of the LLMs (where they know seeds) and of the strategy.
            observer: told what happens.

        Raises:
            InputError: the prompt is empty.
            NoAnswerError: no LLM gave an answer within the deadline.
        """
        started = time.perf_counter()
        observer = observer or Observer()
        messages = to_messages(prompt)
        calls = [
            Call(member.llm, Sampling(seed=seed, sample=sample))
            for member in self.members
            for sample in range(member.samples)
        ]
        observer.started([call.llm.name for call in calls])
        try:
            async with asyncio.TaskGroup() as tasks:  # what fails ends the other, and waits for its end
                loading = tasks.create_task(asyncio.to_thread(lambda: self.ranker))
                gathering = tasks.create_task(gather(calls, messages, self.limits, self.store, observer))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        gathered, ranker = gathering.result(), loading.result()
        if not gathered.candidates:
            reasons = "; ".join(dict.fromkeys(failure.message.rstrip(".") for failure in gathered.failures.values()))
            raise NoAnswerError(f"No LLM gave an answer: {reasons}.")
        candidates = gathered.candidates.values()
        ranking = await self._rank(ranker, prompt, [candidate.text for candidate in candidates], seed, observer)
        if self.priors is not None:
            ranking = self.priors.apply(ranking, [candidate.model for candidate in candidates])
        return _answer(calls, gathered, ranking, time.perf_counter() - started)

    async def _rank(
        self, ranker: Ranker, prompt: Instruction, texts: list[str], seed: int, observer: Observer
    ) -> Ranking:
        cancelled = threading.Event()

        def progress(done: int, total: int) -> None:
            if cancelled.is_set():
                raise RuntimeError("cancelled")  # ends the thread, which nobody waits for any more
            observer.comparing(done, total)

        def rank() -> list[Ranking]:
            return ranker.rank_many(
                [prompt], [texts], strategy=self.strategy, seed=seed, budget=self.budget, progress=progress
            )

        try:
            (ranking,) = await asyncio.to_thread(rank)
        finally:
            cancelled.set()
        return ranking


def _answer(calls: Sequence[Call], gathered: Gathered, ranking: Ranking, seconds: float) -> Answer:
    candidates = tuple(gathered.candidates.values())
    costs = [candidate.cost for candidate in gathered.new]
    return Answer(
        text=candidates[ranking.best].text,
        mode="pick",
        candidates=candidates,
        ranking=ranking,
        failures=tuple(gathered.failures.values()),
        usage=sum((candidate.usage for candidate in gathered.new if candidate.usage), Usage()),
        cost=None if any(cost is None for cost in costs) else sum(cost for cost in costs if cost is not None),
        seconds=seconds,
        degraded=len(candidates) < len(calls),
    )


def _llm(entry: Any) -> LLM:
    if isinstance(entry, OpenAIConfig):
        from llm_blender.llms.openai_compatible import OpenAICompatibleLLM

        return OpenAICompatibleLLM.from_config(entry)
    from llm_blender.llms.embedded import EmbeddedLLM

    return EmbeddedLLM.from_config(entry)


def _load_ranker(name: str) -> Ranker:
    from llm_blender.rankers import load_ranker

    return load_ranker(name)
