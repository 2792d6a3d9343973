"""Follow-ups, changed questions, addresses, and the history."""

from __future__ import annotations

import re

import pytest

from llm_blender.testing import FakeLLM

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from playwright.sync_api import expect


def test_a_follow_up_sends_the_conversation(playground, open_page, ask, answered, echo):
    llm, calls = echo
    page = open_page(playground(llm, FakeLLM("other", "Short.")))
    ask(page, "First?")
    answered(page)
    ask(page, "Second?")
    answered(page, 2)
    assert [turn["content"] for turn in calls[-1].messages] == ["First?", "You wrote: First?", "Second?"]
    expect(page.locator(".turn.past .facts")).to_be_hidden()
    expect(page.locator(".turn.past .card.answer")).to_be_visible()
    expect(page.locator(".turn.past .card:visible")).to_have_count(1)
    page.locator(".turn.past").get_by_role("button", name="All answers").click()
    expect(page.locator(".turn.past .card:visible")).to_have_count(2)
    page.locator(".turn").last.get_by_role("article", name="B other").get_by_role("button", name="Prefer this").click()
    expect(page.locator(".turn").last).to_contain_text("The conversation goes on from it.")
    ask(page, "Third?")
    answered(page, 3)
    assert calls[-1].messages[-2]["content"] == "Short."


def test_a_question_is_changed_and_put_again(playground, open_page, ask, answered, echo):
    llm, calls = echo
    page = open_page(playground(llm))
    for turns, question in enumerate(("First?", "Second?"), 1):
        ask(page, question)
        answered(page, turns)
    page.locator(".turn").first.get_by_role("button", name="Edit").click()
    field = page.get_by_label("Change the question")
    expect(field).to_have_value("First?")
    field.fill("Changed?")
    page.locator(".editing").get_by_role("button", name="Ask again").click()
    answered(page)
    assert [turn["content"] for turn in calls[-1].messages] == ["Changed?"]
    seeds = [call.sampling.seed for call in calls]
    page.get_by_role("button", name="Ask again").click()
    expect(page.locator("#stop")).to_be_hidden()
    answered(page)
    assert len(calls) == 4
    assert calls[-1].sampling.seed not in seeds


def test_what_cannot_be_put_again_stays(playground, open_page, ask, answered, echo):
    page = open_page(playground(echo[0]))
    ask(page, "First?")
    answered(page)
    page.click("#open-options")
    page.get_by_role("checkbox", name="echo").uncheck()
    page.get_by_role("button", name="Ask again").click()
    expect(page.get_by_role("alert").filter(has_text="Choose at least one model.")).to_be_visible()
    expect(page.locator(".turn")).to_contain_text("You wrote: First?")


def test_addresses_lead_back_and_forth_and_elsewhere(playground, open_page, ask, answered, echo):
    llm, calls = echo
    page = open_page(playground(llm, FakeLLM("other", "Short.")), permissions=["clipboard-read", "clipboard-write"])
    page.click("#open-options")
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Temperature").fill("0.5")
    ask(page, "First?")
    answered(page)
    first = page.url
    assert re.search(r"#/chatcmpl-\w+$", first)
    ask(page, "Second?")
    answered(page, 2)
    page.go_back()
    expect(page.locator(".turn")).to_have_count(1)
    expect(page.locator(".question")).to_contain_text("First?")
    assert page.url == first
    page.go_back()
    expect(page.locator("#welcome")).to_be_visible()
    page.go_forward()
    page.go_forward()
    expect(page.locator(".turn")).to_have_count(2)
    expect(page.locator(".turn").first).to_contain_text("You wrote: First?")
    page.locator(".turn").last.get_by_role("button", name="Copy link").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    page.goto(page.evaluate("navigator.clipboard.readText()").replace("#", "?again#"))  # as in a new tab
    answered(page, 2)
    expect(page.get_by_label("System prompt")).to_have_value("Be brief.")
    expect(page.get_by_label("Temperature")).to_have_value("0.5")
    ask(page, "Third?")
    answered(page, 3)
    assert [turn["content"] for turn in calls[-1].messages] == [
        "Be brief.",
        "First?",
        "You wrote: First?",
        "Second?",
        "You wrote: Second?",
        "Third?",
    ]
    page.click("#new")
    expect(page.locator("#welcome")).to_be_visible()
    assert "#" not in page.url


def test_a_reopened_conversation_has_the_candidates_of_its_earlier_turns(playground, open_page, ask, answered, echo):
    llm, calls = echo
    page = open_page(playground(llm, FakeLLM("other", "Short.")))
    ask(page, "First?")
    answered(page)
    page.get_by_role("article", name="B other").get_by_role("button", name="Prefer this").click()
    ask(page, "Second?")
    answered(page, 2)
    page.reload()
    answered(page, 2)
    past = page.locator(".turn.past")
    expect(past.locator(".card:visible")).to_have_count(1)
    past.get_by_role("button", name="All answers").click()
    expect(past.locator(".card:visible")).to_have_count(2)
    expect(past.get_by_role("article", name="A echo")).to_contain_text("rank 1")
    expect(past.get_by_role("article", name="B other")).to_contain_text("rank 2")
    ask(page, "Third?")
    answered(page, 3)
    assert [turn["content"] for turn in calls[-1].messages][:3] == ["First?", "Short.", "Second?"]
    page.get_by_role("button", name="History").click()
    page.get_by_role("button", name="Delete: First?").click()
    page.reload()
    answered(page, 3)
    expect(past.first.get_by_role("button", name="All answers")).to_be_hidden()  # only its text is known now
    expect(past.first).to_contain_text("Short.")


def test_the_history_is_searched_deleted_from_and_restored(playground, open_page, ask, answered, echo):
    page = open_page(playground(echo[0]))
    for question in ("Why is the sky blue?", "How deep is the sea?"):
        page.click("#new")
        ask(page, question)
        answered(page)
    page.get_by_role("button", name="History").click()
    entries = page.locator("#entries li")
    expect(entries).to_have_count(2)
    expect(entries.first).to_contain_text("You wrote: How deep")
    page.get_by_label("Search in the history").fill("sky")
    expect(entries).to_have_count(1)
    page.get_by_role("button", name="Delete: Why is the sky blue?").click()
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("button", name="Delete: Why is the sky blue?")).to_be_visible()
    page.get_by_role("button", name="Delete: Why is the sky blue?").click()
    page.get_by_label("Search in the history").fill("sky ")
    expect(page.locator("#history-empty")).to_have_text("Nothing is found.")
    page.get_by_label("Search in the history").fill("")
    expect(entries).to_have_count(1)
    page.locator(".entry").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator(".question")).to_contain_text("How deep is the sea?")


@pytest.mark.parametrize("name", ["does-not-exist", "chatcmpl-0"])
def test_an_address_without_an_answer_says_so(playground, open_page, ask, answered, echo, name):
    page = open_page(playground(echo[0]) + f"#/{name}")
    gone = page.get_by_role("alert").filter(has_text="This answer is no longer kept.")
    expect(gone).to_be_visible()
    expect(page.locator("#welcome")).to_be_visible()
    ask(page, "First?")
    answered(page)
    expect(gone).to_be_hidden()
    page.get_by_role("button", name="History").click()
    page.evaluate("name => { location.hash = `#/${name}`; }", name)
    expect(gone).to_be_visible()
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator(".turn")).to_have_count(0)


def test_the_history_puts_the_turns_of_a_conversation_together(playground, open_page, ask, answered, echo):
    page = open_page(playground(echo[0]))
    ask(page, "Which bread?")
    answered(page)
    page.click("#new")
    ask(page, "Which tea?")
    answered(page)
    page.go_back()
    page.go_back()
    answered(page)
    ask(page, "And cheese?")
    answered(page, 2)
    page.get_by_role("button", name="History").click()
    prompts = page.locator("#entries .prompt")
    expect(prompts).to_have_text(["Which bread?", "And cheese?", "Which tea?"])
    expect(page.locator("#entries .later")).to_contain_text("And cheese?")
    page.get_by_label("Search in the history").fill("bread cheese")
    expect(prompts).to_have_text(["And cheese?"])
    expect(page.locator(".entry")).to_contain_text("In: Which bread?")
    expect(page.locator(".entry .preview")).to_contain_text("Which bread?")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
