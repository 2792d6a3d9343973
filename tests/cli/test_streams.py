"""Text while it is written, Markdown on a terminal, and the view of who has answered."""

from __future__ import annotations

import importlib
import io
import os
import subprocess
import sys
import time

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from llm_blender.cli._markdown import MarkdownStream, PlainStream, render, split_blocks, text_stream
from llm_blender.cli._watch import Streamed, _View
from llm_blender.testing import FakeReply
from llm_blender.types import Candidate, Failure, Usage

pytestmark = pytest.mark.usefixtures("alone")
posix = pytest.mark.skipif(os.name == "nt", reason="terminals of Unix")


class Pieces:
    """Stream that keeps what it gets."""

    def __init__(self):
        self.pieces, self.closed = [], 0

    def feed(self, piece):
        self.pieces.append(piece)

    def close(self):
        self.closed += 1


@pytest.mark.parametrize(
    ("pieces", "whole"),
    [
        (["One", " two", "\n", "three"], "One two\nthree"),
        (["\n\n", "  One", "  \n", "\n"], "One"),
        ([], "from the store"),
        (["I think", "</think>", "Yes."], "Yes."),
    ],
)
def test_what_is_streamed_is_the_text_once(pieces, whole):
    stream = Pieces()
    streamed = Streamed(stream)
    for piece in pieces:
        streamed.writing(0, piece)
    streamed.finish(whole)
    streamed.close()
    assert "".join(stream.pieces).endswith(whole)
    assert "</think>" in pieces or "".join(stream.pieces) == whole
    assert stream.closed == 1


def test_a_lone_llm_streams_into_a_pipe(servers):
    servers(FakeReply("one two three four", drip=0.2))
    process = subprocess.Popen(
        [sys.executable, "-m", "llm_blender", "ask", "Count."],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        first, begun = os.read(process.stdout.fileno(), 100), time.monotonic()
        rest = process.stdout.read()
        waited = time.monotonic() - begun
    assert first.startswith(b"one")
    assert b"four" not in first
    assert first + rest == b"one two three four\n"
    assert waited > 0.05


def test_a_broken_stream_ends_its_line_and_is_an_error(blend, ranker, servers):
    servers(FakeReply("one two three four", reset_after=3))
    result = blend("ask", "Count.")
    assert result.exit_code == 1
    assert result.stdout in ("one two\n", "one two three\n", "one\n")
    assert "error: No LLM gave an answer: a: " in result.stderr


def test_options_that_want_the_whole_do_not_stream(blend, ranker, servers):
    servers(FakeReply("```\nx\n```"))
    assert blend("ask", "Code?", "-x").stdout == "x\n"
    assert blend("ask", "Code?", "--json").stdout.startswith('{"text"')
    assert blend("ask", "Code?").stdout == "```\nx\n```\n"  # from the store
    assert blend("ask", "Code?", "--show").stdout.count("```") == 2


def drawn(markdown):
    console = Console(file=(file := io.StringIO()), width=60, height=10, force_terminal=True, color_system=None)
    console.print(render(markdown))
    return file.getvalue()


def test_markdown_keeps_verse_and_tags():
    text = drawn("An old pond\nA frog jumps\n\nUse `<b>` or <div> here.\n\n- **bold**")
    assert [line.rstrip() for line in text.splitlines()][:2] == ["An old pond", "A frog jumps"]
    assert "<b> or <div> here." in text
    assert "**" not in text
    assert "• bold" in text


TEXT = "# Head\n\nOne *two*.\n\n1. a\n\n   more of a\n\n2. b\n\n```py\nx = 1\n\ny = 2\n```\n\nLast line"


def test_blocks_are_whole():
    done, rest = split_blocks(TEXT)
    assert (done + rest, rest) == (TEXT, "Last line")
    done, rest = split_blocks("One.\n\n```\nx\n\ny\n")
    assert (done, rest) == ("One.\n\n", "```\nx\n\ny\n")
    assert split_blocks("- a\n\n- b\n\n  c")[0] == ""
    assert split_blocks("One.\n\n")[0] == ""


def test_a_stream_of_markdown_ends_as_the_whole_would():
    file = io.StringIO()
    stream = MarkdownStream(Console(file=file, width=60, height=10, force_terminal=True, color_system=None))
    for start in range(0, len(TEXT), 3):
        stream.feed(TEXT[start : start + 3])
    stream.close()
    text = file.getvalue()
    for part in ("Head", "One two.", "1 a", "more of a", "2 b", "x = 1", "y = 2", "Last line"):
        assert part in text
    assert text.rstrip().endswith("Last line")


@posix
def test_a_terminal_renders_the_answer(servers):
    pty = importlib.import_module("pty")
    servers(FakeReply("It is **bold**."))
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "llm_blender", "ask", "Bold?"],
        stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.DEVNULL, env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    process.wait(30)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert "bold" in shown
    assert "**" not in shown


def test_plain_is_plain_on_a_terminal_too(monkeypatch):
    monkeypatch.setattr("llm_blender.cli._markdown.on_terminal", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(text_stream(plain=True), PlainStream)
    assert isinstance(text_stream(plain=False), MarkdownStream)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(text_stream(plain=False), PlainStream)


def test_the_view_shows_who_has_answered():
    view = _View(Progress(TextColumn("{task.fields[status]}")))
    view.started(["a", "b", "b", "c", "[d]"])
    view.writing(0, "word")
    view.wrote(1, Candidate("text", "b", usage=Usage(1, 1200)), stored=False)
    view.failed(3, Failure("c", "rate_limit", "c: too many"))
    console = Console(file=(file := io.StringIO()), width=80)
    console.print(view.draw())
    a, b, c, d, *_ = file.getvalue().splitlines()
    assert a.split() == ["…", "a", "writing,", "1", "token"]
    assert b.startswith("… b   1 of 2, ")
    assert b.rstrip().endswith("1,200 tokens")
    assert c.split() == ["✗", "c", "rate", "limit"]
    assert d.split() == ["…", "[d]", "waiting"]
    view.wrote(0, Candidate("text", "a"), stored=False)
    assert view.draw().renderables[0].columns[0]._cells[0] == "✓"
