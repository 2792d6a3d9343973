"""Where a library is missing, its module says how to install it."""

from __future__ import annotations

import importlib
import sys

import pytest

from llm_blender.errors import MissingExtraError


@pytest.mark.parametrize(
    ("library", "line"),
    [
        ("rerankers", "pip install rerankers"),
        ("distilabel", "pip install distilabel requests"),
        ("llm", "pip install llm"),
    ],
)
def test_the_error_holds_the_pip_line(library, line, monkeypatch):
    for name in list(sys.modules):
        if name == library or name.startswith(f"{library}."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"llm_blender.integrations.{library}", raising=False)
    with pytest.raises(MissingExtraError) as caught:
        importlib.import_module(f"llm_blender.integrations.{library}")
    assert str(caught.value) == f"llm_blender.integrations.{library} needs another library: {line}"
    assert (caught.value.exit_code, caught.value.http_status) == (2, 501)
