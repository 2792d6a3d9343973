"""Judgements: an LLM compares the candidates of every row in pairs, with one of four outcomes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from llm_blender._cmp_results import OUTCOMES
from llm_blender.batch.building.estimates import Estimate, estimate_call, most_cost
from llm_blender.batch.building.plan import BuildPlan, Participant
from llm_blender.batch.engine import Item, Result
from llm_blender.batch.journal import Journal
from llm_blender.calls import CallStore, Turns, call_once
from llm_blender.data.importing.draws import coin, fraction
from llm_blender.rankers.llm_judge import outcome_messages, read_outcome
from llm_blender.store import call_key
from llm_blender.types import Candidate, Example, LabelledPair, Message, Sampling

__all__ = [
    "Asked",
    "Pair",
    "cmp_results",
    "estimate_judgements",
    "judge_pair",
    "judgement_items",
    "labelled_pair",
    "row_outcomes",
    "row_pairs",
]

_REPLY_TOKENS = 4
_LONGEST_REPLY = 200  # characters of a reply without an outcome that are kept


@dataclass(frozen=True)
class Pair:
    """Two candidates of a row, as they are compared.

    Attributes:
        row: their row.
        a: index of the one that is read first where they are compared once.
        b: of the other one.
        checked: it is one of those that are asked again.
    """

    row: Example
    a: int
    b: int
    checked: bool


@dataclass(frozen=True)
class Asked:
    """One question to the judge.

    Attributes:
        pair: what is compared.
        turned: b is read first.
        again: the same question has been asked before.
        first: the answer that is read first.
        second: the other one.
        criteria: of the judge.
    """

    pair: Pair
    turned: bool
    again: bool
    first: str
    second: str
    criteria: str

    @property
    def messages(self) -> list[Message]:
        """To the judge; made when they are wanted, since a data set has hundreds of thousands of pairs."""
        return outcome_messages(self.pair.row.prompt, self.first, self.second, self.criteria)


Rows = Sequence[tuple[Example, Sequence[Candidate]]]


def row_pairs(rows: Rows, plan: BuildPlan) -> list[tuple[Pair, Sequence[Candidate]]]:
    """All pairs of candidates of the rows, their orders and those that are checked as the seed draws them."""
    drawn = []
    for row, candidates in rows:
        for i, j in combinations(range(len(candidates)), 2):
            names = (row.id or "", candidates[i].model or "", candidates[j].model or "")
            a, b = (i, j) if coin(plan.seed, "order", *names) else (j, i)
            drawn.append((fraction(plan.seed, "check", *names), Pair(row, a, b, checked=False), candidates))
    shares = sorted(share for share, *_ in drawn)
    last = shares[min(plan.check, len(shares)) - 1] if plan.check and shares else -1.0
    return [(replace(pair, checked=share <= last), candidates) for share, pair, candidates in drawn]


def _questions(rows: Rows, plan: BuildPlan) -> Iterator[tuple[str, Asked]]:
    for pair, candidates in row_pairs(rows, plan):
        ways = [(False, False)]
        if plan.orders == "both" or pair.checked:
            ways.append((True, False))
        if pair.checked:
            ways.append((False, True))
        for turned, again in ways:
            first, second = (pair.b, pair.a) if turned else (pair.a, pair.b)
            asked = Asked(pair, turned, again, candidates[first].text, candidates[second].text, plan.criteria)
            yield _key(pair, candidates, turned=turned, again=again), asked


def _key(pair: Pair, candidates: Sequence[Candidate], *, turned: bool, again: bool) -> str:
    """It holds the texts: a candidate that came anew is judged anew."""
    first, second = (pair.b, pair.a) if turned else (pair.a, pair.b)
    texts = "\0".join(candidates[index].text for index in (first, second))
    digest = hashlib.sha256(texts.encode("utf-8", "replace")).hexdigest()[:16]
    names = f"{candidates[first].model}\t{candidates[second].model}"
    return f"{pair.row.id}\t{names}\t{digest}" + ("\tagain" if again else "")


def _sampling(judge: Participant, asked: Asked) -> Sampling:
    return replace(judge.sampling, sample=int(asked.again))


def judgement_items(rows: Rows, plan: BuildPlan, judge: Participant) -> list[Item[Asked]]:
    """One item a question."""
    return [
        Item(key, asked, "judge", most_cost(judge, asked.messages, _sampling(judge, asked)))
        for key, asked in _questions(rows, plan)
    ]


def estimate_judgements(
    rows: Rows, plan: BuildPlan, judge: Participant, journal: Journal, store: CallStore
) -> Estimate:
    """What is still to be asked, and what it costs."""
    total = Estimate("judgements")
    identity = judge.llm.identity
    for key, asked in _questions(rows, plan):
        if journal.status(key) == "done":
            continue
        sampling, messages = _sampling(judge, asked), asked.messages
        if store.get(call_key(identity, messages, sampling)) is not None:
            total += Estimate("judgements", recalled=1)
        else:
            total += estimate_call("judgements", judge, messages, sampling, _REPLY_TOKENS)
    return total


async def judge_pair(asked: Asked, judge: Participant, store: CallStore, turns: Turns) -> Result:
    """Ask the judge, or find its reply again. A reply without an outcome is one: it is counted, not asked for again.

    Raises:
        LLMError: there is no reply.
    """
    reply = await call_once(turns, judge.llm, asked.messages, _sampling(judge, asked), store)
    outcome = read_outcome(reply.candidate.text)
    value = {"outcome": outcome} if outcome else {"outcome": None, "reply": reply.candidate.text[:_LONGEST_REPLY]}
    return Result(value, cost=0.0 if reply.stored else reply.candidate.cost)


def row_outcomes(
    rows: Rows, plan: BuildPlan, journal: Journal
) -> Iterator[tuple[Pair, Sequence[Candidate], dict[tuple[bool, bool], Mapping[str, str | None]]]]:
    """What the judge said of each pair, by (turned, again); of what was not asked or failed, nothing."""
    for pair, candidates in row_pairs(rows, plan):
        said = {}
        for turned in (False, True):
            for again in (False, True):
                value = journal.value(_key(pair, candidates, turned=turned, again=again))
                if value is not None:
                    said[turned, again] = value
        yield pair, candidates, said


def cmp_results(
    pair: Pair, candidates: Sequence[Candidate], said: Mapping[tuple[bool, bool], Mapping[str, str | None]]
) -> dict[str, str]:
    """The outcomes of a pair as a row writes them, one for each order that has one."""
    results = {}
    for turned in (False, True):
        outcome = said.get((turned, False), {}).get("outcome")
        if outcome is not None:
            first, second = (pair.b, pair.a) if turned else (pair.a, pair.b)
            results[f"{candidates[first].model},{candidates[second].model}"] = outcome
    return results


def labelled_pair(
    pair: Pair, said: Mapping[tuple[bool, bool], Mapping[str, str | None]], judge: str
) -> LabelledPair | None:
    """Both orders as one judgement, a tie where they contradict each other; None where there is no outcome."""
    margins = []
    for turned in (False, True):
        outcome = said.get((turned, False), {}).get("outcome")
        if outcome is not None:
            to_first, to_second = OUTCOMES[outcome]
            margins.append(to_second - to_first if turned else to_first - to_second)
    if not margins:
        return None
    margin = sum(margins)
    return LabelledPair(pair.a, pair.b, "a" if margin > 0 else "b" if margin < 0 else "tie", judge)
