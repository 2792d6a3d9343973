import subprocess
import sys
from types import ModuleType

import llm_blender.metrics


def test_all_is_sorted_and_complete():
    public = llm_blender.metrics.__all__
    assert sorted(public, key=lambda name: (not name.isupper(), name.islower(), name)) == public
    exported = {
        name
        for name, value in vars(llm_blender.metrics).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert exported == set(public)


def test_it_needs_neither_torch_nor_scipy():
    code = "import sys, llm_blender.metrics; print(*sorted({'torch', 'scipy', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
