"""The table of ``blend ask --show``."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from llm_blender.cli._show import Row, print_rows, sample_names
from llm_blender.ensemble import Member
from llm_blender.testing import FakeLLM, FakeReply

pytestmark = pytest.mark.usefixtures("alone")


def test_long_names_and_remarks_fit_into_80_columns(capsys):
    values = {"usage": {"prompt_tokens": 12345, "completion_tokens": 99999}, "seconds": 123.456, "cost": 1.5}
    print_rows(
        [
            Row(10, "an-llm-with-a-name-that-is-too-long-for-it #12", "0.50", values, ("cut off",)),
            Row(11, "b", "0.20", values, ("answers a text that is too long", "stored")),
            Row(None, "c", remarks=("rate limit, 3 times",)),
        ]
    )
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].startswith("10.  an-llm-with-a-name-that-is-…")
    assert "12,345  99,999  123.5 s  $1.5000" in lines[1]
    assert "     answers a text that is too long; stored" in lines
    assert lines[-1].split() == ["–", "c", "rate", "limit,", "3", "times"] or lines[-1].strip() == "rate limit, 3 times"


def test_samples_have_numbers_and_manners():
    styled = SimpleNamespace(
        name="s",
        identity={"variations": [{"system": None, "temperature": 0.1}, {"system": "Brief.", "temperature": 1.0}]},
    )
    names, manners = sample_names([Member(FakeLLM("a")), Member(FakeLLM("b"), 2), Member(styled, 3)])
    assert names == ["a", "b #1", "b #2", "s #1", "s #2", "s #3"]
    assert manners == ["", "", "", "temperature 0.1", "temperature 1, “Brief.”", "temperature 0.1"]


def test_who_failed_is_in_the_table(blend, ranker, servers):
    servers(FakeReply("short"), FakeReply("no credit", status=402), FakeReply("longer"))
    result = blend("ask", "Why?", "-n", "2", "--show")
    table = result.stdout.partition("\n\n")[0].splitlines()
    assert [line.split()[1] for line in table[1:]] == ["c", "c", "a", "a", "b"]
    assert [line.split()[2] for line in table[1:5]] == ["#1", "#2", "#1", "#2"]
    assert table[-1].startswith("–   b")
    assert table[-1].endswith("2 times")


def test_the_agreement_is_printed(blend, servers):
    servers(FakeReply("The answer is 15."), FakeReply("It is 15."), FakeReply("The answer is 14."))
    result = blend("ask", "What is 7 + 8?", "--show")
    assert "2 of 3 agree on 15" in result.stderr
    assert result.stdout.splitlines()[1].endswith("  answers 15")


def test_different_final_answers_are_no_agreement(blend, servers):
    servers(FakeReply("The answer is 15."), FakeReply("It is 16."), FakeReply("The answer is 14."))
    result = blend("ask", "How much is 7 + 8 here?", "--show")
    assert " answers 15" in result.stdout
    assert "agree" not in result.stderr
