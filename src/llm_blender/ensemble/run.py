"""Answer a file of prompts with an ensemble, as a resumable job: ``blend run``."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from llm_blender._hub import file_sha256
from llm_blender.calls import Budget, most_cost
from llm_blender.data import STDIO, RowWriter
from llm_blender.ensemble import Ensemble, Observer
from llm_blender.ensemble.prompts import Prompts
from llm_blender.errors import Failure, InputError, WorkError, describe_failures, sentence
from llm_blender.fusers.chat_fuser import ChatFuser
from llm_blender.jobs.engine import Item, OnRows, Result, Rows, busy_llms, work_through
from llm_blender.jobs.job import Job, Outputs
from llm_blender.jobs.journal import Journal
from llm_blender.llms import EmbeddedLLM, OpenAICompatibleLLM
from llm_blender.types import LLM, Answer, Candidate, Example, Message, Sampling, Usage, to_messages

logger = logging.getLogger(__name__)

_EARLY = 5  # calls of an LLM that all fail before a warning
_LASTING = frozenset({"auth", "connection", "not_found", "rate_limit", "server", "timeout"})
_FUSED_CHARS = 20_000  # assumed length of a fuser's prompt without max_chars, for its maximum cost
_JUDGED_CHARS = 20_000  # assumed length of a judge's prompt, likewise


@dataclass
class Tally:
    """The calls of one LLM over all rows of a job.

    Attributes:
        name: name of the LLM.
        answers: calls with an answer that was ranked.
        reasons: number of failed calls by reason.
        examples: the first failure of each reason.
        prompt_tokens, completion_tokens: tokens of the answers.
        cost: dollars of all its answers, including those that were not ranked; None if a price is unknown.
        timed: answers with a time.
        seconds: seconds of these answers together.
    """

    name: str
    answers: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, Failure] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = 0.0
    timed: int = 0
    seconds: float = 0.0

    @property
    def failed(self) -> int:
        """Number of failed calls."""
        return self.reasons.total()

    def add_answer(self, candidate: Mapping[str, Any]) -> None:
        """Count an answer, as JSON."""
        usage, seconds = candidate.get("usage", {}), candidate.get("seconds")
        self.answers += 1
        self.prompt_tokens += usage.get("prompt_tokens", 0)
        self.completion_tokens += usage.get("completion_tokens", 0)
        self.timed += seconds is not None
        self.seconds += seconds or 0.0

    def add_failure(self, failure: Failure) -> None:
        """Count a failed call."""
        self.reasons[failure.reason] += 1
        self.examples.setdefault(failure.reason, failure)

    def describe(self) -> str:
        """Describe the failures in one line: ``a: 3 of 20 calls failed (timeout: no answer within 60 s)``."""
        kinds = [
            (f"{count:,} " if len(self.reasons) > 1 else "")
            + f"{reason}: {describe_failures([self.examples[reason]]).removeprefix(f'{self.name}: ')}"
            for reason, count in self.reasons.most_common()
        ]
        return f"{self.name}: {self.failed:,} of {self.failed + self.answers:,} calls failed ({'; '.join(kinds)})"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; `seconds` is the mean of an answer there, None where no answer has a time."""
        return {
            "answers": self.answers,
            "failed": self.failed,
            "reasons": dict(self.reasons.most_common()),
            "usage": Usage(self.prompt_tokens, self.completion_tokens).to_dict(),
            "cost": self.cost,
            "seconds": round(self.seconds / self.timed, 3) if self.timed else None,
        }


class _Tallies(dict[str, Tally]):
    """The calls of each LLM, by name.

    Args:
        job: the job, which knows the costs, also of an LLM that only fuses.
        names: names of the LLMs.
    """

    def __init__(self, job: Job, names: Iterable[str]) -> None:
        costs = job.cost_by_llm()
        super().__init__((name, Tally(name, cost=costs.get(name, 0.0))) for name in (*names, *costs))

    def add(self, row: Mapping[str, Any]) -> None:
        """Count the calls of an answer, or of a row without one, as JSON."""
        for candidate in row.get("candidates", ()):
            self._of(candidate.get("model") or "").add_answer(candidate)
        for failure in map(Failure.from_dict, row.get("failures", ())):
            self._of(failure.model).add_failure(failure)

    def counts(self) -> list[dict[str, Any]]:
        """Return all counts of calls as plain JSON values; the costs, which the job knows, are not among them."""
        return [
            {name: value for name, value in vars(tally).items() if name != "cost"}
            | {"examples": {reason: failure.to_dict() for reason, failure in tally.examples.items()}}
            for tally in self.values()
        ]

    def restore(self, counts: Iterable[Mapping[str, Any]]) -> None:
        """Take what `counts` returned."""
        for given in counts:
            tally = self._of(given["name"])
            examples = {reason: Failure.from_dict(failure) for reason, failure in given["examples"].items()}
            vars(tally).update(given, reasons=Counter(given["reasons"]), examples=examples)

    def _of(self, name: str) -> Tally:
        if name not in self:
            self[name] = Tally(name)
        return self[name]


@dataclass(frozen=True)
class Ran:
    """The result of a run.

    Attributes:
        rows: numbers of rows.
        fused: number of rows whose answer is fused.
        cost: dollars of all answers that all runs of this job have paid for, without calls of unknown price.
        unpriced: number of rows whose cost is unknown.
        failures: reasons of the rows without an answer, by id.
        partial: reasons of the rows to try again, as their answer lacks an LLM or the fuser, by id.
        degraded: number of rows whose answer lacks an LLM or the fuser, including those with a quorum.
        cut_off: number of rows whose answer was cut off at the LLM's maximum of tokens.
        truncated: mean share of a row's text that the ranker did not read.
        unjudged: reasons why close calls have no verdict of the judge, by id; not retried.
        llms: the calls of each LLM, by name.
    """

    rows: Rows
    fused: int
    cost: float
    unpriced: int
    failures: dict[str, str]
    partial: dict[str, str]
    degraded: int
    cut_off: int
    truncated: float
    unjudged: dict[str, str]
    llms: dict[str, Tally]

    @property
    def complete(self) -> bool:
        """Whether every row has an answer, with all LLMs and the fuser."""
        return not (self.failures or self.degraded)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "rows": self.rows.total - len(self.failures),
            "resumed": self.rows.resumed,
            "fused": self.fused,
            "failed": len(self.failures),
            "partial": len(self.partial),
            "degraded": self.degraded,
            "cut_off": self.cut_off,
            "cost": self.cost,
            "unpriced_rows": self.unpriced,
            "truncated": round(self.truncated, 4),
            "seconds": round(self.rows.seconds, 3),
            "llms": {name: tally.to_dict() for name, tally in self.llms.items()},
        }


class _Watch(Observer):
    """Observer of all rows: it records what was paid for, and warns of an LLM that does not work from the beginning."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._first: dict[str, list[Failure]] = {}
        self._known = set[str | None]()

    def paid(self, candidate: Candidate) -> None:
        self._job.paid(candidate)

    def wrote(self, call: int, candidate: Candidate, *, stored: bool) -> None:
        if not stored:
            self._known.add(candidate.model)

    def failed(self, call: int, failure: Failure) -> None:
        if failure.model in self._known or not (failure.own or failure.reason == "rate_limit"):
            return
        first = self._first.setdefault(failure.model, [])
        first.append(failure)
        if failure.reason not in _LASTING:
            self._known.add(failure.model)
        elif len(first) == _EARLY:
            self._known.add(failure.model)
            logger.warning("the first calls failed: %s", describe_failures(first))


def run_settings(
    ensemble: Ensemble, rows: Prompts | Sequence[Example], *, ranker: str, fuser: str, seed: int
) -> dict[str, Any]:
    """Return what the answers depend on: all but deadlines and costs.

    Args:
        ensemble: the ensemble that answers.
        rows: the prompts.
        ranker: name of the ranker in the configuration.
        fuser: name of the fuser in the configuration.
        seed: seed of all draws.
    """
    prompts = _prompts(rows)
    settings = asdict(ensemble.settings)
    fusing = {"name": fuser, **{name: settings[name] for name in ("top_k", "guard", "rule")}}
    judge = None if ensemble.judge is None else {"name": ensemble.judge.name, **settings["close_calls"]}
    if judge is not None and ensemble.judge is not None and ensemble.judge.llm is not None:
        judge["identity"] = dict(ensemble.judge.llm.identity)
    return {
        "prompts": len(prompts),
        "prompts_sha256": prompts.sha256,
        "seed": seed,
        "llms": {
            member.llm.name: {"identity": dict(member.llm.identity), "samples": member.samples}
            for member in ensemble.members
        },
        "ranker": {"name": ranker, "strategy": settings["strategy"], "budget": settings["budget"]},
        **({} if judge is None else {"judge": judge}),
        "priors": settings["priors"] is not None,
        "mode": settings["mode"],
        "fuser": None if settings["mode"] == "pick" else fusing,
        "quorum": settings["limits"]["quorum"],
    }


def settings_before(settings: Mapping[str, Any], earlier: Mapping[str, Any], prompts: Prompts) -> Mapping[str, Any]:
    """Return the settings of a run as they were before rows were appended, for `Job`.

    Args:
        settings: settings of the run, from `run_settings`.
        earlier: settings of an earlier run, which had fewer rows.
        prompts: the prompts of the run.
    """
    n = earlier.get("prompts")
    if not isinstance(n, int) or not 0 < n < len(prompts):
        return settings
    return {**settings, "prompts": n, "prompts_sha256": prompts.sha256_of(n)}


def _prompts(rows: Prompts | Sequence[Example]) -> Prompts:
    return rows if isinstance(rows, Prompts) else Prompts(lambda: rows)


def at_once(ensemble: Ensemble) -> int:
    """Return how many prompts can run at once without waiting for each other at an LLM, within their deadlines."""
    places = []
    for member in ensemble.members:
        if isinstance(member.llm, OpenAICompatibleLLM):
            places.append(member.llm.concurrency // member.samples)
        elif isinstance(member.llm, EmbeddedLLM):
            places.append(1)
    return max(1, min(places, default=4))


def run_prompts(
    ensemble: Ensemble,
    rows: Prompts | Sequence[Example],
    out: str,
    job: Job,
    *,
    seed: int = 0,
    concurrency: int | None = None,
    max_cost: float | None = None,
    allow_unpriced: bool = False,
    on_rows: OnRows | None = None,
    on_stopping: Callable[[int], None] | None = None,
) -> Ran:
    """Answer every prompt that has no answer yet, and write all rows in the order of the prompts.

    A row without an answer is left out of the output and reported with its reason; a row whose answer lacks an LLM or
    the fuser is written as it is. The next run tries both again, but not a row that has a quorum.

    Args:
        ensemble: the ensemble that answers.
        rows: the prompts; `Prompts` are read as they are needed.
        out: the file, or ``-``; it appears when all rows were tried.
        job: the open job of these prompts and settings.
        seed: seed of all draws.
        concurrency: number of prompts to run at once; None takes that of `at_once`.
        max_cost: maximum cost of all runs of the job together, in dollars; None means no cap.
        allow_unpriced: go on without the price of an LLM.
        on_rows: called with the progress.
        on_stopping: called with the number of running prompts when the run stops early.

    Raises:
        InputError: there is a cap, and the maximum cost of an answer is unknown.
        WorkError: the cap is reached, no prompt has an answer, or the prompts were changed meanwhile; finished rows are
            kept.
    """
    journal, prompts = job.journal("rows"), _prompts(rows)

    def most(row: Example) -> float:
        return most_row_cost(ensemble, row, max_cost, allow_unpriced)

    for row in islice(prompts if max_cost is not None else (), 1):
        most(row)  # a price that is unknown is an error before any call
    if any(journal.status(key) != "done" for key in prompts.ids):
        ensemble.load()  # its errors come before any call
    watch = _Watch(job)

    async def answer(row: Example) -> Result:
        given = await ensemble.aask(row.instruction if not row.input else row.prompt, seed=seed, observer=watch)
        lacks = _lacks(given, ensemble.settings.limits.quorum)
        return Result(_record(row, given), lacks, given.cost, busy=busy_llms(given.failures) if lacks else {})

    done = work_through(
        journal,
        (Item(row.id or "", row, most_cost=most(row)) for row in prompts),
        answer,
        keys=prompts.ids,
        concurrency={"": concurrency or at_once(ensemble)},
        budget=Budget(max_cost, spent=job.cost),
        resources=[ensemble],
        on_rows=on_rows,
        on_stopping=on_stopping,
    )
    if done.over_budget:
        raise WorkError(
            f"The next prompt might cost more than is left of --max-cost {max_cost:g}; ${job.cost:.4f} are spent. "
            f"{done.total - done.missing:,} of {done.total:,} rows are done and kept in {job.folder}: run the same "
            f"command with a higher cap to go on."
        )
    failures, partial = (
        {key: journal.reason(key) for key in prompts.ids if journal.status(key) in states}
        for states in ((None, "failed"), ("partial",))
    )
    llms = _Tallies(job, (member.llm.name for member in ensemble.members))
    if len(failures) == len(prompts) and failures:
        for found in journal.values(failures):
            llms.add(found or {})
        reasons = "; ".join(tally.describe() for tally in llms.values() if tally.failed)
        raise WorkError(f"No prompt has an answer. {sentence(reasons or 'None was tried')}")
    outputs = Outputs(job)
    made_of = f"{prompts.sha256} {file_sha256(journal.path)}"
    counts = outputs.find(out, made_of)
    if counts is None:
        with RowWriter(out) as writer:
            counts = _write_rows(writer, prompts.ids, journal, failures, llms)
        outputs.add(out, made_of, {**counts, "llms": llms.counts()})
    else:
        llms.restore(counts.pop("llms"))
    if out != STDIO:
        _write_failures(Path(f"{out}.failed.jsonl"), prompts, failures)
    counts["truncated"] /= max(len(prompts) - len(failures), 1)
    return Ran(
        rows=done,
        cost=job.cost,
        unpriced=journal.unpriced,
        failures=failures,
        partial=partial,
        llms=llms,
        **counts,
    )


def _write_rows(
    writer: RowWriter, keys: Iterable[str], journal: Journal, failures: Container[str], llms: _Tallies
) -> dict[str, Any]:
    """Write the rows that have an answer; count the calls of all rows, and return what else `Ran` counts of them."""
    fused, degraded, cut_off, truncated = 0, 0, 0, 0.0
    unjudged: dict[str, str] = {}
    for key in keys:
        record, line = journal.value_and_line(key)
        llms.add(record or {})
        if key not in failures:
            fused += record["mode"] == "fuse"
            degraded += record["degraded"]
            best = record["candidates"][record["ranking"]["best"]]
            cut_off += record["mode"] == "pick" and Candidate("", finish_reason=best.get("finish_reason")).cut_off
            truncated += record["ranking"].get("truncated", 0.0)
            if failure := record["ranking"].get("evidence", {}).get("judging", {}).get("failure"):
                unjudged[key] = describe_failures([Failure.from_dict(failure)])
            writer.write_line(line)
    return {
        "fused": fused,
        "degraded": degraded,
        "cut_off": cut_off,
        "truncated": truncated,
        "unjudged": unjudged,
    }


def _record(row: Example, answer: Answer) -> dict[str, Any]:
    """Make a row of the prompt and the JSON of `blend ask`, which every other command reads."""
    return {
        "id": row.id,
        "instruction": row.instruction if isinstance(row.instruction, str) else list(row.instruction),
        **({"input": row.input} if row.input else {}),
        **({"output": row.reference} if row.reference is not None else {}),
        **answer.to_dict(),
    }


def _lacks(answer: Answer, quorum: int | None) -> str:
    """Return why the next run should try an answer again; empty if it should not."""
    if answer.fusion is not None and answer.fusion.reason in ("failed", "too_small"):
        return answer.fusion.message
    if answer.failures and not (quorum and len({candidate.model for candidate in answer.candidates}) >= quorum):
        return describe_failures(answer.failures)
    return ""


def calls_of(ensemble: Ensemble) -> list[tuple[LLM, int, int]]:
    """List the calls for a prompt, at most: those of the members, then of a fuser and of a judge that are LLMs.

    Returns:
        The LLM, its number of calls, and the characters that each reads beside the prompt, assumed where no maximum is
        set; 0 for a member.
    """
    settings, judge = ensemble.settings, ensemble.judge
    calls = [(member.llm, member.samples, 0) for member in ensemble.members]
    if settings.mode != "pick" and isinstance(fuser := ensemble.fuser, ChatFuser):
        calls.append((fuser.llm, 1, fuser.max_chars or _FUSED_CHARS))
    if judge is not None and judge.llm is not None:
        calls.append((judge.llm, 2 * settings.close_calls.pairs, _JUDGED_CHARS))
    return calls


def most_row_cost(ensemble: Ensemble, row: Example, max_cost: float | None, allow_unpriced: bool) -> float:
    """Compute an upper bound of the cost of a prompt in dollars; 0 without a cap.

    Raises:
        InputError: an LLM has no price or no maximum of tokens, and `allow_unpriced` is false.
    """
    if max_cost is None:
        return 0.0
    if ensemble.settings.limits.max_cost is not None:
        return ensemble.settings.limits.max_cost
    messages, total = to_messages(row.instruction if not row.input else row.prompt), 0.0
    for llm, count, characters in calls_of(ensemble):
        texts: list[Message] = [{"role": "user", "content": "x" * characters}] if characters else []
        most = most_cost(llm, [*messages, *texts], Sampling(sample=max(count - 1, 0)))
        if most is None and count and not allow_unpriced:
            raise InputError(
                f"{llm.name}: the maximum cost of an answer is unknown, and does not count as zero: give its [[llm]] a "
                f"`price` and `max_tokens`, or allow it with --allow-unknown-prices."
            )
        total += count * (most or 0.0)
    return total


def _write_failures(path: Path, prompts: Prompts, reasons: Mapping[str, str]) -> None:
    if not reasons:
        path.unlink(missing_ok=True)
        return
    with RowWriter(path) as writer:
        for row in prompts:
            if row.id is not None and row.id in reasons:
                instruction = row.instruction if isinstance(row.instruction, str) else list(row.instruction)
                reason = reasons[row.id] or "not tried: its LLMs failed too often"
                writer.write({"id": row.id, "instruction": instruction, "input": row.input, "reason": reason})
