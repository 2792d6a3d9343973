"""What the pages on the service show is run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGE = "\n".join((DOCS / f"{name}.md").read_text(encoding="utf-8") for name in ("service", "playground", "deploying"))
ADDRESS = "http://127.0.0.1:8000"
(VOTING,) = re.findall(r"^```bash\n(url=.*?)^```", PAGE, re.M | re.S)
COMMANDS = [
    command
    for block in re.findall(r"^```bash\n(.*?)^```", PAGE, re.M | re.S)
    for command in re.findall(r"^curl .*?(?=^\S|\Z)", block.replace("\\\n", " ").replace("\n}'", "\n }'"), re.M | re.S)
    if block != VOTING
]


def test_all_commands_are_found():
    assert len(COMMANDS) == PAGE.count("curl -s") - VOTING.count("curl -s") == 15


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl")
@pytest.mark.parametrize("command", COMMANDS)
def test_curl(plain, command):
    command = command.replace(ADDRESS, plain.url).replace("curl -s", "curl --fail-with-body -s", 1)
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    if " -sN " in command:
        assert result.stdout.endswith("data: [DONE]\n\n")
    elif "/metrics" in command:
        assert "blend_requests_total" in result.stdout
    else:
        assert json.loads(result.stdout)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl")
def test_voting(plain):
    script = VOTING.replace(ADDRESS, plain.url).replace("curl -s", "curl --fail-with-body -s")
    result = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    record = json.loads('{"prompt"' + result.stdout.rpartition('{"prompt"')[2])
    assert (record["chosen"][0]["content"], record["rejected"][0]["content"]) == ("A longer answer.", "Short.")


def test_the_client(plain, capsys):
    (code,) = re.findall(r"^```py\n(.*?)^```", PAGE, re.M | re.S)
    names = {}
    exec(compile(code.replace(ADDRESS, plain.url), "page", "exec"), names)
    names["client"].close()
    assert capsys.readouterr().out == "A longer answer. [2, 1]\n"
