"""Candidates: every instruction to every LLM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from llm_blender.batch.building.estimates import Estimate, estimate_call, most_cost
from llm_blender.batch.building.plan import Participant
from llm_blender.batch.engine import Item, Result
from llm_blender.batch.journal import Journal
from llm_blender.calls import CallStore, Turns, call_once
from llm_blender.store import call_key
from llm_blender.types import Candidate, Example, Message, Sampling, to_messages

__all__ = ["Written", "ask", "candidate_items", "estimate_candidates", "missing_by_llm", "row_candidates"]

_ANSWER_TOKENS = 200  # what an estimate takes for an answer's length, unless it may not be as long


@dataclass(frozen=True)
class Written:
    """A call that writes a candidate."""

    participant: Participant
    messages: list[Message]
    sampling: Sampling


def _calls(rows: Sequence[Example], pool: Sequence[Participant]) -> Iterator[tuple[str, Written]]:
    for row in rows:
        messages = to_messages(row.instruction if not row.input else row.prompt)
        for participant in pool:
            for sample, name in enumerate(participant.candidate_names()):
                yield _key(row, name), Written(participant, messages, replace(participant.sampling, sample=sample))


def _key(row: Example, name: str) -> str:
    return f"{row.id}\t{name}"


def candidate_items(rows: Sequence[Example], pool: Sequence[Participant]) -> list[Item[Written]]:
    """One item a candidate; each LLM has a lane of its own."""
    return [
        Item(
            key,
            written,
            written.participant.name,
            most_cost(written.participant, written.messages, written.sampling),
        )
        for key, written in _calls(rows, pool)
    ]


def estimate_candidates(
    rows: Sequence[Example], pool: Sequence[Participant], journal: Journal, store: CallStore
) -> Estimate:
    """What is still to be asked, and what it costs."""
    total = Estimate("candidates")
    for key, written in _calls(rows, pool):
        if journal.status(key) == "done":
            continue
        identity = written.participant.llm.identity
        if store.get(call_key(identity, written.messages, written.sampling)) is not None:
            total += Estimate("candidates", recalled=1)
        else:
            tokens = min(written.sampling.max_tokens or _ANSWER_TOKENS, _ANSWER_TOKENS)
            total += estimate_call("candidates", written.participant, written.messages, written.sampling, tokens)
    return total


async def ask(written: Written, store: CallStore, turns: Turns) -> Result:
    """Make the call, or find it again.

    Raises:
        LLMError: there is no answer.
    """
    reply = await call_once(turns, written.participant.llm, written.messages, written.sampling, store)
    cost = 0.0 if reply.stored else reply.candidate.cost
    if not reply.candidate.text.strip():
        return Result(None, f"{written.participant.name}: the answer is empty", cost)
    return Result(reply.candidate.to_dict(), cost=cost)


def row_candidates(row: Example, pool: Sequence[Participant], journal: Journal) -> list[Candidate]:
    """The candidates of a row that are there, in the order of the LLMs, each with the name of its own."""
    found = []
    for participant in pool:
        for name in participant.candidate_names():
            if (values := journal.value(_key(row, name))) is not None:
                found.append(replace(Candidate.from_dict(values), model=name))
    return found


def missing_by_llm(
    rows: Sequence[Example], pool: Sequence[Participant], journal: Journal
) -> dict[str, tuple[int, str]]:
    """How many answers each LLM owes, and the reason of the first; of those who owe none, nothing."""
    missing: dict[str, tuple[int, str]] = {}
    for row in rows:
        for participant in pool:
            for name in participant.candidate_names():
                key = _key(row, name)
                if journal.status(key) not in ("done", "partial"):
                    count, reason = missing.get(participant.name, (0, ""))
                    missing[participant.name] = (count + 1, reason or journal.reason(key))
    return missing
