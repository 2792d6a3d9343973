from __future__ import annotations

import os
import subprocess
import sys

import pytest

CONFIG = '[[llm]]\nname = "large"\nmodel = "x"\nbase_url = "http://127.0.0.1:9/v1"\n'


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("ask hi --llm l", {"large", "llama-3.2-1b"}),
        ("ask hi --config other.toml --llm s", {"small", "smollm2-135m", "smollm2-360m", "smollm2-1.7b"}),
        ("ask hi --fuser chat:", {"chat:large"}),
        ("ask hi --mode f", {"fuse"}),
        ("rank --ranker ", {"bundled", "longest", "shortest", "consensus", "first", "random"}),
        ("rank --strategy b", {"bubble"}),
        ("ask hi --config broken.toml --llm large", set()),
    ],
)
def test_the_shell_completes_names(tmp_path, line, values):
    (tmp_path / "blend.toml").write_text(CONFIG)
    (tmp_path / "other.toml").write_text(CONFIG.replace("large", "small"))
    (tmp_path / "broken.toml").write_text("[[")
    words = f"blend {line}"
    environment = {
        **os.environ,
        "_BLEND_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - (not words.endswith(" "))),
    }
    script = "import sys; sys.argv[0] = 'blend'; from llm_blender.cli import main; main()"
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert set(result.stdout.split()) == values
    assert result.stderr == ""
