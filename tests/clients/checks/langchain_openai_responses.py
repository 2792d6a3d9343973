"""LangChain over the Responses API: the same as over chat."""

import runpy
from pathlib import Path

check = runpy.run_path(str(Path(__file__).with_name("langchain_openai.py")))["check"]
