import pytest

from llm_blender.bench.table import read_pool
from llm_blender.types import Candidate, Example


def example(number, texts, scores, outcomes, **extra):
    """Make a row of ann, bob and cy, with their BERTScores and the judge's outcomes."""
    candidates = tuple(
        Candidate(text, model, {"bertscore": score})
        for text, model, score in zip(texts, ("ann", "bob", "cy"), scores, strict=True)
    )
    return Example(
        f"prompt {number}", reference="a b c", candidates=candidates, extra={"cmp_results": outcomes, **extra}
    )


@pytest.fixture
def examples():
    """Three rows, on which every figure can be worked out by hand.

    The judge's ranks:  ann bob cy
                row 1:    1   3  2
                row 2:    1   1  1   only ties
                row 3:    2   1  2   ann and cy tie
    """
    return [
        example(
            1, ["a", "bbb", "cc"], [0.8, 0.6, 0.7],
            {"ann,bob": "A is better", "cy,ann": "B is better", "bob,cy": "B is better"},
            fusion={
                "text": "fused 1", "fuser": "gen", "used": [0, 2, 1], "scores": {"bertscore": 1.0},
                "cmp_results": {f"fusion,{name}": "A is better" for name in ("ann", "bob", "cy")},
            },
        ),
        example(
            2, ["aaa", "b", "cc"], [0.5, 0.9, 0.7],
            # as on the Hub: a JSON text
            '{"ann,bob": "Same good", "cy,ann": "Same bad", "bob,cy": "Same bad"}',
            fusion={
                "text": "fused 2", "fuser": "gen", "used": [1, 0], "scores": {"bertscore": 0.4},
                "cmp_results": {f"fusion,{name}": "Same good" for name in ("ann", "bob", "cy")},
            },
        ),
        example(
            3, ["aa", "b", "ccc"], [0.6, 0.6, 0.9],
            {"ann,bob": "B is better", "cy,ann": "Same good", "bob,cy": "A is better"},
            fusion={
                "text": "fused 3", "fuser": "gen", "used": [1, 0, 2], "scores": {"bertscore": 0.1},
                "cmp_results": {"fusion,ann": "Same good", "bob,fusion": "A is better", "fusion,cy": "Same bad"},
            },
        ),
    ]  # fmt: skip


@pytest.fixture
def pool(examples):
    return read_pool("rows.jsonl", examples)
