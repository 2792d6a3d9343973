"""``blend chat`` with piped lines, and on a terminal."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from llm_blender.testing import FakeReply

pytestmark = pytest.mark.usefixtures("alone")
posix = pytest.mark.skipif(os.name == "nt", reason="signals and terminals of Unix")


def contents(request):
    return [message["content"] for message in request["messages"]]


def test_each_message_sees_the_conversation(blend, ranker, servers):
    a, b = servers(FakeReply("short"), FakeReply("the best"))
    result = blend("chat", "-s", "Be kind.", stdin="One?\n\nTwo?\\\nMore.\n/clear\nThree?\n")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "the best\n" * 3, "")
    for server in (a, b):
        assert [contents(request) for request in server.requests] == [
            ["Be kind.", "One?"],
            ["Be kind.", "One?", "the best", "Two?\nMore."],
            ["Be kind.", "Three?"],
        ]


def test_commands(blend, ranker, servers):
    servers(FakeReply("short"), FakeReply("the best"))
    result = blend(
        "chat", "-n", "2", stdin="/show\n/models\n/nosuch\nOne?\n/show\n/etc/hosts is what?\n/quit\nNever?\n"
    )
    assert result.exit_code == 0
    models, rest = result.stdout.split("the best\n", 1)
    assert models == "a  (fake, 2 samples)\nb  (fake, 2 samples)\n"
    assert rest.startswith("    LLM")
    assert rest.count("b #1") == 2
    assert rest.endswith("\n\nthe best\n")
    assert "there is no answer yet\nunknown command /nosuch; /help lists the commands\n" in result.stderr
    assert "/quit    end, as /exit and Ctrl-D do\n" in blend("chat", stdin="/help\n").stdout
    assert blend("chat", stdin="/exit\nNever?\n").stdout == ""


def test_chats_are_in_the_logs_and_go_on(blend, ranker, servers):
    (server,) = servers(FakeReply("yes"))
    blend("chat", stdin="One?\nTwo?\n")
    blend("chat", "--no-log", stdin="Secret?\n")
    blend("chat", "-c", stdin="Three?\n")
    assert contents(server.requests[-1]) == ["One?", "yes", "Two?", "yes", "Three?"]
    assert [each["prompt"] for each in json.loads(blend("logs", "--json").stdout)] == ["Three?", "Two?", "One?"]


def test_a_message_without_an_answer_ends_the_chat_of_a_pipe_with_1(blend, ranker, servers):
    (server,) = servers(FakeReply("no", status=400))
    result = blend("chat", stdin="One?\nTwo?\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("error: No LLM gave an answer") == 2
    assert "2 of the messages had no answer" in result.stderr
    assert contents(server.requests[-1]) == ["Two?"]


def test_an_option_without_an_effect_is_refused(refuse, servers):
    servers(FakeReply("yes"))
    refuse("chat", "--strategy", "full", message="--strategy does nothing with one answer")


@posix
@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_on_a_terminal_stops_the_answer_and_not_the_chat(servers, tmp_path):
    pty = importlib.import_module("pty")
    servers(FakeReply("more and more ", endless=True, drip=0.02))
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "llm_blender", "chat", "--plain"],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"}, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    shown = b""

    def until(text: bytes) -> None:
        nonlocal shown
        end = time.monotonic() + 20
        while text not in shown:
            assert time.monotonic() < end, shown
            shown += os.read(ours, 65536)
        shown = shown.partition(text)[2]

    try:
        until(b"> ")
        os.write(ours, b"One?\n")
        until(b"more and")
        process.send_signal(signal.SIGINT)
        until(b"stopped")
        until(b"> ")
        os.write(ours, b"/models\n")
        until(b"a  (fake)")
        until(b"> ")  # readline reads now
        os.write(ours, b"\x04")
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert "One?" in (tmp_path / "blend.chat").read_text()
    assert (tmp_path / "blend.chat").stat().st_mode & 0o777 == 0o600
