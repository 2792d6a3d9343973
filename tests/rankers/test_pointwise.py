"""Behaviour shared by all pointwise rankers."""

from __future__ import annotations

import numpy as np
import pytest

from llm_blender.errors import InputError
from llm_blender.rankers import load_ranker
from llm_blender.rankers.pointwise import PointwiseRanker
from llm_blender.types import Ranker

PROMPTS = ["Why is the sky blue?", "Give three tips for sleep.", [{"role": "user", "content": "What is water?"}]]
TEXTS = [
    ["Because.", "Blue light scatters in the air.", "It is not!", "Because."],
    ["Sleep.", "the sun is bright and " * 12],
    ["", "water is water", "Blue light scatters in the air."],
]


@pytest.fixture(scope="module", params=["summareranker", "simcls", "bert", "llama"])
def ranker(request, tiny_pointwise, tiny_reward_model) -> PointwiseRanker:
    make = tiny_pointwise if request.param in ("summareranker", "simcls") else tiny_reward_model
    return load_ranker(make(request.param))


def test_it_is_a_ranker(ranker):
    assert isinstance(ranker, Ranker)


def test_the_best_score_is_the_best_candidate(ranker):
    scores = ranker.scores(PROMPTS, TEXTS)
    for row, ranking in zip(scores, ranker.rank_many(PROMPTS, TEXTS), strict=True):
        assert np.ptp(row) > 1e-3
        assert ranking.best == int(np.argmax(row))
        assert ranking.order == tuple(np.argsort(-row.round(ranker.decimals), kind="stable"))
        np.testing.assert_allclose(ranking.scores, row, atol=10**-ranker.decimals)
        assert (ranking.strategy, ranking.comparisons) == (ranker.name, 0)


def test_a_logit_is_a_difference_of_scores(ranker):
    ranking = ranker.rank(PROMPTS[0], TEXTS[0])
    assert ranking.logit(1, 2) == pytest.approx(ranking.scores[1] - ranking.scores[2], abs=1e-6)
    assert ranking.logits[2, 1] == -ranking.logits[1, 2]
    assert ranking.probability(1, 2) == pytest.approx(1 / (1 + np.exp(-ranking.logit(1, 2) / ranker.temperature)))


def test_equal_texts_tie(ranker):
    ranking = ranker.rank(PROMPTS[0], TEXTS[0])
    assert ranking.ranks[0] == ranking.ranks[3]
    assert ranking.logit(0, 3) == 0


def test_scores_do_not_depend_on_the_batch(ranker):
    together = ranker.scores(PROMPTS, TEXTS)
    for prompt, texts, row in zip(PROMPTS, TEXTS, together, strict=True):
        for text, score in zip(texts, row, strict=True):
            np.testing.assert_allclose(ranker.scores([prompt], [[text]])[0], [score], atol=1e-5)
    backwards = ranker.scores(PROMPTS[::-1], [texts[::-1] for texts in TEXTS[::-1]])
    for row, other in zip(together, backwards[::-1], strict=True):
        np.testing.assert_allclose(other[::-1], row, atol=1e-5)


def test_small_batches_change_nothing(ranker, monkeypatch):
    whole = ranker.rank_many(PROMPTS, TEXTS)
    monkeypatch.setattr(ranker, "max_tokens", 40)
    for one, other in zip(whole, ranker.rank_many(PROMPTS, TEXTS), strict=True):
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)


def test_what_is_asked_twice_is_computed_once(ranker, monkeypatch):
    rows = []
    run = ranker._run
    monkeypatch.setattr(
        ranker, "_run", lambda readings, *args, **how: rows.append(len(readings)) or run(readings, *args, **how)
    )
    ranker.rank_many([PROMPTS[0]] * 3, [TEXTS[0], TEXTS[0][::-1], TEXTS[0]])
    assert sum(rows) == {"simcls": 1 + 3}.get(ranker.name, 3)


def test_the_strategy_is_ignored(ranker):
    one, other = (ranker.rank(PROMPTS[0], TEXTS[0], strategy=name, seed=i) for i, name in enumerate(["full", "bubble"]))
    assert one.to_dict() == other.to_dict()


def test_compare(ranker):
    first, second = ranker.scores([PROMPTS[0]], [TEXTS[0][:2]])[0]
    found = ranker.compare(PROMPTS[0], *TEXTS[0][:2])
    assert found.logit == pytest.approx(first - second, abs=1e-4)
    assert found.winner == ("A" if first > second else "B")
    assert ranker.compare(PROMPTS[0], "Because.", "Because.").winner == "tie"


def test_progress_ends_at_its_total(ranker):
    seen = []
    ranker.rank_many(PROMPTS, TEXTS, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert len({total for _, total in seen}) == 1


def test_nothing_to_rank(ranker):
    assert ranker.rank_many([], []) == []


def test_truncation_is_told(ranker):
    short, long = ranker.rank_many(PROMPTS[:2], [TEXTS[0], ["Sleep.", "the sun is bright and " * 60]])
    assert short.truncated == 0
    assert 0.3 < long.truncated < 1


def test_one_candidate(ranker):
    assert ranker.rank(PROMPTS[0], ["Because."]).ranks == (1,)


@pytest.mark.parametrize(
    ("instructions", "candidates", "message"),
    [
        (["a"], [], "1 instructions need as many lists of candidates, not 0"),
        ("abc", [["x"], ["y"], ["z"]], "The instructions must be a list"),
        (["a", None], [["x"], ["y"]], "Instruction 1 must be a text or a list of messages, not NoneType"),
        ([7], [["x"]], "Instruction 0 must be a text or a list of messages, not int"),
        (["a"], ["text"], "The candidates of instruction 0 must be a list of texts, not str"),
        (["a"], [None], "The candidates of instruction 0 must be a list of texts, not NoneType"),
        (["a"], [["x", None]], "Candidate 1 of instruction 0 must be a text, not NoneType"),
        (["a"], [["x", 3.5]], "Candidate 1 of instruction 0 must be a text, not float"),
        (["a", "b"], [["x"], []], "Instruction 1 has no candidates: give at least one"),
        ([[{"role": "user"}]], [["x"]], "needs a text `role` and a text `content`"),
    ],
)
def test_what_cannot_be_ranked(ranker, instructions, candidates, message):
    with pytest.raises(InputError, match=message):
        ranker.rank_many(instructions, candidates)


def test_lone_surrogates_are_read(ranker):
    assert ranker.rank("Why \ud83d?", ["a \udc00", "b"]).ranks


def test_copies_give_the_same_numbers(ranker, tmp_path):
    ranker.save_pretrained(tmp_path / "copy")
    copy = load_ranker(tmp_path / "copy", device="cpu")
    assert copy.rank(PROMPTS[0], TEXTS[0]).to_dict() == ranker.rank(PROMPTS[0], TEXTS[0]).to_dict()
    assert copy.temperature == ranker.temperature


class TestDevices:
    def test_several_share_the_work(self, ranker):
        shared = type(ranker).from_pretrained(ranker.folder, device=["cpu", "cpu"], max_tokens=48)
        assert shared.model.parallel == 2
        for one, other in zip(ranker.scores(PROMPTS, TEXTS), shared.scores(PROMPTS, TEXTS), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)

    def test_bfloat16_is_near(self, ranker):
        half = type(ranker).from_pretrained(ranker.folder, dtype="bfloat16")
        (one,), (other,) = (r.scores(PROMPTS[:1], TEXTS[:1]) for r in (ranker, half))
        assert 0 < np.abs(one - other).max() < 0.2

    @pytest.mark.parametrize(
        ("how", "message"),
        [
            ({"device": "gpu9"}, "Unknown device 'gpu9'"),
            ({"device": []}, r"Unknown device \[\]"),
            ({"device": "meta:x"}, "Unknown device"),
            ({"dtype": "int4"}, "Unknown dtype 'int4'"),
        ],
    )
    def test_unknown(self, ranker, how, message):
        with pytest.raises(InputError, match=message):
            type(ranker).from_pretrained(ranker.folder, **how)
