from __future__ import annotations

import itertools
import time

from llm_blender.cli._progress import _Pace, job_progress, progress, rounded
from llm_blender.jobs import Rows


def test_rates_are_decimals_without_an_exponent():
    assert [rounded(rate) for rate in (0, 0.246, 9.84, 246.2, 12_345.6)] == ["0", "0.25", "9.8", "246", "12,346"]


def test_a_log_gets_a_line_now_and_then(capsys, monkeypatch):
    clock = itertools.count(0, 20)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with progress("ranking", "rows") as report:
        for done in range(0, 5000, 1000):
            report(done, 13_000)
    assert capsys.readouterr().err.splitlines() == [
        "ranking: 1,000/13,000 rows, 25/s, 8 min left",
        "ranking: 3,000/13,000 rows, 38/s, 4 min left",
    ]


def test_the_speed_is_that_of_this_run(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with job_progress("running", "rows") as report:
        now = 40.0
        report(Rows(total=1_000, resumed=900, done=20, failed=4, cost=0.5))
    assert capsys.readouterr().err == "running: 924/1,000 rows, 0.6/s, $0.5000, 4 failed, 2 min left\n"


def test_a_bar_shows_nothing_that_it_does_not_know(monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    pace = _Pace("rows", lambda: "")
    assert pace.text(0.0) == ""
    pace.report(4, 20)
    assert pace.text(0.01) == "4/20 rows"
    assert pace.text(4.0) == "4/20 rows, 1/s, 16 s left"
    pace.report(18, 20, 18)
    assert pace.text(8.0) == "18/20 rows"
    pace.report(3, 0)
    assert pace.text(2.0) == "3 rows, 1.5/s"


def test_quick_work_says_nothing(capsys):
    with progress("ranking", "rows") as report:
        report(1, 0)
    assert capsys.readouterr().err == ""


def test_silent(capsys, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with progress("ranking", "rows", show=False) as report:
        report(1, 2)
    assert capsys.readouterr().err == ""
