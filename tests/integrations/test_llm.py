"""The plugin for `llm`: `llm -m blend` answers with the ensemble of the configuration."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_blender.testing import FakeOpenAIServer, FakeReply

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "src" / "llm_blender" / "integrations" / "llm.py"
CONFIG = """
llm = [
  {{name = "a", base_url = "{0}", model = "fake"}},
  {{name = "fuser", base_url = "{0}", model = "fake", samples = 0}},
]
fuser = {{name = "chat:fuser", guard = false}}
ranker = {{name = "longest"}}
"""


def test_the_entry_point_names_the_module() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["llm"] == {"blend": "llm_blender.integrations.llm"}
    assert PLUGIN.is_file()


def test_the_module_imports_the_ensemble_only_to_answer() -> None:
    imported = {
        node.module
        for node in ast.parse(PLUGIN.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ImportFrom) and node.module
    }
    assert {name for name in imported if name.startswith("llm_blender")} == {"llm_blender.errors"}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOpenAIServer]:
    pytest.importorskip("llm")

    def reply(request: dict[str, Any]) -> FakeReply:
        if len(request["messages"]) > 1 and "candidate" in json.dumps(request["messages"]).lower():
            return FakeReply("A fused answer.")
        return FakeReply(f"Answer {len(request['messages'])}{'!' * (request['seed'] % 1000 > 0)}.")

    with FakeOpenAIServer(reply) as server:
        (tmp_path / "blend.toml").write_text(CONFIG.format(server.base_url))
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("LLM_BLENDER_STORE", str(tmp_path / "store.db"))
        monkeypatch.setenv("LLM_USER_PATH", str(tmp_path / "llm"))
        yield server


def test_a_prompt_is_answered_and_counted(server: FakeOpenAIServer) -> None:
    from llm_blender.integrations.llm import Blend

    response = Blend().prompt("Hello?", system="Be short.")
    assert response.text() == "Answer 2."
    assert response.response_json["candidates"][0]["model"] == "a"
    assert (response.usage().input, response.usage().output) == (3, 2)
    assert server.requests[0]["messages"][0] == {"role": "system", "content": "Be short."}


def test_a_conversation_goes_on(server: FakeOpenAIServer) -> None:
    from llm_blender.integrations.llm import Blend

    conversation = Blend().conversation()
    conversation.prompt("One?", system="Be short.").text()
    assert conversation.prompt("Two?").text() == "Answer 4."
    contents = [message["content"] for message in server.requests[-1]["messages"]]
    assert contents == ["Be short.", "One?", "Answer 2.", "Two?"]


def test_the_options_choose_samples_and_mode(server: FakeOpenAIServer) -> None:
    from llm_blender.integrations.llm import Blend

    response = Blend().prompt("Hello?", mode="fuse", samples=3)
    assert response.text() == "A fused answer."
    assert len(response.response_json["candidates"]) == 3
    assert len(server.requests) == 4
    with pytest.raises(ValueError, match="mode"):
        Blend().prompt("Hello?", mode="mix").text()


def test_an_image_is_refused(server: FakeOpenAIServer) -> None:
    import llm

    from llm_blender.errors import InputError
    from llm_blender.integrations.llm import Blend

    prompt = llm.Prompt("Hello?", Blend(), attachments=[llm.Attachment(content=b"GIF89a")])
    with pytest.raises(InputError, match="texts only"):
        next(Blend().execute(prompt, False, None, None))


@pytest.mark.slow
def test_the_command_finds_the_plugin(server: FakeOpenAIServer) -> None:
    command = Path(sys.executable).parent / "llm"
    if not command.exists():
        pytest.skip("the command llm is not installed")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([command, *arguments], capture_output=True, text=True, timeout=120, check=False)

    answered = run("-m", "blend", "Hello?")
    assert (answered.returncode, answered.stdout) == (0, "Answer 1.\n"), answered.stderr
    assert run("-c", "And then?").stdout == "Answer 3.\n"
    assert "blend" in run("models", "--options").stdout
    (Path.cwd() / "blend.toml").write_text("llm = 1")
    wrong = run("-m", "blend", "Hello?")
    assert wrong.returncode == 1
    assert "[[llm]]" in wrong.stderr
    assert "Traceback" not in wrong.stderr
