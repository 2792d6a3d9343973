import numpy as np
import pytest

from llm_blender.bench import named_rows, priors_from_judgements, priors_from_ranker, weigh_priors
from llm_blender.errors import InputError
from llm_blender.testing import FakeRanker
from llm_blender.types import Candidate, Example, LabelledPair


def example(prompt, *candidates, pairs=()):
    """Make a row of candidates given as (model, text, score)."""
    return Example(
        prompt,
        candidates=tuple(Candidate(t, m, {} if s is None else {"win": s}) for m, t, s in candidates),
        pairs=tuple(pairs),
    )


ROWS = [
    example(
        "one", ("ann", "a", 1), (None, "?", 2), ("bob", "bb", 0), ("cy", "ccc", None),
        pairs=[LabelledPair(0, 1, "a"), LabelledPair(3, 2, "a"), LabelledPair(2, 0, "tie")],
    ),
    example("two", ("ann", "a", 1)),
]  # fmt: skip


def test_rows_with_candidates_of_two_llms_and_the_pairs_among_them():
    (row,) = named_rows(ROWS)
    assert (row.prompt, row.texts, row.models) == ("one", ("a", "bb", "ccc"), ("ann", "bob", "cy"))
    assert row.pairs == (LabelledPair(2, 1, "a"), LabelledPair(1, 0, "tie"))


def test_a_score_says_who_is_better():
    (row,) = named_rows(ROWS, score="win")
    assert row.pairs == (LabelledPair(0, 1, "a"),)


def test_only_these_models():
    (row,) = named_rows(ROWS, ["cy", "bob"])
    assert (row.models, row.pairs) == (("bob", "cy"), (LabelledPair(1, 0, "a"),))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": ["bop"]}, "Unknown model 'bop': did you mean 'bob'"),
        ({"score": "won"}, "Unknown score 'won': did you mean 'win'"),
        ({"models": ["ann"]}, "no row with candidates of two LLMs"),
    ],
)
def test_wrong_names(options, message):
    with pytest.raises(InputError, match=message):
        named_rows(ROWS, **options)


def test_strengths_from_judgements():
    by_score = priors_from_judgements(named_rows(ROWS, score="win"), source="scores win")
    assert by_score.strengths["ann"] > 0 > by_score.strengths["bob"]
    assert (by_score.source, by_score.ranker, by_score.weight) == ("scores win", None, 1)
    by_pairs = priors_from_judgements(named_rows(ROWS))
    assert by_pairs.strengths["cy"] > by_pairs.strengths["bob"]
    with pytest.raises(InputError, match="no judged pair"):
        priors_from_judgements(named_rows([example("one", ("ann", "a", 1), ("bob", "b", 1))], score="win"))


def many_rows(count, seed=0, llms=("ann", "bob", "cy", "dan")):
    """Make rows whose best answer depends on text and LLM alike; a text is a number, its quality."""
    rng = np.random.default_rng(seed)
    strength = dict(zip(llms, (1.5, 0.5, -0.5, -1.5), strict=True))
    rows = []
    for i in range(count):
        quality = rng.normal(0, 1, len(llms))
        judged = quality + [strength[name] for name in llms] + rng.logistic(0, 1, len(llms))
        rows.append(example(f"{seed}-{i}", *zip(llms, [f"{q:.6f}" for q in quality], judged, strict=True)))
    return named_rows(rows, score="win")


def test_a_ranker_learns_strengths_without_a_judge():
    ranker = FakeRanker({"a": 2.0, "bb": 0.0, "ccc": -2.0}, temperature=1.5)
    rows = named_rows(ROWS) * 20
    priors = priors_from_ranker(rows, ranker, "fake")
    assert sorted(priors.strengths, key=priors.strength) == ["cy", "bob", "ann"]
    assert (priors.source, priors.ranker, priors.temperature) == ("ranker fake", "fake", None)
    assert ranker.comparisons == 20 * 6
    assert sum(priors.games.values()) == 20 * 6
    knockout = priors_from_ranker(rows, ranker, "fake", strategy="knockout")
    assert ranker.comparisons == 20 * 6 + 20 * 4
    assert max(knockout.strengths, key=knockout.strength) == "ann"


def test_the_weight_suits_what_the_ranker_does_not_see():
    priors = priors_from_judgements(many_rows(300))
    sees_text = FakeRanker(float)
    weighed, fit = weigh_priors(priors, many_rows(200, seed=1), sees_text, "text")
    assert 0.5 < weighed.weight < 2
    assert (weighed.weight, weighed.weight_ci95) == (fit.weight, fit.ci95)
    assert (weighed.ranker, weighed.temperature, weighed.strengths) == ("text", fit.temperature, priors.strengths)
    assert 0.5 < fit.temperature < 2
    assert fit.log_loss < fit.log_loss_without
    assert fit.pairs == 200 * 6


def test_priors_with_their_weight_choose_better():
    priors, _ = weigh_priors(priors_from_judgements(many_rows(300)), many_rows(200, seed=1), FakeRanker(float), "text")
    hits = {"alone": 0, "with priors": 0}
    for row in many_rows(300, seed=2):
        wins = {pair.a if pair.label == "a" else pair.b: 0 for pair in row.pairs}
        for pair in row.pairs:
            wins[pair.a if pair.label == "a" else pair.b] += 1
        best = max(wins, key=lambda i: wins[i])
        ranking = FakeRanker(float).rank(row.prompt, row.texts)
        hits["alone"] += ranking.best == best
        hits["with priors"] += priors.apply(ranking, row.models).best == best
    assert hits["with priors"] > hits["alone"] + 20


def test_rows_that_were_not_judged_cost_nothing():
    ranker = FakeRanker()
    rows = named_rows([*ROWS, example("three", ("ann", "x", 1), ("bob", "y", 1))], score="win")
    priors = priors_from_judgements(rows)
    weigh_priors(priors, rows, ranker, "fake")
    assert {prompt for batch in ranker.batches for prompt, *_ in batch} == {"one"}
    ties = named_rows([example("three", ("ann", "x", 1), ("bob", "y", 1))], score="win")
    with pytest.raises(InputError, match="no judged pair of two LLMs whose strengths differ"):
        weigh_priors(priors, ties, ranker, "fake")
