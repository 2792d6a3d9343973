"""The errors that docs/faq.md explains are errors of the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
MESSAGES = [title for title in re.findall(r"^### `([^`]+)`$", PAGE, re.MULTILINE) if " " in title]


def _texts() -> list[str]:
    found = []
    for path in (ROOT / "src" / "llm_blender").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_each_message_is_in_the_code() -> None:
    texts = "\n".join(_texts())
    missing = [
        message
        for message in MESSAGES
        if not re.search(".*".join(map(re.escape, filter(None, message.strip("… ").split("…")))), texts)
    ]
    assert missing == []
    assert len(MESSAGES) > 20
