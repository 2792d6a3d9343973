"""The OpenAI Agents SDK over chat: the same as over the Responses API."""

import runpy
from pathlib import Path

check = runpy.run_path(str(Path(__file__).with_name("openai_agents.py")))["check"]
