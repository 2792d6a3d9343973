"""Schemathesis over the whole OpenAPI: nothing breaks the service, and every answer is of its schema."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("schemathesis")

# Most random names are unknown: let two of three requests get further than that.
HOOKS = """
import schemathesis

@schemathesis.hook
def map_body(context, body):
    if isinstance(body, dict) and isinstance(body.get("model"), str) and len(body["model"]) % 3:
        return {**body, "model": "blend"}
    return body
"""
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
    "negative_data_rejection", "unsupported_method",
)  # fmt: skip


@pytest.mark.slow
def test_nothing_breaks_it(plain, tmp_path: Path):
    (tmp_path / "hooks.py").write_text(HOOKS)
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "schemathesis.cli",
            "run",
            f"{plain.url}/openapi.json",
            "--checks",
            ",".join(CHECKS),
            "--max-examples",
            "30",
            "--seed",
            "1",
            "--no-color",
            "--phases",
            "examples,coverage,fuzzing",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(tmp_path)},
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-20_000:] + result.stderr[-2000:]
    assert plain.http.get("/healthz").status_code == 200
