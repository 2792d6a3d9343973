"""``blend export`` of a LoRA adapter."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llm_blender.cli import app
from llm_blender.errors import CheckpointError, InputError
from llm_blender.fusers import load_fuser
from llm_blender.fusers.embedded_fuser import EmbeddedFuser, Settings
from llm_blender.fusers.gen_fuser import CausalFormat, GenFuser, Lengths
from llm_blender.llms.embedded import EmbeddedLLM

LENGTHS = {"max_length": 400, "candidate_max_length": 40, "max_new_tokens": 24}


def export(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_the_command(adapter: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    given = shutil.copytree(adapter, tmp_path / "adapter")
    (given / "README.md").write_text("# A card")
    out = tmp_path / "fuser"
    result = export(given, out, "--base", tiny_gguf, "--max-new-tokens", 24, "--json")
    assert result.exit_code == 0, result.output
    names = ["README.md", "adapter.gguf", "fuser.json", "tokenizer.json"]
    assert json.loads(result.stdout) == {"output": str(out), "files": [str(out / name) for name in names]}
    settings = Settings.load(out)
    assert (settings.max_length, settings.candidate_max_length, settings.max_new_tokens) == (3584, 512, 24)
    assert settings.base.model == str(tiny_gguf)
    assert settings.chat == ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n")
    llm = EmbeddedLLM("tiny", tiny_gguf, threads=1)
    assert isinstance(load_fuser(out, llms={"tiny": llm}), EmbeddedFuser)


def test_lengths_of_the_training(adapter: Path, tiny_gguf: Path, tiny_llama: Path, tmp_path: Path) -> None:
    from llm_blender.fusers.embedded_fuser.export import export_fuser

    given, trained = shutil.copytree(adapter, tmp_path / "adapter"), Lengths(**LENGTHS)
    trained.save(given)
    export_fuser(given, tmp_path / "x", model="tiny", base=tiny_gguf, max_new_tokens=30)
    settings = Settings.load(tmp_path / "x")
    assert (settings.max_length, settings.candidate_max_length, settings.max_new_tokens) == (400, 40, 30)
    by_torch = GenFuser.from_pretrained(given, device="cpu", max_new_tokens=30)
    assert by_torch.options["max_new_tokens"] == 30
    assert isinstance(by_torch.prompts, CausalFormat)
    assert (by_torch.prompts.max_length, by_torch.prompts.candidate_max_length) == (400, 40)
    (given / "fuser.json").write_text('{"max_length": 1}')
    with pytest.raises(CheckpointError, match=r'fuser\.json: "candidate_max_length" is missing'):
        GenFuser.from_pretrained(given, device="cpu")


def test_options_of_the_other_kind(adapter: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ((adapter, tmp_path / "x", "--backbone", "y"), "has no --backbone"),
        ((adapter, tmp_path / "x", "--max-length", 4000), "reads and writes 4,096 tokens"),
        (("bundled", tmp_path / "x", "--base", "y"), "leave out --base"),
    ):
        result = export(*arguments)
        assert result.exit_code == 2
        assert message in result.stderr
    assert not (tmp_path / "x").exists()


def test_without_its_libraries(adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llm_blender.fusers.embedded_fuser.export", None)
    result = export(adapter, tmp_path / "x")
    assert result.exit_code == 2
    assert "llm-blender[lora]" in result.stderr


def test_templates_that_are_more_than_a_frame(adapter: Path, tiny_gguf: Path, tiny_llama: Path, tmp_path: Path) -> None:
    from llm_blender.fusers.embedded_fuser.export import export_fuser

    given = shutil.copytree(adapter, tmp_path / "adapter")
    for path in tiny_llama.glob("tokenizer*"):
        shutil.copy(path, given)
    template = given / "chat_template.jinja"
    for text, message in (
        ("{{ messages[0]['content'] | upper }}", "changes the user's message"),
        ("{{ raise_exception('no') }}", "refuses a prompt"),
    ):
        template.write_text(text)
        with pytest.raises(CheckpointError, match=message):
            export_fuser(given, tmp_path / "x", model="tiny", base=tiny_gguf, **LENGTHS)
    template.unlink()
    export_fuser(given, tmp_path / "x", model="tiny", base=tiny_gguf, **LENGTHS)
    assert Settings.load(tmp_path / "x").chat is None
    with pytest.raises(InputError, match="own folder"):
        export_fuser(given, given, model="tiny", base=tiny_gguf, **LENGTHS)


def test_an_export_that_fails_leaves_no_fuser(exported: Path, adapter: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    from llm_blender.fusers.embedded_fuser.export import export_fuser

    out = shutil.copytree(exported, tmp_path / "fuser")
    broken = shutil.copytree(adapter, tmp_path / "adapter")
    (broken / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError):
        export_fuser(broken, out, model="tiny", base=tiny_gguf, **LENGTHS)
    with pytest.raises(CheckpointError, match=r"lacks fuser\.json"):
        Settings.load(out)
