from __future__ import annotations

import functools
import importlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import llm_blender.llms.models
from llm_blender.cli import app
from llm_blender.ensemble import Ensemble, Member
from llm_blender.errors import DownloadError
from llm_blender.llms import local_servers
from llm_blender.llms.models import DEFAULT_MODEL, resolve
from llm_blender.ranking import Priors
from llm_blender.store import Store
from llm_blender.testing import FakeLLM, FakeOpenAIServer, FakeRanker, FakeReply

from .conftest import isolate

PROMPT = "Give three tips for sleeping better."
FAKE_RANKER = """
import llm_blender.rankers
from llm_blender.cli import main
from llm_blender.testing import FakeRanker
llm_blender.rankers.load_ranker = lambda name: FakeRanker()
main()
"""

needs_model = pytest.mark.skipif(
    resolve(DEFAULT_MODEL) is None, reason=f"{DEFAULT_MODEL} is not downloaded: blend models pull {DEFAULT_MODEL}"
)
pytestmark = pytest.mark.usefixtures("alone")
posix = pytest.mark.skipif(os.name == "nt", reason="signals and terminals of Unix")


# The embedded model and the bundled ranker, as on a fresh machine.


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Result]]:
    """Return a function that runs ``blend ask`` on one store, without a configuration."""
    folder = tmp_path_factory.mktemp("fresh")
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, folder)

        def ask(*args: str) -> Result:
            patch.chdir(folder)
            patch.setenv("LLM_BLENDER_STORE", str(folder / "blend.db"))
            return CliRunner().invoke(app, ["ask", *args])

        yield ask


@pytest.fixture(scope="module")
def first(fresh: Callable[..., Result]) -> Result:
    return fresh(PROMPT, "--json")


@needs_model
def test_without_a_configuration_the_embedded_model_answers(first):
    assert first.exit_code == 0
    answer = json.loads(first.stdout)
    assert set(answer) >= {"text", "mode", "degraded", "candidates", "ranking", "failures", "usage", "cost", "seconds"}
    texts = [candidate["text"] for candidate in answer["candidates"]]
    assert len(set(texts)) >= 4
    assert all(text.strip() for text in texts)
    assert answer["text"] == texts[answer["ranking"]["best"]]
    assert {candidate["model"] for candidate in answer["candidates"]} == {DEFAULT_MODEL}
    assert sorted(candidate["rank"] for candidate in answer["candidates"])[0] == 1
    scores = [candidate["score"] for candidate in answer["candidates"]]
    assert len(set(scores)) >= 4
    assert scores[answer["ranking"]["best"]] == max(scores)
    assert (answer["mode"], answer["degraded"], answer["failures"]) == ("pick", False, [])
    assert answer["ranking"]["comparisons"] == 4
    assert answer["usage"]["completion_tokens"] > 100
    assert answer["cost"] == 0


@needs_model
def test_it_says_who_answers_and_how_to_name_others(first):
    advice = first.stderr.splitlines()[0]
    assert f"{DEFAULT_MODEL} answers, a demonstration model" in advice
    assert advice.endswith("blend init")


@needs_model
def test_the_same_seed_finds_the_answers_again(first, fresh):
    again = fresh(PROMPT, "--json")
    before, after = json.loads(first.stdout), json.loads(again.stdout)
    assert [c["text"] for c in after["candidates"]] == [c["text"] for c in before["candidates"]]
    assert after["ranking"] == before["ranking"]
    assert after["usage"] == {"prompt_tokens": 0, "completion_tokens": 0}
    assert "5 of 5 answers come from the store" in again.stderr
    assert "come from the store" not in first.stderr


@needs_model
def test_another_number_of_answers_by_name(first, fresh):
    result = fresh(PROMPT, "--llm", DEFAULT_MODEL, "-n", "2", "--show")
    assert "2 of 2 answers come from the store" in result.stderr
    assert "demonstration" not in result.stderr
    assert result.stdout.count(f".  {DEFAULT_MODEL} #") == 4  # in the table, and over the texts
    assert f"{DEFAULT_MODEL} #2  (temperature 0.4, “You are a helpful assistant. Be brief.”" in result.stdout


@needs_model
@posix
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("seconds", [0.5, 1, 2])  # loading, reading, writing
def test_an_interrupt_stops_the_embedded_model(tmp_path, seconds):
    env = {**os.environ, "GOMP_SPINCOUNT": "1000"}
    process = start("ask", "Tell a very long story.", stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    assert process.stderr is not None
    process.stderr.readline()  # which model answers; Python has started
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    out, err = finish(process, 60)
    assert (process.returncode, out) == (130, b"")
    assert err.splitlines()[-1] == b"interrupted"
    assert b"Traceback" not in err
    assert time.monotonic() - started < 20


def test_a_server_that_runs_here_is_named(blend, ranker, monkeypatch, tmp_path):
    find = local_servers.find_local_servers
    model = tmp_path / "small.gguf"
    model.write_bytes(b"GGUF")  # fails when it runs, after the notes
    monkeypatch.setattr(llm_blender.llms.models, "resolve", lambda name: model)
    monkeypatch.setattr("llm_blender.llms.embedded.resolve", lambda name: model)
    with FakeOpenAIServer(models=["qwen3", "llama3"]) as server:
        port = int(server.base_url.rpartition(":")[2].removesuffix("/v1"))
        monkeypatch.setattr(local_servers, "find_local_servers", functools.partial(find, ports={port: "llama.cpp"}))
        result = blend("ask", PROMPT)
        monkeypatch.setenv("LLM_BLENDER_OFFLINE", "1")
        offline = blend("ask", PROMPT)
    assert "llama.cpp runs here and knows qwen3, llama3: blend init" in result.stderr
    assert result.stdout == ""
    assert "runs here" not in offline.stderr  # no server is probed: OLLAMA_HOST may be anywhere


def test_offline_without_the_model(blend, ranker, monkeypatch, tmp_path):
    monkeypatch.setenv("LLM_BLENDER_OFFLINE", "1")
    monkeypatch.setenv("LLM_BLENDER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(llm_blender.llms.models, "resolve", lambda name: None)
    result = blend("ask", PROMPT)
    assert result.exit_code == 2
    assert result.stdout == ""
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"error: {DEFAULT_MODEL} is not on this machine")
    assert f"blend models pull {DEFAULT_MODEL}" in last


def test_a_model_that_is_not_there_is_fetched(blend, ranker, monkeypatch):
    def pull(name: str, progress: Callable[[int, int], None]) -> Path:
        progress(50, 100)
        raise DownloadError(f"{name} could not be fetched: planted.")

    monkeypatch.setattr(llm_blender.llms.models, "resolve", lambda name: None)
    monkeypatch.setattr(llm_blender.llms.models, "pull", pull)
    result = blend("ask", PROMPT, "--llm", "llama-3.2-1b")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: llama-3.2-1b could not be fetched: planted.\n"


# LLMs of a blend.toml.


def test_the_best_answer_of_several_servers(blend, ranker, servers):
    a, b = servers(FakeReply("short"), FakeReply("a longer one\nof two lines"))
    result = blend("ask", PROMPT, "--seed", 5)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "a longer one\nof two lines\n", "")
    assert a.requests[0]["messages"] == b.requests[0]["messages"] == [{"role": "user", "content": PROMPT}]
    assert a.requests[0]["seed"] == 5


def test_priors_count_beside_the_ranker(blend, ranker, servers, tmp_path):
    servers(FakeReply("short"), FakeReply("a longer one"), more='[ranker]\npriors = "none.json"\n')
    (tmp_path / "learned").mkdir()
    Priors({"a": 20.0}).save(tmp_path / "learned" / "priors.json")
    result = blend("ask", PROMPT, "--priors", "learned/priors.json")
    assert (result.exit_code, result.stdout) == (0, "short\n"), result.stderr
    assert "the priors do not know b" in result.stderr
    missing = blend("ask", PROMPT)
    assert (missing.exit_code, missing.stdout) == (2, "")
    assert "There is no file" in missing.stderr


def test_failing_servers_are_reported_and_the_others_go_on(blend, ranker, servers, tmp_path, monkeypatch):
    monkeypatch.setenv("THE_KEY", "sk-wrong")
    with FakeOpenAIServer(api_key="sk-right") as locked:
        wrong = f'[[llm]]\nname = "locked"\nmodel = "fake"\nbase_url = "{locked.base_url}"\napi_key_env = "THE_KEY"\n'
        down = '[[llm]]\nname = "down"\nmodel = "fake"\nbase_url = "http://127.0.0.1:9/v1"\ntimeout = 2\n'
        servers(FakeReply("used"), more=wrong + down)
        loose = blend("ask", PROMPT, "--json")
        strict = blend("ask", PROMPT, "--strict")
    answer = json.loads(loose.stdout)
    assert (loose.exit_code, answer["text"], answer["degraded"]) == (0, "used", True)
    assert [(f["model"], f["reason"]) for f in answer["failures"]] == [("locked", "auth"), ("down", "connection")]
    assert "no answer: locked: the server refuses the key in THE_KEY (401)" in loose.stderr
    assert "no answer: down: no connection to http://127.0.0.1:9/v1; is the server running?" in loose.stderr
    assert "sk-wrong" not in loose.stderr + loose.stdout
    assert (strict.exit_code, strict.stdout) == (3, "used\n")


def test_if_nobody_answers_it_fails_with_the_reasons(blend, ranker, servers):
    servers(FakeReply("no credit", status=402), FakeReply(" "))
    result = blend("ask", PROMPT)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: No LLM gave an answer: a: ")
    assert "no credit" in result.stderr
    assert result.stderr.count("\n") == 1


def test_identical_answers_are_not_compared(blend, ranker, servers):
    servers(FakeReply("The same.", usage=(3, 1)), FakeReply("The same.\n", usage=(3, 1)))
    work = without_times(blend("ask", PROMPT, "--show").stderr).splitlines()[-1]
    assert work == "all 2 answers are identical, 0.0 s, 8 new tokens, $0.0000"


def test_a_count_of_one_is_singular(blend, ranker, servers):
    servers(
        FakeReply("one", finish_reason="length", usage=(0, 1)), FakeReply("three", finish_reason="length", usage=None)
    )
    stderr = blend("ask", PROMPT, "--llm", "a", "--show").stderr
    assert "cut off at 1 token; raise" in stderr
    assert "0 comparisons (full), 0.0 s, 1 new token, $0.0000" in without_times(stderr)


def test_strict_is_content_with_all_answers(blend, ranker, servers):
    servers(FakeReply("one"), FakeReply("three"))
    assert blend("ask", PROMPT, "--strict").exit_code == 0


def without_times(text: str) -> str:
    return re.sub(r"\d+\.\d s", "0.0 s", text)


def test_show_prints_all_candidates_best_first(blend, elsewhere, ranker, servers):
    servers(FakeReply("short"), FakeReply("longer [b]one[/b]\nof two lines", usage=(12, 1200)))
    result = blend("ask", PROMPT, "--show")
    assert without_times(result.stdout) == (
        "    LLM  P(win)  tokens in    out   time\n"
        "1.  b      1.00         12  1,200  0.0 s\n"
        "2.  a      0.00          3      2  0.0 s\n\n"
        "1.  b\nlonger [b]one[/b]\nof two lines\n\n2.  a\nshort\n\n"
    )
    explained, work = without_times(result.stderr).splitlines()
    assert explained.startswith("P(win): how often a judge would prefer the answer to another candidate")
    assert work == "2 comparisons (full), 0.0 s, 1,217 new tokens, cost unknown"


def test_show_of_one_candidate_has_no_probability(blend, ranker, servers):
    servers(FakeReply("only", usage=None))
    assert without_times(blend("ask", PROMPT, "--show").stdout) == ("    LLM   time\n1.  a    0.0 s\n\n1.  a\nonly\n\n")


def test_show_prints_costs_and_what_comes_from_the_store(blend, ranker, servers):
    servers(FakeReply("only", usage=(100, 200)), more="price = { input = 1.0, output = 10.0 }\n")
    first, again = blend("ask", PROMPT, "--show"), blend("ask", PROMPT, "--show")
    head, line, *_ = without_times(first.stdout).splitlines()
    assert head.split() == ["LLM", "tokens", "in", "out", "time", "cost"]
    assert line.split() == ["1.", "a", "100", "200", "0.0", "s", "$0.0021"]
    assert first.stderr.endswith("300 new tokens, $0.0021\n")
    assert without_times(again.stdout).splitlines()[1] == f"{line}  stored"
    assert again.stderr.endswith(" 0 new tokens, $0.0000\n")


def test_an_answer_that_was_cut_off_is_marked(blend, ranker, servers):
    cut = functools.partial(FakeReply, finish_reason="length")
    servers(cut("a long answer that ends in the", usage=(3, 200)), cut("short", usage=None))
    result = blend("ask", PROMPT, "--show")
    *table, first, second = re.findall(r"^\d\.  .*$", result.stdout, re.MULTILINE)
    assert [line[:6] for line in table] == ["1.  a ", "2.  b "]
    assert all(line.endswith("  cut off") for line in table)
    assert (first, second) == ("1.  a  (cut off at 200 tokens)", "2.  b  (cut off)")
    assert "this answer of a is cut off at 200 tokens; raise its max_tokens\n" in result.stderr
    assert "cut off" in blend("ask", PROMPT).stderr


def test_a_whole_answer_comes_before_one_that_was_cut_off(blend, ranker, servers):
    servers(FakeReply("a long answer that ends in the", finish_reason="length"), FakeReply("whole"), FakeReply("ok"))
    result = blend("ask", PROMPT, "--json")
    assert "cut off" not in result.stderr
    answer = json.loads(result.stdout)
    assert (answer["text"], answer["ranking"]["best"], answer["ranking"]["ranks"]) == ("whole", 1, [3, 1, 2])
    cut, best, other = answer["ranking"]["scores"]
    assert best > other > cut


def test_equal_failures_are_one_note(blend, ranker, servers):
    number = itertools.count(5070)
    with FakeOpenAIServer(lambda body: FakeReply(f"too long: {next(number)} tokens", status=400)) as server:
        long = f'[[llm]]\nname = "small"\nmodel = "fake"\nbase_url = "{server.base_url}"\nsamples = 5\n'
        servers(FakeReply("used"), more=long)
        some, alone = blend("ask", PROMPT), blend("ask", PROMPT, "--llm", "small")
    (line,) = some.stderr.splitlines()
    assert re.match(
        r"no answer: small \(5 times\): the server refuses the request \(400\): too long: 50\d\d tokens$", line
    )
    assert alone.exit_code == 1
    assert alone.stderr.startswith("error: No LLM gave an answer: small (5 times): the server refuses")
    assert alone.stderr.count("too long") == 1


def test_a_question_ends_without_a_full_stop(blend, ranker, servers):
    servers(more='[[llm]]\nname = "down"\nmodel = "fake"\nbase_url = "http://127.0.0.1:9/v1"\ntimeout = 0.2\n')
    assert "running?." not in (stderr := blend("ask", PROMPT).stderr)
    assert stderr.endswith("is the server running?\n")


def test_what_the_ranker_did_not_read_is_noted(blend, servers, monkeypatch):
    class Short(FakeRanker):
        def rank_many(self, *args, **options):
            return [replace(ranking, truncated=0.641) for ranking in super().rank_many(*args, **options)]

    monkeypatch.setattr("llm_blender.rankers.load_ranker", lambda name, **options: Short())
    servers(FakeReply("one"), FakeReply("three"))
    words = "64.1% of the text was too long for the ranker to read"
    result = blend("ask", PROMPT, "--json")
    assert words in result.stderr
    assert json.loads(result.stdout)["ranking"]["truncated"] == 0.641
    assert words in blend("compare", PROMPT, "one", "three").stderr
    follow_up = blend("ask", "And then?", "-c").stderr
    assert "64.1% of the conversation, with its answers, was too long for the ranker to read" in follow_up
    Path("in.txt").write_text("One?\nTwo?\n")
    run = blend("run", "in.txt", "-o", "out.jsonl", "--json")
    assert words in run.stderr
    assert json.loads(run.stdout)["truncated"] == 0.641


@pytest.mark.parametrize("name", ["nosuch", "consensus", "chat:a"])
def test_a_fuser_that_would_not_fuse_is_refused(blend, ranker, servers, name):
    servers(FakeReply("one"), FakeReply("three"))
    Path("in.txt").write_text("One?\n")
    for command in (["ask", PROMPT], ["run", "in.txt", "-o", "out.jsonl"]):
        result = blend(*command, "--fuser", name)
        assert result.exit_code == 2
        assert f"--fuser {name} does nothing in the mode pick: add --mode fuse or --mode auto." in result.stderr
    assert blend("ask", PROMPT, "--fuser", "consensus", "--mode", "auto").exit_code == 0
    assert blend("run", "in.txt", "-o", "out.jsonl", "--fuser", "nosuch", "--mode", "fuse").exit_code == 2


def test_some_of_the_configured_llms(blend, ranker, servers):
    a, b, c = servers(FakeReply("one"), FakeReply("two"), FakeReply("three"))
    assert blend("ask", PROMPT, "--llm", "a", "--llm", "c", "-n", "2").exit_code == 0
    assert [len(server.requests) for server in (a, b, c)] == [2, 0, 2]


def test_another_configuration_file(blend, ranker, servers, tmp_path):
    servers(FakeReply("one"))
    (tmp_path / "blend.toml").rename(tmp_path / "other.toml")
    assert blend("ask", PROMPT, "--config", "other.toml").stdout == "one\n"


def test_the_prompt_from_a_file_and_from_standard_input(blend, ranker, servers, tmp_path):
    (server,) = servers(FakeReply("yes"))
    (tmp_path / "prompt.txt").write_text("¿Qué 🙂?\nline two\n", encoding="utf-8")
    assert blend("ask", "@prompt.txt").exit_code == 0
    assert blend("ask", "-", stdin="مرحبا\n").exit_code == 0
    prompts = [request["messages"][0]["content"] for request in server.requests]
    assert prompts == ["¿Qué 🙂?\nline two", "مرحبا"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([""], "The prompt is empty"),
        ([" \n\t"], "The prompt is empty"),
        (["@bytes.bin"], "bytes.bin is not UTF-8 (byte 2)"),
        (["@missing.txt"], "no file 'missing.txt'; a text that begins with @ is written @@.\n"),
        (["caf\udce9"], "An argument is not UTF-8"),
        ([PROMPT, "--llm", "alhpa"], "Unknown LLM 'alhpa': did you mean 'alpha'?"),
        ([PROMPT, "--llm", ""], "Unknown LLM ''"),
        ([PROMPT, "--llm", "alpha", "--llm", "alpha"], "same name: alpha, alpha"),
        ([PROMPT, "--config", "missing.toml"], "no configuration file missing.toml"),
        ([PROMPT, "-n", "0"], "error: '-n' should be at least 1; see `"),
        ([PROMPT, "--seed", "-1"], "error: '--seed' should be at least 0; see `"),
        (
            [PROMPT, "--mode", "fusee"],
            "error: Invalid value for '--mode': 'fusee' is not one of 'pick', 'fuse', 'auto'; see",
        ),
        ([PROMPT, "--max-tokens", "x"], "error: '--max-tokens' should be a valid integer; see"),
        ([PROMPT, "--llm", "gpt-4o"], "Unknown LLM 'gpt-4o'. Known: alpha, smollm2"),
        ([], "error: Missing argument 'PROMPT'; see `"),
    ],
)
def test_wrong_input(blend, ranker, tmp_path, args, message):
    (tmp_path / "blend.toml").write_text('[[llm]]\nname = "alpha"\nmodel = "x"\nbase_url = "http://127.0.0.1:9/v1"\n')
    (tmp_path / "bytes.bin").write_bytes(b"ab\xff")
    result = blend("ask", *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not any(word in result.stderr for word in ("Value error", "Input should", "Error:"))


@pytest.mark.parametrize("config", ["", '[[llm]]\nname = "alpha"\nmodel = "x"\nbase_url = "http://127.0.0.1:9/v1"\n'])
def test_an_llm_that_is_not_configured_says_where_to_name_it(blend, ranker, tmp_path, config):
    (tmp_path / "blend.toml").write_text(config)
    result = blend("ask", PROMPT, "--llm", "gpt-4o")
    assert result.exit_code == 2
    assert "An LLM behind an API is an [[llm]] with `base_url` in blend.toml, or PROVIDER:MODEL" in result.stderr
    assert "did you mean" not in result.stderr


def test_options_of_the_calls(blend, ranker, tmp_path):
    with FakeOpenAIServer([FakeReply("An answer.")]) as server:
        (tmp_path / "blend.toml").write_text(
            f'[[llm]]\nname = "a"\nmodel = "fake"\nbase_url = "{server.base_url}"\nmax_tokens = 900\n'
            "price = { input = 1, output = 1000 }\n"
        )
        (tmp_path / "system.txt").write_text("Be brief.\n")
        options = ("--temperature", "0.2", "--max-tokens", "50", "--system", "@system.txt")
        assert blend("ask", PROMPT, *options, "--max-cost", "0.1").exit_code == 0
        dear = blend("ask", PROMPT, "--max-cost", "0.1")
    (request,) = server.requests
    assert (request["temperature"], request["max_tokens"]) == (0.2, 50)
    assert request["messages"][0] == {"role": "system", "content": "Be brief."}
    assert dear.exit_code == 1
    assert "cost" in dear.stderr


@pytest.mark.parametrize("known", ["llama3.2:3b", 'odd "\\ 名', None])
def test_the_advice_is_one_line_that_names_better_llms(blend, ranker, monkeypatch, known):
    async def find() -> list[local_servers.LocalServer]:
        return [] if known is None else [local_servers.LocalServer("Ollama", "http://127.0.0.1:11434/v1", (known,))]

    monkeypatch.setattr(local_servers, "find_local_servers", find)
    monkeypatch.setattr("llm_blender.cli.ask.fetch_model", lambda model: None)
    monkeypatch.setattr("llm_blender.ensemble.Ensemble.from_config", _Answering)
    result = blend("ask", PROMPT)
    (advice,) = result.stderr.splitlines()
    assert blend("ask", PROMPT).stderr == result.stderr
    assert advice.endswith(f"Ollama runs here and knows {known}: blend init" if known else "API key, then blend init")


class _Answering(Ensemble):
    """An ensemble with one LLM that answers at once, whatever the configuration."""

    def __init__(self, config: object) -> None:
        super().__init__([Member(FakeLLM("a"))], FakeRanker())


def test_an_unknown_embedded_model_without_a_configuration(blend, ranker):
    result = blend("ask", PROMPT, "--llm", "smollm2-135")
    assert result.exit_code == 2
    assert "did you mean smollm2-135m" in result.stderr


def test_a_key_that_is_not_set(blend, ranker, tmp_path, monkeypatch):
    monkeypatch.delenv("THE_KEY", raising=False)
    member = '[[llm]]\nname = "a"\nmodel = "x"\nbase_url = "http://127.0.0.1:9/v1"\napi_key_env = "THE_KEY"\n'
    (tmp_path / "blend.toml").write_text(member)
    result = blend("ask", PROMPT)
    assert result.exit_code == 2
    assert "environment variable THE_KEY" in result.stderr


# The real process.


def start(*args: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", FAKE_RANKER, *args], stdin=subprocess.DEVNULL, **options)


def finish(process: subprocess.Popen[bytes], seconds: float) -> tuple[bytes, bytes]:
    """Return the output of a process; kill one that does not end."""
    with process:
        try:
            return process.communicate(timeout=seconds)
        finally:
            process.kill()


@posix
@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_keeps_what_is_finished(servers, tmp_path):
    servers(FakeReply("kept"), FakeReply("more and ", endless=True))
    process = start("ask", PROMPT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with Store(tmp_path / "blend.db") as store:
        until = time.monotonic() + 30
        while not len(store) and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = finish(process, 30)
        assert (process.returncode, out, err) == (130, b"", b"interrupted\n")
        assert [call.candidate.text for call in store] == ["kept"]


@posix
def test_a_terminal_shows_progress_and_standard_output_stays_clean(servers):
    pty = importlib.import_module("pty")
    servers(
        FakeReply("one two three four five six", drip=0.1), FakeReply("the longest answer of all of them", drip=0.1)
    )
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    process = start("ask", PROMPT, stdout=subprocess.PIPE, stderr=theirs, env=env)
    os.close(theirs)
    drawn = b""
    while True:
        try:
            block = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not block:
            break
        drawn += block
    os.close(ours)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, b"the longest answer of all of them\n")
    shown = drawn.decode()
    assert "0 of 2; waiting for a, b" in shown
    assert re.search(r"1 of 2, \d+ tokens/s; waiting for b", shown)
    assert "tokens/s" in shown
    assert "comparing" in shown
    assert "2 of 2" in shown
