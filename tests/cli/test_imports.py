"""What is not needed is not imported: the command line and the package start at once."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer

from llm_blender.cli import _COMMANDS, app

HEAVY = (
    *("torch", "transformers", "onnxruntime", "tokenizers", "pyarrow", "xllamacpp", "numpy", "pydantic", "httpx"),
    *("rich", "asyncio", "sqlite3", "openai", "huggingface_hub", "filelock", "platformdirs", "aiohttp", "zstandard"),
)
COMPARED = ("Why is the sky blue?", "Air scatters blue light most.", "I do not know.")


def modules(code, *arguments, cwd):
    """Return the names of the modules that a new process has imported when it ends."""
    report = "import sys; print(*sys.modules, file=sys.stderr)"
    script = f"import sys; sys.argv = ['blend', *{arguments!r}]\ntry:\n  {code}\nfinally:\n  {report}"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=cwd)
    return set(result.stderr.splitlines()[-1].split())


MAIN = "from llm_blender.cli import main; main()"


@pytest.mark.parametrize(
    ("code", "arguments"), [("import llm_blender", []), ("import llm_blender.cli", []), (MAIN, ["--help"])]
)
def test_nothing_heavy_is_imported(tmp_path, code, arguments):
    found = modules(code, *arguments, cwd=tmp_path)
    assert "llm_blender" in found
    assert not found & set(HEAVY)
    own = {name.split(".")[2] for name in found if name.startswith("llm_blender.cli.")}
    assert own <= {"_output"}


def test_a_comparison_imports_what_it_runs(tmp_path):
    found = modules(MAIN, "compare", *COMPARED, cwd=tmp_path)
    assert {"onnxruntime", "tokenizers", "llm_blender.cli.compare"} <= found
    others = {"rich", "asyncio", "sqlite3", "httpx", "huggingface_hub", "numpy.ma", "numpy.random", "unittest"}
    others |= set(HEAVY) - {"onnxruntime", "tokenizers", "numpy", "pydantic", "platformdirs"}
    theirs = modules("import numpy, onnxruntime, tokenizers", cwd=tmp_path)  # old versions import more
    assert not (found - theirs) & others
    own = {name for name in found if name.startswith("llm_blender.")}
    assert not {name.split(".")[1] for name in own} & {"llms", "ensemble", "fusers", "server", "store", "bench", "data"}
    assert len(own) <= 40


@pytest.mark.parametrize("name", _COMMANDS)
def test_the_list_of_commands_has_the_help_of_each(name):
    listed = typer.main.get_command(app).commands[name]
    whole = listed.make_context(name, [], resilient_parsing=True).command
    assert whole.get_short_help_str(limit=1000) == _COMMANDS[name]
