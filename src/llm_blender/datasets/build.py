"""Build a data set from instructions and LLMs, as a resumable job."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from llm_blender.calls import Budget
from llm_blender.config import Config
from llm_blender.data import NO_LENGTHS, Chosen, choose_instructions, source_files
from llm_blender.datasets.candidates import (
    AnsweredRows,
    Call,
    Estimate,
    ask,
    call_items,
    candidate_calls,
    check_cost,
    estimate_calls,
    missing_by_llm,
    row_candidates,
)
from llm_blender.datasets.card import Built, build_card
from llm_blender.datasets.importing import write_card
from llm_blender.datasets.judging import Consistency, judge_pair, measure_consistency, questions, row_replies
from llm_blender.datasets.plan import BuildPlan, Participant, judge_in_pool, load_participants, token_counter
from llm_blender.datasets.scoring import measure, write_rows
from llm_blender.errors import WorkError
from llm_blender.jobs.engine import Item, OnRows, Result, Rows, work_through
from llm_blender.jobs.job import Job
from llm_blender.jobs.journal import Journal
from llm_blender.store import Store
from llm_blender.types import Candidate, Example

_Call = TypeVar("_Call", bound=Call)
_ANSWER_TOKENS = 200  # estimated length of an answer, if max_tokens allows it
_REPLY_TOKENS = 4  # of the judge


class BuildObserver:
    """Observer of a build, with empty methods to override."""

    def chose(self, chosen: Chosen) -> None:
        """Handle the choice of the instructions."""

    def estimated(self, estimates: Sequence[Estimate], spent: float) -> None:
        """Handle the estimate of the remaining calls, before the first one.

        Args:
            estimates: estimates of candidates and, with a judge, of judgements: a guess until all answers exist.
            spent: cost of earlier runs in dollars.
        """

    def judges_itself(self, judge: str, names: Sequence[str]) -> None:
        """Handle a judge that is one of the LLMs whose answers it judges."""

    def begins(self, what: str) -> OnRows | None:
        """Begin ``candidates``, a metric, or ``judgements``; return a callback for its progress, or None."""

    def stopping(self, rows: int) -> None:
        """Handle an early stop that waits for this many running calls."""


def build_data(
    plan: BuildPlan,
    config: Config,
    *,
    store: Store | None = None,
    restart: bool = False,
    observer: BuildObserver | None = None,
) -> Built:
    """Build a data set, or resume a build with the same settings.

    The cost is estimated before the first call. Every answer is stored before it is used, so a killed build repeats no
    finished call.

    Args:
        plan: settings of the build.
        config: configuration of the LLMs that write and judge.
        store: store of the answers; None is the user's.
        restart: discard what an earlier run did; its answers stay in the store.
        observer: observer of the build.

    Raises:
        InputError: the plan, the configuration or an instruction is wrong, an earlier run had other settings, a price
            is unknown, or the estimated cost exceeds the maximum.
        WorkError: the budget is used up, or an LLM gave no answer at all; finished work is kept.
    """
    store, observer = store or Store(), observer or BuildObserver()
    pool, judge = load_participants(plan, config)
    chosen = _choose(plan)
    observer.chose(chosen)
    settings = _settings(plan, chosen, pool, judge)
    with Job(plan.job_folder, "data build", settings, restart=restart) as job:
        building = _Building(plan, job, store, observer, chosen, pool, judge)
        building.ask()
        rows = building.rows()
        measured = measure(rows, plan.metrics, job.journal("scores"), on_rows=observer.begins)
        consistency, unjudged = building.judge_pairs(rows)
        kept = building.kept(rows)
        journals = job.journal("scores"), job.journal("judgements")
        written = write_rows(plan, kept, pool, list(measured.settings), *journals)
        built = Built(
            plan=plan,
            settings=settings,
            digest=job.digest,
            chosen=chosen,
            missing=building.missing(),
            dropped=len(rows) - len(kept),
            measured=measured,
            consistency=consistency,
            unjudged=unjudged,
            written=tuple(written),
            cost=job.cost,
            unpriced=job.unpriced,
            calls=building.calls,
        )
    for file in built.written:
        write_card(Path(file.card), build_card(built, file, pool, judge))
    return built


@dataclass
class _Building:
    """State of a build, and its steps that call LLMs."""

    plan: BuildPlan
    job: Job
    store: Store
    observer: BuildObserver
    chosen: Chosen
    pool: Sequence[Participant]
    judge: Participant | None
    calls: int = 0

    def __post_init__(self) -> None:
        self._candidates, self._judgements = self.job.journal("candidates"), self.job.journal("judgements")

    def ask(self) -> None:
        """Query every LLM with every instruction."""
        calls = list(candidate_calls(self.chosen.rows, self.pool))
        estimates = [
            estimate_calls("candidates", calls, self._candidates, self.store, answer_tokens=_ANSWER_TOKENS),
            *self._estimate_judgements(self._expected_rows()),
        ]
        self._announce(estimates)
        self._work("candidates", self._candidates, call_items(calls), ask, self.pool)
        answers = {participant.name: len(self.chosen.rows) * participant.entry.samples for participant in self.pool}
        for name, (count, reason) in self.missing().items():
            if count == answers[name]:
                raise WorkError(
                    f"{name} gave no answer at all ({reason.rstrip('.')}): fix that and run the same command again; "
                    f"or remove {name} from the configuration and add --restart: what the others answered is paid for, "
                    f"and comes from the store. Finished work is kept in {self.job.folder}."
                )

    def judge_pairs(self, rows: AnsweredRows) -> tuple[Consistency | None, int]:
        """Judge every pair; return the judge's consistency and the number of missing judgements."""
        judge = self.judge
        if judge is None:
            return None, 0
        in_pool = judge_in_pool(judge, self.pool)
        if in_pool:
            self.observer.judges_itself(judge.name, in_pool)
        self._announce(self._estimate_judgements(rows))
        items = call_items(questions(rows, self.plan, judge))
        done = self._work("judgements", self._judgements, items, judge_pair, [judge])
        if items and done.missing == done.total:
            reason = next(filter(None, (self._judgements.reason(item.key) for item in items)), "")
            raise WorkError(
                f"{judge.name} judged nothing ({reason.rstrip('.')}): fix that and run the same command again; "
                f"finished work is kept in {self.job.folder}."
            )
        replies = (of_pair for _, _, of_pair in row_replies(rows, self.plan, self._judgements))
        return measure_consistency(replies, in_pool), done.missing

    def _work(
        self,
        what: str,
        journal: Journal,
        items: Sequence[Item[_Call]],
        call: Callable[[_Call, Store, Budget], Awaitable[Result]],
        participants: Sequence[Participant],
    ) -> Rows:
        """Make the calls that are not done yet."""
        counted = Budget(on_paid=self.job.paid)
        done = work_through(
            journal,
            items,
            lambda item: call(item, self.store, counted),
            concurrency={participant.name: participant.lane for participant in participants},
            budget=Budget(self.plan.max_cost, spent=self.job.cost),
            resources=[participant.llm for participant in participants],
            on_rows=self.observer.begins(what),
            on_stopping=self.observer.stopping,
        )
        if done.over_budget:
            raise WorkError(
                f"The next call might cost more than is left of --max-cost {self.plan.max_cost:g}; "
                f"${self.job.cost:.4f} are spent. {done.total - done.missing:,} of {done.total:,} {what} are there and "
                f"kept in {self.job.folder}: the same command with a higher one resumes."
            )
        self.calls += done.done + done.partial + done.failed
        return done

    def rows(self) -> list[tuple[Example, list[Candidate]]]:
        """Return the rows that have candidates, with their candidates."""
        rows = [(row, row_candidates(row, self.pool, self._candidates)) for row in self.chosen.rows]
        return [(row, candidates) for row, candidates in rows if candidates]

    def kept(self, rows: list[tuple[Example, list[Candidate]]]) -> list[tuple[Example, list[Candidate]]]:
        """Return the rows to write."""
        whole = sum(participant.entry.samples for participant in self.pool)
        return [row for row in rows if len(row[1]) == whole or not self.plan.drop_incomplete]

    def missing(self) -> dict[str, tuple[int, str]]:
        """Count the missing answers by LLM."""
        return missing_by_llm(self.chosen.rows, self.pool, self._candidates)

    def _estimate_judgements(self, rows: AnsweredRows) -> list[Estimate]:
        if self.judge is None:
            return []
        calls = questions(rows, self.plan, self.judge)
        return [estimate_calls("judgements", calls, self._judgements, self.store, answer_tokens=_REPLY_TOKENS)]

    def _expected_rows(self) -> list[tuple[Example, list[Candidate]]]:
        """Return rows with their candidates, and texts of typical length in place of missing ones."""
        rows = []
        names = [name for participant in self.pool for name in participant.candidate_names()]
        for row in self.chosen.rows:
            known = {candidate.model: candidate for candidate in row_candidates(row, self.pool, self._candidates)}
            guess = row.reference or "word " * 150
            rows.append((row, [known.get(name, Candidate(guess, name)) for name in names]))
        return rows

    def _announce(self, estimates: list[Estimate]) -> None:
        self.observer.estimated(estimates, self.job.cost)
        check_cost(estimates, self.job.cost, self.plan.max_cost)


def _choose(plan: BuildPlan) -> Chosen:
    return choose_instructions(
        source_files(plan.sources),
        lengths=plan.lengths,
        count_tokens=None if plan.lengths == NO_LENGTHS else token_counter(plan.tokenizer),
        exclude=plan.exclude,
        n=plan.n,
        seed=plan.seed,
        skip_bad=plan.skip_bad,
    )


def _settings(
    plan: BuildPlan, chosen: Chosen, pool: Sequence[Participant], judge: Participant | None
) -> dict[str, Any]:
    """Collect the settings that the data depend on, without limits of cost and speed."""
    texts = json.dumps([[row.id, row.prompt, row.reference] for row in chosen.rows])
    return {
        "instructions_sha256": hashlib.sha256(texts.encode("ascii")).hexdigest(),
        "instructions": len(chosen.rows),
        "seed": plan.seed,
        "llms": {participant.name: participant.settings() for participant in pool},
        "metrics": list(plan.metrics),
        "judge": None if judge is None else {"name": judge.name, **judge.settings()},
        "orders": plan.orders if judge else None,
        "criteria": plan.criteria if judge else None,
        "check": plan.check if judge else None,
        "split": dict(plan.split),
    }
