import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_blender.errors import InputError, NotFoundError
from llm_blender.ranking import (
    STRATEGIES,
    Game,
    Interval,
    Priors,
    fit_priors,
    make_strategy,
    max_logits,
    probability_matrix,
    rank_with,
    ranks_from_scores,
)
from llm_blender.ranking.aggregation import fit_strengths
from llm_blender.types import Ranking

NAMES = "abcdefgh"
SETTINGS = settings(max_examples=10, deadline=None)


@st.composite
def rankings(draw, strategy=None):
    """Draw a ranking by a noisy ranker with a position bias, and the candidates' LLMs, some unknown."""
    n = draw(st.integers(1, 8))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    matrix = (rng.normal(0, 1, n)[:, None] - rng.normal(0, 1, n)[None, :] + rng.normal(0.3, 0.5, (n, n))).round(4)
    name = strategy or draw(st.sampled_from(STRATEGIES))
    texts = [[str(i) for i in range(n)]]

    def compare(pool, advance):
        return [matrix[i, j] for _, i, j in pool]

    (ranking,) = rank_with(texts, compare, strategy=name, budget=12, temperature=draw(st.sampled_from([0.5, 1, 2.5])))
    models = draw(st.lists(st.sampled_from([*NAMES, "unknown", None]), min_size=n, max_size=n))
    return ranking, models


strengths = st.fixed_dictionaries({name: st.integers(-8, 8).map(lambda quarters: quarters / 4) for name in NAMES})
weights = st.sampled_from([0.1, 1, 3.0])


def same(a: Ranking, b: Ranking) -> bool:
    return a.to_dict() == b.to_dict()


@SETTINGS
@given(rankings(), strengths)
def test_weight_0_changes_nothing(case, strength):
    ranking, models = case
    assert same(Priors(strength, weight=0).apply(ranking, models), ranking)


@SETTINGS
@given(rankings(), st.integers(-8, 8))
def test_equal_strengths_change_nothing(case, strength):
    ranking, models = case
    shifted = dict.fromkeys([*NAMES, "unknown"], strength / 4)
    assert same(Priors(shifted).apply(ranking, ["a" if model is None else model for model in models]), ranking)


@SETTINGS
@given(rankings(), strengths, weights)
def test_it_is_a_ranking_of_its_own_scores(case, strength, weight):
    ranking, models = case
    ranked = Priors(strength, weight=weight).apply(ranking, models)
    assert (ranked.strategy, ranked.comparisons, ranked.temperature) == (
        ranking.strategy,
        ranking.comparisons,
        ranking.temperature,
    )
    if same(ranked, ranking):
        return
    assert ranked.best == ranked.order[0]
    assert list(ranked.ranks) == ranks_from_scores(ranked.scores).tolist()
    assert [ranked.scores[i] for i in ranked.order] == sorted(ranked.scores, reverse=True)
    assert sum(ranked.scores) == pytest.approx(0, abs=1e-6)


@SETTINGS
@given(rankings(), strengths, weights)
def test_log_odds_gain_the_weighted_difference_of_strengths(case, strength, weight):
    ranking, models = case
    priors = Priors(strength, weight=weight)
    before, after = probability_matrix(ranking), probability_matrix(priors.apply(ranking, models))
    assert (np.isnan(before) == np.isnan(after)).all()
    s = np.array([priors.strength(model) for model in models])
    gained = np.log(after / (1 - after)) - np.log(before / (1 - before))
    known = ~np.isnan(before)
    assert gained[known] == pytest.approx((weight * (s[:, None] - s[None, :]))[known], abs=1e-6)


@SETTINGS
@given(rankings(), strengths, weights, st.sampled_from([0.3, 4.0]))
def test_their_temperature_takes_the_place_of_the_rankers(case, strength, weight, temperature):
    ranking, models = case
    ranked = Priors(strength, weight=weight, temperature=temperature).apply(ranking, models)
    warmer = Priors(strength, weight=weight).apply(replace(ranking, temperature=temperature), models)
    assert {**ranked.to_dict(), "temperature": 0} == {**warmer.to_dict(), "temperature": 0}
    assert ranked is ranking or ranked.temperature == temperature


@SETTINGS
@given(rankings("full"), strengths, weights)
def test_with_all_pairs_compared_the_scores_are_max_logits(case, strength, weight):
    ranking, models = case
    ranked = Priors(strength, weight=weight).apply(ranking, models)
    assert ranked.scores == pytest.approx(max_logits(ranked.logits), abs=1e-9)


@SETTINGS
@given(rankings(), strengths, weights)
def test_a_stronger_llm_never_ranks_worse(case, strength, weight):
    ranking, models = case
    name = next((model for model in models if model in strength), None)
    if name is None:
        return
    mine = [i for i, model in enumerate(models) if model == name]
    others = [i for i, model in enumerate(models) if model != name]
    before = Priors(strength, weight=weight).apply(ranking, models)
    after = Priors({**strength, name: strength[name] + 0.5}, weight=weight).apply(ranking, models)
    if before is ranking:  # scores by elimination count rounds, on another scale
        return
    for i in mine:
        for j in others:
            assert after.scores[i] - after.scores[j] > before.scores[i] - before.scores[j]
        assert after.ranks[i] <= before.ranks[i]


@SETTINGS
@given(rankings(), strengths, weights, st.randoms())
def test_numbering_the_candidates_otherwise_numbers_the_ranking_otherwise(case, strength, weight, random):
    ranking, models = case
    turn = random.sample(range(len(models)), len(models))
    turned = replace(
        ranking,
        best=turn.index(ranking.best),
        order=tuple(turn.index(i) for i in ranking.order),
        ranks=tuple(ranking.ranks[i] for i in turn),
        scores=tuple(ranking.scores[i] for i in turn),
        logits=ranking.logits[np.ix_(turn, turn)],
    )
    priors = Priors(strength, weight=weight)
    ranked, expected = priors.apply(turned, [models[i] for i in turn]), priors.apply(ranking, models)
    assert ranked.scores == pytest.approx([expected.scores[i] for i in turn], abs=1e-8)
    assert np.allclose(ranked.logits, expected.logits[np.ix_(turn, turn)], equal_nan=True)


def test_who_went_out_early_can_be_the_best():
    strategy = make_strategy("knockout", 4, seed=0)
    pairs = next(strategy)
    met = [tuple(sorted(pair)) for pair in pairs[::2]]
    try:
        while True:
            pairs = strategy.send(np.array([0.2 if i < j else -0.2 for i, j in pairs]))
    except StopIteration as stop:
        ranking = stop.value
    loser = next(j for i, j in met if i != ranking.best)
    models = ["strong" if i == loser else "weak" for i in range(4)]
    assert ranking.best == 0
    assert Priors({"strong": 1, "weak": -1}).apply(ranking, models).best == loser


def test_after_a_cup_they_choose_as_well_as_if_the_cup_had_known_them():
    """Mean quality of the best one over simulated contests; the standard error of a difference is about 0.05."""
    rng, n = np.random.default_rng(0), 11
    quality = {"cup": [], "with priors": [], "cup that knew": []}
    for seed in range(120):
        strength = rng.normal(0, 0.5, n)
        true = strength + rng.normal(0, 1, n)
        seen = true + rng.normal(0, 1, n)  # by a ranker with noise as large as the differences
        logits = seen[:, None] - seen[None, :] + rng.normal(0, 0.5, (n, n))
        known = logits + strength[:, None] - strength[None, :]

        def cup(matrix, seed=seed):
            return rank_with(
                [[str(i) for i in range(n)]],
                lambda pool, advance: [matrix[i, j] for _, i, j in pool],
                strategy="knockout",
                seed=seed,
            )[0]

        names = [str(i) for i in range(n)]
        priors = Priors(dict(zip(names, strength, strict=True)))
        quality["cup"].append(true[cup(logits).best])
        quality["with priors"].append(true[priors.apply(cup(logits), names).best])
        quality["cup that knew"].append(true[cup(known).best])
    mean = {name: np.mean(values) for name, values in quality.items()}
    assert mean["with priors"] > mean["cup"]
    assert mean["with priors"] > mean["cup that knew"] - 0.05


def test_evidence_outweighs_a_small_prior():
    ranking = Ranking(0, (0, 1), (1, 2), (2, -2), np.array([[np.nan, 4], [-4, np.nan]]), "full", 2)
    assert Priors({"weak": -1, "strong": 1}).apply(ranking, ["weak", "strong"]).best == 0
    assert Priors({"weak": -1, "strong": 1}, weight=2.5).apply(ranking, ["weak", "strong"]).best == 1


def test_one_model_per_candidate():
    with pytest.raises(InputError, match="1 candidates needs as many names"):
        Priors({}).apply(Ranking(0, (0,), (1,), (0,), np.full((1, 1), np.nan), "full", 0), [])


def games_from_votes(votes):
    return [Game(winner, loser, 1.0) for winner, loser in votes]


def play(true, games, seed=0):
    """Draw votes between random LLMs of these strengths."""
    rng, names, strength = np.random.default_rng(seed), list(true), np.array(list(true.values()))
    first = rng.integers(len(names), size=games)
    second = (first + rng.integers(1, len(names), size=games)) % len(names)
    wins = rng.random(games) < 1 / (1 + np.exp(strength[second] - strength[first]))
    better, worse = np.where(wins, first, second), np.where(wins, second, first)
    return games_from_votes([(names[a], names[b]) for a, b in zip(better, worse, strict=True)])


TRUE = {"a": 1.2, "b": 0.4, "c": -0.1, "d": -0.5, "e": -1.0}


def test_strengths_are_found_again():
    priors = fit_priors(play(TRUE, 10_000))
    assert [priors.strengths[name] for name in TRUE] == pytest.approx(list(TRUE.values()), abs=0.1)
    assert sum(priors.strengths.values()) == pytest.approx(0, abs=1e-6)
    assert sum(priors.games.values()) == 20_000


def test_few_games_say_little():
    def spread(games):
        return np.mean([np.std(list(fit_priors(play(TRUE, games, seed)).strengths.values())) for seed in range(5)])

    few, some, many = spread(4), spread(40), spread(400)
    assert few < some < many < 1.1 * np.std(list(TRUE.values()))
    assert few < 0.35


def test_shrinkage_errs_less_than_no_shrinkage_and_less_than_no_strengths():
    """Mean squared error over many small tournaments, of strengths spread as the true ones are."""
    rng = np.random.default_rng(0)
    errors = {"shrunk": [], "hardly shrunk": [], "none": []}
    for seed in range(20):
        true = dict(zip("abcdefgh", rng.normal(0, 0.5, 8), strict=True))
        centre = np.mean(list(true.values()))
        games = play(true, 60, seed)
        found = fit_priors(games).strengths
        wins = np.zeros((8, 8))
        for game in games:
            wins["abcdefgh".index(game.a), "abcdefgh".index(game.b)] += 1
        raw = fit_strengths(wins, 0.01).mean
        errors["shrunk"] += [(found.get(name, 0) - true[name] + centre) ** 2 for name in true]
        errors["hardly shrunk"] += [(raw[i] - true[name] + centre) ** 2 for i, name in enumerate(true)]
        errors["none"] += [(true[name] - centre) ** 2 for name in true]
    mean = {name: np.mean(values) for name, values in errors.items()}
    assert mean["shrunk"] < mean["hardly shrunk"]
    assert mean["shrunk"] < mean["none"]


def test_equal_llms_are_found_equal():
    priors = fit_priors(play(dict.fromkeys("abcdefghij", 0.0), 5_000))
    assert max(map(abs, priors.strengths.values())) < 0.15


def test_who_won_every_game_is_not_infinitely_strong():
    priors = fit_priors(games_from_votes([("a", "b")] * 1000))
    assert 1 < priors.strengths["a"] < 20
    assert priors.strengths["b"] == pytest.approx(-priors.strengths["a"])


def test_fewer_games_are_drawn_closer_to_the_mean():
    votes = [("a", "b")] * 2 + [("c", "b")] * 20 + [("b", "d")] * 10 + [("d", "b")] * 10
    found = fit_priors(games_from_votes(votes)).strengths
    assert 0 < found["a"] < found["c"]


def test_a_game_won_in_part_counts_in_part():
    halves = fit_priors([Game("a", "b", 0.5)] * 10).strengths
    assert halves == {"a": 0, "b": 0}
    mostly = fit_priors([Game("a", "b", 0.75)] * 100).strengths
    assert mostly["a"] - mostly["b"] == pytest.approx(np.log(3), abs=0.15)


def test_weights_make_games_fewer():
    light = fit_priors([Game("a", "b", 1, weight=0.1)] * 10).strengths
    assert light == pytest.approx(fit_priors([Game("a", "b", 1)]).strengths)


@SETTINGS
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), min_size=1), st.permutations("abcd"))
def test_other_names_get_the_same_strengths(votes, others):
    games = games_from_votes(votes)
    if not games:
        return
    renamed = dict(zip("abcd", others, strict=True))
    found = fit_priors(games).strengths
    again = fit_priors(games_from_votes([(renamed[a], renamed[b]) for a, b in votes])).strengths
    assert {renamed[name]: value for name, value in found.items()} == pytest.approx(again, abs=1e-6)


def test_no_games_no_strengths():
    with pytest.raises(InputError, match="no judged pair"):
        fit_priors([])


def test_an_unknown_llm_is_as_strong_as_the_mean():
    priors = Priors({"a": 1.0, "b": -1.0})
    assert (priors.strength("a"), priors.strength("zoe"), priors.strength(None)) == (1, 0, 0)


PRIORS = Priors({"b": -0.25, "ä": 0.25}, {"ä": 3, "b": 4}, 0.8, Interval(0.1, 1.5), "scores win", "bundled", 1.25)


def test_a_file_keeps_everything(tmp_path):
    path = tmp_path / "priors.json"
    PRIORS.save(path)
    assert Priors.load(path) == PRIORS
    assert list(json.loads(path.read_text(encoding="utf-8"))["strengths"]) == ["ä", "b"]
    bare = Priors({"a": 0.0})
    bare.save(path)
    assert Priors.load(path) == replace(bare, games={"a": 0})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "is not a file of priors"),
        ({"version": 2}, "version 2, not 1"),
        ({"strengths": None}, "is damaged"),
        ({"strengths": {"a": "strong"}}, "is damaged"),
        ({"strengths": {"a": float("nan")}}, "finite"),
        ({"weight": -1}, "at least 0"),
        ({"weight": None}, "is damaged"),
        ({"temperature": 0}, "above 0"),
        ({"weight_ci95": [1]}, "is damaged"),
        ({"games": [1]}, "is damaged"),
    ],
)
def test_a_file_that_is_wrong_is_refused(tmp_path, changes, message):
    path = tmp_path / "priors.json"
    PRIORS.save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(InputError, match=message) as caught:
        Priors.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff"])
def test_a_file_that_is_something_else_is_refused(tmp_path, content):
    (tmp_path / "priors.json").write_bytes(content)
    with pytest.raises(InputError, match="is not a file of priors"):
        Priors.load(tmp_path / "priors.json")


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(NotFoundError, match="blend priors fit"):
        Priors.load(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot be read"):
        Priors.load(tmp_path)
    with pytest.raises(InputError, match="cannot be written"):
        PRIORS.save(tmp_path / "no" / "priors.json")
