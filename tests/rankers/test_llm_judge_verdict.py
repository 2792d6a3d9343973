import pytest

from llm_blender.rankers.llm_judge import read_verdict


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("A", "A"),
        ("b", "B"),
        (" B.\n", "B"),
        ("Tie", "tie"),
        ("**A**", "A"),
        ("[[B]]", "B"),
        ('"tie"', "tie"),
        ("Answer A", "A"),
        ("Answer: B", "B"),
        ("Verdict: A", "A"),
        ("The better answer is B.", "B"),
        ("Final verdict: tie", "tie"),
        ("It's a tie.", "tie"),
        ("Neither", "tie"),
        ("A\n\nIt is more complete than B.", "A"),
        ("B. It is correct, and A is not.", "B"),
        ("A - it follows the instruction", "A"),
        ("B, because A is wrong.", "B"),
        ("A is short. B says why.\n\nVerdict: **B**", "B"),
        ("Both are fine, but Answer A is better.", "A"),
        ("I think that B is clearly the best.", "B"),
        ("I prefer answer A here", "A"),
        ("The best answer would be A, which says why.", "A"),
    ],
)
def test_verdicts(reply, verdict):
    assert read_verdict(reply) == verdict


@pytest.mark.parametrize(
    "reply",
    [
        "",
        " \n ",
        "A, B or tie",
        "A/B",
        "A good answer names its sources.",
        "A is better. B is better.",
        "A\nB",
        "I cannot judge this.",
        "C",
        "Apple",
        "a is a letter",
        "As a language model, I prefer neither of these.",
        "A bird",
        "Blue light scatters most.",
    ],
)
def test_no_verdict(reply):
    assert read_verdict(reply) is None
