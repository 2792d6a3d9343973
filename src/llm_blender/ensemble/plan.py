"""Calls, tokens and dollars of the LLMs of a job, estimated before it begins."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_blender.calls import most_cost
from llm_blender.data import read_records
from llm_blender.ensemble import Ensemble
from llm_blender.ensemble.run import at_once, calls_of, most_row_cost, run_prompts
from llm_blender.errors import InputError, RowError
from llm_blender.fusers.chat_fuser import ChatFuser, fusion_prompt
from llm_blender.jobs.engine import OnRows
from llm_blender.jobs.job import Job
from llm_blender.jobs.plan import Range, estimate_total
from llm_blender.ranking import BaseRanker, PairwiseRanker, comparison_count, has_position_bias
from llm_blender.types import LLM, Example, Ranker

CHARACTERS_A_TOKEN = 4
"""Assumed characters of a token of a prompt, where no sample has measured it."""


def most_comparisons(ranker: Ranker, candidates: int, k: int | None, *, strategy: str, budget: int) -> int:
    """Return the maximum comparisons of a row; 0 for a ranker that scores each candidate alone.

    Args:
        ranker: the ranker.
        candidates: number of candidates.
        k: number of candidates wanted in order; None for an order of all.
        strategy: name of the strategy.
        budget: maximum comparisons, for the strategies auto and active.
    """
    if isinstance(ranker, BaseRanker) and not isinstance(ranker, PairwiseRanker):
        return 0
    return comparison_count(strategy, candidates, budget=budget, k=k, position_bias=has_position_bias(ranker))


def guard_comparisons(ranker: Ranker) -> int:
    """Return the comparisons of the guard for a fused text."""
    return most_comparisons(ranker, 2, None, strategy="duel", budget=2)


def most_tokens(llm: LLM) -> int | None:
    """Return the LLM's own maximum of tokens of an answer; None without one."""
    most: int | None = (llm.identity.get("sampling") or {}).get("max_tokens")
    return most


class RunCalls:
    """The calls of LLMs, at most, for the prompts of `blend run`.

    Args:
        ensemble: the ensemble that answers.

    Attributes:
        calls: maximum calls for a prompt, by LLM.
        unpriced: why the maximum cost is unknown; empty if it is known.
        reads_answers: whether fuser or judge read answers, whose length is unknown.
    """

    def __init__(self, ensemble: Ensemble) -> None:
        ensemble.load()  # the LLMs of fuser and judge are known then
        self.ensemble, self.unpriced = ensemble, ""
        llms = calls_of(ensemble)
        self.reads_answers = len(llms) > len(ensemble.members)
        self.calls: dict[str, int] = {}
        self._tokens: list[int | None] = []
        for llm, count, _ in llms:
            self.calls[llm.name] = self.calls.get(llm.name, 0) + count
            longest = most_tokens(llm)
            self._tokens.append(None if longest is None else count * longest)

    @property
    def count(self) -> int:
        """Maximum calls for a prompt."""
        return sum(self.calls.values())

    @property
    def most_tokens(self) -> int | None:
        """Maximum tokens of all answers to a prompt; None if an LLM has no maximum."""
        known = [tokens for tokens in self._tokens if tokens is not None]
        return sum(known) if len(known) == len(self._tokens) else None

    def most_cost(self, row: Example) -> float:
        """Return the maximum cost of a prompt in dollars, as `--max-cost` computes it; 0 once it is unknown."""
        if self.unpriced:
            return 0.0
        try:
            return most_row_cost(self.ensemble, row, math.inf, allow_unpriced=False)
        except InputError as error:
            self.unpriced = str(error).partition(":")[0]
            return 0.0

    def most_comparisons(self) -> int:
        """Return the maximum comparisons for a prompt."""
        ensemble, settings = self.ensemble, self.ensemble.settings
        count = sum(member.samples for member in ensemble.members)
        options = {"strategy": settings.strategy, "budget": settings.budget}
        wanted = 1 if settings.mode == "pick" else settings.top_k
        ranked = max(most_comparisons(ensemble.ranker, count, k, **options) for k in (wanted, None))  # type: ignore[arg-type]
        return ranked + (guard_comparisons(ensemble.ranker) if settings.mode != "pick" and settings.guard else 0)


def most_fusing_cost(fuser: ChatFuser, prompt: str, texts: Sequence[str], top_k: int) -> float | None:
    """Return the maximum cost of fusing a row in dollars; None if the LLM's price or maximum of tokens is unknown."""
    longest = sorted(texts, key=len)[-top_k:]
    return most_cost(fuser.llm, fusion_prompt(prompt, longest, fuser.criteria).messages, fuser.sampling)


def fusion_counts(row: Mapping[str, Any]) -> dict[str, float]:
    """Count the tokens and dollars of a fused row as if its text were new, and the dollars ``paid`` for it now."""
    fusion: Mapping[str, Any] = row["fusion"] if "text" in row["fusion"] else {"cost": 0.0}
    cost = fusion.get("cost")
    return {
        **fusion.get("usage", {}),
        "cost": cost or 0.0,
        "paid": 0.0 if fusion.get("stored") else cost or 0.0,
        "unpriced": cost is None,
    }


@dataclass(frozen=True)
class SampleCosts:
    """Tokens, dollars and seconds of the answers to a sample of prompts.

    Attributes:
        rows: what each prompt took, in no order: ``size``, its characters, ``cost`` in dollars (absent if unknown),
            ``prompt`` and ``completion`` tokens, ``comparisons`` and ``seconds``.
        at_once: prompts that were under way at a time.
        cost: dollars that were paid.
        cpu: processor seconds of this process for each prompt.
        wall: seconds of all prompts together.
        failed: prompts without an answer.
    """

    rows: Sequence[Mapping[str, float]]
    at_once: int
    cost: float
    cpu: float
    wall: float
    failed: int

    @property
    def spent(self) -> dict[str, float]:
        """Seconds and dollars that the sample took now."""
        return {"seconds": self.wall, "dollars": self.cost}

    def total(self, name: str, whole: Sequence[float], *, seed: int = 0) -> Range:
        """Estimate a total over all prompts, whose number and characters together are `whole`."""
        known = [row for row in self.rows if name in row]
        if len(known) < len(self.rows):
            return Range()
        return estimate_total([row[name] for row in known], [(1.0, row["size"]) for row in known], whole, seed=seed)


def ask_sample(
    ensemble: Ensemble,
    rows: Sequence[Example],
    *,
    seed: int,
    max_cost: float | None = None,
    allow_unpriced: bool = False,
    on_rows: OnRows | None = None,
) -> SampleCosts:
    """Answer some prompts as `blend run` does; the store keeps the answers, which the job then finds.

    Args:
        ensemble: the ensemble that answers.
        rows: the prompts, each with a unique `id`.
        seed: seed of the job.
        max_cost: maximum cost in dollars.
        allow_unpriced: call LLMs without a price, too.
        on_rows: called with the progress.

    Raises:
        InputError, WorkError: see `run_prompts`.
    """
    began = time.process_time(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.jsonl"
        with Job(Path(folder) / "job", "plan", {}) as job:
            ran = run_prompts(
                ensemble,
                rows,
                str(out),
                job,
                seed=seed,
                max_cost=max_cost,
                allow_unpriced=allow_unpriced,
                on_rows=on_rows,
            )
        sizes = {row.id: len(row.prompt) for row in rows}
        answers = [record for _, record in read_records(out) if not isinstance(record, RowError)]
    taken = [{"size": sizes[answer["id"]], **_taken(answer)} for answer in answers]
    cpu, wall = (time.process_time() - began[0]) / len(rows), time.perf_counter() - began[1]
    return SampleCosts(taken, min(at_once(ensemble), len(rows)), ran.cost, cpu, wall, len(ran.failures))


def _taken(answer: Mapping[str, Any]) -> dict[str, float]:
    """Count what an answer took when it was new, also where it is from the store now."""
    parts = [*answer["candidates"], *([answer["fusion"]] if "text" in answer.get("fusion", {}) else [])]
    tokens = {
        name: max(
            answer.get("usage", {}).get(f"{name}_tokens", 0),
            sum(part.get("usage", {}).get(f"{name}_tokens", 0) for part in parts),
        )
        for name in ("prompt", "completion")
    }
    costs = [part.get("cost") for part in parts]
    known = [cost for cost in costs if cost is not None]
    cost = {"cost": max(answer.get("cost") or 0.0, sum(known))} if len(known) == len(costs) else {}
    return {
        **cost,
        **tokens,
        "comparisons": answer["ranking"]["comparisons"],
        "seconds": max(answer["seconds"], *(part.get("seconds") or 0.0 for part in parts)),
    }
