from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_blender.config import Config, load_config

TOML = """
limits.quorum = 2
llm = [
    { name = "llama \\"3\\" 🦙", base_url = "http://localhost:11434/v1", model = "llama3.2:3b", \
api_key_env = "BLEND_TEST_KEY", price = { input = 0.0, output = 1.5 }, \
extra = { "top k" = 5, stops = ["a", "b"], think = false } },
    { name = "small", provider = "embedded", model = "smollm2-135m", samples = 4 },
]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my.toml"
    path.write_text(TOML, encoding="utf-8")
    return path


def test_what_is_shown_is_a_configuration(blend, file):
    shown = blend("config", "show", "--config", file).stdout
    assert shown.startswith(f"# {file}\n")
    assert "price = { input = 0.0, output = 1.5 }\n" in shown
    assert Config.from_toml(shown, file) == load_config(file)


def test_of_a_key_only_whether_it_is_set(blend, file, monkeypatch):
    monkeypatch.delenv("BLEND_TEST_KEY", raising=False)
    assert "# BLEND_TEST_KEY is not set" in blend("config", "show", "--config", file).stdout
    monkeypatch.setenv("BLEND_TEST_KEY", "sk-secret")
    for options in ([], ["--json"]):
        result = blend("config", "show", "--config", file, *options)
        assert "sk-secret" not in result.output
    assert json.loads(result.stdout)["llm"][0]["api_key_set"] is True


def test_without_a_file(blend, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert blend("config", "show").stdout.startswith("# no file: these are the defaults\n")
    assert json.loads(blend("config", "show", "--json").stdout)["path"] is None


def test_an_unknown_key_is_refused_in_one_line(blend, tmp_path):
    (tmp_path / "blend.toml").write_text("[ranker]\nbudgte = 3\n")
    result = blend("config", "show")
    assert result.exit_code == 2
    assert result.stderr == 'error: blend.toml: [ranker]: unknown key "budgte"; did you mean "budget"?\n'


def test_a_file_that_is_not_there(blend):
    result = blend("config", "show", "--config", "no.toml")
    assert result.exit_code == 2
    assert "no configuration file no.toml" in result.stderr
