from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from llm_blender.llms.pacing import Backoff, retry_after


def test_pauses_double_up_to_the_longest() -> None:
    backoff = Backoff(attempts=6, first=1.0, longest=5.0, jitter=lambda: 1.0)
    assert [backoff.pause(attempt) for attempt in range(6)] == [1.0, 2.0, 4.0, 5.0, 5.0, None]


def test_jitter_takes_up_to_a_half() -> None:
    assert Backoff(first=1.0, jitter=lambda: 0.0).pause(0) == 0.5
    pauses = [Backoff(first=1.0).pause(0) for _ in range(100)]
    assert all(pause is not None and 0.5 <= pause <= 1.0 for pause in pauses)
    assert len(set(pauses)) > 1


def test_a_longer_wait_that_is_asked_for_is_kept() -> None:
    assert Backoff().pause(0, least=30.0) == 30.0
    assert Backoff(first=1.0, jitter=lambda: 1.0).pause(0, least=0.1) == 1.0
    assert Backoff(attempts=1).pause(0, least=30.0) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        ("120s", 120.0),
        ("2 seconds", 2.0),
        ("1m30s", 90.0),
        ("320ms", 0.32),
        ("1 minute", 60.0),
        ("-1", 0.0),
        ("soon", None),
        ("3 apples", None),
        ("", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": value}) == seconds


@pytest.mark.parametrize(("reset", "seconds"), [("30", 30.0), ("{:.0f}", 60.0), ("{:.0f}000", 60.0), ("soon", None)])
def test_the_reset_of_a_limit_without_a_rest(reset: str, seconds: float | None) -> None:
    later = (datetime.now(UTC) + timedelta(seconds=60)).timestamp()
    headers = {"x-ratelimit-reset": reset.format(later), "x-ratelimit-remaining": "0"}
    assert retry_after(headers) == (None if seconds is None else pytest.approx(seconds, abs=2))
    assert retry_after({**headers, "x-ratelimit-remaining": "3"}) is None
    assert retry_after({**headers, "retry-after": "5"}) == 5.0


def test_retry_after_as_a_date() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert retry_after({"retry-after": later}) == pytest.approx(60, abs=2)
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
    later = (datetime.now(UTC) + timedelta(seconds=60)).isoformat().replace("+00:00", "Z")
    assert retry_after({"retry-after": later}) == pytest.approx(60, abs=2)
    assert retry_after({}) is None
