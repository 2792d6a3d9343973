"""The pace of calls, with a clock that jumps to the next timer, and servers that limit calls in several ways."""

from __future__ import annotations

import asyncio
import math
import random
from itertools import pairwise

import pytest

from llm_blender.llms.pacing import Backoff, BusyError, Load, Pacer, was_queued

from ..clock import now, simulate

STEADY = Backoff(jitter=lambda: 1.0)


class Server:
    """A server that accepts `rate` calls a second; it saves up, or counts windows of a second that slide or not."""

    def __init__(self, kind: str, rate: float, retry_after: float | None, seconds: float) -> None:
        self.kind, self.rate, self.retry_after, self.seconds = kind, rate, retry_after, seconds
        self.accepted: list[float] = []
        self.refused: list[float] = []
        self.most = self.saved = rate  # calls of a bucket
        self.last, self.noise = math.inf, random.Random(0)

    async def answer(self) -> bool:
        await asyncio.sleep(self.noise.random() / 100)
        time = now()
        if not self._accepts(time):
            self.refused.append(time)
            return False
        self.accepted.append(time)
        await asyncio.sleep(self.seconds * (0.5 + self.noise.random()))
        return True

    def _accepts(self, time: float) -> bool:
        match self.kind:
            case "bucket":
                self.saved = min(self.most, self.saved + max(0.0, time - self.last) * self.rate)
                self.last = time
                self.saved -= (accepts := self.saved >= 1)
                return accepts
            case "sliding":
                return len(self.accepted) < self.rate or self.accepted[-int(self.rate)] <= time - 1
            case _:
                return len(self.accepted) < self.rate or self.accepted[-int(self.rate)] < math.floor(time)


async def job(server: Server, calls: int, places: int, pacer: Pacer | None = None) -> Pacer:
    pacer = pacer or Pacer(places, backoff=Backoff(jitter=random.Random(0).random))
    waiting = iter(range(calls))

    async def work() -> None:
        for _ in waiting:
            answered = first = False
            while not answered:
                async with pacer.place(first=first) as place:
                    if answered := await server.answer():
                        place.succeed()
                    else:
                        place.refuse(server.retry_after)
                first = True

    await asyncio.gather(*(work() for _ in range(places)))
    return pacer


@pytest.mark.parametrize("kind", ["bucket", "sliding", "fixed"])
@pytest.mark.parametrize("seconds", [0.02, 0.5])
def test_a_job_runs_at_the_rate_of_its_server(kind: str, seconds: float) -> None:
    server = Server(kind, 15, 1.0, seconds)

    async def whole() -> float:
        began = now()
        await job(server, 300, 64)
        late = [time for time in server.refused if time > began + 3]
        assert len(late) <= 0.05 * len([time for time in server.accepted if time > began + 3])
        return now() - began

    assert simulate(whole) <= 1.15 * 300 / 15


@pytest.mark.parametrize("kind", ["bucket", "sliding", "fixed"])
def test_without_retry_after_a_job_finds_the_rate_too(kind: str) -> None:
    server = Server(kind, 15, None, 0.1)
    simulate(lambda: job(server, 300, 64))
    assert len(server.refused) < 80
    assert server.accepted[-1] - server.accepted[0] < 2.5 * 300 / 15


@pytest.mark.parametrize("retry_after", [None, 1.0, 5.0])
def test_a_server_that_saves_up_a_minute_is_asked_at_the_rate_that_lasts(retry_after: float | None) -> None:
    server = Server("bucket", 1, retry_after, 0.3)
    server.most = server.saved = 60
    simulate(lambda: job(server, 300, 64))
    assert len(server.refused) < 30
    assert server.accepted[-1] - server.accepted[0] < 1.5 * 240


def test_a_long_job_stays_at_the_rate() -> None:
    server = Server("sliding", 15, 1.0, 0.2)
    simulate(lambda: job(server, 3000, 64))
    assert server.accepted[-1] - server.accepted[0] < 1.15 * 3000 / 15
    assert len(server.refused) < 100


def test_a_server_that_accepts_more_by_now_gets_more() -> None:
    server = Server("bucket", 5, 1.0, 0.02)

    async def both() -> float:
        pacer = await job(server, 50, 16)
        server.rate = server.most = 50
        began = now()
        await job(server, 1500, 16, pacer)
        return now() - began

    assert simulate(both) < 1500 / 5 / 2


async def refuse(pacer: Pacer, retry_after: float | None = None) -> None:
    async with pacer.place() as place:
        place.refuse(retry_after)


def test_a_refusal_closes_it_for_all_calls() -> None:
    async def work() -> None:
        pacer = Pacer(8)
        assert pacer.load == Load(8)
        await refuse(pacer, 30.0)
        assert pacer.load == Load(4, closed_for=30.0, wait=30.0)
        began = now()
        times: list[float] = []

        async def call() -> None:
            async with pacer.place() as place:
                times.append(now() - began)
                place.succeed()

        await asyncio.gather(*(call() for _ in range(3)))
        assert times[0] == pytest.approx(30.0)
        assert times[1] > 30.05  # not all at once
        assert times == sorted(times)

    simulate(work)


def test_pauses_without_retry_after_double_and_end_with_an_answer() -> None:
    async def work() -> list[float]:
        pacer, pauses = Pacer(8, backoff=STEADY), []
        for _ in range(3):
            await refuse(pacer)
            pauses.append(pacer.load.closed_for)
        async with pacer.place() as place:
            place.succeed()
        await refuse(pacer)
        return [*pauses, pacer.load.closed_for]

    assert simulate(work) == pytest.approx([0.5, 1.0, 2.0, 0.5])


def test_a_pause_that_is_too_short_again_and_again_becomes_longer() -> None:
    async def work() -> list[float]:
        pacer, pauses = Pacer(8, backoff=STEADY), []
        for _ in range(4):
            await refuse(pacer, 0.01)
            pauses.append(pacer.load.closed_for)
        return pauses

    assert simulate(work) == pytest.approx([0.01, 0.5, 1.0, 2.0])


def test_refusals_of_calls_under_way_count_once() -> None:
    async def work() -> None:
        pacer = Pacer(16)

        async def call(seconds: float) -> None:
            async with pacer.place() as place:
                await asyncio.sleep(seconds)
                place.refuse(1.0)

        await asyncio.gather(*(call(0.01 * number) for number in range(16)))
        assert pacer.load.places == 8
        assert pacer.load.closed_for == pytest.approx(1.0)

    simulate(work)


def test_places_grow_back_one_for_each_round_of_answers() -> None:
    async def work() -> list[int]:
        pacer, places = Pacer(8), []
        await refuse(pacer, 1.0)
        for _ in range(60):
            async with pacer.place() as place:
                place.succeed()
            places.append(pacer.load.places)
        return places

    places = simulate(work)
    assert places[:4] == [4, 4, 4, 4]
    assert places[5] == 5
    assert places[-1] == 8
    assert max(places) == 8


def test_a_call_that_would_wait_too_long_fails_at_once() -> None:
    async def work() -> None:
        pacer = Pacer(2)
        await refuse(pacer, 100.0)
        began = now()
        with pytest.raises(BusyError) as caught:
            async with pacer.place(patience=60.0):
                pass
        assert (now() - began, caught.value.wait) == (0.0, pytest.approx(100.0))

    simulate(work)


def test_a_call_in_the_queue_fails_when_a_refusal_makes_the_wait_too_long() -> None:
    async def work() -> None:
        pacer = Pacer(1)

        async def hold() -> None:
            async with pacer.place() as place:
                await asyncio.sleep(5.0)
                place.refuse(100.0)

        async def wait() -> float:
            with pytest.raises(BusyError) as caught:
                async with pacer.place(patience=60.0):
                    pass
            return caught.value.wait

        began = now()
        _, wait_left = await asyncio.gather(hold(), wait())
        assert now() - began == pytest.approx(5.0)
        assert wait_left == pytest.approx(100.0)

    simulate(work)


def test_waiting_for_a_free_place_has_no_limit() -> None:
    async def work() -> None:
        pacer = Pacer(1)

        async def call() -> None:
            async with pacer.place(patience=1.0):
                await asyncio.sleep(100.0)

        clock = asyncio.get_running_loop().time
        began = clock()
        await asyncio.gather(*(call() for _ in range(3)))
        assert clock() - began == pytest.approx(300.0)

    simulate(work)


@pytest.mark.parametrize("rpm", [60, 120])
def test_calls_a_minute_are_spread_evenly(rpm: int) -> None:
    async def work() -> list[float]:
        pacer, times = Pacer(50, rpm=rpm), []

        async def call() -> None:
            async with pacer.place() as place:
                times.append(now())
                await asyncio.sleep(3.0)
                place.succeed()

        await asyncio.gather(*(call() for _ in range(20)))
        return times

    times = simulate(work)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert min(gaps) > 0.95 * 60 / rpm
    assert times[-1] - times[0] == pytest.approx(19 * 60 / rpm, rel=0.05)


def test_tokens_a_minute_count_what_the_calls_used() -> None:
    async def work() -> float:
        pacer = Pacer(50, tpm=6000)
        began = now()
        for _ in range(7):
            async with pacer.place(tokens=1000) as place:
                place.succeed(500)
        return now() - began

    assert simulate(work) == pytest.approx(30.0, abs=0.5)


def test_a_cancelled_call_leaves_the_queue() -> None:
    async def work() -> None:
        pacer = Pacer(1)
        started = asyncio.Event()

        queued: list[bool] = []

        async def call() -> None:
            try:
                async with pacer.place():
                    started.set()
                    await asyncio.sleep(10.0)
            except asyncio.CancelledError as error:
                queued.append(was_queued(error))
                raise

        tasks = [asyncio.create_task(call()) for _ in range(3)]
        await started.wait()
        assert pacer.load == Load(1, running=1, waiting=2)
        for task in tasks[:2]:
            task.cancel()
        await asyncio.wait(tasks[:2])
        assert queued == [False, True]
        await tasks[2]
        assert pacer.load == Load(1)

    simulate(work)


def test_a_call_cancelled_as_it_gets_a_place_gives_it_back() -> None:
    async def work() -> None:
        pacer = Pacer(1)

        async def call() -> None:
            async with pacer.place():
                pass

        async with pacer.place():
            task = asyncio.create_task(call())
            await asyncio.sleep(0)
        task.cancel()  # the place is granted, and the call has not run since
        await asyncio.gather(task, return_exceptions=True)
        assert pacer.load == Load(1)

    simulate(work)
