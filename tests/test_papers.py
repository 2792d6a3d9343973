"""docs/papers.md lists every paper that the code cites, with files that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "llm_blender"
PAGE = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
_NUMBER = re.compile(r"(?:arXiv[: ]|arxiv\.org/abs/)(\d{4}\.\d{5})", re.IGNORECASE)


def test_every_paper_of_the_code_is_listed() -> None:
    cited = {number for path in PACKAGE.rglob("*.py") for number in _NUMBER.findall(path.read_text(encoding="utf-8"))}
    assert cited - set(_NUMBER.findall(PAGE)) == set()
    assert len(cited) > 12


def test_files_of_the_page_exist() -> None:
    names = re.findall(r"`([a-z_]+/[\w/]*(?:\.py)?)`", PAGE)
    assert [name for name in names if not (PACKAGE / name).exists()] == []
    assert len(names) > 30
