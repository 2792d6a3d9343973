"""Build a data set like MixInstruct: instructions, the answers of several LLMs, and a judge's comparisons.

`blend data build` does the same from the command line.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from llm_blender import Config
from llm_blender.datasets import BuildPlan, build_data

URL = os.environ.get("OLLAMA_URL", "http://localhost:11434/v1")
FIRST, *_, LAST = os.environ.get("OLLAMA_MODELS", "llama3.2:3b,qwen2.5:3b").split(",")
CONFIG = f"""
llm = [
  {{name = "first", base_url = "{URL}", model = "{FIRST}", price = {{input = 0.0, output = 0.0}}}},
  {{name = "last", base_url = "{URL}", model = "{LAST}", price = {{input = 0.0, output = 0.0}}}},
  {{name = "judge", base_url = "{URL}", model = "{LAST}", price = {{input = 0.0, output = 0.0}}, samples = 0}},
]
"""
INSTRUCTIONS = ["Why is the sky blue?", "How do I keep bread fresh?", "Name a use of a paper clip."]


def main(folder: str = "mine") -> None:
    """Build a small data set; an interrupted build goes on from where it stopped."""
    out = Path(folder)
    out.mkdir(exist_ok=True)
    (out / "instructions.txt").write_text("\n".join(INSTRUCTIONS), encoding="utf-8")
    plan = BuildPlan(
        sources=(str(out / "instructions.txt"),),
        out=str(out / "rows.jsonl"),
        judge="judge",
        metrics=(),  # text metrics need a reference for each instruction
        check=0,
    )
    built = build_data(plan, Config.from_toml(CONFIG))
    for file in built.written:
        print(f"{file.path}: {file.rows} rows; its card is {file.card}")


if __name__ == "__main__":
    main(*sys.argv[1:])
