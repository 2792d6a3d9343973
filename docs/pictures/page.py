"""Take the picture of the playground: `python docs/pictures/page.py`, with Playwright and a Chromium.

The LLMs are stand-ins that write the answers below; the service, the ranker (the bundled one) and the page are real.
The picture is `page.png`, 1280 pixels wide. `pngquant`, or else Pillow, makes it small where one of them is installed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from playwright.sync_api import sync_playwright

from llm_blender import Ensemble, Member, load_ranker
from llm_blender.config import ServerConfig
from llm_blender.llms.openai_compatible import OpenAICompatibleLLM
from llm_blender.server import create_app
from llm_blender.store import Store
from llm_blender.testing import FakeOpenAIServer, FakeReply

PICTURE = Path(__file__).with_name("page.png")
QUESTION = "Write a Python function that merges overlapping intervals, with an example."
ANSWERS = {
    "llama3.2:3b": """\
You can loop over the intervals and compare each with the one before it:

```python
def merge(intervals):
    result = [intervals[0]]
    for start, end in intervals[1:]:
        if start <= result[-1][1]:
            result[-1] = (result[-1][0], end)
        else:
            result.append((start, end))
    return result
```

It merges `(1, 3)` and `(2, 6)` into `(1, 6)`.
""",
    "qwen3:8b": """\
Sort the intervals first: then each one can overlap **only the last merged one**.

```python
def merge(intervals):
    merged = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    return merged
```

`merge([(8, 10), (1, 3), (2, 6)])` is `[[1, 6], [8, 10]]`.

Sorting takes *O(n* log *n)* time, the loop *O(n)*. An empty list gives an empty list.
""",
    "gemma3:4b": """\
Merging overlapping intervals is a common interview question. The idea is to put all intervals in order and then to \
combine those that touch each other. You would keep a list of results, look at the last one each time, and extend it \
if the next interval begins before it ends.
""",
}


@contextlib.contextmanager
def service(folder: Path) -> Iterator[str]:
    """Serve the playground around LLMs that write the answers; the value is its address."""
    with contextlib.ExitStack() as stack:
        members = []
        for name, text in ANSWERS.items():
            words = len(text.split())
            reply = FakeReply(text, drip=0.01, usage=(24, words * 3 // 2))
            api = stack.enter_context(FakeOpenAIServer([reply]))
            members.append(Member(OpenAICompatibleLLM(name, "fake", api.base_url)))
        ensemble = Ensemble(members, load_ranker(), store=Store(folder / "blend.db"))
        server = uvicorn.Server(uvicorn.Config(create_app(ensemble, ServerConfig()), port=0, log_level="error"))
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            while not server.started:
                time.sleep(0.05)
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


def take(url: str, path: Path) -> None:
    """Ask the question on the page, and take its picture when the answer is there."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1040}, color_scheme="light")
        page.goto(url)
        page.get_by_text("3 models").wait_for()
        page.fill("#question", QUESTION)
        page.click("#go")
        page.locator(".facts").wait_for()
        page.locator(".hljs-keyword").first.wait_for()
        page.locator("#question").blur()
        page.screenshot(path=path)
        browser.close()


def shrink(path: Path) -> None:
    """Reduce the picture to 128 colours, if a program for it is there."""
    if shutil.which("pngquant"):
        subprocess.run(["pngquant", "--force", "--ext=.png", "128", str(path)], check=True)
    elif importlib.util.find_spec("PIL"):
        from PIL import Image

        Image.open(path).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    """Take the picture."""
    with tempfile.TemporaryDirectory() as folder, service(Path(folder)) as url:
        take(url, PICTURE)
    shrink(PICTURE)


if __name__ == "__main__":
    main()
