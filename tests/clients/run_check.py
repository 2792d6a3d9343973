"""Run a row of docs/clients.md in the virtual environment of its client, and the check with the names that it made."""

from __future__ import annotations

import inspect
import os
import runpy
import sys

importing, line, check = sys.argv[1:]
url = os.environ["OPENAI_BASE_URL"]
names: dict[str, object] = {
    "url": url,
    "host": url.removesuffix("/v1"),
    "messages": [{"role": "user", "content": "Why is the sky blue?"}],
    "query": "Why is the sky blue?",
    "documents": ["Because.", "Air scatters blue light most."],
}
exec(compile(f"{importing}\n{line}", "docs/clients.md", "exec"), names)
function = runpy.run_path(check)["check"]
function(**{name: names[name] for name in inspect.signature(function).parameters})
print("passed")  # noqa: T201
