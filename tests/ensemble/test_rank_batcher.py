"""Batches of a ranker: what comes while it is busy is ranked at once, and each request gets its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest

from llm_blender.ensemble import Ensemble, Member, rank_batcher
from llm_blender.ensemble.rank_batcher import arank_best
from llm_blender.errors import InputError
from llm_blender.rankers import load_ranker
from llm_blender.rankers.llm_judge import LLMJudge
from llm_blender.ranking import Compare, EvidenceWeights, RankOptions
from llm_blender.ranking.evidence import Weights
from llm_blender.testing import FakeLLM, FakeRanker
from llm_blender.types import Instruction, Ranking


class Gated(FakeRanker):
    """A ranker that waits in its first call until `gate` is set.

    Attributes:
        calls: the prompts of each call.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.gate, self.begun, self.calls = threading.Event(), threading.Event(), list[list[Instruction]]()

    def _rank_many(
        self, instructions: Sequence[Instruction], candidates: Sequence[Sequence[str]], options: RankOptions
    ) -> list[Ranking]:
        self.calls.append(list(instructions))
        self.begun.set()
        assert self.gate.wait(10)
        return super()._rank_many(instructions, candidates, options)

    def _comparer(self, instructions: Sequence[Instruction], candidates: Sequence[Sequence[str]]) -> Compare:
        if any("break" in texts for texts in candidates):
            raise InputError("It breaks.")
        return super()._comparer(instructions, candidates)


async def wait(ranker: Gated, tasks: int = 0) -> None:
    """Wait until the ranker is busy, and `tasks` others have come."""
    await asyncio.to_thread(ranker.begun.wait, 10)
    for _ in range(2 + tasks):
        await asyncio.sleep(0)


def start(ranker: Gated, name: str, texts: Sequence[str], **options: Any) -> asyncio.Task[list[Ranking]]:
    return asyncio.create_task(arank_best(ranker, [name], [texts], **options))


def plain(ranking: Ranking) -> str:
    """Return all of a ranking as text, in which the logits of pairs that were not compared are equal."""
    return f"{ranking} {ranking.logits.tolist()}"


def test_what_comes_while_the_ranker_is_busy_is_one_batch_with_the_rankings_of_each_alone() -> None:
    rows = [[f"{'x' * (7 * i % 5)}{n}" for n in range(1 + i % 4)] + ["same", "same"] for i in range(9)]

    async def run(ranker: Gated) -> list[Ranking]:
        tasks = [start(ranker, "0", rows[0])]
        await wait(ranker)
        tasks += [start(ranker, str(i), texts) for i, texts in enumerate(rows) if i]
        await wait(ranker)
        ranker.gate.set()
        return [ranking for (ranking,) in await asyncio.gather(*tasks)]

    ranker = Gated(noise=1.0)
    together = asyncio.run(run(ranker))
    assert ranker.calls == [["0"], [str(i) for i in range(1, 9)]]
    alone = [FakeRanker(noise=1.0).rank(str(i), texts) for i, texts in enumerate(rows)]
    assert list(map(plain, together)) == list(map(plain, alone))


def test_the_rankings_of_the_bundled_ranker_do_not_depend_on_the_batch() -> None:
    ranker = load_ranker("bundled")
    rows = [[f"The answer is {'very ' * (3 * i + n)}long." for n in range(2 + i)] for i in range(3)]

    async def run() -> list[Ranking]:
        ranked = await asyncio.gather(*(arank_best(ranker, [f"Ask {i}."], [row]) for i, row in enumerate(rows)))
        return [ranking for (ranking,) in ranked]

    alone = [ranker.rank_many([f"Ask {i}."], [row])[0] for i, row in enumerate(rows)]
    for one, other in zip(asyncio.run(run()), alone, strict=True):
        assert one.order == other.order
        assert one.scores == pytest.approx(other.scores, abs=1e-3)  # a logit at the edge of a rounding is 1e-4 away


def test_other_options_are_another_batch_and_the_oldest_comes_first() -> None:
    async def run(ranker: Gated) -> None:
        tasks = [start(ranker, "first", ["a", "bb"])]
        await wait(ranker)
        for i, strategy in enumerate(["full", "knockout", "full", "knockout"]):
            tasks.append(start(ranker, f"{strategy} {i}", ["a", "bb"], strategy=strategy))
        tasks.append(start(ranker, "full, best only", ["a", "bb"], k=1, strategy="full"))
        await wait(ranker)
        ranker.gate.set()
        await asyncio.gather(*tasks)

    ranker = Gated()
    asyncio.run(run(ranker))
    assert ranker.calls == [["first"], ["full 0", "full 2"], ["knockout 1", "knockout 3"], ["full, best only"]]


def test_a_batch_is_bounded_and_a_long_request_delays_no_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_batcher, "MOST_CHARS", 10)

    async def run(ranker: Gated) -> None:
        long = start(ranker, "long", ["a" * 6, "b" * 6])
        await wait(ranker)
        tasks = [start(ranker, name, ["a", "bbb"]) for name in "pqrst"]
        while len(ranker.calls) < 2:  # beside the long one, which is not over
            await asyncio.sleep(0.001)
        ranker.gate.set()
        await asyncio.gather(long, *tasks)

    ranker = Gated()
    asyncio.run(run(ranker))
    assert [len(prompts) for prompts in ranker.calls] in ([1, 1, 2, 2], [1, 2, 2, 1])


def test_an_error_reaches_its_own_request_only() -> None:
    async def run(ranker: Gated) -> list[Any]:
        tasks = [start(ranker, "first", ["a", "bb"])]
        await wait(ranker)
        tasks += [start(ranker, name, ["a", name]) for name in ("good", "break", "well")]
        await wait(ranker)
        ranker.gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    ranker = Gated()
    _, good, broken, well = asyncio.run(run(ranker))
    assert (good[0].best, well[0].best) == (1, 1)
    assert isinstance(broken, InputError)
    assert ranker.calls[1:] == [["good", "break", "well"], ["good"], ["break"], ["well"]]


def test_a_request_whose_client_has_gone_is_not_computed() -> None:
    async def run(ranker: Gated) -> None:
        tasks = [start(ranker, "first", ["a", "bb"])]
        await wait(ranker)
        tasks += [start(ranker, name, ["a", "bb"]) for name in ("gone", "here")]
        await wait(ranker)
        tasks[1].cancel()
        await asyncio.gather(tasks[1], return_exceptions=True)
        ranker.gate.set()
        await asyncio.gather(tasks[0], tasks[2])

    ranker = Gated()
    asyncio.run(run(ranker))
    assert ranker.calls == [["first"], ["here"]]


def test_a_batch_ends_once_all_its_clients_have_gone() -> None:
    reports: list[tuple[int, int]] = []

    async def run(ranker: Gated) -> None:
        task = start(
            ranker, "first", ["a", "bb", "ccc"], strategy="full", progress=lambda *given: reports.append(given)
        )
        await wait(ranker)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        ranker.gate.set()
        await arank_best(ranker, ["next"], [["a", "bb"]])

    asyncio.run(run(Gated()))
    assert reports == []


def test_each_request_has_its_own_progress() -> None:
    reports: dict[str, list[tuple[int, int]]] = {"first": [], "two": [], "four": []}

    def begin(ranker: Gated, name: str, texts: Sequence[str]) -> asyncio.Task[list[Ranking]]:
        return start(ranker, name, texts, strategy="full", progress=lambda *given: reports[name].append(given))

    async def run(ranker: Gated) -> None:
        tasks = [begin(ranker, "first", ["a", "bb"])]
        await wait(ranker)
        tasks += [begin(ranker, "two", ["a", "bb"]), begin(ranker, "four", ["a", "bb", "ccc", "dddd"])]
        await wait(ranker)
        ranker.gate.set()
        await asyncio.gather(*tasks)

    asyncio.run(run(Gated()))
    assert reports["first"][-1] == (2, 2)
    for name, share in {"two": 5, "four": 10}.items():
        assert reports[name][-1] == (share, share)  # of 2 + 12 comparisons, by the number of candidates


def test_requests_of_two_event_loops_share_a_batch() -> None:
    ranker = Gated()
    threads = [
        threading.Thread(target=lambda name=name: asyncio.run(arank_best(ranker, [name], [["a", "bb"]])))
        for name in "abc"
    ]
    threads[0].start()
    ranker.begun.wait(10)
    for thread in threads[1:]:
        thread.start()
    end = time.monotonic() + 10
    while sum(map(len, rank_batcher._batcher._waiting.values())) < 2:
        assert time.monotonic() < end
        time.sleep(0.001)
    ranker.gate.set()
    for thread in threads:
        thread.join()
    assert [sorted(call) for call in ranker.calls] == [["a"], ["b", "c"]]
    while rank_batcher._batcher._waiting:  # an idle ranker has no thread
        assert time.monotonic() < end
        time.sleep(0.001)


def test_llm_judges_rank_side_by_side() -> None:
    llm = FakeLLM("judge", "A", delay=0.05)

    async def run(judge: LLMJudge) -> None:
        await asyncio.gather(*(arank_best(judge, [str(i)], [["a", "b"]], strategy="full") for i in range(3)))

    asyncio.run(run(LLMJudge(llm)))
    assert llm.most_at_once > 2


@pytest.mark.parametrize("rank", ["ask", "documents"])
def test_prompts_of_an_ensemble_share_batches(rank: str) -> None:
    ranker = Gated()
    ranker.evidence_weights = EvidenceWeights(two=Weights(length=1.0))
    members = [Member(FakeLLM(name, name)) for name in ("a", "bb")]
    ensemble = Ensemble(members, ranker, evidence=rank == "ask")

    def ask(prompt: str) -> Callable[[], Any]:
        return ensemble.aask(prompt) if rank == "ask" else ensemble.arank(prompt, ["a", "bb"])

    async def run() -> None:
        tasks = [asyncio.create_task(ask("first"))]
        while not ranker.begun.is_set():
            await asyncio.sleep(0.001)
        tasks += [asyncio.create_task(ask(prompt)) for prompt in ("second", "third")]
        with suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await asyncio.gather(*map(asyncio.shield, tasks))
        ranker.gate.set()
        await asyncio.gather(*tasks)

    asyncio.run(run())
    assert [len(prompts) for prompts in ranker.calls] == [1, 2]
