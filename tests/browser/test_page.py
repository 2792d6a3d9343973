"""What people do on the page, and what it must never do."""

from __future__ import annotations

import hashlib
import json
import re

import pytest

from llm_blender.data import parse_row
from llm_blender.server.auth import Keys
from llm_blender.testing import FakeLLM

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from playwright.sync_api import expect

QUESTION = "Why is the sky blue?"
PHONE = {"width": 375, "height": 812}


def ask(page, question=QUESTION):
    page.fill("#question", question)
    page.click("#go")


def answered(page):
    expect(page.locator("#facts div").first).to_be_visible(timeout=20_000)


def test_candidates_are_watched_and_the_answer_is_explained(playground, open_page, texts):
    page = open_page(playground())
    expect(page.get_by_role("checkbox")).to_have_count(4)
    ask(page)
    qwen = page.get_by_role("article", name="B qwen")
    expect(qwen).to_contain_text("The air")  # while it is written
    assert page.locator("#source").text_content() == ""
    expect(page.locator("#stages .now")).to_have_text("Write")
    answered(page)
    expect(page.locator("#answer-text")).to_have_text(texts.markup)
    expect(page.locator("#source")).to_contain_text(
        "Picked: C, gemma, first of 3. Better than the next, B: probability 0."
    )
    expect(page.locator("#facts")).to_contain_text("6 (full)")
    expect(page.locator("#status")).to_have_text("The answer is there.")
    expect(page.get_by_role("article", name="C gemma")).to_contain_text("rank 1")
    expect(page.get_by_role("article", name="D down")).to_contain_text("planted auth")
    assert page.evaluate("document.activeElement.id") == "answer"


def test_only_chosen_members_are_asked_and_in_the_chosen_mode(playground, open_page, texts, fuser):
    page = open_page(playground(fuser=fuser))
    page.get_by_role("checkbox", name="gemma").uncheck()
    page.get_by_role("checkbox", name="down").uncheck()
    page.get_by_role("radio", name="Fuse").check()
    ask(page)
    answered(page)
    expect(page.get_by_role("article")).to_have_count(2)
    expect(page.locator("#answer-text")).to_have_text(texts.fused)
    expect(page.locator("#source")).to_have_text(
        re.compile(r"Fused by chat:writer from A and B: the ranker prefers the fused answer .*probability 0\.\d\d")
    )
    page.get_by_role("button", name="Prefer Fused, to all others").click()
    expect(page.locator("#votes")).to_have_text("Kept: Fused is better than A; Fused is better than B.")


def test_without_a_fuser_there_is_one_mode(playground, open_page):
    page = open_page(playground())
    expect(page.get_by_role("radio", name="Pick")).to_be_checked()
    expect(page.get_by_role("radio", name="Fuse")).to_be_disabled()
    expect(page.locator("#no-fuser")).to_be_visible()


def test_the_heat_map_is_a_table_in_the_order_of_the_ranks(playground, open_page):
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
    forward = float(table.locator("tbody tr:nth-child(1) td.heat").first.inner_text())
    backward = float(table.locator("tbody tr:nth-child(2) td.heat").first.inner_text())
    assert forward > 0.5 > backward
    assert forward + backward == pytest.approx(1, abs=0.011)
    expect(table.get_by_role("columnheader", name="beats A, llama")).to_be_visible()


def test_votes_are_kept_changed_taken_back_and_exported(playground, open_page):
    page = open_page(playground())
    ask(page)
    answered(page)
    page.get_by_role("button", name="Prefer B, qwen").click()
    expect(page.get_by_role("button", name="Prefer B, qwen")).to_have_attribute("aria-pressed", "true")
    page.get_by_label("First", exact=True).select_option("0")
    page.get_by_label("Second", exact=True).select_option("1")
    page.get_by_role("button", name="First is better").click()
    expect(page.locator("#votes")).to_have_text("Kept: A is better than B; B is better than C.")
    expect(page.get_by_role("button", name="Prefer B, qwen")).to_have_attribute("aria-pressed", "false")
    page.get_by_role("button", name="History").click()
    expect(page.get_by_role("listitem")).to_contain_text(["2 votes"])
    with page.expect_download() as download:
        page.get_by_role("button", name="Rows for training").click()
    row = parse_row(json.loads(download.value.path().read_text()))
    assert [(pair.a, pair.b, pair.label, pair.by) for pair in row.pairs] == [(0, 1, "a", "human"), (1, 2, "a", "human")]
    assert [candidate.model for candidate in row.candidates] == ["llama", "qwen", "gemma"]
    page.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Take the votes back").click()
    expect(page.locator("#votes")).to_contain_text("Which answer do you prefer?")


def test_an_earlier_question_is_found_again_and_deleted(playground, open_page, texts):
    page = open_page(playground())
    ask(page)
    answered(page)
    page.get_by_role("button", name="Prefer C, gemma").click()
    expect(page.locator("#votes")).to_contain_text("Kept")
    page.reload()  # the address names the answer
    expect(page.locator("#answer-text")).to_have_text(texts.markup)
    expect(page.get_by_role("button", name="Prefer C, gemma")).to_have_attribute("aria-pressed", "true")
    page.goto(page.url.partition("#")[0] + "?again")
    page.get_by_role("button", name="History").click()
    page.get_by_role("button", name=re.compile(f"^{re.escape(QUESTION)}")).click()
    expect(page.locator("#asked")).to_have_text(QUESTION)
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.get_by_role("button", name="History").click()
    page.get_by_role("button", name=f"Delete: {QUESTION}").click()
    expect(page.locator("#history-empty")).to_be_visible()


def test_the_keyboard_suffices(playground, open_page):
    page = open_page(playground())
    expect(page.locator("#question")).to_be_focused()
    page.keyboard.type(QUESTION)
    for _ in range(2):
        page.keyboard.press("Tab")  # the second member
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.value") == "pick"
    page.keyboard.press("Tab")
    expect(page.locator("#go")).to_be_focused()
    page.keyboard.press("Enter")
    answered(page)
    expect(page.get_by_role("article")).to_have_count(3)
    expect(page.locator("#answer")).to_be_focused()
    page.keyboard.press("Tab")
    assert "Prefer A" in page.evaluate("document.activeElement.getAttribute('aria-label')")
    page.keyboard.press("Enter")
    expect(page.locator("#votes")).to_contain_text("Kept")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.locator("#question").focus()
    page.keyboard.press("Control+Enter")
    expect(page.locator("#stop")).to_be_visible()
    answered(page)


def test_markup_of_a_model_is_text(playground, open_page):
    page = open_page(playground())
    ask(page, f"{QUESTION} <script>document.title='broken'</script>")
    answered(page)
    expect(page.get_by_role("article", name="C gemma")).to_contain_text("<img src=x onerror=")
    assert page.locator("main img, main script, main b").count() == 0
    assert page.title() == "LLM-Blender"


def test_the_policy_forbids_what_is_not_ours(playground, open_page):
    page = open_page(playground())
    response = page.request.get(page.url)
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    hosts = page.evaluate("performance.getEntriesByType('resource').map(entry => new URL(entry.name).host)")
    assert len(hosts) >= 4
    assert set(hosts) == {page.url.split("/")[2]}
    refused = page.evaluate("""() => { try { document.body.innerHTML = '<b>x</b>' } catch { return true } }""")
    assert refused


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes(playground, open_page, scheme):
    page = open_page(playground(), color_scheme=scheme)
    ask(page)
    answered(page)
    lightness = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]")
    assert (lightness < 60) == (scheme == "dark")
    low = page.evaluate(CONTRASTS)
    assert low == []


@pytest.mark.parametrize("viewport", [PHONE, {"width": 320, "height": 640}])
def test_a_phone_scrolls_in_one_direction(playground, open_page, viewport):
    page = open_page(playground(), viewport=viewport)
    ask(page, "W" * 300)
    answered(page)
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    page.get_by_role("button", name="History").click()
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    box = page.get_by_role("dialog").bounding_box()
    assert box["width"] <= viewport["width"]


def test_many_candidates_are_wide_only_in_their_table(playground, open_page):
    llms = [FakeLLM(f"model-of-some-length-{i}", "word " * 20 * (i + 1)) for i in range(9)]
    page = open_page(playground(*llms, strategy="knockout"), viewport=PHONE)
    ask(page)
    answered(page)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    scroller = page.get_by_role("region", name="Comparison").locator(".scroller")
    assert scroller.evaluate("element => element.scrollWidth > element.clientWidth")
    scroller.focus()
    page.keyboard.press("ArrowRight")
    for _ in range(100):  # the page's policy forbids Playwright's own waiting, which evaluates a text
        if scroller.evaluate("element => element.scrollLeft > 0"):
            break
        page.wait_for_timeout(50)
    assert scroller.evaluate("element => element.scrollLeft > 0")
    expect(page.get_by_text("not compared").first).to_be_attached()


def test_it_asks_for_the_key_and_keeps_it_in_the_tab(playground, open_page, texts):
    page = open_page(playground(keys=Keys([hashlib.sha256(b"right").hexdigest()])))
    dialog = page.get_by_role("dialog", name="This service wants a key")
    expect(dialog).to_be_visible()
    for key in ("wrong", "right"):
        page.get_by_label("Key", exact=True).fill(key)
        page.get_by_role("button", name="Use it").click()
        if key == "wrong":
            expect(page.locator("#key-wrong")).to_be_visible()
    expect(page.get_by_role("checkbox")).to_have_count(4)
    ask(page)
    answered(page)
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    page.reload()
    expect(page.locator("#answer-text")).to_have_text(texts.markup)
    page.get_by_role("button", name="Forget key").click()
    expect(dialog).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0


def test_trouble_is_told_and_a_question_can_be_stopped(playground, open_page, texts):
    page = open_page(playground())
    for name in ("llama", "qwen", "gemma"):
        page.get_by_role("checkbox", name=name).uncheck()
    ask(page)
    expect(page.get_by_role("alert").filter(has_text="planted auth")).to_be_visible()
    page.get_by_role("checkbox", name="qwen").check()
    page.click("#go")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#status")).to_have_text("Stopped.")
    expect(page.locator("#go")).to_be_enabled()
    ask(page)
    answered(page)
    expect(page.locator("#answer-text")).to_have_text(texts.long)
    expect(page.locator("#comparison")).to_be_hidden()
    page.route("**/v1/chat/completions", lambda route: route.abort())
    page.click("#go")
    expect(page.get_by_role("alert").filter(has_text="cannot be reached")).to_be_visible()


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
