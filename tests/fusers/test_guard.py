"""GuardedFuser: when it returns the fused text, and its report."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from llm_blender.errors import InputError, LLMError, WorkError
from llm_blender.fusers import ConsensusFuser, FusionRule, GuardedFuser, LongestFuser
from llm_blender.rankers.heuristics import Consensus, First
from llm_blender.ranking.aggregation import ranking_from_scores
from llm_blender.testing import FakeRanker
from llm_blender.types import Fuser, Fusion, FusionReport, Usage

CANDIDATES = ["short", "the longest of all", "a longer one", ""]


class FakeFuser:
    """A fuser of fixed texts; `FakeRanker` prefers the longer text."""

    name = "fake"

    def __init__(self, text: str = "", *, delay: float = 0.0, error: Exception | None = None, **fields: Any) -> None:
        self.text, self.delay, self.error, self.fields = text, delay, error, fields
        self.calls: list[tuple[Any, ...]] = []

    def _fuse(self, instruction: Any, candidates: Sequence[str], input: str, seed: int) -> Fusion:
        self.calls.append((instruction, list(candidates), input, seed))
        if self.error is not None:
            raise self.error
        return Fusion(self.text, self.name, tuple(range(len(candidates))), usage=Usage(7, 3), **self.fields)

    def fuse_many(
        self, instructions: Any, candidates: Any, *, inputs: Any = None, seed: int = 0, progress: Any = None
    ) -> list[Fusion]:
        rows = [self._fuse(*row, seed) for row in zip(instructions, candidates, inputs, strict=True)]
        if progress is not None:
            progress(len(rows), len(rows))
        return rows

    async def afuse(
        self, instruction: Any, candidates: Any, *, input: str = "", seed: int = 0, on_text: Any = None
    ) -> Fusion:
        await asyncio.sleep(self.delay)
        return self._fuse(instruction, candidates, input, seed)


class Seeing(FakeRanker):
    """A ranker that keeps the texts of its last call."""

    def rank_many(self, instructions: Any, candidates: Any, **options: Any) -> Any:
        (self.seen,) = candidates
        return super().rank_many(instructions, candidates, **options)


def report(fuser: Fuser, candidates: Sequence[str] = CANDIDATES, ranker: Any = None, **options: Any) -> FusionReport:
    """Return the report of fuse_many and afuse, which must agree."""
    ranker = ranker or FakeRanker()
    guarded = GuardedFuser(fuser, ranker, **options)
    ranking = ranker.rank("q", candidates, strategy="full")
    (one,) = guarded.fuse_many(["q"], [candidates], [ranking], inputs=["more"], seed=5)
    other = asyncio.run(guarded.afuse("q", candidates, ranking, input="more", seed=5))
    for name in ("asked", "returned", "reason", "answer", "probability", "lead", "overlap", "comparisons"):
        assert getattr(one, name) == getattr(other, name)
    return one


def test_a_better_text_is_given_back() -> None:
    fuser = FakeFuser("much longer than the longest of all")
    got = report(fuser)
    assert (got.asked, got.returned, got.reason, got.answer) == ("fuse", "fuse", "better", fuser.text)
    assert got.probability is not None
    assert got.probability > 0.5
    assert got.comparisons == 2
    assert got.fusion is not None
    assert got.fusion.used == (1, 2, 0)  # counted among all candidates, best first
    assert fuser.calls[0] == ("q", ["the longest of all", "a longer one", "short"], "more", 5)
    assert got.message.startswith("the ranker prefers the fused answer to the best candidate (probability 1.00)")


def test_a_worse_text_is_not_given_back() -> None:
    got = report(FakeFuser("bad"))
    assert (got.returned, got.reason, got.answer) == ("pick", "worse", "the longest of all")
    assert got.fusion is not None
    assert got.fusion.text == "bad"  # what was paid for is not lost
    assert got.probability == pytest.approx(0, abs=1e-5)


def test_both_orders_count() -> None:
    ranker = FakeRanker(order_bias=100.0)
    assert report(FakeFuser("bad"), ranker=ranker).reason == "worse"
    assert report(FakeFuser("much longer than the longest of all"), ranker=ranker).reason == "better"
    tie = FakeFuser("The longest of all")
    assert report(tie, ranker=ranker).reason == "worse"  # as good is not better


def test_the_evidence_of_the_other_candidates_counts() -> None:
    """Two texts have no consensus: the others decide which one agrees with them."""
    candidates = ["tides come from wind", "tides come from the moon and the sun", "the moon and the sun pull the sea"]
    ranking = First().rank("q", candidates)
    for text, reason in (("tides come from the moon", "better"), ("tides come from fish", "worse")):
        guarded = GuardedFuser(FakeFuser(text), Consensus())
        (got,) = guarded.fuse_many(["q"], [candidates], [ranking])
        assert (got.reason, asyncio.run(guarded.afuse("q", candidates, ranking)).reason) == (reason, reason)


def test_a_fuser_that_maximises_agreement_is_not_checked_by_it() -> None:
    ranker, texts = Seeing(), ["short", "the longest of all", "a longer one"]
    fuser = FakeFuser("a new one")
    fuser.maximises_agreement = True  # type: ignore[attr-defined]
    asyncio.run(GuardedFuser(fuser, ranker).afuse("q", texts, ranker.rank("q", texts, strategy="full")))
    assert ranker.seen == ["the longest of all", "a new one"]
    assert ConsensusFuser().maximises_agreement


def test_the_other_candidates_are_not_compared_again() -> None:
    ranker, texts = Seeing(), ["short", "the longest of all", "a longer one", "a longer one", ""]
    ranking = ranker.rank("q", texts, strategy="full")
    got = asyncio.run(GuardedFuser(FakeFuser("a new one"), ranker).afuse("q", texts, ranking))
    assert ranker.batches[-1] == [("q", "the longest of all", "a new one"), ("q", "a new one", "the longest of all")]
    assert got.comparisons == 2
    assert ranker.seen == ["the longest of all", "a new one", "short", "a longer one", "a longer one", ""]


def test_a_candidate_that_the_fuser_copied_is_in_view_once() -> None:
    ranker, texts = Seeing(lambda text: text.count("e")), ["eee", " a copied one\n", "x"]
    asyncio.run(GuardedFuser(FakeFuser("a copied one"), ranker).afuse("q", texts, ranker.rank("q", texts)))
    assert ranker.seen == ["eee", "a copied one", "x"]


def test_how_much_better_can_be_asked() -> None:
    fuser = FakeFuser("the longest of all!")
    assert report(fuser).reason == "better"
    assert report(fuser, rule=FusionRule(prefer=0.9)).reason == "worse"


def test_without_the_guard_nothing_is_compared() -> None:
    got = report(FakeFuser("bad"), guard=False)
    assert (got.returned, got.reason, got.answer, got.probability, got.comparisons) == (
        "fuse", "unguarded", "bad", None, 0,
    )  # fmt: skip


@pytest.mark.parametrize("guard", [True, False])
@pytest.mark.parametrize("flaw", ["empty", "repeats", "echo", "cut_off", "too_small"])
def test_a_flawed_text_is_never_given_back(flaw: Any, guard: bool) -> None:
    got = report(FakeFuser("much longer than the longest of all", flaw=flaw, error=None), guard=guard)
    assert (got.returned, got.reason, got.answer, got.comparisons) == ("pick", flaw, "the longest of all", 0)


def test_a_copy_of_the_best_is_the_best() -> None:
    got = report(FakeFuser("the longest of all"))
    assert (got.returned, got.reason, got.comparisons) == ("pick", "copy", 0)


def test_of_equal_texts_the_best_one_is_read_at_its_place() -> None:
    """Copies rank apart where a judge or a strategy tells them apart."""
    candidates = ["the same text", "another text that is longer", "the same  text", "short"]
    fuser = FakeFuser("much longer than the longest of all")
    guarded = GuardedFuser(fuser, FakeRanker(), order="best_first")
    guarded.fuse_many(["q"], [candidates], [ranking_from_scores("full", [4.0, 3.0, 2.0, 1.0], np.full((4, 4), np.nan))])
    assert fuser.calls[0][1] == candidates[:2] + candidates[3:]


@pytest.mark.parametrize(
    ("candidates", "reason", "answer"),
    [
        (["one"], "one_candidate", "one"),
        (["one", " ", ""], "one_candidate", "one"),
        (["same  text", "same text", "same\ntext"], "same_candidates", "same  text"),
        (["", "  "], "no_candidates", "  "),
    ],
)
def test_what_cannot_be_fused(candidates: list[str], reason: str, answer: str) -> None:
    fuser = FakeFuser("never called")
    got = report(fuser, candidates)
    assert (got.returned, got.reason, got.answer, got.fusion) == ("pick", reason, answer, None)
    assert fuser.calls == []


def test_candidates_that_say_the_same_are_fused_once() -> None:
    fuser = FakeFuser("much longer than the longest of all")
    report(fuser, ["a longer one", "a longer  one", "short"], top_k=2)
    assert fuser.calls[0][1] == ["a longer  one", "short"]  # of equal ones, the better
    report(fuser, CANDIDATES, top_k=2)
    assert fuser.calls[-1][1] == ["the longest of all", "a longer one"]


def test_they_are_read_in_the_order_wanted() -> None:
    fuser = FakeFuser("much longer than the longest of all")
    best_first = ["the longest of all", "a longer one", "short"]
    report(fuser, order="best_last")
    assert fuser.calls[0][1] == best_first[::-1]
    for _ in range(2):  # by both ways, and again: the same
        report(fuser, order="shuffled")
    (drawn,) = {tuple(call[1]) for call in fuser.calls[2:]}
    assert sorted(drawn) == sorted(best_first)
    orders = set()
    for i in range(8):
        other = FakeFuser("much longer than the longest of all")
        report(other, [*best_first[:2], f"short {i}"], order="shuffled")
        orders.add(tuple(text[:5] for text in other.calls[0][1]))
    assert len(orders) > 2
    got = report(fuser, top_k=1)
    assert (fuser.calls[-1][1], got.reason) == (["the longest of all"], "better")


def test_the_longest_is_the_baseline() -> None:
    ranker = FakeRanker(lambda text: text.count("e"))
    got = report(LongestFuser(), ["eee", "the longest", "x"], ranker=ranker)
    assert got.fusion is not None
    assert (got.reason, got.fusion.text, got.fusion.used) == ("worse", "the longest", (1,))


def test_auto_asks_the_rule_first() -> None:
    fuser = FakeFuser("much longer than the longest of all")
    clear = ["apples pears plums cherries", "apples"]
    got = report(fuser, clear, mode="auto")
    assert (got.asked, got.returned, got.reason, got.answer) == ("auto", "pick", "clear", clear[0])
    assert got.lead is not None
    assert got.overlap == 1.0
    copied = report(fuser, [clear[0], *clear], mode="auto")  # a copy is as good, and says nothing
    assert (copied.reason, copied.lead, copied.overlap) == ("clear", got.lead, 1.0)
    assert fuser.calls == []
    close = report(fuser, ["apples pears", "pears apples", "x"], mode="auto")
    assert (close.asked, close.reason, close.lead) == ("auto", "better", 0.5)


def test_a_fuser_that_fails_costs_the_fused_text_and_no_more() -> None:
    fuser = FakeFuser(error=LLMError("llama", "auth", "planted"))
    ranker = FakeRanker()
    guarded = GuardedFuser(fuser, ranker)
    got = asyncio.run(guarded.afuse("q", CANDIDATES, ranker.rank("q", CANDIDATES)))
    assert (got.returned, got.reason, got.answer) == ("pick", "failed", "the longest of all")
    assert got.message == "the fuser failed: llama: planted"
    with pytest.raises(WorkError, match="planted"):  # with many rows, the error must be seen
        guarded.fuse_many(["q"], [CANDIDATES], [ranker.rank("q", CANDIDATES)])


def test_a_fuser_that_is_late() -> None:
    ranker = FakeRanker()
    guarded = GuardedFuser(FakeFuser("text", delay=5), ranker)
    got = asyncio.run(guarded.afuse("q", CANDIDATES, ranker.rank("q", CANDIDATES), deadline=0.05))
    assert (got.reason, got.message) == ("failed", "the fuser failed: no fused answer within 0.05 s")
    assert 0.04 < got.seconds < 2  # a timer may ring a moment early


def test_a_timeout_of_the_fuser_itself_is_its_error() -> None:
    ranker = FakeRanker()
    guarded = GuardedFuser(FakeFuser(error=TimeoutError("planted")), ranker)
    with pytest.raises(TimeoutError, match="planted"):
        asyncio.run(guarded.afuse("q", CANDIDATES, ranker.rank("q", CANDIDATES)))


def test_many_rows_are_compared_together_and_keep_their_order() -> None:
    ranker, counts = FakeRanker(), list[tuple[int, int]]()
    rows = [["a", "bb"], ["only"], ["ccc", "dddddddddd"]]
    rankings = ranker.rank_many(["1", "2", "3"], rows)
    before = len(ranker.batches)
    reports = GuardedFuser(FakeFuser("fused"), ranker).fuse_many(
        ["1", "2", "3"], rows, rankings, progress=lambda *count: counts.append(count)
    )
    assert [got.reason for got in reports] == ["better", "one_candidate", "worse"]
    assert len(ranker.batches) == before + 1
    assert counts[-1] == (3, 3)


def test_the_report_as_json() -> None:
    got = report(FakeFuser("bad", truncated=0.25, cost=0.5)).to_dict()
    seconds = got.pop("seconds")
    assert seconds >= 0
    assert got.pop("probability") < 0.01
    assert (got.pop("lead") > 0.9, got.pop("overlap")) == (True, 0.0)
    assert got == {
        "asked": "fuse", "returned": "pick", "reason": "worse", "answer": "the longest of all", "comparisons": 2,
        "text": "bad", "fuser": "fake", "used": [1, 2, 0], "truncated": 0.25,
        "usage": {"prompt_tokens": 7, "completion_tokens": 3}, "cost": 0.5, "stored": False,
    }  # fmt: skip
    assert "text" not in report(FakeFuser("x"), ["one"]).to_dict()


def test_wrong_settings() -> None:
    with pytest.raises(InputError, match="At least one candidate is fused, not 0"):
        GuardedFuser(FakeFuser(), FakeRanker(), top_k=0)
    with pytest.raises(InputError, match="best_first, best_last, shuffled, not 'worst'"):
        GuardedFuser(FakeFuser(), FakeRanker(), order="worst")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="is fuse or auto, not 'pick'"):
        GuardedFuser(FakeFuser(), FakeRanker(), mode="pick")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="1 instructions need as many lists of candidates and rankings, not 2 and 1"):
        GuardedFuser(FakeFuser(), FakeRanker()).fuse_many(["a"], [["b"], ["c"]], [FakeRanker().rank("a", ["b"])])


def test_lone_surrogates_are_shuffled() -> None:
    fuser = FakeFuser("much longer than the longest of all")
    assert report(fuser, ["half \ud83d", "a character \ude42"], order="shuffled").reason == "better"
    assert sorted(fuser.calls[0][1]) == ["a character \ude42", "half \ud83d"]


@pytest.mark.parametrize(
    ("candidates", "inputs", "message"),
    [
        ([CANDIDATES], ["x", "y"], "1 instructions need as many inputs, not 2"),
        ([CANDIDATES], [], "1 instructions need as many inputs, not 0"),
        ([["a", None, "b", "c"]], None, "Candidate 1 of instruction 0 must be a text, not NoneType"),
    ],
)
def test_what_is_no_row_is_refused(candidates: Any, inputs: Any, message: str) -> None:
    ranking = FakeRanker().rank("q", CANDIDATES)
    guarded = GuardedFuser(FakeFuser("text"), FakeRanker())
    with pytest.raises(InputError, match=message):
        guarded.fuse_many(["q"], candidates, [ranking], inputs=inputs)
    if inputs is None:
        with pytest.raises(InputError, match=message):
            asyncio.run(guarded.afuse("q", candidates[0], ranking))
