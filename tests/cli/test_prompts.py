"""What people type into ``blend ask``: piped text, files, code, schemas, and options without an effect."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from llm_blender.cli._prompts import code_block
from llm_blender.errors import WorkError
from llm_blender.testing import FakeReply

pytestmark = pytest.mark.usefixtures("alone")


def prompt_of(server):
    return server.requests[-1]["messages"][-1]["content"]


def test_piped_text_follows_the_prompt(blend, ranker, servers):
    (server,) = servers(FakeReply("yes"))
    assert blend("ask", "Explain.", stdin="line 1\nline 2\n").exit_code == 0
    assert prompt_of(server) == "Explain.\n\nline 1\nline 2"
    assert blend("ask", stdin="Only this.\n").exit_code == 0
    assert prompt_of(server) == "Only this."
    assert blend("ask", "Only that.", stdin="\n \n").exit_code == 0
    assert prompt_of(server) == "Only that."


def test_files_follow_under_their_names(blend, ranker, servers, tmp_path):
    (server,) = servers(FakeReply("yes"))
    (tmp_path / "a.py").write_text("print(1)\n")
    (tmp_path / "b.md").write_text("```\nx\n```\n")
    assert blend("ask", "Compare.", "-f", "a.py", "-f", "b.md", stdin="piped").exit_code == 0
    assert prompt_of(server) == ("Compare.\n\npiped\n\na.py:\n```\nprint(1)\n```\n\nb.md:\n````\n```\nx\n```\n````")


def test_an_empty_file_is_named(blend, ranker, servers, tmp_path):
    servers(FakeReply("yes"))
    (tmp_path / "a.txt").write_text("\n")
    result = blend("ask", "Summarise.", "-f", "a.txt", stdin="")
    assert (result.exit_code, result.stderr.count("a.txt is empty")) == (0, 1)


@pytest.mark.parametrize(
    ("data", "message"), [(b"\x89PNG\xff", "pic.png is not UTF-8"), (b"a\0b", "pic.png is not text (byte 1")]
)
def test_a_binary_file_is_refused(refuse, tmp_path, data, message):
    (tmp_path / "pic.png").write_bytes(data)
    refuse("ask", "What is it?", "-f", "pic.png", message=message)


def test_a_pipe_of_a_real_process(servers):
    (server,) = servers(FakeReply("yes"))
    subprocess.run(
        [sys.executable, "-m", "llm_blender", "ask", "Explain."], input=b"piped", check=True, capture_output=True
    )
    assert prompt_of(server) == "Explain.\n\npiped"


CODE = "Here:\n\n```python\nx = 1\n\ny = 2\n```\n\nDone.\n"


def test_code_alone(blend, ranker, servers):
    servers(FakeReply(CODE))
    assert blend("ask", "Code?", "-x").stdout == "x = 1\n\ny = 2\n"
    servers(FakeReply("No code here."))
    result = blend("ask", "Code?", "-x")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no fenced code block" in result.stderr


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("1. Do:\n   ```sh\n   ls\n     -l\n   ```\n", "ls\n  -l\n"),
        ("~~~\na ``` b\n~~~\n", "a ``` b\n"),
        ("````md\n```\nx\n```\n````\n", "```\nx\n```\n"),
        ("```\ncut off", "cut off"),
        ("```a\n1\n```\n```b\n2\n```\n", "1\n"),
    ],
)
def test_the_first_block_of_code(text, code):
    assert code_block(text) == code


@pytest.mark.parametrize("text", ["", "a `b` c", "```one line```"])
def test_no_block_of_code(text):
    with pytest.raises(WorkError):
        code_block(text)


SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}


@pytest.mark.parametrize("given", ["file", "json"])
def test_answers_satisfy_a_schema(blend, ranker, servers, tmp_path, given):
    wrong, right = servers(FakeReply('{"age": "thirty-one years"}'), FakeReply('```json\n{"age": 31}\n```'))
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    result = blend("ask", "Anna is 31.", "--schema", "schema.json" if given == "file" else json.dumps(SCHEMA))
    assert (result.exit_code, result.stdout) == (0, '{"age": 31}\n')
    assert "no answer: a: the answer has the wrong form" in result.stderr
    for server in (wrong, right):
        assert server.requests[0]["response_format"]["json_schema"]["schema"] == SCHEMA


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--schema", "{"], "this is not JSON"),
        (["--schema", '{"type": "text"}'], "error: --schema: the schema is invalid at `type`"),
        (["--schema", "none.json"], "error: There is no file 'none.json'.\n"),
        (["--schema", "{}", "--mode", "fuse"], "--schema works in the mode pick only"),
        (["-x", "--json"], "leave out -x or --json"),
        (["--strategy", "nosuch"], "nosuch"),
        (["--budget", "5", "--strategy", "full"], "--budget does nothing with the strategy full"),
        (["--ranker", "judge:a"], "an LLM judges close calls beside a ranker; see `[ranker] judge`"),
        (["--llm", "a", "--strategy", "full"], "--strategy does nothing with one answer: add another LLM, or -n 2"),
        (["--llm", "a", "--ranker", "longest", "--budget", "9"], "--ranker and --budget do nothing with one answer"),
    ],
)
def test_options_that_have_no_effect_or_are_wrong_are_refused(refuse, servers, args, message):
    servers(FakeReply("one"), FakeReply("three"))
    refuse("ask", "Why?", *args, message=message)


def test_ranker_and_strategy(blend, servers):
    servers(FakeReply("short"), FakeReply("a longer one"), FakeReply("the longest one of all"))
    result = blend("ask", "Why?", "--ranker", "shortest", "--json")
    assert json.loads(result.stdout)["text"] == "short"
    named = blend("ask", "Why?", "--ranker", "longest", "--strategy", "knockout")
    assert named.stdout == "the longest one of all\n"
    assert "--strategy knockout does nothing: the ranker longest scores each answer alone" in named.stderr


def test_the_strategy_is_used(blend, ranker, servers):
    servers(FakeReply("short"), FakeReply("a longer one"))
    result = json.loads(blend("ask", "Why?", "-n", "3", "--strategy", "knockout", "--json").stdout)
    assert (result["ranking"]["strategy"], result["ranking"]["comparisons"]) == ("knockout", 2)


def test_the_judge_cannot_be_the_ranker_too(refuse, servers):
    servers(FakeReply("one"), more='\n[ranker]\njudge = "longest"\n')
    refuse("ask", "Why?", "--ranker", "longest", message="it is the judge of the configuration")


def test_what_a_recording_ignores_is_named(blend, ranker, tmp_path):
    row = {"instruction": "Why?", "candidates": [{"text": "So.", "model": "m"}]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    (tmp_path / "blend.toml").write_text('[[llm]]\nname = "r"\nprovider = "replay"\nrows = "rows.jsonl"\nmodel = "m"\n')
    result = blend("ask", "Why?", "--temperature", "0.5", "--max-tokens", "9")
    assert result.stdout == "So.\n"
    assert "r replays recorded answers: --temperature and --max-tokens not used" in result.stderr


def test_the_system_message(blend, ranker, servers, tmp_path):
    (server,) = servers(FakeReply("yes"))
    assert blend("ask", "Why?", "-s", "Be brief.").exit_code == 0
    assert server.requests[0]["messages"][0] == {"role": "system", "content": "Be brief."}
