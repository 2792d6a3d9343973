from __future__ import annotations

import json

import pytest

from llm_blender.llms import models


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Make a cache with one model that the catalogue does not list, and nothing else."""
    monkeypatch.setenv("LLM_BLENDER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LLM_BLENDER_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(models, "installed_file", lambda wheel: None)
    file = models.find("owner/name/file.gguf").target
    file.parent.mkdir(parents=True)
    file.write_bytes(b"GGUF" * 250)
    return file


def test_list_is_a_table_for_other_programs(blend, cache):
    lines = [line.split("\t") for line in blend("models", "list").stdout.splitlines()]
    assert lines[0] == ["name", "size", "licence", "on this machine"]
    assert lines[1] == ["smollm2-135m", "98.4 MB", "Apache-2.0", ""]
    assert lines[-1] == ["owner/name/file.gguf", "1.0 kB", "", str(cache)]


def test_list_fits_a_terminal_of_80_columns(blend, cache, monkeypatch):
    monkeypatch.setattr("llm_blender.cli.models.on_terminal", lambda: True)
    assert blend("models", "list").stdout.splitlines()[-1] == "owner/name/file.gguf\t1.0 kB\t\tyes"


def test_list_as_json(blend, cache):
    listed = json.loads(blend("models", "list", "--json").stdout)
    assert [model["name"] for model in listed[:-1]] == [model.name for model in models.CATALOGUE]
    assert listed[-1] == {"name": "owner/name/file.gguf", "size": 1000, "licence": None, "path": str(cache)}


@pytest.mark.parametrize("command", ["path", "pull"])
def test_where_a_model_is(blend, cache, command):
    assert blend("models", command, "owner/name/file.gguf").stdout == f"{cache}\n"
    result = blend("models", command, "owner/name/file.gguf", "--json")
    assert json.loads(result.stdout) == {"name": "owner/name/file.gguf", "path": str(cache)}


def test_a_model_that_is_not_here(blend):
    result = blend("models", "path", "smollm2-360m")
    assert result.exit_code == 2
    assert "blend models pull smollm2-360m" in result.stderr


def test_a_name_that_leads_nowhere(blend):
    result = blend("models", "pull", "smollm")
    assert result.exit_code == 2
    assert "did you mean smollm2" in result.stderr


def test_pull_reports_bytes(blend, monkeypatch, cache):
    def pull(name, progress):
        progress(500_000, 1_000_000)
        return cache

    monkeypatch.setattr(models, "pull", pull)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "120")
    result = blend("models", "pull", "x")
    assert "0.5/1.0 MB" in result.stderr
    assert result.stdout == f"{cache}\n"
