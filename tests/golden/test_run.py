"""``blend run``, ``blend data build`` and ``blend config show``: what they write, and what they ask."""

from __future__ import annotations

import pytest

from llm_blender.testing import FakeReply

from .conftest import Case

PROMPTS = [{"id": f"p{i}", "prompt": f"Question {i}?", "output": "Reference."} for i in range(4)]
INSTRUCTIONS = [
    {"instruction": "Why is the sky blue today?", "output": "Air scatters blue light more than it scatters red light."},
    {"instruction": "What keeps bread fresh for long?", "output": "A closed box at room temperature, and the freezer."},
    {"instruction": "Hi", "output": "Hello."},
]
CHATS = [{"messages": [{"role": "system", "content": "Rhyme."}, {"role": "user", "content": "Sing."}]}]
FILES = {"in.jsonl": PROMPTS, "chats.jsonl": CHATS, "build.jsonl": INSTRUCTIONS, "bad.jsonl": [{"x": 1}, PROMPTS[0]]}


def writes(body):
    """An answer that names its LLM; as a fuser, a longer one; as a judge, the one of `a`."""
    first = body["messages"][0]
    if first["role"] == "system" and "begin answer B" in str(body):
        return FakeReply("1" if "a says" in body["messages"][1]["content"].split("begin answer B")[0] else "2")
    if first["role"] == "system" and len(body["messages"][-1]["content"]) > 60:
        return FakeReply("A much longer fused answer than any of the candidates that were written.", usage=(40, 12))
    return FakeReply(f"{body['model']} says {body['messages'][-1]['content']}")


def fails(*parts):
    return lambda body: FakeReply("no", status=400) if any(part in str(body) for part in parts) else writes(body)


BOTH = {"a": writes, "bb": writes}
POOL = {"a": writes, "b": writes, "j": writes}
RUN = "run in.jsonl -o out.jsonl --json --concurrency 1"
BUILD = "data build build.jsonl -o rows.jsonl --max-cost 1 --json"
TOML = """
[[llm]]
name = "llama \\"3\\" 🦙"
base_url = "http://localhost:11434/v1"
model = "llama3.2:3b"
api_key_env = "BLEND_GOLDEN_KEY"
price = { input = 0.0, output = 1.5 }
extra = { "top k" = 5, stops = ["a", "b"], think = false }

[[llm]]
name = "small"
provider = "embedded"
model = "smollm2-135m"
samples = 4

[ranker]
name = "longest"

[fuser]
name = "consensus"
top_k = 2

[limits]
quorum = 2

[server]
port = 8123
"""
CASES = {
    "run": Case([RUN], servers=BOTH),
    "run again": Case([RUN, RUN, f"{RUN} --seed 1", f"{RUN} --seed 1 --restart"], servers=BOTH),
    "run, some fail": Case(
        [RUN, f"{RUN} --strict"],
        journals=True,
        servers={"a": fails("Question 1?", "Question 2?"), "bb": fails("Question 1?")},
    ),
    "run, all fail": Case([RUN], servers={"a": fails("Question"), "bb": fails("Question")}),
    "run, no price": Case([RUN], servers=BOTH, options="", elsewhere=True),
    "run, samples and seed": Case([f"{RUN} -n 2 --seed 7 --llm bb"], servers=BOTH),
    "run, fuse": Case([f"{RUN} --mode fuse"], requests=True, servers=BOTH),
    "run, auto": Case([f"{RUN} --mode auto"], servers=BOTH),
    "run, consensus": Case([f"{RUN} --mode fuse --fuser consensus"], servers=BOTH),
    "run chats": Case(["run chats.jsonl -o out.jsonl --json"], requests=True, servers=BOTH),
    "run from standard input": Case(
        ["run - -o -"], stdin='{"prompt": "One?"}\n{"prompt": "One?"}\n', servers=BOTH, text=True
    ),
    "run, a cap": Case([f"{RUN} --max-cost 0.0000001", f"{RUN} --max-cost 1"], servers=BOTH),
    "run, quorum": Case([f"{RUN} --strict"], servers={**BOTH, "bb": fails("Q")}, config="[limits]\nquorum = 1\n"),
    "run, wrong": Case(
        ["run bad.jsonl -o out.jsonl", "run bad.jsonl -o out.jsonl --skip-bad --json", "run in.jsonl -o no/out.jsonl"],
        servers=BOTH,
    ),
    "build": Case(
        [f"{BUILD} --judge j --metrics bleu --prompt-tokens 5-127 --check 2"],
        requests=True,
        journals=True,
        servers=POOL,
        options="price = { input = 1.0, output = 2.0 }\n",
    ),
    "build, split": Case(
        ["data build build.jsonl -o '{split}.jsonl' --split train=0.5,test=0.5 --metrics none --max-cost 1 --json"],
        servers={"a": writes, "b": writes},
    ),
    "build, some fail": Case(
        [f"{BUILD} --judge j --metrics rouge1,rougeL --orders one --strict"],
        servers={**POOL, "a": fails("'Hi'")},
    ),
    "build, drawn": Case([f"{BUILD} -n 1 --seed 3 --metrics none --drop-incomplete"], servers=BOTH),
    "build, wrong": Case(
        [
            "data build build.jsonl -o r.jsonl --metrics none --json",
            "data build build.jsonl -o r.jsonl --prompt-tokens 9-5 --json",
            "data build nowhere.jsonl -o r.jsonl --max-cost 1",
        ],
        servers=BOTH,
    ),
    "config": Case(["config show --config my.toml --json"], {"my.toml": TOML}),
    "config, defaults": Case(["config show --json"]),
    "config, wrong": Case(
        ["config show --config wrong.toml --json", "config show --config none.toml --json"],
        {"wrong.toml": "[ranker]\nbudgte = 3\n"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_run(run_case, case, monkeypatch):
    monkeypatch.delenv("BLEND_GOLDEN_KEY", raising=False)
    run_case(CASES[case], FILES)
