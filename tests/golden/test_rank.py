"""``blend rank``, ``blend fuse``, ``blend priors`` and ``blend data preferences``: commands that read rows."""

from __future__ import annotations

import json

import pytest

from llm_blender.testing import FakeRanker, FakeReply

from .conftest import Case

ROWS = [
    {
        "id": "a",
        "instruction": "Say something.",
        "input": "أهلاً 👋",
        "output": "kept",
        "candidates": [
            {"text": "ok", "model": "x", "scores": {"judge": 0.1}},
            {"text": "a longer one", "model": "y", "scores": {"judge": 0.9}},
            {"text": "a middle", "model": "z"},
        ],
        "pairs": [{"a": 0, "b": 1, "label": "b", "by": "judge"}],
        "mine": {"kept": [1, None, "שלום"]},
    },
    {"instruction": [{"role": "user", "content": "Hi"}], "candidates": ["three", "is", "ragged", "indeed"]},
    {"instruction": "Alone.", "candidates": ["only"]},
    {"instruction": "Twice.", "candidates": ["same", "same"]},
    {"instruction": "As long.", "candidates": ["abc", "def"]},
]
MANY = [
    {"id": row, "instruction": f"Q{row}", "candidates": [chr(97 + n) * (n * 7 % 11 + 1) for n in range(11)]}
    for row in range(3)
]
BAD = "".join(json.dumps(row) + "\n" for row in ({"instruction": "No candidates."}, ROWS[0]))
AGREEING = [
    {
        "instruction": "Why is the sky blue?",
        "candidates": [
            "Air scatters blue light most. That is why the sky is blue.",
            "The sky is blue, as air scatters blue light most.",
            "The sea is blue. It mirrors the sky.",
            "Bananas are yellow.",
        ],
    },
    {"instruction": "Alone.", "candidates": ["only"]},
]
LEARN = [
    {
        "instruction": f"Train {i}.",
        "candidates": [
            {"text": text, "model": model, "scores": {"win": win}}
            for text, model, win in zip(("aaa", "bb", "c"), ("ann", "bob", "cy"), (0, i % 2, 1), strict=True)
        ],
        "pairs": [{"a": 2, "b": 0, "label": "a"}, {"a": 1, "b": 0, "label": "tie" if i % 3 else "b"}],
    }
    for i in range(12)
]
DEV = [
    {**row, "instruction": f"Dev {i}.", "candidates": [
        {**candidate, "scores": {"win": win}}
        for candidate, win in zip(row["candidates"], (i % 3 == 0, 0, 1), strict=True)
    ]}
    for i, row in enumerate(LEARN)
]  # fmt: skip
PRIORS = {
    "format": "llm-blender priors", "version": 1,
    "strengths": {"cy": 9.0, "ann": -4.0}, "games": {"cy": 3}, "weight": 0.7, "weight_ci95": [0.5, 0.9],
    "source": "votes", "ranker": "other", "temperature": 1.5,
}  # fmt: skip
FILES = {
    "rows.jsonl": ROWS, "many.jsonl": MANY, "bad.jsonl": BAD, "agreeing.jsonl": AGREEING, "learn.jsonl": LEARN,
    "dev.jsonl": DEV, "cy.json": PRIORS,
}  # fmt: skip


def biased():
    """Noise and a position bias, so that the order in which pairs are read matters."""
    return FakeRanker(order_bias=0.5, noise=1.0, temperature=1.5)


def gentle():
    return FakeRanker(lambda text: len(text) / 100)


def fuser(body):
    system = body["messages"][0]["role"] == "system"
    return FakeReply("a fused answer, longer than all the candidates together" if system else "short", usage=(30, 9))


def short(body):
    return FakeReply("no")


def picky(body):
    return FakeReply("no", status=400) if "Say something" in str(body) else fuser(body)


PRIOR = "priors fit learn.jsonl -o priors.json --json"
CASES = {
    "rank": Case(["rank rows.jsonl"]),
    "rank to a file": Case(["rank rows.jsonl -o out.jsonl --json", "rank rows.jsonl -o out.jsonl.gz"]),
    "rank from standard input": Case(["rank -"], stdin=json.dumps(ROWS[0])),
    "rank, sorted": Case(["rank rows.jsonl --sorted -o out.jsonl --json"]),
    "rank, best of n": Case(["rank rows.jsonl --best-of-n -o out.jsonl --json"]),
    "rank, some models": Case(["rank rows.jsonl --models x,y --skip-bad -o out.jsonl --json"]),
    "rank, bad rows": Case(["rank bad.jsonl", "rank bad.jsonl --skip-bad -o out.jsonl --json"]),
    "rank with priors": Case(["rank learn.jsonl --priors cy.json", "rank rows.jsonl --priors cy.json"]),
    **{
        f"rank, {strategy}": Case([f"rank many.jsonl --strategy {strategy} --budget 30 --seed 3"], ranker=biased)
        for strategy in ("auto", "full", "single", "bubble", "knockout", "top_k", "active")
    },
    **{
        f"rank by {name}": Case([f"rank agreeing.jsonl --ranker {name}"], ranker=None)
        for name in ("longest", "consensus", "random", "first")
    },
    "rank by the bundled one": Case(["rank agreeing.jsonl -o out.jsonl --json"], ranker=None, tolerance=0.05),
    "rank, wrong": Case(
        [
            "rank nowhere.jsonl",
            "rank rows.jsonl --strategy no",
            "rank rows.jsonl -o nowhere/out.jsonl",
            "rank rows.jsonl --models nobody",
            "rank rows.jsonl --priors rows.jsonl",
        ]
    ),
    "fuse": Case(["fuse rows.jsonl -o out.jsonl --json"], requests=True, servers={"f": fuser, "g": short}),
    "fuse to standard output": Case(["fuse rows.jsonl --json"], servers={"f": fuser}),
    "fuse, guarded": Case(["fuse rows.jsonl -o out.jsonl --json"], servers={"f": short}),
    "fuse, no guard": Case(["fuse rows.jsonl --no-guard -o out.jsonl --json"], servers={"f": short}),
    "fuse, auto": Case(["fuse rows.jsonl --mode auto -o out.jsonl --json"], servers={"f": fuser}, ranker=gentle),
    "fuse, a clear lead": Case(["fuse rows.jsonl --mode auto -o out.jsonl --json"], servers={"f": fuser}),
    "fuse, top-k": Case(["fuse rows.jsonl --top-k 2 --order best_last"], requests=True, servers={"f": fuser}),
    "fuse, shuffled": Case(["fuse rows.jsonl --order shuffled --seed 4"], requests=True, servers={"f": fuser}),
    "fuse, a row fails": Case(["fuse rows.jsonl -o out.jsonl --json"], servers={"f": picky}),
    "fuse, stored": Case(
        ["fuse rows.jsonl -o out.jsonl --json", "fuse rows.jsonl -o out.jsonl --json"], servers={"f": fuser}
    ),
    "fuse what is ranked": Case(
        ["rank rows.jsonl -o ranked.jsonl", "fuse ranked.jsonl -o out.jsonl --json"], servers={"f": fuser}
    ),
    "fuse by consensus": Case(
        ["fuse agreeing.jsonl --fuser consensus -o out.jsonl --json", "fuse agreeing.jsonl --fuser consensus"],
    ),
    "fuse, settings": Case(
        ["fuse rows.jsonl -o out.jsonl --json"],
        servers={"f": fuser, "g": short},
        config='[fuser]\nname = "chat:g"\ntop_k = 2\nguard = false\n',
    ),
    "fuse, wrong": Case(
        [
            "fuse bad.jsonl",
            "fuse rows.jsonl --mode best",
            "fuse rows.jsonl --fuser chat:nobody",
            "fuse bad.jsonl --skip-bad -o out.jsonl --json",
        ],
        servers={"f": fuser},
    ),
    "preferences": Case(["data preferences rows.jsonl", "data preferences rows.jsonl -o out.jsonl --json"]),
    **{
        f"preferences, {pairs}": Case(
            [f"data preferences many.jsonl --pairs {pairs} --format standard --seed 2"], ranker=biased
        )
        for pairs in ("best_worst", "best_second", "best_random", "all")
    },
    "preferences, sure ones": Case(
        ["data preferences rows.jsonl --min-confidence 0.99 -o out.jsonl --json"], ranker=gentle
    ),
    "preferences of rankings": Case(
        ["rank rows.jsonl -o ranked.jsonl", "data preferences ranked.jsonl --use-ranking -o out.jsonl --json"]
    ),
    "preferences, wrong": Case(
        [
            "data preferences bad.jsonl",
            "data preferences bad.jsonl --skip-bad -o out.jsonl --json",
            "data preferences rows.jsonl --use-ranking",
            "data preferences rows.jsonl --min-confidence 0.4",
        ]
    ),
    "priors from scores": Case([f"{PRIOR} --from scores --score win", "priors show priors.json --json"]),
    "priors from pairs": Case([f"{PRIOR} --from pairs"]),
    "priors from the ranker": Case([f"{PRIOR} --from ranker --models ann,cy"], ranker=biased),
    "priors, weighed": Case([f"{PRIOR} --from scores --score win --dev dev.jsonl"], ranker=biased),
    "priors, shown": Case(["priors show cy.json --json", "priors show nowhere.json", "priors show learn.jsonl"]),
    "priors, wrong": Case(
        [f"{PRIOR} --from scores", f"{PRIOR} --from pairs --score win", f"{PRIOR} --from scores --score won"]
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_rank(run_case, case):
    run_case(CASES[case], FILES)
