import math

import pytest

from llm_blender.errors import InputError
from llm_blender.rankers import load_ranker
from llm_blender.rankers.heuristics import HEURISTICS, Consensus, First, Longest, Random, Shortest
from llm_blender.types import Ranker

TEXTS = ["bb", "a", "ccc", "dd", ""]


@pytest.mark.parametrize("name", HEURISTICS)
def test_they_are_rankers(name):
    ranker = HEURISTICS[name]()
    assert isinstance(ranker, Ranker)
    calls = []
    ragged = [TEXTS, ["one"], ["x", "yy"]]
    rankings = ranker.rank_many(["a", "b", "c"], ragged, strategy="knockout", progress=lambda *call: calls.append(call))
    assert [len(ranking) for ranking in rankings] == [5, 1, 2]
    assert {(ranking.strategy, ranking.comparisons, ranking.truncated) for ranking in rankings} == {(name, 0, 0)}
    assert calls == [(8, 8)]
    for ranking, texts in zip(rankings, ragged, strict=True):
        assert ranking.to_dict() == ranker.rank("abc"[ragged.index(texts)], texts).to_dict()


def test_longest_and_shortest():
    assert Longest().rank("say", TEXTS).order == (2, 0, 3, 1, 4)
    assert Longest().rank("say", TEXTS).ranks == (2, 4, 1, 2, 5)
    assert Shortest().rank("say", TEXTS).order == (4, 1, 0, 3, 2)


def test_the_probability_is_the_share_of_the_characters():
    assert Longest().compare("say", "a" * 29, "b" * 9).probability == pytest.approx(30 / 40)
    assert Longest().rank("say", ["a" * 9, "b" * 29]).probability(0, 1) == pytest.approx(10 / 40)
    assert Longest().compare("say", "aa", "bb").winner == "tie"
    assert Shortest().compare("say", "a", "bb").winner == "A"
    assert Longest().compare("say", "x" * 100_001, "y" * 100_000).winner == "A"


def test_equal_texts_have_the_same_consensus():
    texts = ["a c h j", "k a c", "j h a", "f c", "h k d b", "a c h j", "b f h"]
    for turn in range(len(texts)):
        turned = texts[turn:] + texts[:turn]
        ranks = Consensus().rank("say", turned).ranks
        assert len({rank for text, rank in zip(turned, ranks, strict=True) if text == texts[0]}) == 1


def test_first():
    ranking = First().rank("say", TEXTS)
    assert ranking.order == (0, 1, 2, 3, 4)
    assert ranking.logit(0, 3) == 3


def test_a_draw_depends_on_seed_instruction_and_text_alone():
    scores = dict(zip(TEXTS, Random().rank("say", TEXTS).scores, strict=True))
    assert len(set(scores.values())) == 5
    (_, other, shuffled) = Random().rank_many(["x", "say", "say"], [["z"], ["ccc", "new"], TEXTS[::-1]])
    assert other.scores[0] == scores["ccc"]
    assert shuffled.scores == tuple(scores[text] for text in TEXTS[::-1])
    assert Random().rank("say", ["a", "a", "b"]).ranks in [(1, 1, 3), (2, 2, 1)]
    assert Random().rank("tell", TEXTS).scores != Random().rank("say", TEXTS).scores
    assert (
        Random(seed=1).rank("say", TEXTS).scores == Random().rank("say", TEXTS, seed=1).scores != tuple(scores.values())
    )


def test_draws_are_fair():
    wins = sum(Random().rank(f"prompt {i}", ["long answer", "b"]).best for i in range(2000))
    assert abs(wins / 2000 - 0.5) < 4 * math.sqrt(0.25 / 2000)
    places = [Random().rank("say", [f"{i}", f"{i + 1}", f"{i + 2}"]).best for i in range(0, 3000, 3)]
    assert all(280 < places.count(place) < 390 for place in range(3))


def test_odd_texts():
    assert len(Random().rank("say", ["\ud800", "", "é"])) == 3
    with pytest.raises(InputError, match="must be a text, not int"):
        Longest().rank("say", ["a", 3])
    with pytest.raises(InputError, match="no candidates"):
        First().rank("say", [])


def test_by_name():
    for name, kind in HEURISTICS.items():
        assert isinstance(load_ranker(name), kind)
