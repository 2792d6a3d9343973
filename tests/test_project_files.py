"""The files about the project parse, agree with each other, and name files that exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml"))
YAML_FILES = [ROOT / "CITATION.cff", *sorted((ROOT / ".github").rglob("*.yml"))]
PAGES = [ROOT / name for name in ("CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "RELEASING.md", "SECURITY.md")]
PAGES += [ROOT / ".github/pull_request_template.md", ROOT / "examples/README.md"]


def read(path: Path) -> Any:
    return pytest.importorskip("yaml").safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.name)
def test_yaml_parses(path: Path) -> None:
    assert isinstance(read(path), dict)


def test_the_citation_names_the_paper_and_this_version() -> None:
    citation = read(ROOT / "CITATION.cff")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (citation["cff-version"], citation["version"]) == ("1.2.0", project["version"])
    assert citation["license"] == project["license"]
    paper = citation["preferred-citation"]
    assert [author["family-names"] for author in paper["authors"]] == ["Jiang", "Ren", "Lin"]
    assert paper["url"].endswith("2306.02561")


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_issue_forms_have_what_github_requires(path: Path) -> None:
    form = read(path)
    assert form["name"]
    assert form["description"]
    assert all({"type", "id", "attributes"} <= field.keys() for field in form["body"])


def test_workflows_run_commands_that_exist() -> None:
    runs = []
    for path in sorted((ROOT / ".github/workflows").glob("*.yml")):
        for job in read(path)["jobs"].values():
            assert job["runs-on"]
            runs += [step["run"] for step in job["steps"] if "run" in step]
    scripts = [run for run in runs if run.startswith(".ci/")]
    assert scripts == [".ci/run", ".ci/newest"]
    assert all((ROOT / script).stat().st_mode & 0o111 for script in scripts)
    assert "python -m build" in runs


def test_every_session_runs_in_ci() -> None:
    called = set(re.findall(r"^\.ci/(\S+)", (ROOT / ".ci/run").read_text(encoding="utf-8"), re.MULTILINE))
    sessions = {path.name for path in (ROOT / ".ci").iterdir()} - {"run", "session.sh"}
    assert sessions - called == {"newest"}  # its own workflow runs it each week
    assert all((ROOT / ".ci" / session).stat().st_mode & 0o111 for session in sessions)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_files_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [target for target in re.findall(r"\]\(([^)#\s]+)\)", text) if "://" not in target]
    named = re.findall(r"`((?:\.ci|\.github|tests|docs)/[\w./-]+|[A-Z]+\.(?:md|cff))`", text)
    assert [link for link in links if not (page.parent / link).exists()] == []
    assert [name for name in named if not (ROOT / name).exists()] == []
