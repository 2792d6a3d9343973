"""What is not needed is not imported: the command line and the package start at once."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "onnxruntime", "tokenizers", "pyarrow", "xllamacpp", "numpy", "pydantic", "httpx")


@pytest.mark.parametrize(
    "code", ["import llm_blender", "import llm_blender.cli", "import sys; sys.argv = ['blend', '--help']; main()"]
)
def test_nothing_heavy_is_imported(code):
    report = f"import sys; print(*(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)"
    run = code.replace("main()", "__import__('llm_blender.cli').cli.main()")
    script = f"try:\n  {run}\nfinally:\n  {report}"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stderr.strip() == ""
