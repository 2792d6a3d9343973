from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llm_blender.data import read_rows
from llm_blender.errors import StoreError
from llm_blender.jobs import Journal
from llm_blender.store import Store
from llm_blender.testing import FakeOpenAIServer, FakeReply

PRICE = 7e-6  # of each call: 3 and 2 tokens

FAKE_RANKER = """
import llm_blender.rankers
from llm_blender.cli import main
from llm_blender.testing import FakeRanker
llm_blender.rankers.load_ranker = lambda name, **options: FakeRanker()
main()
"""


def reply(body):
    return FakeReply(f"{body['model']} says {body['messages'][-1]['content']}")


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLM_BLENDER_STORE", str(tmp_path / "blend.db"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with FakeOpenAIServer(reply, models=("a", "bb")) as server:
        yield server


@pytest.fixture
def prompts(server, tmp_path):
    configure(server)
    rows = [{"id": f"p{i}", "prompt": f"Question {i}?", "output": "Reference."} for i in range(6)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "in.jsonl"


def configure(server, *, price="price = { input = 1.0, output = 2.0 }", extra="max_tokens = 50", ending=""):
    entries = (
        f'[[llm]]\nname = "{name}"\nmodel = "{name}"\nbase_url = "{server.base_url}"\n{price}\n{extra}\n'
        for name in ("a", "bb")
    )
    Path("blend.toml").write_text("".join(entries) + ending)


def rows(path="out.jsonl"):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_every_prompt_is_answered_in_order(blend, ranker, server, prompts):
    result = blend("run", prompts, "-o", "out.jsonl", "--json")
    assert result.exit_code == 0, result.stderr
    assert [row["id"] for row in rows()] == [f"p{i}" for i in range(6)]
    first = rows()[0]
    assert (first["text"], first["mode"], first["degraded"]) == ("bb says Question 0?", "pick", False)
    assert (first["instruction"], first["output"]) == ("Question 0?", "Reference.")
    assert first["ranking"]["best"] == 1
    summary = json.loads(result.stdout)
    assert summary == {
        "rows": 6,
        "resumed": 0,
        "fused": 0,
        "failed": 0,
        "partial": 0,
        "degraded": 0,
        "cut_off": 0,
        "cost": pytest.approx(12 * 7e-6),
        "unpriced_rows": 0,
        "truncated": 0.0,
        "seconds": summary["seconds"],
        "llms": summary["llms"],
    }
    assert list(summary["llms"]) == ["a", "bb"]
    assert summary["llms"]["bb"] == {
        "answers": 6,
        "failed": 0,
        "reasons": {},
        "usage": {"prompt_tokens": 18, "completion_tokens": 12},
        "cost": pytest.approx(42e-6),
        "seconds": summary["llms"]["bb"]["seconds"],
    }
    assert 0 < summary["llms"]["bb"]["seconds"] < 5
    assert "rows/s, $0.000084" in result.stderr
    assert [len(row.candidates) for row in read_rows("out.jsonl")] == [2] * 6
    assert blend("rank", "out.jsonl", "-o", "ranked.jsonl").exit_code == 0


def test_answers_without_scores_fit_into_parquet(blend, ranker, server, prompts):
    pytest.importorskip("pyarrow")
    result = blend("run", prompts, "-o", "out.parquet")
    assert result.exit_code == 0, result.stderr
    assert [row.candidates[0].text for row in read_rows("out.parquet")] == [f"a says Question {i}?" for i in range(6)]


def test_a_finished_run_does_nothing_again(blend, ranker, server, prompts):
    blend("run", prompts, "-o", "out.jsonl")
    before, calls = Path("out.jsonl").read_bytes(), len(server.requests)
    result = blend("run", prompts, "-o", "out.jsonl")
    assert "6 rows, 6 of them by earlier runs" in result.stderr
    assert (Path("out.jsonl").read_bytes(), len(server.requests)) == (before, calls)
    result = blend("run", prompts, "-o", "out.jsonl", "--seed", 1)
    assert result.exit_code == 2
    assert "out.jsonl.job was begun with other settings (seed: 0 then, 1 now)" in result.stderr
    assert blend("run", prompts, "-o", "out.jsonl", "--seed", 1, "--restart").exit_code == 0
    assert len(server.requests) == 2 * calls


def test_a_finished_run_reads_no_answer_again_and_leaves_its_output_alone(blend, ranker, server, prompts, monkeypatch):
    configure(server, ending="[limits]\nquorum = 1\n")
    server._replies = broken_unless_q3
    first, before = blend("run", prompts, "-o", "out.jsonl", "--json"), Path("out.jsonl").read_bytes()
    read, value_and_line = [], Journal.value_and_line

    def count(self, key):
        if self.path.name == "rows.journal.jsonl":
            read.append(key)
        return value_and_line(self, key)

    monkeypatch.setattr(Journal, "value_and_line", count)

    def same(again):
        old, new = json.loads(first.stdout), json.loads(again.stdout)
        assert {**new, "resumed": 0, "seconds": 0} == {**old, "seconds": 0}
        assert again.stderr.splitlines()[-2:] == first.stderr.splitlines()[-2:]
        assert Path("out.jsonl").read_bytes() == before
        return len(read)

    assert same(blend("run", prompts, "-o", "out.jsonl", "--json")) == 0
    Path("out.jsonl").write_bytes(before[:-2] + b"?\n")
    assert same(blend("run", prompts, "-o", "out.jsonl", "--json")) == 6
    Path("out.jsonl").unlink()
    assert same(blend("run", prompts, "-o", "out.jsonl", "--json")) == 12
    journal = Path("out.jsonl.job/rows.journal.jsonl")  # another answer, such as of a run of an earlier version
    journal.write_bytes(journal.read_bytes().replace(b'"degraded": true', b'"degraded": false', 1))
    assert json.loads(blend("run", prompts, "-o", "out.jsonl", "--json").stdout)["degraded"] == 4
    assert Path("out.jsonl").read_bytes() != before


def append(path, *prompts):
    with Path(path).open("a") as file:
        file.writelines(json.dumps({"id": prompt, "prompt": prompt}) + "\n" for prompt in prompts)


def test_rows_that_were_appended_are_answered_and_the_others_stay(blend, ranker, server, prompts):
    blend("run", prompts, "-o", "out.jsonl")
    before, calls = Path("out.jsonl").read_text(), len(server.requests)
    append(prompts, "More?", "Question 0?")
    result = blend("run", prompts, "-o", "out.jsonl", "--json")
    assert result.exit_code == 0, result.stderr
    assert "8 rows, 6 of them by earlier runs" in result.stderr
    assert Path("out.jsonl").read_text().startswith(before)
    assert [row["id"] for row in rows()][6:] == ["More?", "Question 0?"]
    assert len(server.requests) == calls + 2  # the answers to the other prompt are stored
    assert blend("run", prompts, "-o", "out.jsonl").exit_code == 0
    Path(prompts).write_text(Path(prompts).read_text().replace("Question 3?", "Question 4?"))
    append(prompts, "Even more?")
    result = blend("run", prompts, "-o", "out.jsonl")
    assert result.exit_code == 2
    assert "other settings (prompts: some of the first 8 have changed): use those" in result.stderr
    Path(prompts).write_text('{"prompt": "One?"}')
    assert "(prompts: 8 then, 1 now)" in blend("run", prompts, "-o", "out.jsonl").stderr
    assert len(server.requests) == calls + 2


def test_prompts_that_change_while_they_are_answered_are_an_error(blend, ranker, server, prompts):
    def change(body):
        if body["messages"][-1]["content"] == "Question 0?":
            Path("new.jsonl").write_text(Path(prompts).read_text().replace("Question 1?", "Question 2?"))
            Path("new.jsonl").replace(prompts)
        return FakeReply("no", status=400) if "5" in body["messages"][-1]["content"] else reply(body)

    server._replies = change
    result = blend("run", prompts, "-o", "out.jsonl")
    assert result.exit_code == 1
    assert "The prompts were changed during the run: restore them" in result.stderr
    assert len(Path("out.jsonl.job/rows.journal.jsonl").read_text().splitlines()) == 6


def test_rows_in_which_something_failed_are_tried_again(blend, ranker, server, prompts):
    def broken(body):
        prompt = body["messages"][-1]["content"]
        bad = prompt == "Question 1?" or (prompt == "Question 3?" and body["model"] == "a")
        return FakeReply("no", status=400) if bad else reply(body)

    server._replies = broken
    result = blend("run", prompts, "-o", "out.jsonl", "--strict")
    assert result.exit_code == 3
    assert "1 row without an answer, the first: No LLM gave an answer" in result.stderr
    assert "1 row degraded, the first: a: the server refuses" in result.stderr
    assert [row["id"] for row in rows()] == ["p0", "p2", "p3", "p4", "p5"]
    (failed,) = rows("out.jsonl.failed.jsonl")
    assert (failed["id"], failed["instruction"]) == ("p1", "Question 1?")
    assert "(400): no" in failed["reason"]
    calls = len(server.requests)
    server._replies = reply
    result = blend("run", prompts, "-o", "out.jsonl", "--strict")
    assert result.exit_code == 0, result.stderr
    assert len(server.requests) == calls + 3  # two LLMs of one row, one of the other
    assert [row["degraded"] for row in rows()] == [False] * 6
    assert not Path("out.jsonl.failed.jsonl").exists()


def broken_unless_q3(body):
    fine = body["model"] == "bb" or body["messages"][-1]["content"] == "Question 3?"
    return reply(body) if fine else FakeReply("no", status=401)


def test_llms_that_fail_are_counted_over_all_rows(blend, ranker, server, prompts):
    configure(server, ending="[limits]\nquorum = 1\n")
    server._replies = broken_unless_q3
    result = blend("run", prompts, "-o", "out.jsonl", "--json")
    assert result.exit_code == 0
    assert "a: 5 of 6 calls failed (auth: the server wants a key" in result.stderr
    assert "bb:" not in result.stderr
    summary = json.loads(result.stdout)
    assert (summary["rows"], summary["failed"], summary["partial"], summary["degraded"]) == (6, 0, 0, 5)
    of_a = summary["llms"]["a"]
    assert (of_a["answers"], of_a["failed"], of_a["reasons"]) == (1, 5, {"auth": 5})
    assert (summary["llms"]["bb"]["answers"], summary["llms"]["bb"]["failed"]) == (6, 0)
    again = blend("run", prompts, "-o", "out.jsonl", "--json")
    assert json.loads(again.stdout)["llms"] == summary["llms"]  # rows of earlier runs count


def test_strict_means_every_llm_and_a_quorum_is_not_retried(blend, ranker, server, prompts):
    configure(server, ending="[limits]\nquorum = 1\n")
    server._replies = lambda body: FakeReply("no", status=400) if body["model"] == "a" else reply(body)
    result = blend("run", prompts, "-o", "out.jsonl", "--strict")
    assert result.exit_code == 3
    assert "a: 6 of 6 calls failed (bad_request: the server refuses the request (400): no)" in result.stderr
    assert "6 rows degraded and not retried, as the quorum of LLMs had answered" in result.stderr
    assert all(row["degraded"] for row in rows())
    calls = len(server.requests)
    assert blend("run", prompts, "-o", "out.jsonl", "--strict").exit_code == 3
    assert len(server.requests) == calls


def test_samples_of_one_llm_are_no_quorum_of_two(blend, ranker, server, prompts):
    configure(server, extra="max_tokens = 50\nsamples = 2", ending="[limits]\nquorum = 2\n")
    server._replies = lambda body: FakeReply("no", status=400) if body["model"] == "a" else reply(body)
    summary = json.loads(blend("run", prompts, "-o", "out.jsonl", "--json").stdout)
    assert (summary["partial"], summary["degraded"], summary["llms"]["a"]["failed"]) == (6, 6, 12)


def test_an_llm_that_fails_from_the_beginning_is_named_early(blend, ranker, server, prompts):
    server._replies = lambda body: FakeReply("no", status=401) if body["model"] == "a" else reply(body)
    result = blend("run", prompts, "-o", "out.jsonl", "--concurrency", 1)
    early = "the first calls failed: a (5 times): the server wants a key"
    assert early in result.stderr
    assert result.stderr.index(early) < result.stderr.index("6 rows")
    server._replies = broken_unless_q3
    assert "the first calls failed" not in blend("run", prompts, "-o", "out.jsonl", "--concurrency", 1).stderr


def test_the_failure_of_an_llm_that_is_late_as_it_tries_again_is_its_own(blend, ranker, server, prompts):
    configure(server, ending="[limits]\nquorum = 1\ngrace = 0.1\n")
    server._replies = lambda body: FakeReply("overload", status=500) if body["model"] == "a" else reply(body)
    result = blend("run", prompts, "-o", "out.jsonl", "--json")
    assert json.loads(result.stdout)["llms"]["a"]["reasons"] == {"server": 6}
    assert "a: 6 of 6 calls failed (server: " in result.stderr
    assert "overload; no answer within 0.1 s after the quorum of 1 had answered)" in result.stderr


def test_answers_that_are_cut_off_are_counted(blend, ranker, server, prompts):
    cut = ("Question 1?", "Question 4?")
    server._replies = lambda body: FakeReply(
        reply(body).text, finish_reason="length" if body["messages"][-1]["content"] in cut else "stop"
    )
    result = blend("run", prompts, "-o", "out.jsonl", "--json")
    assert json.loads(result.stdout)["cut_off"] == 2
    assert "2 answers cut off; raise the LLMs' max_tokens" in result.stderr


def test_nobody_answers(blend, ranker, server, prompts):
    server._replies = lambda body: FakeReply("no", status=400)
    result = blend("run", prompts, "-o", "out.jsonl")
    assert result.exit_code == 1
    assert (
        "No prompt has an answer. a: 6 of 6 calls failed (bad_request: the server refuses the request (400): no); "
        "bb: 6 of 6 calls failed (bad_request" in result.stderr
    )
    assert not Path("out.jsonl").exists()


def test_a_cap(blend, ranker, server, prompts):
    server._replies = lambda body: FakeReply("dear", usage=(10, 50))
    result = blend("run", prompts, "-o", "out.jsonl", "--max-cost", 0.001)
    assert result.exit_code == 1
    assert "more than is left of --max-cost 0.001" in result.stderr
    calls = len(server.requests)
    assert 0 < calls < 12
    assert calls * 110e-6 <= 0.001
    assert blend("run", prompts, "-o", "out.jsonl", "--max-cost", 1).exit_code == 0
    assert len(server.requests) == 12


@pytest.mark.parametrize("setting", [{"price": ""}, {"extra": ""}])
def test_a_cap_needs_to_know_what_an_answer_may_cost(blend, elsewhere, ranker, server, prompts, setting):
    configure(server, **setting)
    result = blend("run", prompts, "-o", "out.jsonl", "--max-cost", 1)
    assert result.exit_code == 2
    assert "a: the maximum cost of an answer is unknown, and does not count as zero" in result.stderr
    assert not server.requests
    assert blend("run", prompts, "-o", "out.jsonl", "--max-cost", 1, "--allow-unknown-prices").exit_code == 0


def test_an_llm_on_this_machine_is_free(blend, ranker, server, prompts):
    configure(server, price="", extra="")
    result = blend("run", prompts, "-o", "out.jsonl", "--max-cost", 0.000001, "--json")
    assert (result.exit_code, len(server.requests)) == (0, 12), result.stderr
    assert (json.loads(result.stdout)["cost"], json.loads(result.stdout)["unpriced_rows"]) == (0, 0)


def test_costs_that_are_not_known_are_said_to_be(blend, elsewhere, ranker, server, prompts):
    configure(server, price="")
    result = blend("run", prompts, "-o", "out.jsonl", "--json")
    assert "$0.0000 and 6 calls of unknown price" in result.stderr
    assert json.loads(result.stdout)["unpriced_rows"] == 6


def test_from_standard_input_to_standard_output(blend, ranker, server, prompts):
    result = blend("run", "-", "-o", "-", stdin='{"prompt": "One?"}\n{"prompt": "One?"}\n')
    assert result.exit_code == 0, result.stderr
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == ["row-1", "row-2"]
    assert len(server.requests) == 2  # the same question is the same call
    assert not list(Path().glob("*.job"))


def test_fused_answers(blend, ranker, server, prompts):
    def fusing(body):
        return (
            FakeReply("A much longer fused answer than any.") if "system" in str(body["messages"][0]) else reply(body)
        )

    server._replies = fusing
    result = blend("run", prompts, "-o", "out.jsonl", "--mode", "fuse", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["fused"] == 6
    assert rows()[0]["text"] == "A much longer fused answer than any."


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ("", "in.jsonl holds no prompt"),
        ('{"prompt": "a"}\n{"x": 1}\n', "in.jsonl, line 2: there is no prompt"),
        ('{"prompt": " "}\n', "the prompt is empty"),
        ("not json\n", "line 1: not JSON"),
        ("[]", "in.jsonl holds no prompt"),
        (
            '{"prompt": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}',
            "line 1: `prompt`: Message 0 of the instruction: images are not read: send text",
        ),
    ],
)
def test_wrong_input(blend, ranker, server, prompts, given, error):
    Path("in.jsonl").write_text(given)
    result = blend("run", "in.jsonl", "-o", "out.jsonl")
    assert result.exit_code == 2
    assert error in result.stderr
    assert not server.requests


def test_bad_rows_can_be_left_out(blend, ranker, server, prompts):
    Path("in.jsonl").write_text('{"prompt": "a"}\n{"x": 1}\n')
    result = blend("run", "in.jsonl", "-o", "out.jsonl", "--skip-bad")
    assert result.exit_code == 0
    assert "1 bad row left out, the first: in.jsonl, line 2" in result.stderr
    assert blend("run", "in.jsonl", "-o", "no/out.jsonl").exit_code == 2


def test_a_store_that_cannot_keep_answers_is_one_warning(blend, ranker, server, prompts, monkeypatch):
    def full(*args):
        raise StoreError("planted: full")

    monkeypatch.setattr(Store, "put", full)
    result = blend("run", prompts, "-o", "out.jsonl")
    assert result.exit_code == 0
    assert result.stderr.count("answers were not kept: planted: full") == 1


def test_answers_that_nothing_is_made_of_are_paid_for(blend, ranker, server, prompts):
    def partly_empty(body):
        prompt = body["messages"][-1]["content"]
        empty = prompt == "Question 1?" or (prompt == "Question 2?" and body["model"] == "a")
        return FakeReply("") if empty else reply(body)

    server._replies = partly_empty
    result = blend("run", prompts, "-o", "out.jsonl", "--json")
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert (summary["failed"], summary["partial"]) == (1, 1)
    assert summary["cost"] == pytest.approx(12 * PRICE)
    assert [summary["llms"][name]["cost"] for name in ("a", "bb")] == [pytest.approx(6 * PRICE)] * 2
    again = json.loads(blend("run", prompts, "-o", "out.jsonl", "--json").stdout)
    assert again["cost"] == pytest.approx(len(server.requests) * PRICE)
    assert len(server.requests) == 15


def test_the_fuser_is_paid_for_where_its_text_is_not_used(blend, ranker, server, prompts):
    server._replies = lambda body: FakeReply("no") if "system" in str(body["messages"][0]) else reply(body)
    result = blend("run", prompts, "-o", "out.jsonl", "--mode", "fuse", "--json")
    summary = json.loads(result.stdout)
    assert summary["fused"] == 0
    assert summary["cost"] == pytest.approx(len(server.requests) * PRICE) == pytest.approx(18 * PRICE)
    assert summary["llms"]["a"]["cost"] == pytest.approx(12 * PRICE)


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_a_killed_run_goes_on_and_knows_what_it_has_paid(server, prompts, tmp_path):
    command = [sys.executable, "-c", FAKE_RANKER, "run", prompts, "-o", "out.jsonl", "--concurrency", "1", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    paid = Path("out.jsonl.job/paid.journal.jsonl")

    def killing(body):
        if body["model"] == "bb" and body["messages"][-1]["content"] == "Question 3?":
            while len(paid.read_text().splitlines()) < 7:  # until the answer of the other LLM is here
                time.sleep(0.01)
            os.kill(process.pid, signal.SIGKILL)
        return reply(body)

    server._replies = killing
    try:
        assert process.wait(timeout=120) == -signal.SIGKILL
    finally:
        process.kill()
    assert not Path("out.jsonl").exists()
    assert len(Path("out.jsonl.job/rows.journal.jsonl").read_text().splitlines()) == 3
    with Store(tmp_path / "blend.db") as store:
        stored = len(store)
    assert stored in (6, 7)
    calls = len(server.requests)
    server._replies = reply
    again = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert "6 rows, 3 of them by earlier runs" in again.stderr
    assert len(server.requests) - calls == 12 - stored
    assert [row["id"] for row in rows()] == [f"p{i}" for i in range(6)]
    assert json.loads(again.stdout)["cost"] == pytest.approx((7 + len(server.requests) - calls) * PRICE)


def test_the_record_becomes_the_priors_of_the_next_run(blend, ranker, server, prompts, tmp_path, monkeypatch):
    monkeypatch.setattr("llm_blender.record.LEAST", 6)
    configure(server, ending='[ranker]\npriors = "auto"\n')
    first = blend("run", prompts, "-o", "out.jsonl", "--json")
    assert first.exit_code == 0, first.stderr
    assert json.loads(first.stdout)["priors"] == {"used": False, "rankings": 0, "missing": 6}
    assert "priors" not in first.stderr
    asked = blend("ask", "Question 0?", "--show")
    assert "priors from 6 recorded rankings" in asked.stderr
    second = blend("run", prompts, "-o", "again.jsonl", "--json")
    assert json.loads(second.stdout)["priors"] == {"used": True, "rankings": 6, "missing": 0}
    assert second.stderr.count("priors from 6 recorded rankings") == 1
    assert "priors" in rows("again.jsonl")[0]["ranking"]["evidence"]["parts"]
    monkeypatch.setattr("llm_blender.record.LEAST", 8)
    asked = blend("ask", "Question 7?", "--show")  # the same prompts, run twice, are six
    assert "no priors: 6 rankings of these LLMs are recorded, 2 more are needed" in asked.stderr
    assert json.loads(blend("ask", "Question 7?", "--json").stdout)["priors"]["missing"] == 1


def test_errors_of_rows_of_standard_input_name_it_and_no_temporary_file(blend, ranker, server, prompts):
    given = '{"prompt": "One?"}\n{"x": 1}\n'
    refused = blend("run", "-", "-o", "out.jsonl", stdin=given)
    assert refused.stderr.startswith("error: -, line 2: there is no prompt")
    skipped = blend("run", "-", "-o", "out.jsonl", "--skip-bad", stdin=given)
    assert "1 bad row left out, the first: -, line 2: there is no prompt" in skipped.stderr
