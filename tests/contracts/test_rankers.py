"""The contract of every `Ranker`.

For a new ranker, add one line to `ENTRIES` with the name of its class and a function that makes one; `get` returns the
value of a session fixture.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import llm_blender
from llm_blender.errors import InputError
from llm_blender.rankers import load_ranker
from llm_blender.rankers.llm_judge import LLMJudge
from llm_blender.ranking import DUEL, STRATEGIES
from llm_blender.testing import FakeLLM, FakeRanker
from llm_blender.types import Message, Ranker, Ranking, Sampling

from .conftest import Case, Get


@dataclass(frozen=True)
class Entry(Case):
    """One ranker.

    Attributes:
        pairwise: whether it compares pairs by a strategy; a pointwise ranker ignores strategy and budget.
        unit: rounding of its logits; float noise, which depends on the batch, may change the last digit.
    """

    pairwise: bool = False
    unit: float = 1e-4


def pretrained(cls: str, checkpoint: Callable[[Get], Any], **options: Any) -> Callable[[Get], Any]:
    """Return a function that loads a ranker; its class, which may need torch, is imported with the call."""
    return lambda get: getattr(llm_blender, cls).from_pretrained(checkpoint(get), **options)


def published(cls: str) -> Callable[[Get], Any]:
    def make(get: Get) -> Any:
        root = get("published")
        return getattr(llm_blender, cls).from_pretrained(root / cls, backbone=str(root / "backbone"))

    return make


REWARD = pretrained("RewardModel", lambda get: get("reward_model"), max_length=96)
CHAT_REWARD = pretrained("RewardModel", lambda get: get("chat_reward_model"))
MLM = pretrained("MLMScoring", lambda get: get("masked_lm"), max_length=40)

ENTRIES = [
    Entry("PairRanker", lambda get: load_ranker("bundled"), "bundled", pairwise=True),
    Entry("PairRanker", pretrained("PairRanker", lambda get: get("tiny_ranker")()), "torch", torch=True, pairwise=True),
    Entry("LLMJudge", lambda get: LLMJudge(FakeLLM("judge", prefer_longer)), pairwise=True),
    Entry("FakeRanker", lambda get: FakeRanker(), pairwise=True),
    Entry(
        "FakeRanker", lambda get: FakeRanker(noise=2.0, order_bias=1.0, seed=3, temperature=2.0), "noisy", pairwise=True
    ),
    Entry("FakeRanker", lambda get: FakeRanker(noise=2.0, position_bias=False), "unbiased", pairwise=True),
    Entry("SimCLS", published("SimCLS"), unit=1e-6, torch=True),
    Entry("SummaReranker", published("SummaReranker"), torch=True),
    Entry("RewardModel", REWARD, torch=True),
    Entry("RewardModel", CHAT_REWARD, "chat", torch=True),
    Entry("MLMScoring", MLM, unit=1e-3, torch=True),
    Entry("Longest", lambda get: load_ranker("longest")),
    Entry("Shortest", lambda get: load_ranker("shortest")),
    Entry("Consensus", lambda get: load_ranker("consensus")),
    Entry("First", lambda get: load_ranker("first")),
    Entry("Random", lambda get: load_ranker("random")),
]

PROMPT = "Why is the sky blue?"
TALK: list[Message] = [
    {"role": "user", "content": "What is water?"},
    {"role": "assistant", "content": "Water is wet."},
    {"role": "user", "content": "And why is it blue?"},
]
TEXTS = ["Because.", "Blue light scatters most in the air.", "It is not!", "The sea is green and the sun is bright."]
PROMPTS = [PROMPT, TALK, "Give three tips.", "", "Is it good?"]
CANDIDATES = [
    TEXTS,
    ["Sleep.", "the sun is bright and " * 12],
    ["only"],
    ["", "water is water", "a bird sings"],
    [*TEXTS, "one", "two", "one"],
]
ODD = [
    "\ud83d", "half \ude42 a character", "\x00", "a\x00b\x07\x1b[0m\x7f", "", " \n\t\r", "\u202eright to left \ufeff",
    "👩‍👩‍👧‍👦🏳️‍🌈", "[CLS] </s> <|im_end|> {x} %s", "sky blue " * 10_000, "x" * 50_000,
]  # fmt: skip


def prefer_longer(messages: Sequence[Message], sampling: Sampling) -> str:
    a, b = re.findall(r" begin answer [AB] ===\n(.*?)\n=== \w+ end answer", messages[1]["content"], re.DOTALL)
    return "A" if len(a) > len(b) else "B" if len(a) < len(b) else "tie"


@pytest.fixture(scope="session")
def ranker(made: Any) -> Any:
    return made


@pytest.fixture(scope="session")
def together(ranker: Any) -> list[Ranking]:
    """Rank all rows."""
    rankings: list[Ranking] = ranker.rank_many(PROMPTS, CANDIDATES)
    return rankings


def check(ranking: Ranking, count: int) -> None:
    """Check what holds for every ranking of so many candidates."""
    assert isinstance(ranking, Ranking)
    assert len(ranking) == len(ranking.scores) == count
    assert ranking.logits.shape == (count, count)
    assert sorted(ranking.order) == list(range(count))
    assert ranking.best == ranking.order[0]
    assert np.isfinite(ranking.scores).all()
    assert not np.isinf(ranking.logits).any()
    scores = [ranking.scores[i] for i in ranking.order]
    assert scores == sorted(scores, reverse=True)
    assert list(ranking.ranks) == [1 + sum(other > score for other in ranking.scores) for score in ranking.scores]
    assert ranking.comparisons >= 0
    assert ranking.temperature > 0
    assert 0 <= ranking.truncated <= 1
    for i in range(count):
        for j in range(i):
            np.testing.assert_allclose(ranking.logit(i, j), -ranking.logit(j, i), rtol=0, atol=0)
            np.testing.assert_allclose(ranking.probability(i, j), 1 - ranking.probability(j, i), atol=1e-12)
    assert ranking.lead is None or 0 <= ranking.lead <= 1


def check_same(one: Ranking, other: Ranking) -> None:
    assert json.dumps(one.to_dict()) == json.dumps(other.to_dict())


def check_close(one: Ranking, other: Ranking, unit: float) -> None:
    """Check that two rankings are equal but for float noise before the rounding."""
    assert (one.order, one.ranks, one.strategy, one.comparisons) == (
        other.order, other.ranks, other.strategy, other.comparisons,
    )  # fmt: skip
    np.testing.assert_allclose(one.logits, other.logits, atol=1.1 * unit, rtol=0)


def test_each_public_ranker_is_in_the_list(public_classes: Callable[..., set[str]]) -> None:
    assert public_classes("llm_blender.rankers", "rank_many") == {entry.cls for entry in ENTRIES}


def test_it_is_a_ranker(ranker: Any, entry: Entry) -> None:
    assert isinstance(ranker, Ranker)
    assert type(ranker).__name__ == entry.cls


def test_lists_may_differ_in_length(together: list[Ranking]) -> None:
    assert len(together) == len(PROMPTS)
    for ranking, texts in zip(together, CANDIDATES, strict=True):
        check(ranking, len(texts))


def test_no_instructions_give_no_rankings(ranker: Any) -> None:
    assert ranker.rank_many([], []) == []


def test_one_candidate_is_the_best(ranker: Any) -> None:
    (ranking,) = ranker.rank_many([PROMPT], [["only"]])
    check(ranking, 1)
    assert (ranking.best, ranking.ranks, ranking.comparisons, ranking.lead) == (0, (1,), 0, None)


@pytest.mark.parametrize(
    ("instructions", "candidates", "message"),
    [
        (["a", "b"], [["x"]], "2 instructions need as many lists of candidates, not 1"),
        (["a"], [["x"], ["y"]], "1 instructions need as many lists of candidates, not 2"),
        (["a", "b"], [["x"], []], "1 has no candidates"),
        ("ab", [["x"], ["y"]], "The instructions must be a list"),
        ([7], [["x"]], "Instruction 0 must be a text or a list of messages, not int"),
        (["a"], ["text"], "The candidates of instruction 0 must be a list of texts, not str"),
        (["a"], [["x", None]], "Candidate 1 of instruction 0 must be a text, not NoneType"),
        ([[{"role": "user"}]], [["x", "y"]], "needs a text `role` and a text `content`"),
        (
            ["a", [{"role": "user", "content": [{"type": "image"}]}]],
            [["x"]] * 2,
            "Instruction 1: Message 0 .* images are",
        ),
    ],
)
def test_what_cannot_be_ranked_is_refused(ranker: Any, instructions: Any, candidates: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ranker.rank_many(instructions, candidates)


def test_odd_candidates_are_ranked(ranker: Any) -> None:
    (ranking,) = ranker.rank_many([PROMPT], [ODD], strategy="knockout")
    check(ranking, len(ODD))


def test_odd_instructions_are_read(ranker: Any) -> None:
    talk = [*TALK, *({"role": "user", "content": text} for text in ODD)]
    rankings = ranker.rank_many([*ODD, talk], [TEXTS[:2]] * (len(ODD) + 1))
    for ranking in rankings:
        check(ranking, 2)


def test_turns_of_tools_are_read_as_their_texts(ranker: Any, entry: Entry) -> None:
    turns = [
        {"role": "user", "content": [{"type": "text", "text": PROMPT}]},
        {"role": "assistant", "content": None, "tool_calls": [{"name": "look", "arguments": {"at": "sky"}}]},
        {"role": "tool", "name": "look", "content": "42"},
    ]
    texts = [
        {"role": "user", "content": PROMPT},
        {"role": "assistant", "content": '[{"name": "look", "arguments": {"at": "sky"}}]'},
        {"role": "user", "content": "Result of a tool: 42"},
    ]
    as_turns, as_texts = ranker.rank_many([turns, texts], [TEXTS] * 2)
    check_close(as_turns, as_texts, entry.unit)


def test_a_row_is_ranked_as_alone(ranker: Any, entry: Entry, together: list[Ranking]) -> None:
    backwards = ranker.rank_many(PROMPTS[::-1], CANDIDATES[::-1])[::-1]
    for i, ranking in enumerate(together):
        (alone,) = ranker.rank_many([PROMPTS[i]], [CANDIDATES[i]])
        check_close(alone, ranking, entry.unit)
        check_close(backwards[i], ranking, entry.unit)


def test_a_seed_repeats_a_ranking(ranker: Any) -> None:
    for strategy, seed in (("knockout", 1), ("single", 2**31)):
        one, other = (ranker.rank_many([PROMPT], [TEXTS], strategy=strategy, seed=seed)[0] for _ in range(2))
        check(one, len(TEXTS))
        check_same(one, other)


def test_rank_is_rank_many_of_one(ranker: Any) -> None:
    for prompt, texts in zip(PROMPTS[:2], CANDIDATES[:2], strict=True):
        (many,) = ranker.rank_many([prompt], [texts], strategy="bubble", seed=2)
        check_same(ranker.rank(prompt, texts, strategy="bubble", seed=2), many)


@pytest.mark.parametrize("prompt", [PROMPT, TALK, "\ud83d"], ids=["text", "talk", "surrogate"])
def test_compare_is_the_ranking_of_two(ranker: Any, entry: Entry, prompt: Any) -> None:
    for a, b in ((TEXTS[0], TEXTS[1]), ("", "\x00")):
        compared = ranker.compare(prompt, a, b)
        ranking = ranker.rank(prompt, [a, b], strategy="full")
        assert compared.logit == pytest.approx(ranking.logit(0, 1), abs=entry.unit)
        assert compared.probability == pytest.approx(ranking.probability(0, 1), abs=entry.unit)
        assert compared.logit == pytest.approx((compared.forward - compared.backward) / 2, abs=1e-9)
        assert compared.winner == ("tie" if compared.logit == 0 else "A" if compared.logit > 0 else "B")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_strategy_gives_a_whole_ranking(ranker: Any, entry: Entry, together: list[Ranking], strategy: str) -> None:
    rankings = ranker.rank_many(PROMPTS[2:], CANDIDATES[2:], strategy=strategy, seed=1, budget=12)
    for ranking, other, texts in zip(rankings, together[2:], CANDIDATES[2:], strict=True):
        check(ranking, len(texts))
        assert ranking.comparisons <= len(texts) * (len(texts) - 1) // (1 if ranker.position_bias else 2)
        if not entry.pairwise and entry.cls != "Random":
            check_close(ranking, other, entry.unit)
        elif entry.pairwise and strategy != "auto":
            assert ranking.strategy == strategy


def test_a_duel_compares_the_first_two_among_all(ranker: Any, entry: Entry) -> None:
    (ranking,) = ranker.rank_many([PROMPT], [TEXTS], strategy=DUEL)
    assert 0 <= ranking.probability(0, 1) <= 1
    assert ranking.probability(0, 1) + ranking.probability(1, 0) == pytest.approx(1)
    if entry.pairwise:
        assert ranking.comparisons == (2 if ranker.position_bias else 1)


def test_without_position_bias_an_order_does_not_matter(ranker: Any, entry: Entry) -> None:
    assert ranker.position_bias or entry.cls != "LLMJudge"
    assert not ranker.position_bias or entry.label not in ("bundled", "unbiased")
    if entry.pairwise and not ranker.position_bias:
        (forward,), (backward,) = (ranker.rank_many([PROMPT], [texts]) for texts in (TEXTS, TEXTS[::-1]))
        np.testing.assert_allclose(forward.logits, backward.logits[::-1, ::-1], atol=1e-6)


def test_an_unknown_strategy_is_refused(ranker: Any, entry: Entry) -> None:
    if not entry.pairwise:
        assert len(ranker.rank(PROMPT, TEXTS, strategy="knokout")) == len(TEXTS)
        return
    with pytest.raises(InputError, match="did you mean 'knockout'") as error:
        ranker.rank_many([PROMPT], [TEXTS], strategy="knokout")
    assert all(name in str(error.value) for name in STRATEGIES)


def test_a_message_is_read_as_its_text(ranker: Any) -> None:
    message: Message = {"role": "user", "content": PROMPT}
    check_same(ranker.rank([message], TEXTS), ranker.rank(PROMPT, TEXTS))
    check_same(ranker.rank(tuple(TALK), tuple(TEXTS)), ranker.rank(TALK, TEXTS))


def test_a_ranking_survives_json(ranker: Any, together: list[Ranking]) -> None:
    for ranking in [*together, ranker.rank(PROMPT, TEXTS, strategy="knockout")]:
        values = json.loads(json.dumps(ranking.to_dict(), allow_nan=False))
        again = Ranking.from_dict(values)
        check(again, len(ranking))
        check_same(again, ranking)
        np.testing.assert_array_equal(again.logits, ranking.logits)
        assert (again.order, again.ranks, again.lead) == (ranking.order, ranking.ranks, ranking.lead)
        json.dumps(ranking.summary(), allow_nan=False)


def test_progress_ends_at_its_total(ranker: Any, together: list[Ranking]) -> None:
    calls: list[tuple[int, int]] = []
    rankings = ranker.rank_many(PROMPTS, CANDIDATES, progress=lambda done, total: calls.append((done, total)))
    assert calls
    assert calls[-1][0] == calls[-1][1]
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    for one, other in zip(rankings, together, strict=True):
        check_same(one, other)


def test_it_ranks_inside_a_running_event_loop(ranker: Any) -> None:
    async def notebook() -> Any:
        return ranker.rank(PROMPT, TEXTS[:2])

    check_same(asyncio.run(notebook()), ranker.rank(PROMPT, TEXTS[:2]))
