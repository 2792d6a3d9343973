"""``blend data import`` and ``blend data check``."""

from __future__ import annotations

import json

import pytest

from .conftest import Case

BASE = "Air scatters blue light."
ASKED = [f"Why is the sky blue, in {n} words?" for n in range(6)]
CHECKED = {
    "instruction": "Why?",
    "output": "Because.",
    "candidates": [{"model": "a", "text": "x", "scores": {"bleu": 2}}, {"model": "b", "text": "y"}],
    "cmp_results": '{"a,b": "Same good"}',
}


def alpaca(model, text, preference):
    """What AlpacaEval keeps of a model: its answers, and a judge's word on them against a baseline."""
    outputs = [{"instruction": asked, "output": text, "generator": model, "dataset": "own"} for asked in ASKED]
    annotations = [
        {
            "instruction": asked,
            "output_1": BASE,
            "generator_1": "base",
            "output_2": text,
            "generator_2": model,
            "annotator": "judge",
            "preference": preference if asked != ASKED[0] else None,
        }
        for asked in ASKED
    ]
    lists = {"model_outputs.json": outputs, "judge/annotations.json": annotations}
    return {f"results/{model}/{name}": f"{json.dumps(entries)}\n" for name, entries in lists.items()}


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


PAIRS = [
    {"prompt": "Hi", "chosen": "Hello!", "rejected": "Go."},
    {"question": "Hi there", "system": "Be kind.", "chosen": "Hello!", "rejected": "Go."},
    {"chosen": [user("Hm"), assistant("Yes?")], "rejected": [user("Hm"), assistant("No.")]},
    {"chosen": "\n\nHuman: Hey\n\nAssistant: Hello!", "rejected": "\n\nHuman: Hey\n\nAssistant: Go."},
    {"prompt": "Same", "chosen": "This.", "rejected": "This."},
    {"prompt": "Hi", "chosen": "Hello!", "rejected": "Go."},
]
LABELLED = [
    {"instruction": f"Do {n}.", "input": "", "response1": f"one {n}", "response2": f"two {n}", "label": n % 3}
    for n in range(6)
]
VOTED = [
    {"input": f"Do {n}.", "output_1": f"one {n}", "output_2": f"two {n}", "annotator1": 1, "annotator2": 1 + n % 2}
    for n in range(4)
]
SCORED = [
    {
        "source": "own",
        "instruction": f"Why {n}?",
        "models": ["m0"],
        "completions": [
            {
                "model": f"m{k}",
                "response": f"Answer {k} to {n}.",
                "overall_score": 8.5 - k * n,
                "fine-grained_score": 4 - k / 2,
                "annotations": {"honesty": {"Rating": "4"}, "truthfulness": {"Rating": "N/A"}},
            }
            for k in range(3)
        ],
    }
    for n in range(3)
]
RATED = [{"instruction": "Why?", "generations": ["a", "b"], "ratings": [4, None], "model_names": ["x", "y"]}]
FILES = {
    **alpaca("good", "Rayleigh scattering.", 1.75), **alpaca("poor", "Because.", 1), "pairs.jsonl": PAIRS,
    "labelled.jsonl": LABELLED, "voted.jsonl": VOTED, "scored.jsonl": SCORED, "rated.jsonl": RATED,
    "bad.jsonl": [PAIRS[0], {"prompt": "Hi"}],
    "checked.jsonl": [CHECKED, {**CHECKED, "instruction": "How?", "cmp_results": None}],
    "broken.jsonl": [CHECKED, *[{**CHECKED, "cmp_results": "{"}] * 3],
}  # fmt: skip

IMPORT = "data import {} -o out.jsonl --json"
CASES = {
    "AlpacaEval": Case(
        [IMPORT.format("results") + " --reference base --name own --url https://example.org --licence MIT"]
    ),
    "AlpacaEval, one model": Case([IMPORT.format("results") + " --models good --annotators judge"]),
    "AlpacaEval, split": Case(["data import results -o '{split}.jsonl' --split train=0.7,test=0.3 --seed 1 --json"]),
    "pairs": Case([IMPORT.format("pairs.jsonl") + " --judge me --seed 2"]),
    "pairs, excluded": Case(
        [IMPORT.format("labelled.jsonl") + " --exclude none.jsonl"],
        {"none.jsonl": [{"instruction": "Do 1.", "candidates": ["a"]}]},
    ),
    "labelled pairs": Case([IMPORT.format("labelled.jsonl")]),
    "labelled pairs, other labels": Case(
        [IMPORT.format("named.jsonl") + " --labels left,right,none"],
        {"named.jsonl": [{**entry, "label": ("none", "left", "right")[entry["label"]]} for entry in LABELLED]},
    ),
    "votes": Case([IMPORT.format("voted.jsonl")]),
    "scores": Case([IMPORT.format("scored.jsonl") + " --format scored_responses"]),
    "ratings": Case([IMPORT.format("rated.jsonl")]),
    "to standard output": Case(["data import scored.jsonl -o - --json"]),
    "bad": Case([IMPORT.format("bad.jsonl"), IMPORT.format("bad.jsonl") + " --skip-bad"]),
    "wrong": Case(
        [
            IMPORT.format("none.jsonl"),
            IMPORT.format("results --format alpaca"),
            IMPORT.format("results --models god"),
            IMPORT.format("results --split train=0.9"),
            IMPORT.format("results --judge me"),
        ]
    ),
    "check": Case(["data check checked.jsonl --json"]),
    "check, broken": Case(["data check broken.jsonl --json", "data check none.jsonl --json"]),
}


@pytest.mark.parametrize("case", CASES)
def test_data(run_case, case):
    run_case(CASES[case], FILES)
