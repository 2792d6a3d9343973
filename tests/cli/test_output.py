"""Exit codes and streams of the real process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llm_blender.cli import _output

BLEND = """
import sys, time
import llm_blender.rankers
from llm_blender.cli import main
from llm_blender.testing import FakeRanker

class Ranker(FakeRanker):
    def rank_many(self, *args, **options):
        {before}
        return super().rank_many(*args, **options)

llm_blender.rankers.load_ranker = lambda *args, **options: Ranker()
main()
"""


def start(*args: object, before: str = "pass", env: dict[str, str] | None = None, **pipes: int) -> subprocess.Popen:
    command = [sys.executable, "-c", BLEND.format(before=before), *map(str, args)]
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **pipes}
    return subprocess.Popen(command, env={**os.environ, **(env or {})}, **streams)


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    with process:
        try:
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    return process.returncode, (out or b"").decode(), err.decode()


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    row = json.dumps({"instruction": "Q", "candidates": ["a", "bb 🙂" * 50]}, ensure_ascii=False)
    path.write_text(f"{row}\n" * 600, encoding="utf-8")
    return path


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(
    ("number", "code", "line"), [(signal.SIGINT, 130, "interrupted\n"), (signal.SIGTERM, 143, "")], ids=["INT", "TERM"]
)
def test_interrupted_leaves_what_is_done_and_no_output(rows, number, code, line):
    process = start(
        "rank", rows, "-o", rows.parent / "out.jsonl", before="time.sleep(0.01 if not self.batches else 60)"
    )
    until = time.monotonic() + 20
    done = rows.parent / "out.jsonl.job" / "rows.jsonl"
    while not (done.exists() and done.stat().st_size) and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.1)
    process.send_signal(number)
    assert finish(process) == (code, "", line)
    assert sorted(path.name for path in rows.parent.iterdir()) == ["out.jsonl.job", "rows.jsonl"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux")
@pytest.mark.parametrize("arguments", [("models", "list"), ("compare", "Q", "a", "b"), ("rank", "rows.jsonl", "-o-")])
def test_a_full_disk_under_standard_output_is_an_error_with_its_fix(rows, monkeypatch, arguments):
    monkeypatch.chdir(rows.parent)
    with Path("/dev/full").open("w") as full:
        code, _, err = finish(start(*arguments, stdout=full))
    assert code == 1
    assert re.fullmatch(r"error: .*(disk is full|No space left).*\n", err)
    assert "unexpected" not in err


@pytest.mark.skipif(os.name == "nt", reason="pipes")
def test_a_closed_pipe_is_quiet(rows):
    process = start("rank", rows)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    with process:
        assert process.wait(timeout=30) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_standard_output_is_utf_8_whatever_the_locale(rows):
    code, out, _ = finish(start("rank", rows, env={"PYTHONIOENCODING": "ascii"}))
    assert code == 0
    assert json.loads(out.splitlines()[0])["candidates"][1].startswith("bb 🙂")


def test_what_nobody_foresaw_is_one_line(rows):
    code, out, err = finish(start("rank", rows, before='raise ZeroDivisionError("by\\nzero")'))
    assert (code, out) == (1, "")
    assert err == "error: unexpected ZeroDivisionError: by zero (run again with LLM_BLENDER_DEBUG=1 to see where)\n"


@pytest.mark.parametrize(
    "error", ["ZeroDivisionError('no')", "__import__('llm_blender.errors').errors.WorkError('no')"]
)
def test_debugging_shows_where(rows, error):
    code, _, err = finish(start("rank", rows, before=f"raise {error}", env={"LLM_BLENDER_DEBUG": "1"}))
    assert code == 1
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: ")


def test_version(blend):
    result = blend("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("llm-blender 1.")


def test_usage_errors(blend):
    assert blend("rnak").exit_code == 2
    assert "Did you mean 'rank'?" in blend("rnak").stderr
    assert blend().exit_code == 2


def test_the_package_is_the_command_too():
    result = subprocess.run([sys.executable, "-m", "llm_blender", "--version"], capture_output=True, text=True)
    assert (result.returncode, result.stdout.startswith("llm-blender 1."), result.stderr) == (0, True, "")


def test_errors_of_the_command_line_look_like_all_others(blend):
    assert blend("rnak").stderr == "error: No such command 'rnak'. Did you mean 'rank'? See `blend --help`.\n"
    assert "Unexpected: is bread; a text with spaces is in quotes; see" in blend("ask", "what", "is", "bread").stderr
    assert "No such option: -5; a text that begins with - comes after --; see" in blend("ask", "-5 + 3?").stderr
    assert "begins with -" not in blend("ask", "--temprature", "3").stderr
    assert blend("What is bread?").stderr.startswith("error: No such command 'What is bread?': `blend ask` asks")
    assert blend("rank", "--nosuch").stderr.startswith("error: No such option: --nosuch")
    assert blend("train").stderr.startswith("Usage: ")


SELECTIONS = ("method", "rows", "quality", "95 %", "against random, 95 %", "comparisons", "against best single", "95 %")
LINES = [
    ("bundled with priors, auto", "120", "71.7", "63.3 to 79.2", "+2.6 to +14.7", "2,400", "+3.3", "-2.5 to +9.2"),
    ("random", "120", "62.8", "57.0 to 68.4", "–", "0", "-8.5", "-13.3 to -3.7"),
    ("best single: falcon-40b-instruct", "120", "71.2", "63.3 to 78.8", "+3.7 to +13.3", "0", "–", "–"),
]


@pytest.fixture
def draw(monkeypatch, capsys):
    """Return a function that prints a table on a terminal of a width, and returns its lines."""
    monkeypatch.setattr(_output, "on_terminal", lambda: True)

    def run(width, columns=SELECTIONS, rows=LINES):
        monkeypatch.setenv("COLUMNS", str(width))
        _output.print_table(columns, rows)
        lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
        assert max(map(len, lines)) <= width
        return lines

    return run


@pytest.mark.parametrize(("width", "parts"), [(60, 3), (80, 2), (120, 1), (200, 1)])
def test_a_wide_table_is_printed_in_parts_and_breaks_no_number_nor_name(draw, width, parts):
    lines = draw(width)
    text = "\n".join(lines)
    assert sum(line.startswith("  method") for line in lines) == text.count("────\n") == parts
    for row in LINES:
        for number in set(row[1:]) - {"–", "0"}:
            assert number in text
    assert text.count("falcon-40b-instruct") == parts
    assert "comparisons" in text


def test_numbers_stand_to_the_right_and_titles_break_at_words(draw):
    lines = draw(80)
    first = next(line for line in lines if "bundled" in line)
    second = next(line for line in lines if line.startswith("  random"))
    assert first.index("+2.6 to +14.7") + len("+2.6 to +14.7") == second.index("–") + 1 == len(first)
    assert [line.split()[-1] for line in lines if "against" in line] == ["against"] * 2
    assert any(line.endswith("random, 95 %") for line in lines)


def test_an_interval_stays_beside_its_value(draw):
    columns = tuple(title.replace("against random, 95 %", "gain") for title in SELECTIONS)
    for width in range(40, 121, 4):
        heads = [line.split() for line in draw(width, columns) if line.startswith("  method")]
        assert not any(head[1:3] == ["95", "%"] for head in heads), width
    assert len(heads) == 1


def test_all_columns_of_names_are_repeated(draw):
    columns = ("file", "metric", "method", "mean", "95 %", "against best candidate", "95 %")
    lines = draw(66, columns, [("dev.jsonl", "rougeL", "answer", "0.1900", "0.1900 to 0.2621", "–", "–")])
    assert sum(line.startswith("  dev.jsonl   rougeL   answer") for line in lines) == 2


@pytest.mark.parametrize("width", [36, 40, 80])
def test_numbers_are_whole_on_a_narrow_terminal(draw, width):
    lines = draw(width, ("a file with a long name", "$", "95 %"), [("/a/long/path" * 4, "0.11", "0.098 to 0.124")])
    assert any("0.11   0.098 to 0.124" in line for line in lines)
    assert "/a/long/path" * 4 in "".join(line[2:].partition("  ")[0].strip() for line in lines)


def test_tables_of_text_and_without_rows(draw):
    assert draw(80, ("name", "path"), [("one [b]", "/x")])[1:4:2] == ["  name      path", "  one [b]   /x"]
    assert any("name" in line for line in draw(80, ("name", "path"), []))
