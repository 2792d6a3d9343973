"""``blend bench``: the figures of all five tables."""

from __future__ import annotations

import pytest

from llm_blender.testing import FakeRanker, FakeReply

from .conftest import Case

MODELS = ("ann", "bob", "cy")
WORDS = ("one", "two", "three", "seven", "eleven", "twelve")
OUTCOMES = {"ann,bob": "B is better", "bob,cy": "Same good", "cy,ann": "A is better", "ann,cy": "Same bad"}
USAGE = {"prompt_tokens": 60, "completion_tokens": 40}


def row(word, number, prefix="Say"):
    texts = (word, f"{word} {word}", f"{word} and {word} again")
    wins = ((number % 2) / 2, 1 - number / 10, 1.0 if number % 3 else 0.25)
    return {
        "id": f"{prefix}-{number}",
        "instruction": f"{prefix} {word}.",
        "output": f"{word} and {word}",
        "candidates": [
            {"text": text, "model": model, "scores": {"win": win, "stars": number + len(text)}, "usage": USAGE}
            for text, model, win in zip(texts, MODELS, wins, strict=True)
        ],
        "pairs": [
            {"a": 0, "b": 1, "label": "b" if number % 3 else "a"},
            {"a": 2, "b": 1, "label": "b" if number % 2 else "a"},
            {"a": 0, "b": 2, "label": "tie"},
        ],
        "cmp_results": OUTCOMES,
        "meta": {"part": f"part {number % 2}"},
    }


ROWS = [row(word, number) for number, word in enumerate(WORDS)]
TRAIN = [row(word, number, "Train") for number, word in enumerate(WORDS[::-1])]
REASONS = ("better", "worse", "failed", "better", "same_candidates", "better")
FUSED = [
    {
        **{key: value for key, value in entry.items() if key != "pairs"},
        "ranking": {"best": 1},
        "fusion": {
            "text": f"{word} and {word}{' or so' * number}",
            "fuser": "chat",
            "used": [1, 0],
            "returned": "fuse" if reason == "better" else "pick",
            "reason": reason,
        },
    }
    for number, (entry, word, reason) in enumerate(zip(ROWS, WORDS, REASONS, strict=True))
]
TOLD = [
    {
        "instruction": f"Go {number}.",
        "candidates": [{"text": text, "model": model, "scores": {"stars": score}} for text, model, score in texts],
    }
    for number, texts in enumerate(
        [
            [("Blue light scatters most.", "ann", 3), ("Blue light scatters.", "bob", 2), ("No.", "cy", 0)],
            [("Bread keeps in a box.", "ann", 1), ("Eat.", "bob", 4), ("A box keeps bread.", "cy", 5)],
        ]
    )
]
PRICES = (
    "".join(
        f'\n[[llm]]\nname = "{name}"\nprice = {{ input = {asked}, output = {written} }}\nseconds = {seconds}\n'
        for name, asked, written, seconds in (("ann", 1, 1, 2), ("bob", 5, 5, 4), ("cy", 2, 9, 3))
    )
    + '\n[[ranker]]\nname = "bundled"\nseconds = 0.1\n'
)
PRIORS = {
    "format": "llm-blender priors", "version": 1, "strengths": {"cy": 3.0, "bob": 0.5, "ann": -3.5}, "games": {},
    "weight": 1.0, "weight_ci95": None, "source": "votes", "ranker": "bundled", "temperature": None,
}  # fmt: skip
FILES = {
    "rows.jsonl": ROWS, "train.jsonl": TRAIN, "fused.jsonl": FUSED, "told.jsonl": TOLD, "prices.toml": PRICES,
    "priors.json": PRIORS,
}  # fmt: skip


def noisy():
    return FakeRanker(noise=4.0, order_bias=1.0, temperature=2.0)


def judge(body):
    """Prefer a B that ends in "again" or "so"; else what is read first, which is a tie in both orders together."""
    b = body["messages"][-1]["content"].split("begin answer B")[-1].split("=== ")[1]
    return FakeReply("B" if b.split()[-2] in ("again", "so") else "A")


PAIRS, SELECT, TABLE = ("bench pairs rows.jsonl --json", "bench select rows.jsonl --score win --json",
                        "bench table rows.jsonl --json")  # fmt: skip
PAYS = "bench pays rows.jsonl --score win --choose-on train.jsonl --prices prices.toml --json"
FUSE = "bench fuse fused.jsonl --json"
CASES = {
    "pairs": Case([PAIRS], ranker=noisy),
    "pairs of two files": Case(["bench pairs rows.jsonl train.jsonl --json --seed 3"], ranker=noisy),
    "pairs by subset": Case([f"{PAIRS} --by part"], ranker=noisy),
    "pairs of a score": Case([f"{PAIRS} --score stars --models ann,cy --complete"], ranker=noisy),
    "pairs, model only": Case([f"{PAIRS} --model-only"], ranker=noisy),
    "pairs by heuristics": Case(["bench pairs told.jsonl --score stars --json --ranker consensus"], ranker=None),
    "pairs, kept": Case([f"{PAIRS} --comparisons kept.db", f"{PAIRS} --comparisons kept.db"], ranker=noisy),
    "pairs, a judge": Case([f"{PAIRS} --ranker judge:j"], servers={"j": judge}, ranker=None, requests=True),
    "pairs, wrong": Case(["bench pairs none.jsonl --json", f"{PAIRS} --markdown", f"{PAIRS} --score won"]),
    "select": Case([SELECT], ranker=noisy),
    "select, strategies": Case(
        [f"{SELECT} --strategy full --strategy knockout --strategy top_k --choose-on train.jsonl --models 'ann, bob'"],
        ranker=noisy,
    ),
    "select, priors": Case([f"{SELECT} --strategy full --priors priors.json"], ranker=noisy),
    "select by heuristics": Case(["bench select told.jsonl --score stars --json --ranker longest"], ranker=None),
    "select, folds": Case([f"{SELECT} --strategy full --folds 2 --seed 2"], ranker=noisy),
    "select, wrong": Case([f"{SELECT} --strategy fulll", "bench select rows.jsonl --score won --json"]),
    "fuse": Case([FUSE], ranker=noisy),
    "fuse, candidates": Case([f"{FUSE} --metric rouge1 --metric rouge2 --candidates --seed 1"], ranker=noisy),
    "fuse, unavailable": Case([f"{FUSE} --metric rouge1 --metric bertscore=no/model"]),
    "fuse, a judge": Case([f"{FUSE} --metric rouge1 --judge j"], servers={"j": judge}, requests=True),
    "fuse, a page": Case([f"{FUSE} --metric rougeL --html page.html --examples 2"]),
    "fuse, wrong": Case(["bench fuse rows.jsonl --json", f"{FUSE} --metric rougeX", f"{FUSE} --markdown"]),
    "table": Case([TABLE], ranker=noisy),
    "table, metrics": Case([f"{TABLE} --metrics rouge1 --metrics bleu --models ann,cy"], ranker=noisy),
    "table of a score": Case([f"{TABLE} --score win --complete --models ann,bob,cy"], ranker=noisy),
    "table, repeated": Case(["bench table twice.jsonl --json"], {"twice.jsonl": [*ROWS, ROWS[0]]}, ranker=noisy),
    "table, unavailable": Case([f"{TABLE} --metrics bertscore=no/model"], ranker=noisy),
    "table, wrong": Case([f"{TABLE} --score wins", f"{TABLE} --markdown", f"{TABLE} --metrics bleu=model"]),
    "pays": Case([PAYS], ranker=noisy),
    "pays, strategies": Case([f"{PAYS} --strategy full --strategy knockout --nearest 2 --seed 5"], ranker=noisy),
    "pays, priors": Case([f"{PAYS} --priors priors.json"], ranker=noisy),
    "pays, kept": Case([f"{PAYS} --comparisons kept.db"], ranker=noisy),
    "pays, a price is unknown": Case([PAYS], {"prices.toml": PRICES.replace('"cy"', '"zoe"')}, ranker=noisy),
    "pays, wrong": Case([f"{PAYS} --markdown", PAYS.replace("prices.toml", "none.toml"), f"{PAYS} --models ann,bobb"]),
}


@pytest.mark.parametrize("case", CASES)
def test_bench(run_case, case):
    run_case(CASES[case], FILES)
