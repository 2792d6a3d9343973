import subprocess
import sys


def test_it_needs_neither_torch_nor_scipy():
    code = "import sys, llm_blender.metrics; print(*sorted({'torch', 'scipy', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
