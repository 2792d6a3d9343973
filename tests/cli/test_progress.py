from __future__ import annotations

import itertools
import time

from llm_blender.cli._progress import progress


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


def test_quick_work_says_nothing(capsys):
    with progress("ranking", "rows") as report:
        report(1, 0)
    assert capsys.readouterr().err == ""


def test_silent(capsys, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with progress("ranking", "rows", show=False) as report:
        report(1, 2)
    assert capsys.readouterr().err == ""
