"""Phones, schemes, contrast, and what axe-core finds."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from llm_blender.testing import FakeLLM

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from playwright.sync_api import expect

PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 860}


@pytest.mark.parametrize("viewport", [PHONE, {"width": 320, "height": 640}])
def test_a_phone_scrolls_in_one_direction(playground, open_page, ask, answered, viewport, long_llms):
    page = open_page(playground(*long_llms), viewport=viewport)
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    page.click("#open-options")
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    page.click("#open-options")
    ask(page, "W" * 300)
    answered(page)
    page.get_by_text("How the answers compare").click()
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    page.get_by_role("button", name="History").click()
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    assert page.get_by_role("dialog").bounding_box()["width"] <= viewport["width"]


def test_candidates_are_tabs_on_a_phone(playground, open_page, ask, answered, texts):
    page = open_page(playground(), viewport=PHONE, has_touch=True, is_mobile=True)
    expect(page.locator("#hint")).to_be_hidden()
    ask(page)
    expect(page.get_by_role("tab")).to_have_count(4)
    expect(page.locator(".card:visible")).to_have_count(1)
    answered(page)
    expect(page.get_by_role("tab", selected=True)).to_contain_text("gemma")
    expect(page.get_by_role("tabpanel")).to_contain_text(texts.markup)
    page.get_by_role("tab", name="qwen").click()
    expect(page.get_by_role("tabpanel")).to_contain_text(texts.long)
    expect(page.locator(".card:visible")).to_have_count(1)
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", selected=True)).to_be_focused()
    page.set_viewport_size(DESK)
    expect(page.locator(".card:visible")).to_have_count(4)
    expect(page.get_by_role("tab")).to_have_count(0)


def test_a_phone_shows_mode_and_blind_and_that_there_are_more_tabs(playground, open_page, ask, answered):
    page = open_page(playground(), viewport=PHONE, has_touch=True, is_mobile=True)
    ask(page)
    answered(page)
    switch, mode = page.locator("#blind-label").bounding_box(), page.locator("#modes").bounding_box()
    assert abs(switch["y"] - mode["y"]) < 10  # in one row
    assert page.locator("#ask").bounding_box()["height"] < 130
    tabs = page.get_by_role("tablist")
    expect(tabs).to_have_class(re.compile("after"))
    page.get_by_role("tab", name="down").click()
    expect(tabs).to_have_class("tabs before")
    expect(page.get_by_role("tabpanel")).to_contain_text("planted auth")


def test_a_desk_has_one_width_and_its_buttons_at_hand(playground, open_page, ask, answered, long_llms):
    page = open_page(playground(*long_llms), viewport=DESK)
    ask(page)
    answered(page)
    page.mouse.wheel(0, 5000)
    boxes = [page.locator(each).bounding_box() for each in ("#question", "#thread", ".card.answer")]
    assert len({(round(box["x"]), round(box["width"])) for box in boxes}) == 1
    assert 0 <= page.get_by_role("button", name="History").bounding_box()["y"] < 60
    paddings = page.locator(".card").evaluate_all("cards => cards.map((card) => getComputedStyle(card).padding)")
    assert len(set(paddings)) == 1
    widths = page.locator(".card.answer .prose > :is(p, .code)").evaluate_all("all => all.map((e) => e.offsetWidth)")
    assert len(set(widths)) == 1


def test_three_short_answers_take_two_screens_of_a_phone(playground, open_page, ask, answered, instant_llms):
    page = open_page(playground(*instant_llms), viewport=PHONE, has_touch=True, is_mobile=True)
    ask(page)
    answered(page)
    assert page.evaluate("document.documentElement.scrollHeight") <= 2 * PHONE["height"]
    top = page.locator(".card.answer").bounding_box()["y"]
    assert 0 <= top < PHONE["height"] / 2


def test_many_candidates_are_wide_only_in_their_table(playground, open_page, ask, answered):
    llms = [FakeLLM(f"model-of-some-length-{i}", "word " * 20 * (i + 1)) for i in range(9)]
    page = open_page(playground(*llms, strategy="knockout"), viewport=PHONE)
    ask(page)
    answered(page)
    page.get_by_text("How the answers compare").click()
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    scroller = page.get_by_role("group", name="Comparison")
    assert scroller.evaluate("element => element.scrollWidth > element.clientWidth")
    scroller.focus()
    page.keyboard.press("ArrowRight")
    for _ in range(100):  # the page's policy forbids Playwright's own waiting, which evaluates a text
        if scroller.evaluate("element => element.scrollLeft > 0"):
            break
        page.wait_for_timeout(50)
    assert scroller.evaluate("element => element.scrollLeft > 0")
    expect(page.get_by_text("not compared").first).to_be_attached()


def test_nothing_jumps_while_the_models_load(playground, open_page):
    page = open_page(playground())
    shift = """() => new Promise(done => { let sum = 0;
        new PerformanceObserver(list => { for (const entry of list.getEntries()) sum += entry.value; })
            .observe({ type: "layout-shift", buffered: true });
        setTimeout(() => done(sum), 300); })"""
    expect(page.locator("#open-options")).to_have_text("4 models")
    assert page.evaluate(shift) < 0.01


# Texts whose contrast with what is behind them is below WCAG's 4.5, as `tag.class ratio`.
CONTRASTS = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const over = (colour, below) => {
    canvas.fillStyle = `rgb(${below.join()})`; canvas.fillRect(0, 0, 1, 1);
    canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => rgb.map((part) => part / 255)
    .map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => node === null ? [255, 255, 255]
    : over(getComputedStyle(node).backgroundColor, behind(node.parentElement));
  const low = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!own || !node.checkVisibility() || node.closest(".unseen, .skip, :disabled, label:has(:disabled)")) continue;
    const back = behind(node), front = over(getComputedStyle(node).color, back);
    const [a, b] = [light(front), light(back)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) low.push(`${node.tagName}.${node.className} ${ratio.toFixed(2)}`);
  }
  return low;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes(playground, open_page, ask, answered, scheme, long_llms):
    page = open_page(playground(*long_llms), color_scheme=scheme)
    ask(page)
    answered(page)
    expect(page.locator(".hljs-keyword").first).to_be_visible()
    lightness = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]")
    assert (lightness < 60) == (scheme == "dark")
    assert page.evaluate(CONTRASTS) == []


@pytest.mark.skipif("AXE" not in os.environ, reason="AXE names no axe.min.js")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
def test_axe_finds_nothing_serious(playground, open_page, ask, answered, viewport, scheme, long_llms):
    page = open_page(playground(*long_llms, FakeLLM("down", errors="auth")), viewport=viewport, color_scheme=scheme)
    page.evaluate(f"() => {{ {Path(os.environ['AXE']).read_text()} }}")

    def serious() -> list[str]:
        found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
        return [
            f"{each['id']}: {each['nodes'][0]['html'][:200]}"
            for each in found["violations"]
            if each["impact"] in ("serious", "critical")
        ]

    assert serious() == []  # empty
    page.click("#open-options")
    assert serious() == []
    page.click("#open-options")
    ask(page)
    expect(page.locator("#stop")).to_be_visible()
    assert serious() == []  # running
    answered(page)
    page.locator(".comparison").evaluate("details => { details.open = true; }")
    assert serious() == []
    page.get_by_role("button", name="Edit").click()
    assert serious() == []
    for name in ("History", "Standings"):
        page.get_by_role("button", name=name).click()
        assert serious() == []
        page.keyboard.press("Escape")
    page.click("#new")
    if not page.locator("#blind").is_visible():
        page.click("#open-options")
    page.check("#blind")
    ask(page)
    expect(page.locator(".ballot")).to_be_visible(timeout=20_000)
    assert serious() == []
