"""The code, configurations, rows, commands and links of the pages work."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import typer

from llm_blender.config import Config
from llm_blender.data import parse_judged_row
from llm_blender.ensemble import Limits
from llm_blender.rankers.checkpoints import find_checkpoint, weights_hash

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "src/llm_blender/bundled/ranker/README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _blocks(language: str) -> list[object]:
    found = [
        (page, block)
        for page in PAGES
        for block in re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    ]
    return [pytest.param(block, id=f"{page.relative_to(ROOT)}-{i}") for i, (page, block) in enumerate(found)]


CHECKED = {
    "python": "here",
    "toml": "here",
    "json": "here",
    "bash": "here: options of blend",
    "py": "tests/server/test_page.py",
    "python trl": "tests/integrations",
    "python distilabel": "tests/integrations",
    "python rerankers": "tests/integrations",
    "python models": "tests/metrics",
    "jsonl questions.jsonl": "tests/test_first_hour.py",
    "python score.py": "tests/test_first_hour.py",
    "toml blend.toml": "tests/test_first_hour.py",
    "jsonl pairs.jsonl": "tests/test_own_ranker.py",
    "python fit": "tests/test_own_ranker.py",
}
"""Kinds of blocks of code, and what runs or checks them."""
UNCHECKED = {"", "text", "diff", "mermaid"}  # output, programs that need a model of the Hub, drawings


def test_every_kind_of_block_is_checked() -> None:
    kinds = set()
    for page in PAGES:
        kinds.update(re.findall(r"^```(.*)\n(?:.*\n)*?```$", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert kinds <= CHECKED.keys() | UNCHECKED


@pytest.mark.parametrize("code", _blocks("python"))
def test_python_blocks_run(code: str) -> None:
    names: dict[str, object] = {}
    exec(compile(code, "page", "exec"), names)
    assert {"ranker", "table"} & names.keys()


@pytest.mark.parametrize("text", _blocks("toml"))
def test_configurations_are_valid(text: str) -> None:
    config = Config.from_toml(text)
    assert len(config.llm) >= 2


@pytest.mark.parametrize("text", _blocks("json"))
def test_rows_are_valid(text: str) -> None:
    row = parse_judged_row(json.loads(text))
    assert len(row.candidates) == 2


_MEASURED = ("evidence", "index", "pays", "priors", "rankers", "tour", "which")
MEASURED = ("README.md", *(f"docs/{name}.md" for name in _MEASURED))
"""Pages with figures of the bundled ranker, beside its own card."""


@pytest.mark.parametrize("page", [*MEASURED, "src/llm_blender/bundled/ranker/README.md"])
def test_figures_are_of_the_bundled_weights(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"weights `([0-9a-f]{12})`", text))
    assert named == {weights_hash(find_checkpoint("bundled"))[:12]}


def test_pages_with_a_table_of_the_bundled_ranker_name_its_weights() -> None:
    tables = [page for page in PAGES if re.search(r"^\| *bundled[ ,|]|^\|.*\| bundled", page.read_text("utf-8"), re.M)]
    assert {str(page.relative_to(ROOT)) for page in tables} <= {*MEASURED, "src/llm_blender/bundled/ranker/README.md"}


def test_readme_blend_commands_exist() -> None:
    from llm_blender.cli import app

    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    known |= {group.name for group in app.registered_groups}
    shown = set(re.findall(r"`?blend ([a-z]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert shown <= known


def _commands() -> list[object]:
    lines = [
        (block.id, line)
        for block in _blocks("bash")
        for line in block.values[0].replace("\\\n", " ").splitlines()
        if line.startswith("blend ")
    ]
    return [pytest.param(line, id=f"{block}-{i}") for i, (block, line) in enumerate(lines)]


@pytest.mark.parametrize("line", _commands())
def test_blend_commands_have_these_options(line: str) -> None:
    from llm_blender.cli import app

    command, (name, *arguments) = typer.main.get_command(app), shlex.split(line, comments=True)
    while hasattr(command, "commands"):
        command = command.commands[(name := arguments.pop(0))]
    command.make_context(name, arguments)  # parses and checks, and runs nothing


def test_links_lead_somewhere() -> None:
    missing = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert not missing


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        if "://" in target:
            continue
        file = page.parent / name if name else page
        assert file.exists(), target
        assert not anchor or anchor in _anchors(file), target


def test_the_configuration_with_a_quorum_waits_for_its_cloud():
    page = (ROOT / "docs" / "llms.md").read_text(encoding="utf-8")
    (text,) = (block for block in re.findall(r"```toml\n(.*?)```", page, re.DOTALL) if "quorum" in block)
    config = Config.from_toml(text)
    limits = Limits(**config.limits.model_dump())
    assert limits.quorum is not None
    assert limits.quorum < len(config.llm)
    local, cloud = 1.0, 6.0  # seconds of an answer
    assert local + limits.grace_after(local) > 1.5 * cloud
