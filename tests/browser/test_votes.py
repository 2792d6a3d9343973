"""Votes, open and blind, and the standings that they count in."""

from __future__ import annotations

import json

import pytest

from llm_blender.data import parse_row

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from playwright.sync_api import expect

NAMES = ("llama", "qwen", "gemma", "down")


def exported(page):
    """The votes as a row, from the history's drawer."""
    page.get_by_role("button", name="History").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Rows for training").click()
    page.get_by_role("button", name="Close").click()
    return parse_row(json.loads(download.value.path().read_text()))


def test_there_is_one_vote_at_a_time(playground, open_page, ask, answered):
    page = open_page(playground())
    ask(page)
    answered(page)
    qwen = page.get_by_role("article", name="B qwen")
    qwen.get_by_role("button", name="Prefer this").click()
    expect(qwen.get_by_role("button", name="Preferred")).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".ballot")).to_contain_text("Your vote: B is best.")
    page.get_by_role("article", name="A llama").get_by_role("button", name="Prefer this").click()
    expect(page.locator(".ballot")).to_contain_text("Your vote: A is best.")
    expect(qwen.get_by_role("button", name="Prefer this")).to_have_attribute("aria-pressed", "false")
    row = exported(page)
    assert [(pair.a, pair.b, pair.label, pair.by) for pair in row.pairs] == [(0, 1, "a", "human"), (0, 2, "a", "human")]
    assert [candidate.model for candidate in row.candidates] == ["llama", "qwen", "gemma"]
    page.get_by_role("button", name="All bad").click()
    expect(page.locator(".ballot")).to_contain_text("Your vote: the answers are bad.")
    page.get_by_role("button", name="About equal").click()
    expect(page.locator(".ballot")).to_contain_text("Your vote: the answers are about equal.")
    page.get_by_role("button", name="About equal").click()
    expect(page.locator(".ballot")).to_contain_text("Which answer is best?")


@pytest.mark.parametrize("vote", ["Prefer this", "About equal", "All bad"])
def test_a_blind_vote_comes_before_names_and_ranks(playground, open_page, ask, vote):
    page = open_page(playground())
    page.get_by_role("switch", name="Blind").check()
    ask(page)
    expect(page.locator(".skeleton").first).to_be_visible()
    seen = [page.locator("#thread").inner_text()]
    expect(page.locator(".ballot")).to_be_visible(timeout=20_000)
    seen += [page.locator("#thread").inner_text(), page.locator("#status").inner_text()]
    assert not any(name in text for name in (*NAMES, "rank ", "Best", "tokens", "Picked") for text in seen)
    markup = page.locator("#thread").evaluate("thread => thread.outerHTML")
    assert not any(name in markup for name in NAMES)
    page.get_by_role("button", name=vote).last.click()
    expect(page.locator(".source")).to_contain_text("Picked")
    for name in NAMES:
        expect(page.get_by_role("article").filter(has_text=name)).to_have_count(1)
    expect(page.get_by_text("The ranker's choice")).to_be_visible()
    expect(page.locator(".ballot")).to_contain_text("Your blind vote: ")
    assert {pair.by for pair in exported(page).pairs} == {"human-blind"}
    page.reload()
    expect(page.locator(".source")).to_contain_text("Picked")  # a vote was given


def by(page):
    """The kinds of all votes; none without a vote."""
    row = page.evaluate("fetch('v1/votes').then((answer) => answer.text())")
    return {pair.by for line in row.splitlines() for pair in parse_row(json.loads(line)).pairs}


@pytest.mark.parametrize("way", ["reload", "back", "history"])
def test_names_that_were_shown_stay_shown(playground, open_page, ask, answered, instant_llms, way):
    page = open_page(playground(*instant_llms))
    ask(page)
    answered(page)
    page.get_by_role("switch", name="Blind").check()
    if way == "reload":
        page.reload()
    else:
        page.click("#new")
        if way == "back":
            page.go_back()
        else:
            page.get_by_role("button", name="History").click()
            page.locator(".entry").click()
    expect(page.locator(".source")).to_contain_text("Picked")
    page.get_by_role("article", name="A llama").get_by_role("button", name="Prefer this").click()
    expect(page.locator(".ballot")).to_contain_text("Your vote: A is best.")
    assert by(page) == {"human"}


def test_a_list_with_names_ends_a_blind_vote(playground, open_page, ask, instant_llms):
    page = open_page(playground(*instant_llms))
    page.get_by_role("switch", name="Blind").check()
    ask(page)
    expect(page.locator(".ballot")).to_be_visible(timeout=20_000)
    page.get_by_role("switch", name="Blind").uncheck()
    page.get_by_role("button", name="History").click()
    expect(page.locator("#entries")).to_contain_text("gemma")
    page.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Prefer this").first.click()
    expect(page.locator(".ballot")).to_contain_text("Your vote: ")
    assert by(page) == {"human"}


def test_the_history_keeps_the_secret_until_the_vote(playground, open_page, ask, instant_llms, texts):
    page = open_page(playground(*instant_llms))
    page.get_by_role("switch", name="Blind").check()
    ask(page)
    expect(page.locator(".ballot")).to_be_visible(timeout=20_000)
    page.get_by_role("button", name="History").click()
    entry = page.locator(".entry")
    expect(entry).to_contain_text("not voted on")
    assert not any(words in entry.inner_text() for words in (*NAMES, texts.short, texts.long))
    page.get_by_label("Search in the history").fill("because")  # in an answer that did not win
    page.wait_for_timeout(400)
    expect(entry).to_have_count(1)
    expect(entry).not_to_contain_text("Because")
    entry.click()
    expect(page.locator(".ballot")).to_contain_text("Vote to see the names")
    page.get_by_role("button", name="Prefer this").first.click()
    expect(page.locator(".ballot")).to_contain_text("Your blind vote: ")
    assert by(page) == {"human-blind"}
    page.get_by_role("button", name="History").click()
    expect(entry).to_contain_text("gemma")


def test_blind_places_are_shuffled(playground, open_page, ask, instant_llms):
    page = open_page(playground(*instant_llms))
    page.get_by_role("switch", name="Blind").check()
    orders = set()
    for _ in range(6):
        page.click("#new")
        ask(page)
        expect(page.locator(".ballot")).to_be_visible(timeout=20_000)
        orders.add(tuple(page.locator(".card .prose").all_inner_texts()))
    assert len(orders) > 1


def test_a_fused_text_does_not_give_itself_away(playground, open_page, ask, fuser, texts):
    page = open_page(playground(fuser=fuser))
    page.get_by_role("radio", name="Fuse").check()
    page.get_by_role("switch", name="Blind").check()
    ask(page)
    expect(page.locator(".ballot")).to_be_visible(timeout=20_000)
    titles = page.locator(".card:not(.failed) h3").all_inner_texts()
    assert all(title.split()[1] == "Answer" for title in titles)
    assert len(titles) == 4
    page.get_by_role("article").filter(has_text=texts.fused).get_by_role("button", name="Prefer this").click()
    expect(page.get_by_role("article").filter(has_text=texts.fused)).to_contain_text("Fused")


def test_the_standings_show_who_is_good_at_what(playground, open_page, ask, answered):
    page = open_page(playground())
    ask(page)
    answered(page)
    page.get_by_role("article", name="B qwen").get_by_role("button", name="Prefer this").click()
    expect(page.locator(".ballot")).to_contain_text("Your vote")
    page.get_by_role("button", name="Standings").click()
    expect(page.locator("#standings")).to_contain_text("qwen")
    page.keyboard.press("Escape")
    expect(page.locator("#standings")).to_be_hidden()
