"""Answer a prompt with several LLMs: generate, rank, pick or fuse (arXiv 2306.02561, figure 2)."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self, cast

from llm_blender.calls import Budget, Caller, first_seeds, run_in_store_thread, run_to_end
from llm_blender.config import Config, EmbeddedConfig, load_config
from llm_blender.ensemble.form import Form
from llm_blender.ensemble.gathering import Call, Gathered, Observer, gather
from llm_blender.ensemble.judge import Judge, load_judge
from llm_blender.ensemble.rank_batcher import arank_best
from llm_blender.ensemble.settings import EnsembleSettings, Mode
from llm_blender.errors import ConfigError, InputError, NoAnswerError, StoreError, describe_failures, sentence
from llm_blender.fusers import (
    CHAT,
    CONSENSUS,
    ConsensusFuser,
    GuardedFuser,
    base_model,
    load_fuser,
)
from llm_blender.fusers.chat_fuser import ChatFuser, within_budget
from llm_blender.fusers.embedded_fuser import AdaptableLLM, EmbeddedFuser
from llm_blender.llms import load_llm
from llm_blender.ranking import Advance, PairwiseRanker, Pool, Priors, RankerOptions, model_alone, rank_with
from llm_blender.record import Learned, Record, models_of
from llm_blender.store import Store
from llm_blender.types import (
    LLM,
    Answer,
    Candidate,
    Fuser,
    FusionReport,
    Instruction,
    Message,
    Ranker,
    Ranking,
    Sampling,
    to_messages,
)

DEFAULT_SAMPLES = 5
"""Number of answers by the embedded model if nothing else is configured: best-of-n."""

logger = logging.getLogger(__name__)

_SETTINGS = EnsembleSettings()


@dataclass(frozen=True)
class Member:
    """An LLM of an ensemble, and the number of answers to request from it."""

    llm: LLM
    samples: int = 1


class Ensemble:
    """Several LLMs, a ranker that orders their answers, and optionally a fuser that makes one of the best.

    ``async with ensemble:`` keeps the LLMs' connections open between prompts, and closes the embedded LLMs at its end.

    Args:
        members: the LLMs.
        ranker: the ranker, or a function that loads it, called while the LLMs write.
        settings: how to rank, wait and fuse.
        store: cache of the LLMs' answers, which makes a repeated prompt with the same seed free; None caches nothing.
        fuser: the fuser, or a function that loads it, called while the LLMs write; None for an ensemble that only
            picks.
        judge: compares the candidates that the evidence does not tell apart; None for an ensemble without one.
        changes: fields of `settings` by name, e.g. ``mode="fuse"``.

    Raises:
        InputError: there are no members, two have the same name, a setting is wrong, or the mode needs a fuser and
            there is none.
    """

    def __init__(
        self,
        members: Sequence[Member],
        ranker: Ranker | Callable[[], Ranker],
        *,
        settings: EnsembleSettings = _SETTINGS,
        store: Store | None = None,
        fuser: Fuser | Callable[[], Fuser] | None = None,
        judge: Judge | None = None,
        **changes: Any,
    ) -> None:
        if not members:
            raise InputError("An ensemble needs at least one LLM.")
        names = [member.llm.name for member in members]
        if len(set(names)) < len(names):
            raise InputError(f"Two LLMs have the same name: {', '.join(sorted(names))}.")
        self.members, self.store, self.judge = tuple(members), store, judge
        self._ranker, self._fuser = ranker, fuser
        self._ready = ranker if isinstance(ranker, Ranker) else None  # loaded; a check of the protocol takes long
        self._without_evidence: Ranker | None = None  # one for all prompts, whose batches they share
        self._loading, self._loading_fuser = threading.Lock(), threading.Lock()
        self._learned: Learned | None = None
        self.settings = replace(settings, **changes)
        self.check(self.settings)

    @classmethod
    def from_config(cls, config: Config | str | Path, *, store: Store | None = None) -> Self:
        """Make the ensemble of a ``blend.toml``.

        Raises:
            ConfigError: a key or a value in it is wrong, or the environment variable of an API key is not set.
            NotFoundError: the file, its priors, or an embedded model does not exist.
            InputError: the strategy, the fuser, the file of priors, or the ranker's device is wrong.
        """
        from llm_blender.rankers import check_options

        if not isinstance(config, Config):
            config = load_config(Path(config))
        if not config.llm:
            raise ConfigError(f"{config.path or 'The configuration'} names no LLM: add an [[llm]].")
        store = Store() if store is None else store
        members = [Member(load_llm(entry, config.folder), entry.samples) for entry in config.llm]
        llms, judge = [member.llm for member in members], config.ranker.judge
        settings = EnsembleSettings.from_config(config)
        if config.ranker.on_torch:  # no device is missed only after the answers were paid for
            check_options(config.ranker.name, **config.ranker.on_torch)
        return cls(
            [member for member in members if member.samples],
            lambda: _load_ranker(config.ranker.name, **config.ranker.on_torch),
            settings=settings,
            store=store,
            fuser=_fuser(
                fuser_name(config),
                llms,
                store,
                check=config.fuser.name is not None or settings.mode != "pick",
            ),
            judge=None if judge is None else load_judge(judge, llms, store, config.ranker.on_torch),
        )

    @classmethod
    def default(cls, *, samples: int = DEFAULT_SAMPLES, store: Store | None = None) -> Self:
        """Make an ensemble of the embedded demonstration model, sampled several times, and the bundled ranker.

        Raises:
            NotFoundError, DownloadError: the model is not on this machine and cannot be downloaded.
        """
        from llm_blender.llms.embedded import EmbeddedLLM
        from llm_blender.llms.models import DEFAULT_MODEL, pull

        pull(DEFAULT_MODEL)
        llm, store = EmbeddedLLM(DEFAULT_MODEL, DEFAULT_MODEL), Store() if store is None else store
        member = Member(llm, samples)
        return cls([member], lambda: _load_ranker("bundled"), store=store, fuser=ConsensusFuser())

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
        if self.judge is not None and self.judge.llm is not None and self.judge.llm not in llms:
            llms.append(self.judge.llm)
        return [llm for llm in llms if isinstance(llm, AbstractAsyncContextManager)]

    @property
    def ranker(self) -> Ranker:
        """The ranker; loaded on first use."""
        if self._ready is not None:  # the event loop waits for no lock
            return self._ready
        with self._loading:
            if self._ready is None:
                load = cast("Callable[[], Ranker]", self._ranker)
                self._ready = load()
            return self._ready

    async def _loaded_ranker(self) -> Ranker:
        if self._ready is None or (self.judge is not None and not self.judge.loaded):
            await asyncio.to_thread(self.load, fuser=False)
        return self.ranker

    def load(self, *, fuser: bool | None = None) -> None:
        """Load the ranker, the judge and the fuser, which otherwise load on first use.

        Args:
            fuser: whether to load the fuser; None loads it where the mode uses it.

        Raises:
            InputError: the fuser is wanted, and there is none.
        """
        _ = self.ranker
        if self.judge is not None:
            _ = self.judge.ranker
        if self.settings.mode != "pick" if fuser is None else fuser:
            _ = self.fuser

    @property
    def fuses(self) -> bool:
        """Whether there is a fuser."""
        return self._fuser is not None

    @property
    def fuser(self) -> Fuser:
        """The fuser; loaded on first use.

        Raises:
            InputError: there is none.
        """
        with self._loading_fuser:
            if self._fuser is None:
                raise InputError("This ensemble has no fuser: give it one, or use the mode pick.")
            if not isinstance(self._fuser, Fuser):
                self._fuser = self._fuser()
            return self._fuser

    def check(self, settings: EnsembleSettings) -> None:
        """Refuse settings that need a fuser if there is none.

        Raises:
            InputError: the mode is not ``pick``, and the ensemble has no fuser.
        """
        if settings.mode != "pick" and not self.fuses:
            raise InputError(f"The mode {settings.mode} needs a fuser: give the ensemble one.")

    def recorded(self) -> Learned:
        """Read the record about this ensemble's LLMs.

        Raises:
            StoreError: the store cannot be read.
        """
        llms = models_of([member.llm for member in self.members])
        return Learned() if self.store is None else Record(self.store).learn(llms)

    def learn(self) -> Learned:
        """Read the record, and take its priors as ``auto`` from now on.

        A store that cannot be read is a warning: it costs no answer.
        """
        try:
            learned = self.recorded()
        except StoreError as error:
            logger.warning("the record was not read: %s", error)
            learned = Learned()
        self._learned = learned
        return learned

    async def _priors(self, settings: EnsembleSettings) -> Priors | None:
        if settings.priors != "auto":
            return settings.priors
        learned = await asyncio.to_thread(self.learn) if self._learned is None else self._learned
        return learned.usable

    def ask(self, prompt: Instruction, *, seed: int = 0, observer: Observer | None = None, **options: Any) -> Answer:
        """Answer a prompt; see `aask` for the options. Works inside a running event loop (a notebook), too."""
        return run_to_end(lambda: self.aask(prompt, seed=seed, observer=observer, **options))

    async def aask(
        self,
        prompt: Instruction,
        *,
        seed: int = 0,
        observer: Observer | None = None,
        mode: Mode | None = None,
        settings: EnsembleSettings | None = None,
        members: Sequence[Member] | None = None,
        fuser: Callable[[], Fuser] | None = None,
        cache: bool = True,
        form: Form | None = None,
        strategy_seed: int | None = None,
    ) -> Answer:
        """Ask all LLMs, rank their answers, return the best or what the fuser makes of the best ones.

        Answers that were cut off at the maximum of tokens rank behind the whole ones. A judge that fails, is late or
        costs too much costs only its verdict, and `Evidence.judging` records why. A fuser that fails or is late does
        not cost the answer: it is the best candidate then, and `degraded`.

        Args:
            prompt: a text or a conversation.
            seed: seed of the LLMs (if they support seeds), of the strategy and of the fuser; where several members
                have one model, each goes on with the seeds behind those of the earlier one's samples.
            observer: receives the events of this prompt.
            mode: in place of the mode of the settings.
            settings: in place of the ensemble's own, for this prompt.
            members: LLMs to ask in place of the ensemble's own.
            fuser: loads a fuser in place of the ensemble's own.
            cache: False neither looks answers up in the store nor keeps them there; `EnsembleSettings.record`, which
                keeps no text, is a setting of its own.
            form: form that an answer must have to be ranked; None requires none. A fused text is not checked.
            strategy_seed: seed of the strategy; None takes `seed`. Only prompts with the same one share batches.

        Raises:
            InputError: the prompt is empty, a setting is wrong, the mode needs a fuser and there is none, or there is a
                `Limits.max_cost` and an LLM with an unknown price.
            NoAnswerError: no LLM gave an answer within the deadline; it carries the cost of answers that are not used.
        """
        started = time.perf_counter()
        settings = settings or self.settings
        if mode is not None:
            settings = replace(settings, mode=mode)
        self.check(settings)
        fusing, limits, observer = settings.mode != "pick", settings.limits, observer or Observer()
        messages = to_messages(prompt)
        budget = Budget(limits.max_cost, allow_unpriced=limits.allow_unpriced, on_paid=observer.paid)
        store = self.store if cache else None
        calls = _calls(self.members if members is None else members, messages, seed, budget, store)
        observer.started([call.caller.llm.name for call in calls])
        gathering = gather(calls, messages, limits.for_llms(fusing=fusing), observer, form)
        gathered, loaded = await self._while_loading(gathering, (fuser or (lambda: self.fuser)) if fusing else None)
        candidates = [*gathered.candidates.values()]
        if not candidates:
            failures = tuple(gathered.failures.values())
            reasons = sentence(describe_failures(failures))
            raise NoAnswerError(f"No LLM gave an answer: {reasons}", failures, cost=budget.cost, usage=budget.usage)
        llms = models_of([call.caller.llm for call in calls])
        draw = seed if strategy_seed is None else strategy_seed
        ranking = await self._rank_answers(prompt, candidates, llms, settings, draw, observer)
        texts, cut = [candidate.text for candidate in candidates], [candidate.cut_off for candidate in candidates]
        models = [candidate.model for candidate in candidates]
        seconds = limits.for_judge(time.perf_counter() - started, fusing=fusing)
        ranking = await self._add_verdicts(ranking, prompt, texts, settings, seconds, budget, store, models, cut)
        ranking = _whole_first(ranking, cut)
        report = None
        if loaded is not None:
            seconds, counted = limits.for_fuser(time.perf_counter() - started), within_budget(loaded, budget)
            report = await self._fuse(settings, counted, prompt, texts, ranking, seed, seconds, observer)
            if counted is loaded and report.fusion is not None:  # it calls no LLM
                budget.pay(report.fusion)
        return _answer(len(calls), gathered, ranking, report, budget, time.perf_counter() - started)

    async def _while_loading(
        self, gathering: Coroutine[Any, Any, Gathered], fuser: Callable[[], Fuser] | None
    ) -> tuple[Gathered, Fuser | None]:
        """Gather the answers while the ranker loads, and the fuser where there is a function that loads one."""
        try:
            async with asyncio.TaskGroup() as tasks:  # a failure cancels the others, and waits for their end
                tasks.create_task(self._loaded_ranker())
                loading = None if fuser is None else tasks.create_task(asyncio.to_thread(fuser))
                gathered = tasks.create_task(gathering)
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        return gathered.result(), None if loading is None else loading.result()

    async def arank(
        self,
        prompt: Instruction,
        texts: Sequence[str],
        *,
        seed: int = 0,
        settings: EnsembleSettings | None = None,
        observer: Observer | None = None,
    ) -> Ranking:
        """Rank texts, and have the judge compare close ones, without the priors of the settings.

        An order of all is wanted in the mode ``pick``, of the texts to fuse in the others.
        Ranker and judge together have the time of the limits, less the share of a fuser unless the mode is ``pick``; a
        judge that is late costs only its verdict.
        """
        settings, observer, started = settings or self.settings, observer or Observer(), time.perf_counter()
        wanted = None if settings.mode == "pick" or self.judge is not None else _wanted(settings)
        ranking = await self._rank(prompt, texts, settings, seed, observer, wanted)
        limits = replace(settings.limits, total=settings.limits.total or settings.limits.deadline)
        seconds = limits.for_judge(time.perf_counter() - started, fusing=settings.mode != "pick")
        budget = Budget(limits.max_cost, allow_unpriced=limits.allow_unpriced, on_paid=observer.paid)
        return await self._add_verdicts(ranking, prompt, texts, settings, seconds, budget, self.store)

    async def _rank_answers(
        self,
        prompt: Instruction,
        candidates: Sequence[Candidate],
        llms: Mapping[str, str],
        settings: EnsembleSettings,
        seed: int,
        observer: Observer,
    ) -> Ranking:
        """Rank answers by the ranker and the priors of their LLMs; record what the ranker alone finds."""
        texts, models = [candidate.text for candidate in candidates], [candidate.model for candidate in candidates]
        # Priors and a judge can lift any candidate (and priors from the record learn more from all pairs); those that
        # were cut off make room at the top.
        later = settings.priors is not None or self.judge is not None
        wanted = None if later else _wanted(settings) + sum(candidate.cut_off for candidate in candidates)
        ranking = await self._rank(prompt, texts, settings, seed, observer, wanted)
        if settings.record and self.store is not None:
            record = partial(_keep, Record(self.store), prompt, llms, ranking, models, texts)
            await run_in_store_thread(self.store, record)
        priors = await self._priors(settings)
        return ranking if priors is None else priors.apply(ranking, models)

    async def _rank(
        self,
        prompt: Instruction,
        texts: Sequence[str],
        settings: EnsembleSettings,
        seed: int,
        observer: Observer,
        k: int | None,
    ) -> Ranking:
        """Rank texts, where the k best are wanted, by the ranker alone; a lone text needs no ranker of pairs."""
        ranker = await self._loaded_ranker()
        if not settings.evidence:
            ranker = self._without_evidence = self._without_evidence or model_alone(ranker)
        options = RankerOptions(
            strategy=settings.strategy, seed=seed, budget=settings.budget, progress=observer.comparing
        )
        if len(texts) == 1 and isinstance(ranker, PairwiseRanker):
            (ranking,) = rank_with([texts], _no_pairs, temperature=ranker.temperature, **options)
        else:
            (ranking,) = await arank_best(ranker, [prompt], [texts], k, **options)
        return ranking

    async def _add_verdicts(
        self,
        ranking: Ranking,
        prompt: Instruction,
        texts: Sequence[str],
        settings: EnsembleSettings,
        seconds: float | None,
        budget: Budget,
        store: Store | None,
        models: Sequence[str | None] = (),
        cut: Sequence[bool] = (),
    ) -> Ranking:
        """Add the verdicts of the judge, if there is one, to a ranking."""
        if self.judge is None:
            return ranking
        (judged,) = await self.judge.judge(
            [ranking],
            [prompt],
            [texts],
            settings.close_calls,
            models=[models],
            cut=[cut],
            seconds=seconds,
            budgets=[budget],
            store=store,
        )
        return judged

    async def afuse(
        self,
        prompt: Instruction,
        texts: Sequence[str],
        ranking: Ranking,
        *,
        seed: int = 0,
        settings: EnsembleSettings | None = None,
    ) -> FusionReport:
        """Fuse ranked texts within the limits of the settings, and guard the result.

        Raises:
            InputError: the ensemble has no fuser, or the mode of the settings is ``pick``.
        """
        settings = settings or self.settings
        limits, fuser = settings.limits, await asyncio.to_thread(lambda: self.fuser)
        paid = within_budget(fuser, Budget(limits.max_cost, allow_unpriced=limits.allow_unpriced))
        return await self._fuse(settings, paid, prompt, texts, ranking, seed, limits.for_fuser(0), Observer())

    async def _fuse(
        self,
        settings: EnsembleSettings,
        fuser: Fuser,
        prompt: Instruction,
        texts: Sequence[str],
        ranking: Ranking,
        seed: int,
        seconds: float,
        observer: Observer,
    ) -> FusionReport:
        if settings.mode == "pick":
            raise InputError("The mode pick fuses nothing: use fuse or auto.")
        guarded = GuardedFuser(
            fuser,
            self.ranker,
            mode=settings.mode,
            top_k=settings.top_k,
            guard=settings.guard,
            rule=settings.rule,
        )
        return await guarded.afuse(
            prompt, texts, ranking, seed=seed, deadline=seconds, on_text=observer.fusing, rank=arank_best
        )


def _calls(
    members: Sequence[Member], messages: Sequence[Message], seed: int, budget: Budget, store: Store | None
) -> list[Call]:
    """Make the calls of a prompt; raise InputError for an LLM of unknown price where the cost is limited."""
    seeds = first_seeds(((member.llm, member.samples) for member in members), seed)
    calls = [
        Call(Caller(member.llm, store, budget), Sampling(seed=own, sample=sample))
        for member, own in zip(members, seeds, strict=True)
        for sample in range(member.samples)
    ]
    for call in calls:
        budget.check(call.caller.llm, messages, call.sampling)
    return calls


def _wanted(settings: EnsembleSettings) -> int:
    """Return the number of answers, from the first, whose order matters: those to fuse, or those to return."""
    return settings.limits.answers if settings.mode == "pick" else max(settings.top_k, settings.limits.answers)


def _keep(record: Record, *outcome: Any) -> None:
    try:
        record.keep(*outcome)
    except StoreError as error:
        logger.warning("the ranking was not recorded: %s", error)


def _no_pairs(pool: Pool, advance: Advance) -> list[float]:
    """Return the logits of the pairs of a lone text: there is none."""
    return []


def _whole_first(ranking: Ranking, cut: Sequence[bool]) -> Ranking:
    """Move the candidates that were cut off behind the whole ones: the ranker sees the break and underrates it."""
    order = tuple(sorted(ranking.order, key=lambda i: cut[i]))
    if order == ranking.order:
        return ranking
    keys = list(zip(cut, ranking.ranks, strict=True))
    ranks = tuple(1 + sum(other < key for other in keys) for key in keys)
    scored = list(zip(ranking.scores, cut, strict=True))
    lower = max(score for score, is_cut in scored if is_cut) - min(score for score, is_cut in scored if not is_cut) + 1
    scores = tuple(score - lower * is_cut for score, is_cut in scored)
    return replace(ranking, best=order[0], order=order, ranks=ranks, scores=scores)


def _answer(
    wanted: int, gathered: Gathered, ranking: Ranking, report: FusionReport | None, budget: Budget, seconds: float
) -> Answer:
    candidates = tuple(gathered.candidates.values())
    failed = report is not None and report.reason in ("failed", "too_small")
    return Answer(
        text=candidates[ranking.best].text if report is None else report.answer,
        mode="pick" if report is None else report.returned,
        candidates=candidates,
        ranking=ranking,
        failures=tuple(gathered.failures.values()),
        usage=budget.usage,
        cost=budget.cost,
        seconds=seconds,
        degraded=failed or len(candidates) < wanted,
        fusion=report,
    )


def fuser_name(config: Config) -> str:
    """Return the name of the fuser: the configured one, or the default.

    The default is ``consensus`` if all answers come from the embedded demonstration model, and else the first
    ``[[llm]]``.
    """
    if config.fuser.name is not None:
        return config.fuser.name
    from llm_blender.llms.models import DEFAULT_MODEL

    alone = all(isinstance(entry, EmbeddedConfig) and entry.model == DEFAULT_MODEL for entry in config.llm)
    return CONSENSUS if alone else CHAT


def _fuser(name: str, llms: Sequence[LLM], store: Store, *, check: bool) -> Fuser | Callable[[], Fuser]:
    """Make the fuser, or the function that loads it on first use; `check` makes an adapter now, to see its errors."""

    def load() -> Fuser:
        return load_fuser(name, llms={llm.name: llm for llm in llms}, store=store, run=_embedded)

    if name.partition(":")[0] == CHAT or (check and base_model(name) is not None):
        return load()
    return load


def _embedded(model: str) -> AdaptableLLM:
    from llm_blender.llms.embedded import EmbeddedLLM

    return EmbeddedLLM(model, model, parallel=1)


def _load_ranker(name: str, **options: Any) -> Ranker:
    from llm_blender.rankers import load_ranker

    return load_ranker(name, **options)
