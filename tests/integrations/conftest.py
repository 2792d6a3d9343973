"""The examples of docs/integrations.md, to be run where their library is installed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "integrations.md"


@pytest.fixture
def run_examples() -> Callable[[str], dict[str, object]]:
    """Runs the page's blocks that begin with ```` ```python <library> ````, one after the other; gives their names."""

    def run(library: str) -> dict[str, object]:
        blocks = re.findall(rf"^```python {library}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
        assert blocks, f"{PAGE} shows nothing for {library}"
        names: dict[str, object] = {}
        for i, block in enumerate(blocks):
            exec(compile(block, f"{PAGE.name}, {library} {i}", "exec"), names)
        return names

    return run
