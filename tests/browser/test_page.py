"""What people do on the page, and what it must never do."""

from __future__ import annotations

import hashlib
import re

import pytest

from llm_blender.fusers.chat_fuser import ChatFuser
from llm_blender.ranking import FLAWS
from llm_blender.server.auth import Keys
from llm_blender.testing import FakeLLM

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from playwright.sync_api import expect

QUESTION = "Why is the sky blue?"


def test_candidates_are_watched_and_the_answer_is_explained(playground, open_page, ask, answered, texts):
    page = open_page(playground())
    ask(page)
    qwen = page.get_by_role("article", name="B qwen")
    expect(qwen).to_contain_text("The air")  # while it is written
    expect(qwen.locator(".state")).to_have_text(re.compile(r"writing · \d\.\d s"))
    expect(page.get_by_role("article", name="D down")).to_contain_text("Its server refuses the API key.")
    expect(page.locator(".stage")).to_have_text(re.compile(r"\d of 4 answered, 1 failed · \d+\.\d s"))
    answered(page)
    expect(page.locator(".stage")).to_be_hidden()
    best = page.locator(".card.answer")
    expect(best).to_have_count(1)
    expect(best.locator(".prose")).to_have_text(texts.markup)
    expect(best).to_contain_text("Best answer")
    assert page.locator("main").inner_text().count("nothing else, see.") == 1
    assert page.locator("main").inner_text().count(QUESTION) == 1
    expect(page.locator(".source")).to_have_text(
        "Picked C, gemma: about equal to the next, B (probability 0.54). 1 of 4 gave no answer."
    )
    expect(page.locator(".facts")).to_contain_text("6 (full)")
    expect(page.locator("#status")).to_have_text("The answer is there: C, gemma. D, down gave no answer.")
    expect(page.get_by_role("article", name="A llama")).to_contain_text("rank 3")
    expect(page.get_by_role("article", name="D down")).to_contain_text("planted auth")
    cards = page.get_by_role("article").all_inner_texts()
    assert [card[0] for card in cards] == ["C", "A", "B", "D"]


def test_words_mean_what_they_say(playground, open_page):
    page = open_page(playground())
    words = page.evaluate("""async () => {
        const { surely, agreement, missing, money } = await import("/page/words.js");
        return [[0.98, 0.8, 0.6, 0.52, 0.48, 0.3, null].map((value) => surely(value, "B")),
            agreement({ evidence: { answers: ["15", "15", null, "15", "7", "15"] } }), agreement({}),
            missing(1, 5), missing(0, 5), [null, 0, 0.2, 0.0012].map(money)];
    }""")
    assert words == [
        [
            "clearly better than B (probability 0.98)",
            "better than B (probability 0.80)",
            "a little better than B (probability 0.60)",
            "about equal to B (probability 0.52)",
            "first by all comparisons, though in theirs about equal to B",
            "first by all comparisons, though B is ahead in theirs (probability 0.70)",
            "not compared directly with B",
        ],
        "4 of 5 agree on 15",
        None,
        "1 of 5 gave no answer",
        None,
        ["unknown", "free", "$0.20", "$0.0012"],
    ]


CHOICES = """async (given) => {
    const { source } = await import("/page/results.js");
    const { texts, probabilities, best, ranks, cut = [], flaws } = given;
    const cards = texts.map((text, i) => ({ text, letter: "ABC"[i], name: "ABC"[i] }));
    const candidates = texts.map((text, i) => ({ text, finish_reason: cut.includes(i) ? "length" : "stop" }));
    return source({ mode: "pick", failures: [], candidates,
        ranking: { best, ranks, probabilities, evidence: flaws && { flaws } } }, cards);
}"""
HALF = [[None, 0.49, 0.8], [0.51, None, 0.9], [0.2, 0.1, None]]  # B is ahead of A


SENTENCES = [
    ({"ranks": [1, 2, 3], "cut": [1, 2]}, "Picked A: B and C were cut off."),
    ({"ranks": [1, 3, 2], "cut": [1]}, "Picked A: better than the next, C (probability 0.80). "
     "B was cut off and ranks behind the whole answers."),
    ({"ranks": [1, 2, 3]}, "Picked A: first by all comparisons, though in theirs about equal to the next, B. "
     "B has the higher mean probability, but the ranks go by the scores."),
    ({"ranks": [2, 1, 3], "best": 1, "flaws": [["loop"], [], ["not_json"]]},
     "Picked B: about equal to the next, A (probability 0.51). A repeats itself; C is not the JSON required."),
    ({"ranks": [1, 1, 3], "texts": ["x", "x", "y"]}, "Picked A: better than the next, C (probability 0.80)."),
    ({"ranks": [1, 1, 1], "texts": ["x", "x", "x"]}, "Picked A: all 3 answers have the same text."),
]  # fmt: skip


def test_the_sentence_does_not_contradict_the_ranks(playground, open_page):
    page = open_page(playground(FakeLLM("one")))
    same = [[None, 0.5, 0.8], [0.5, None, 0.8], [0.2, 0.2, None]]
    given = [{"texts": ["x", "y", "z"], "best": 0, **values} for values, _ in SENTENCES]
    given = [{"probabilities": same if each["texts"][1] == "x" else HALF, **each} for each in given]
    assert [page.evaluate(CHOICES, each) for each in given] == [words for _, words in SENTENCES]


def test_flaws_and_failures_in_words(playground, open_page):
    page = open_page(playground(FakeLLM("one")))
    found = page.evaluate(
        """async ([flaws, message]) => {
        const { flaw, failureText } = await import("/page/words.js");
        return [flaws.map(flaw), failureText({ message }, false), failureText({ message }, true)];
    }""",
        [list(FLAWS), "a: set aside after 4 failures in a row, tried again in 22 s; the last: a: no connection"],
    )
    assert found == [
        list(FLAWS.values()),
        "a: set aside after 4 failures in a row, tried again in 22 s; the last: no connection",
        "a: set aside after 4 failures in a row; the last: no connection",
    ]


def test_the_same_text_is_shown_once(playground, open_page, ask, answered, texts):
    llms = [
        FakeLLM(name, text)
        for name, text in zip("abcd", (texts.long, texts.short, texts.long, texts.long), strict=True)
    ]
    page = open_page(playground(*llms))
    ask(page)
    answered(page)
    assert page.locator("#thread").inner_text().count(texts.long) == 1
    expect(page.locator(".card.same")).to_have_count(2)
    expect(page.get_by_role("article", name="C c")).to_contain_text("same text as A")
    expect(page.locator(".state", has_text="rank 1")).to_have_count(1)
    assert page.get_by_role("article", name="C c").bounding_box()["height"] < 60
    expect(page.locator(".rank")).to_have_text(["1", "= A", "= A", "4"])
    page.get_by_role("article", name="A a").get_by_role("button", name="Prefer this").click()
    expect(page.locator(".ballot")).to_contain_text("Your vote: A is best.")
    votes = page.evaluate("fetch('v1/votes').then((answer) => answer.json())")
    assert [(pair["a"], pair["b"], pair["label"]) for pair in votes["pairs"]] == [(0, 1, "a")]


def test_candidates_side_by_side_and_folded(playground, open_page, ask, answered, long_llms):
    page = open_page(playground(*long_llms))
    ask(page)
    answered(page)
    left, right = (page.get_by_role("article", name=name).bounding_box() for name in ("A first", "B second"))
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] < right["x"]
    assert max(left["height"], right["height"]) < 500
    first = page.get_by_role("article", name="A first")
    first.get_by_role("button", name="Show all").click()
    assert first.bounding_box()["height"] > 900
    expect(first.get_by_role("button", name="Show all")).to_be_hidden()
    expect(page.locator(".card.answer").get_by_role("button", name="Show all")).to_be_hidden()


def test_only_chosen_members_are_called_and_in_the_chosen_mode(playground, open_page, ask, answered, texts, fuser):
    page = open_page(playground(fuser=fuser))
    page.click("#open-options")
    page.get_by_role("checkbox", name="gemma").uncheck()
    page.get_by_role("checkbox", name="down").uncheck()
    expect(page.locator("#open-options")).to_have_text("2 of 4 models")
    page.get_by_role("radio", name="Fuse").check()
    ask(page)
    answered(page)
    expect(page.get_by_role("article")).to_have_count(3)
    expect(page.locator(".card.answer .prose")).to_have_text(texts.fused)
    expect(page.locator(".source")).to_have_text(
        re.compile(r"Fused by chat:writer from A and B: the ranker prefers the fused answer .*probability 0\.\d\d\)?\.")
    )
    page.locator(".card.answer").get_by_role("button", name="Prefer this").click()
    expect(page.locator(".ballot")).to_contain_text("Your vote: ★ is best.")


def test_a_fused_text_that_loses_is_beside_the_answer(playground, open_page, ask, answered, texts):
    page = open_page(playground(fuser=ChatFuser(FakeLLM("writer", "Blue it is."))))
    page.get_by_role("radio", name="Fuse").check()
    ask(page)
    answered(page)
    expect(page.locator(".card.answer")).to_have_count(1)
    expect(page.locator(".card.answer .prose")).to_have_text(texts.markup)
    expect(page.locator(".source")).to_contain_text("The fused text was set aside")
    expect(page.get_by_role("article", name="★ Fused")).to_contain_text("Set aside")


def test_settings_reach_the_llms(playground, open_page, ask, answered, echo):
    llm, calls = echo
    page = open_page(playground(llm))
    page.click("#open-options")
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Temperature").fill("0.3")
    page.get_by_label("Maximum tokens").fill("40")
    page.get_by_label("Answers per model").fill("2")
    page.get_by_label("Seed").fill("7")
    expect(page.locator("#open-options")).to_have_text("1 model, settings")
    ask(page)
    answered(page)
    assert len(calls) == 2
    assert calls[0].messages[0] == {"role": "system", "content": "Be brief."}
    assert (calls[0].sampling.temperature, calls[0].sampling.max_tokens) == (0.3, 40)
    expect(page.get_by_role("article")).to_have_count(2)


def test_a_wrong_setting_is_shown_where_it_is(playground, open_page, ask):
    page = open_page(playground())
    page.click("#open-options")
    page.get_by_label("Temperature").fill("5")
    page.click("#open-options")
    ask(page)
    expect(page.get_by_label("Temperature")).to_be_focused()
    expect(page.locator(".turn")).to_have_count(0)


def test_without_a_fuser_there_is_one_mode(playground, open_page):
    page = open_page(playground())
    expect(page.get_by_role("radio", name="Pick")).to_be_checked()
    expect(page.get_by_role("radio", name="Fuse")).to_be_disabled()
    page.click("#open-options")
    expect(page.locator("#no-fuser")).to_be_visible()


def test_the_heat_map_is_a_table_in_the_order_of_the_ranks(playground, open_page, ask, answered):
    page = open_page(playground())
    ask(page)
    answered(page)
    table = page.get_by_role("table", name="How probable it is that the candidate of the row is better")
    rows = table.get_by_role("row").all_inner_texts()
    assert rows[0].split() == ["Rank", "Candidate", "C", "B", "A", "Mean"]
    assert [row.split()[:3] for row in rows[1:]] == [["1", "C", "gemma"], ["2", "B", "qwen"], ["3", "A", "llama"]]
    best, least = table.locator("td.win").nth(1), table.locator("td.loss").last
    colours = [cell.evaluate("cell => getComputedStyle(cell).backgroundColor") for cell in (best, least)]
    assert colours[0] != colours[1]
    expect(table.get_by_role("columnheader", name="beats A, llama")).to_be_visible()


def test_without_a_model_there_is_no_asking(playground, open_page):
    page = open_page(playground(FakeLLM("one"), FakeLLM("two")))
    page.click("#open-options")
    for name in ("one", "two"):
        expect(page.locator("#go")).to_be_enabled()
        page.get_by_role("checkbox", name=name).uncheck()
    expect(page.locator("#open-options")).to_have_text("0 of 2 models")
    expect(page.locator("#go")).to_be_disabled()
    expect(page.locator("#no-models")).to_have_text("Choose a model.")
    page.click("#open-options")
    page.fill("#question", QUESTION)
    page.press("#question", "Enter")
    expect(page.locator("#options")).to_be_visible()
    expect(page.locator(".turn")).to_have_count(0)
    page.get_by_role("checkbox", name="one").check()
    expect(page.locator("#go")).to_be_enabled()
    expect(page.locator("#no-models")).to_be_hidden()


def test_the_empty_page_has_examples_that_ask(playground, open_page, answered):
    page = open_page(playground())
    expect(page.locator("#welcome")).to_contain_text("Pick returns")
    expect(page.locator("#examples button")).to_have_count(3)
    page.locator("#examples button").first.click()
    answered(page)
    expect(page.locator("#welcome")).to_be_hidden()
    expect(page.locator(".question")).to_contain_text("sky")


def test_the_keyboard_suffices(playground, open_page, answered):
    page = open_page(playground())
    expect(page.locator("#question")).to_be_focused()
    page.keyboard.type("Why is")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("the sky blue?")
    assert page.locator("#question").input_value() == "Why is\nthe sky blue?"
    page.keyboard.press("Tab")
    expect(page.locator("#open-options")).to_be_focused()
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#stop")).to_be_visible()
    answered(page)
    expect(page.locator("#question")).to_be_focused()
    assert page.locator("#question").input_value() == ""
    page.keyboard.type("And at sunset?")
    page.keyboard.press("Control+Enter")
    answered(page, 2)


def test_it_wants_the_key_and_keeps_it_in_the_tab(playground, open_page, ask, answered, texts):
    page = open_page(playground(keys=Keys([hashlib.sha256(b"right").hexdigest()])))
    dialog = page.get_by_role("dialog", name="This service wants a key")
    expect(dialog).to_be_visible()
    for key in ("wrong", "right"):
        page.get_by_label("Key", exact=True).fill(key)
        page.get_by_role("button", name="Use it").click()
        if key == "wrong":
            expect(page.locator("#key-wrong")).to_be_visible()
    expect(page.locator("#open-options")).to_have_text("4 models")
    ask(page)
    answered(page)
    assert page.evaluate("[Object.values({...localStorage}).join().includes('right'), document.cookie]") == [False, ""]
    page.reload()
    expect(page.locator(".card.answer .prose")).to_have_text(texts.markup)
    page.get_by_role("button", name="Forget key").click()
    expect(dialog).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0


def test_failures_and_a_stop_leave_their_reasons(playground, open_page, ask, answered, texts):
    page = open_page(playground())
    page.click("#open-options")
    for name in ("llama", "qwen", "gemma"):
        page.get_by_role("checkbox", name=name).uncheck()
    ask(page)
    expect(page.get_by_role("alert").filter(has_text="planted auth")).to_be_visible()
    expect(page.get_by_role("article")).to_contain_text("Its server refuses the API key.")
    expect(page.locator(".card.answer, .stage:visible")).to_have_count(0)
    page.get_by_role("checkbox", name="qwen").check()
    ask(page)
    qwen = page.get_by_role("article", name="qwen").last
    expect(qwen).to_contain_text("The air")
    page.get_by_role("button", name="Stop").click()
    expect(qwen.locator(".state")).to_have_text("stopped")
    expect(qwen).to_contain_text("The air")
    expect(page.locator(".turn").last).to_contain_text("Stopped before there was an answer.")
    expect(page.locator("#status")).to_have_text("Stopped.")
    page.locator(".turn").last.get_by_role("button", name="Ask again").click()
    answered(page, 2)
    expect(page.locator(".card.answer .prose")).to_have_text(texts.long)
    expect(page.locator(".source").last).to_contain_text("qwen gave the only answer. 1 of 2 gave no answer.")
    page.route("**/v1/chat/completions", lambda route: route.abort())
    ask(page)
    expect(page.get_by_role("alert").filter(has_text="cannot be reached")).to_be_visible()
