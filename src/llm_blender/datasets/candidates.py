"""Estimate and make the calls that write candidates: every LLM answers every instruction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from llm_blender.calls import Budget, Caller, CallStore, most_cost
from llm_blender.datasets.plan import Participant
from llm_blender.errors import InputError
from llm_blender.jobs.engine import Item, Result
from llm_blender.jobs.journal import Journal
from llm_blender.store import call_key
from llm_blender.types import Candidate, Example, Message, Sampling, Usage, text_messages, to_messages

_BYTES_A_TOKEN = 4  # typical of English; other languages have fewer


@dataclass(frozen=True)
class Estimate:
    """Estimate of the remaining calls.

    Attributes:
        what: purpose of the calls.
        calls: number of calls to make.
        recalled: number of calls that the store answers at no cost.
        tokens: approximate tokens of the calls.
        cost: approximate cost in dollars, of LLMs with a price.
        most: upper bound of the cost in dollars: every answer has its maximum length, and every byte is a token.
        unpriced: number of calls without a known price.
    """

    what: str
    calls: int = 0
    recalled: int = 0
    tokens: int = 0
    cost: float = 0.0
    most: float = 0.0
    unpriced: int = 0

    def plus(self, **counts: float) -> Estimate:
        """Return the estimate with these values added."""
        return replace(self, **{name: getattr(self, name) + count for name, count in counts.items()})


class Call(Protocol):
    """Call of an LLM: a candidate to write, or a pair to judge."""

    @property
    def participant(self) -> Participant:
        """The LLM and its settings."""
        ...

    @property
    def messages(self) -> list[Message]:
        """The conversation to send."""
        ...

    @property
    def sampling(self) -> Sampling:
        """How the LLM samples."""
        ...


_Call = TypeVar("_Call", bound=Call)


def call_items(calls: Iterable[tuple[str, _Call]]) -> list[Item[_Call]]:
    """Make an item per call; each LLM has its own queue."""
    return [Item(key, call, call.participant.name, _most(call)) for key, call in calls]


def _most(call: Call) -> float:
    return most_cost(call.participant.llm, call.messages, call.sampling) or 0.0


def estimate_calls(
    what: str, calls: Iterable[tuple[str, Call]], journal: Journal, store: CallStore, *, answer_tokens: int
) -> Estimate:
    """Estimate the calls that are in neither the journal nor the store, and their cost."""
    total = Estimate(what)
    for key, call in calls:
        if journal.status(key) == "done":
            continue
        if store.get(call_key(call.participant.llm.identity, call.messages, call.sampling)) is not None:
            total = total.plus(recalled=1)
            continue
        size = sum(len(message["content"].encode("utf-8", "replace")) for message in text_messages(call.messages))
        usage = Usage(size // _BYTES_A_TOKEN + 8, min(call.sampling.max_tokens or answer_tokens, answer_tokens))
        price = call.participant.price
        total = total.plus(
            calls=1,
            tokens=usage.prompt_tokens + usage.completion_tokens,
            cost=0.0 if price is None else price.cost(usage),
            most=_most(call),
            unpriced=price is None,
        )
    return total


def check_cost(estimates: Sequence[Estimate], spent: float, max_cost: float | None) -> None:
    """Refuse work that, with the dollars spent by earlier runs, exceeds the maximum cost; without one, all paid work.

    Raises:
        InputError: the work is refused.
    """
    cost = sum(estimate.cost for estimate in estimates)
    if max_cost is None and cost > 0:
        raise InputError(f"This would cost about ${spent + cost:.4f}: set a limit with --max-cost.")
    if max_cost is not None and spent + cost > max_cost:
        already = f" (${spent:.4f} of it already paid)" if spent else ""
        raise InputError(
            f"This would cost about ${spent + cost:.4f}{already}, more than --max-cost {max_cost:g}: raise it, or "
            f"build less (-n, --orders one)."
        )


AnsweredRows = Sequence[tuple[Example, Sequence[Candidate]]]
"""Rows with their candidates."""


@dataclass(frozen=True)
class Written:
    """Call that writes a candidate."""

    participant: Participant
    messages: list[Message]
    sampling: Sampling


def candidate_calls(rows: Sequence[Example], pool: Sequence[Participant]) -> Iterator[tuple[str, Written]]:
    """Yield the call of each candidate of the rows, by its key in the journal."""
    for row in rows:
        messages = to_messages(row.instruction if not row.input else row.prompt)
        for participant in pool:
            for sample, name in enumerate(participant.candidate_names()):
                yield _key(row, name), Written(participant, messages, replace(participant.sampling, sample=sample))


def _key(row: Example, name: str) -> str:
    return f"{row.id}\t{name}"


async def ask(written: Written, store: CallStore, budget: Budget) -> Result:
    """Make the call, or find it in the store; a new answer is counted in the budget."""
    reply = await Caller(written.participant.llm, store, budget).call(written.messages, written.sampling)
    cost = 0.0 if reply.stored else reply.candidate.cost
    if not reply.candidate.text.strip():
        return Result(None, f"{written.participant.name}: the answer is empty", cost)
    return Result(reply.candidate.to_dict(), cost=cost)


def row_candidates(row: Example, pool: Sequence[Participant], journal: Journal) -> list[Candidate]:
    """Return the finished candidates of a row, in the order of the LLMs, each with its own name."""
    found = []
    for participant in pool:
        for name in participant.candidate_names():
            if (values := journal.value(_key(row, name))) is not None:
                found.append(replace(Candidate.from_dict(values), model=name))
    return found


def missing_by_llm(
    rows: Sequence[Example], pool: Sequence[Participant], journal: Journal
) -> dict[str, tuple[int, str]]:
    """Count the missing answers by LLM, with the first reason; LLMs without any are left out."""
    missing: dict[str, tuple[int, str]] = {}
    for row in rows:
        for participant in pool:
            for name in participant.candidate_names():
                key = _key(row, name)
                if journal.status(key) not in ("done", "partial"):
                    count, reason = missing.get(participant.name, (0, ""))
                    missing[participant.name] = (count + 1, reason or journal.reason(key))
    return missing
