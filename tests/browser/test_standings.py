"""The standings in a real Chromium: who wins how often, in words and in pictures."""

from __future__ import annotations

import numpy as np
import pytest

from llm_blender.history import History
from llm_blender.ranking import ranking_from_scores
from llm_blender.record import Record
from llm_blender.store import Store
from llm_blender.testing import FakeLLM

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from playwright.sync_api import expect

NAMES = ("gemma", "llama-3.3-70b-instruct", "qwen")
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture
def filled(playground, tmp_path):
    """The address of a page whose store has 60 rankings, 20 of them with code, and votes on 10 of the answers."""
    models = {name: name for name in NAMES}
    report = {
        "mode": "pick",
        "candidates": [{"text": f"{name} answers.", "model": name} for name in NAMES],
        "ranking": {"best": 0},
    }
    draws = np.random.default_rng(0)
    with Store(tmp_path / "blend.db") as store:
        for i in range(60):
            scores = draws.normal([0.4, 0.0, 1.0])
            texts = ["```", "```", "```"] if i % 3 == 0 else ["", "", ""]
            ranking = ranking_from_scores("full", scores, np.subtract.outer(scores, scores))
            Record(store).keep(f"Why {i}?", models, ranking, NAMES, texts)
        history = History(store)
        for i in range(10):
            history.keep(str(i), [{"role": "user", "content": f"Why {i}?"}], "gemma answers.", report)
        for i in range(4):
            history.vote(str(i), 1, blind=True)  # people prefer llama, 8 votes
        for i in range(4, 9):
            history.vote(str(i), 0, [2])  # who sees the names prefers gemma to qwen, 5 votes
        history.vote("9", 0, [2], tie=True)
    return playground(*(FakeLLM(name, f"{name} answers.") for name in NAMES))


def standings(page):
    page.get_by_role("button", name="Standings").click()
    return page.get_by_role("table", name="Standings of the LLMs")


def names(table):
    return [cell.splitlines()[0] for cell in table.get_by_role("rowheader").all_inner_texts()]


def cells(table, name):
    return [
        " ".join(text.split()) for text in table.get_by_role("row", name=name).get_by_role("cell").all_inner_texts()
    ]


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_who_wins_how_often(filled, open_page, size):
    page = open_page(filled, viewport=size)
    table = standings(page)
    counts = "60 rankings, 8 comparisons from 4 blind votes and 6 comparisons from 6 open votes."
    expect(page.get_by_text(counts)).to_be_visible()
    assert cells(table, "llama")[0] == "100 % of 8 51 to 100 %"  # four answers, and not eight trials
    assert cells(table, "gemma")[1] == "92 % of 6 52 to 99 %"
    assert cells(table, "llama")[1] == "no open votes"
    shares = [int(cells(table, name)[2].split(" %")[0]) for name in NAMES]
    assert sum(shares) == pytest.approx(100, abs=1)
    assert cells(table, "qwen")[3].startswith("+0.")
    assert "in 120 " in cells(table, "qwen")[3]
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    overflow = "(node) => node.scrollWidth - node.clientWidth"
    assert page.locator("#standings").evaluate(overflow) <= 0
    page.keyboard.press("Escape")
    expect(table).to_be_hidden()


def test_the_bars_have_the_lengths_of_the_shares(filled, open_page):
    table = standings(open_page(filled))
    picture = table.get_by_role("row", name="gemma").get_by_role("cell").nth(1).locator("svg")
    track, bar = (picture.locator(f"rect.{name}").bounding_box() for name in ("track", "bar"))
    assert bar["width"] / track["width"] == pytest.approx(5.5 / 6, abs=0.01)
    line = picture.locator("line.whisker").first.bounding_box()
    assert (line["x"] - track["x"]) / track["width"] == pytest.approx(0.517, abs=0.01)
    assert line["x"] + line["width"] <= track["x"] + track["width"] + 1
    expect(picture).to_have_attribute("aria-hidden", "true")


def test_every_column_sorts_from_the_keyboard(filled, open_page):
    page = open_page(filled)
    table = standings(page)
    strength = table.get_by_role("columnheader", name="Strength")
    expect(strength).to_have_attribute("aria-sort", "descending")
    assert names(table) == ["qwen", "gemma", "llama-3.3-70b-instruct"]
    blind = table.get_by_role("button", name="Blind votes")
    blind.focus()
    page.keyboard.press("Enter")
    expect(strength).to_have_attribute("aria-sort", "none")
    assert names(table)[0] == "llama-3.3-70b-instruct"
    page.keyboard.press("Enter")
    expect(table.get_by_role("columnheader", name="Blind votes")).to_have_attribute("aria-sort", "ascending")
    assert names(table)[-1] == "llama-3.3-70b-instruct"
    table.get_by_role("button", name="Open votes").click()
    assert names(table)[-1] == "llama-3.3-70b-instruct"  # without votes
    table.get_by_role("button", name="Open votes").click()
    assert names(table) == ["qwen", "gemma", "llama-3.3-70b-instruct"]
    table.get_by_role("button", name="LLM").click()
    assert names(table) == sorted(NAMES)


def test_the_ranker_on_one_kind_of_prompt(filled, open_page):
    page = open_page(filled)
    table = standings(page)
    page.get_by_label("Ranked first on").select_option("prompts for code")
    assert "of 20 " in cells(table, "qwen")[2]
    page.get_by_label("Ranked first on").select_option("all prompts")
    assert "of 60 " in cells(table, "qwen")[2]


def test_without_rankings_and_votes_there_is_a_sentence(playground, open_page):
    page = open_page(playground(FakeLLM("a"), FakeLLM("b")))
    page.get_by_role("button", name="Standings").click()
    expect(page.get_by_text("There is nothing to compare yet")).to_be_visible()
    expect(page.locator("#standings table")).to_have_count(0)


def test_names_of_llms_are_no_markup(playground, open_page, tmp_path):
    name = "<img src=x onerror=\"document.title='broken'\">"
    page = open_page(playground(FakeLLM(name, "Short."), FakeLLM("b", "A longer answer.")))
    page.evaluate(
        """(body) => fetch("/v1/chat/completions",
            {method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify(body)})""",
        {"model": "blend", "messages": [{"role": "user", "content": "Why?"}]},
    )
    table = standings(page)
    expect(table).to_contain_text(name)
    assert page.title() != "broken"


def test_an_error_is_shown(playground, open_page):
    page = open_page(playground(FakeLLM("a"), FakeLLM("b")))
    page.route("**/v1/standings", lambda route: route.abort())
    page.get_by_role("button", name="Standings").click()
    expect(page.locator("#standings [role=alert]")).to_have_text("The service cannot be reached: does it still run?")
