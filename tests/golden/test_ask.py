"""``blend ask`` and ``blend compare``."""

from __future__ import annotations

import pytest

from llm_blender.testing import FakeRanker, FakeReply

from .conftest import Case

PRIORS = {
    "format": "llm-blender priors", "version": 1,
    "strengths": {"a": 20.0, "b": -20.0}, "games": {"a": 3}, "weight": 1.0, "weight_ci95": None, "source": "pairs",
    "ranker": None, "temperature": None,
}  # fmt: skip


def said(text, **options):
    return lambda body: FakeReply(text, **options)


def fuser(text="A fused answer, longer than all the candidates together."):
    """Fuse when it is asked to fuse; else a short candidate."""
    return lambda body: FakeReply(text if body["messages"][0]["role"] == "system" else "Short.")


A, B = said("Short."), said("A longer answer.", usage=(7, 4))
AB = {"a": A, "b": B}
FUSING = {"f": fuser(), "b": B}
SENTENCES = {
    "a": said("The sky is blue. Air scatters blue light most."),
    "b": said("Air scatters blue light most. The sea is blue as well."),
    "c": said("Nothing else is known about it."),
}

CASES = {
    "pick": Case(["ask 'Why?' --json"], servers=AB),
    "pick, plain": Case(["ask 'Why?'"], servers=AB, text=True),
    "seed and samples": Case(["ask 'Why?' --json --seed 5 -n 2"], requests=True, servers=AB),
    "stored": Case(["ask 'Why?' --json", "ask 'Why?' --json"], servers=AB),
    "only one": Case(["ask 'Why?' --json --llm a"], servers=AB),
    "no price": Case(["ask 'Why?' --json"], servers=AB, options="", elsewhere=True),
    "priors": Case(["ask 'Why?' --json --priors priors.json"], {"priors.json": PRIORS}, servers=AB),
    "one fails": Case(
        ["ask 'Why?' --json", "ask 'Why?' --json --strict", "ask 'Why?'"],
        servers={**AB, "c": said("no", status=400), "d": said(" ")},
        text=True,
    ),
    "all fail": Case(["ask 'Why?' --json"], servers={"a": said("no", status=400), "b": said("no", status=401)}),
    "quorum": Case(
        ["ask 'Why?' --json --strict"], servers={**AB, "c": said("no", status=400)}, config="[limits]\nquorum = 2\n"
    ),
    "strategy": Case(["ask 'Why?' --json -n 4"], servers=AB, config='[ranker]\nstrategy = "knockout"\n'),
    "fuse": Case(["ask 'Why?' --mode fuse --json", "ask 'Why?' --mode fuse"], requests=True, servers=FUSING, text=True),
    "fuse, guarded": Case(["ask 'Why?' --mode fuse --json"], servers={"f": fuser("No."), "b": B}),
    "fuse, no guard": Case(
        ["ask 'Why?' --mode fuse --json"], servers={"f": fuser("No."), "b": B}, config="[fuser]\nguard = false\n"
    ),
    "fuse by another": Case(["ask 'Why?' --mode fuse --fuser chat:f --llm b -n 2 --json"], servers=FUSING),
    "fuse, the fuser fails": Case(
        ["ask 'Why?' --mode fuse --fuser chat:c --json", "ask 'Why?' --mode fuse --fuser chat:c --strict"],
        servers={
            **AB,
            "c": lambda body: FakeReply("no", status=400 if body["messages"][0]["role"] == "system" else 200),
        },
    ),
    "fuse by consensus": Case(["ask 'Why is it so?' --mode fuse --fuser consensus --json"], servers=SENTENCES),
    "auto": Case(
        ["ask 'Why?' --mode auto --json"], servers=FUSING, ranker=lambda: FakeRanker(lambda text: len(text) / 100)
    ),
    "auto, a clear lead": Case(["ask 'Why?' --mode auto --json"], servers=FUSING),
    "wrong": Case(
        [
            "ask ''",
            "ask 'Why?' --llm nowhere",
            "ask 'Why?' --config nowhere.toml",
            "ask 'Why?' --json --mode best",
            "ask @nowhere.txt",
            "ask 'Why?' --json --fuser chat:nowhere --mode fuse",
        ],
        servers=AB,
    ),
    "bundled ranker": Case(
        ["ask 'Why is the sky blue?' --json"],
        servers={"a": said("Air scatters blue light most, and we see it."), "b": said("Because blue because.")},
        ranker=None,
        tolerance=0.05,
    ),
    "compare": Case(
        ["compare Q long longer --json", "compare Q longer long --json", "compare Q one two --json"],
        ranker=lambda: FakeRanker(temperature=2.0, order_bias=0.5),
    ),
    "compare, plain": Case(["compare Q long longer", "compare Q one two"]),
    "compare, wrong": Case(["compare '' a b --json", "compare Q a --json", "compare Q - - --json"]),
    "compare, longest": Case(["compare Q long longer --json --ranker longest"], ranker=None),
}


@pytest.mark.parametrize("case", CASES)
def test_ask(run_case, case):
    run_case(CASES[case], {})
