"""What goes into the best candidate, and where."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise

import pytest

from llm_blender.ensemble import Ensemble, Member
from llm_blender.errors import InputError
from llm_blender.fusers import ConsensusFuser, GuardedFuser, load_fuser
from llm_blender.testing import FakeLLM, FakeRanker
from llm_blender.types import Fusion

BEST = "The sky is blue. It looks like that by day."
LIGHT = "Air scatters blue light most."
CANDIDATES = [
    BEST,
    f"The sky is blue by day. {LIGHT}",
    f"{LIGHT} The sky looks blue.",
    f"Pigs fly. {LIGHT}",
    "The sky is blue, as air scatters blue light most of all.",
]


def fuse(candidates: list[str], **options: float) -> Fusion:
    return ConsensusFuser(**options).fuse("Why?", candidates)  # type: ignore[arg-type]


def agreement(text: str, others: list[str]) -> float:
    """Compute the mean F1 of words and pairs of words by hand."""

    def grams(text: str) -> Counter[object]:
        words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
        return Counter(words) + Counter(pairwise(words))

    own, total = grams(text), 0.0
    for other in map(grams, others):
        total += 2 * (own & other).total() / (own.total() + other.total())
    return total / len(others)


def test_what_the_others_agree_on_is_put_in_once() -> None:
    fusion = fuse(CANDIDATES)
    assert LIGHT in fusion.text
    assert fusion.text.count(LIGHT) == 1
    assert "Pigs" not in fusion.text
    assert fusion.text.startswith("The sky is blue.")
    assert (fusion.fuser, fusion.used[0], fusion.usage.completion_tokens) == ("consensus", 0, 0)
    assert len(fusion.used) == 2


TORN = "The sea mirrors the sky, and the colour of both depends on the"


def test_a_sentence_that_breaks_off_is_not_inserted() -> None:
    candidates = [BEST, f"{LIGHT} {TORN}", f"{LIGHT} The sky looks blue. {TORN}", f"Pigs fly. {LIGHT} {TORN}"]
    fusion = fuse(candidates)
    assert LIGHT in fusion.text
    assert "depends on" not in fusion.text
    whole = [*candidates[:1], *(f"{text} light." for text in candidates[1:])]
    assert "depends on the light." in fuse(whole).text


def test_the_torn_end_of_the_best_candidate_is_left_out() -> None:
    fusion = fuse([f"{BEST} {TORN}", *CANDIDATES[1:]])
    assert fusion.text.startswith(BEST.split(". ")[0])
    assert "depends on" not in fusion.text


def test_it_agrees_more_with_the_others_than_the_best_does() -> None:
    fusion = fuse(CANDIDATES)
    assert agreement(fusion.text, CANDIDATES[1:]) > agreement(BEST, CANDIDATES[1:]) + 0.003


def test_a_sentence_stands_about_where_it_stood() -> None:
    rest = "Indeed so. As I mean it."
    first = fuse(
        [BEST, f"{LIGHT} The sky is blue by day. {rest}", f"{LIGHT} So it looks.", f"{LIGHT} Blue."], sources=1
    )
    assert first.text == f"{LIGHT}\n{BEST}"
    middle = fuse([BEST, f"The sky is blue by day. {LIGHT} Indeed.", f"So. {LIGHT}", f"Blue. {LIGHT}"], sources=1)
    assert middle.text == f"The sky is blue. {LIGHT} It looks like that by day."


DARK = "Keep the room dark."


@pytest.mark.parametrize(
    ("best", "expected"),
    [
        (
            "Sleep better:\n1. Go to bed early. Always.\n2. Read.\n3. Drink no coffee at night.\n\nThen:\n1. Sleep.",
            "Sleep better:\n1. Go to bed early. Always.\n2. Read.\n3. Keep the room dark.\n4. Drink no coffee at night."
            "\n\nThen:\n1. Sleep.",
        ),
        (
            "1. Read.\n2. Go to bed early.\n\nAnd then:\n1. Sleep.\n2. Drink no coffee.",
            "1. Read.\n2. Go to bed early.\n\nAnd then:\n1. Keep the room dark.\n2. Sleep.\n3. Drink no coffee.",
        ),
        (
            "* Go to bed early.\n* Read.\n* Drink no coffee.",
            "* Go to bed early.\n* Read.\n* Keep the room dark.\n* Drink no coffee.",
        ),
        ("Go to bed early. Drink no coffee.", "Go to bed early. Drink no coffee.\n- Keep the room dark."),
        ("1. Go to bed early.", "1. Go to bed early.\n2. Keep the room dark."),
    ],
)
def test_an_item_of_a_list_gets_into_the_list_there(best: str, expected: str) -> None:
    others = [f"1. Go to bed early.\n2. {DARK}\n3. Wait.", f"- {DARK}", f"{DARK} Drink no coffee."]
    assert fuse([best, *others], sources=1).text == expected


def test_what_looks_like_a_number_elsewhere_stays() -> None:
    best = "In 1999. 12. January was cold. It was 3. March."
    others = [f"{DARK} In 1999.", f"In 1999. {DARK}", f"January was cold. {DARK}"]
    assert fuse([best, *others]).text.replace(DARK, "").split() == best.split()


def test_only_the_next_few_are_drawn_from_but_all_are_asked() -> None:
    others = ["Pigs fly.", "No, horses run!", "Rain falls down"]
    supporters = [f"{LIGHT} The sky is blue."] * 2
    assert fuse([BEST, *others, *supporters], sources=3).text == BEST
    assert LIGHT in fuse([BEST, *others, *supporters], sources=4).text


def test_no_more_than_wanted() -> None:
    more = "Dust does not."
    candidates = [BEST, f"{LIGHT} {more}", f"{more} {LIGHT}", f"{LIGHT} {more} Yes."]
    assert {s in fuse(candidates).text for s in (LIGHT, more)} == {True}
    assert len(fuse(candidates, most=1).text) < len(fuse(candidates).text)
    assert fuse(candidates, gain=0.9).text == BEST


@pytest.mark.parametrize(
    "candidates",
    [
        [BEST],
        [BEST, LIGHT],
        [BEST, BEST, BEST],
        [f"```\n{BEST}\n```", LIGHT, LIGHT, LIGHT],
        ["", "", ""],
        ["…", "!", "?"],
    ],
)
def test_where_nothing_can_be_put_in_the_best_stays_as_it_is(candidates: list[str]) -> None:
    fusion = fuse(candidates)
    assert (fusion.text, fusion.used, fusion.flaw) == (candidates[0], (0,), None)


def test_under_guard_it_reads_all_candidates_best_first() -> None:
    ranker = FakeRanker(lambda text: text.count("e") + 100 * text.startswith("The sky is blue. "))
    guarded = GuardedFuser(ConsensusFuser(), ranker, top_k=2, order="best_last")
    (report,) = guarded.fuse_many(["Why?"], [CANDIDATES], [ranker.rank("Why?", CANDIDATES, strategy="full")])
    assert (report.reason, report.returned) == ("better", "fuse")
    assert LIGHT in report.answer
    ranking = ranker.rank("Why?", CANDIDATES, strategy="full")
    assert asyncio.run(guarded.afuse("Why?", CANDIDATES, ranking)).answer == report.answer


def test_in_an_ensemble() -> None:
    ranker = FakeRanker(lambda text: text.count("e") + 100 * text.startswith("The sky is blue. "))
    members = [Member(FakeLLM(f"llm{i}", text)) for i, text in enumerate(CANDIDATES)]
    answer = Ensemble(members, ranker, fuser=ConsensusFuser(), mode="fuse").ask("Why?")
    assert answer.mode == "fuse"
    assert LIGHT in answer.text


def test_by_name_and_what_is_wrong() -> None:
    fuser = load_fuser("consensus")
    assert isinstance(fuser, ConsensusFuser)
    pieces: list[str] = []
    fusion = asyncio.run(fuser.afuse("Why?", CANDIDATES, on_text=pieces.append))
    assert pieces == [fusion.text]
    assert [f.text for f in fuser.fuse_many(["a", "b"], [CANDIDATES, [BEST]])] == [fusion.text, BEST]
    for wrong in ({"sources": 0}, {"gain": 0.0}, {"most": 0}):
        with pytest.raises(InputError, match="at least 1"):
            fuse(CANDIDATES, **wrong)
    with pytest.raises(InputError, match="no candidates"):
        fuse([])


TIPS = "Here are some tips for better sleep:"


@pytest.mark.parametrize("end", [":", ":**", "：", ':"', ": "])
@pytest.mark.parametrize(
    "best", ["Sleep well. To sleep better, follow these steps:\n1. Read.\n2. Go to bed early.", BEST]
)
def test_an_introduction_is_not_joined_to_another_text(best: str, end: str) -> None:
    tips = TIPS.rstrip(":") + end
    others = [f"{tips}\n1. {DARK}", f"{tips}\n\n- {DARK}", f"{tips}\n- {DARK}\n- Go to bed early."]
    fused = fuse([best, *others]).text
    assert DARK in fused
    assert "Here are some tips" not in fused
    assert fused.count(":") == best.count(":")
    assert fuse([f"{tips}\n- Read.", *others]).text.startswith(tips.rstrip())  # its own one stays


def test_nothing_gets_between_an_introduction_and_what_it_introduces() -> None:
    rest = "Follow these steps:\n1. Read.\n2. Go to bed early."
    others = [f"Well. {DARK} Read on. It ends.", f"So. {DARK}", f"Yes, so it is. {DARK}"]
    for before in ("", "It is good.\n"):
        fused = fuse([before + rest, *others], sources=1, most=1).text
        assert fused == f"{before}{DARK}\n{rest}"


def test_an_answer_in_a_few_words_stays() -> None:
    assert LIGHT in fuse([BEST, *CANDIDATES[1:]]).text
    assert fuse(["By light.", *CANDIDATES[1:]]).text == "By light."
