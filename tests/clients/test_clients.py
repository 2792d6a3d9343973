"""The one-liners of docs/clients.md, each with its client, whose virtual environments `.ci/clients` makes."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
ENVIRONMENTS = os.environ.get("CLIENT_ENVIRONMENTS")
_ROW = re.compile(r"^\| ([^|`]+) \|(?: (`[^|]+`))? \| (`[^|]+`) \|$", re.MULTILINE)


def _words(cell: str) -> str:
    return cell.strip().strip("`")


ROWS = {
    client: (_words(importing), _words(line))
    for client, importing, line in _ROW.findall((ROOT / "docs" / "clients.md").read_text(encoding="utf-8"))
}


def _slug(client: str) -> str:
    return re.sub(r"\W+", "_", client.lower())


def test_every_row_has_a_check_and_every_check_a_row():
    assert len(ROWS) > 15
    assert {_slug(client) for client in ROWS} == {path.stem for path in (FOLDER / "checks").glob("*.*")}


@pytest.mark.skipif(ENVIRONMENTS is None, reason="the clients are not installed: .ci/clients runs this")
@pytest.mark.parametrize("client", ROWS)
def test_a_client(client: str, url: str, tmp_path: Path):
    environment = Path(ENVIRONMENTS or "") / _slug(client.partition(",")[0])
    if (environment / "SKIPPED").exists():
        pytest.skip((environment / "SKIPPED").read_text())
    (check,) = (FOLDER / "checks").glob(f"{_slug(client)}.*")
    importing, line = ROWS[client]
    match check.suffix:
        case ".py":
            command = [environment / "bin" / "python", "-W", "ignore", FOLDER / "run_check.py", importing, line, check]
        case ".sh":
            command = ["bash", "-euo", "pipefail", "-c", check.read_text().replace("ONE_LINER", line)]
        case _:
            program = environment / f"{check.stem}.mjs"  # beside its node_modules
            program.write_text(f"{importing};\nconst url = process.env.OPENAI_BASE_URL;\n{line};\n{check.read_text()}")
            command = ["node", program]
    variables = {
        **{key: value for key, value in os.environ.items() if not key.startswith("PYTHON")},
        "OPENAI_BASE_URL": url,
        "OPENAI_API_KEY": "none",
        "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "url": url,
        "HOME": str(tmp_path),  # no settings of whoever runs this
    }
    result = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=variables, timeout=300, check=False
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    assert result.stdout.rstrip().endswith("passed"), result.stdout
