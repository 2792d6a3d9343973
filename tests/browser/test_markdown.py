"""Markdown of models is rendered, and nothing in it can act."""

from __future__ import annotations

import re

import pytest

from llm_blender.testing import FakeLLM

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from playwright.sync_api import expect

MARKDOWN = """# Title

Some **bold**, *soft* and `code`, then a line
below. See https://example.org/page and [this](https://example.org/other "hint").

1. one
2. two
   - inner

```python
def double(x):
    return 2 * x  # twice
```

| left | right |
|:-----|------:|
| a    | 1     |

> quoted

![a picture](https://example.org/picture.png)
"""
HOSTILE = """<script>document.title='broken'</script>
<img src=x onerror="document.title='broken'">
<svg onload="document.title='broken'"><g/></svg>
<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=document.title=1&gt;">
<form action="https://evil.example"><input name=q><button>go</button></form>
<style>body { display: none }</style>
<iframe src="https://evil.example"></iframe>
<base href="https://evil.example/">
<a href="javascript:document.title='broken'">x</a>
[click](javascript:document.title='broken')
[data](data:text/html,<script>document.title='broken'</script>)
[vb](vbscript:x) [rel](/v1/history) [frag](#/chatcmpl-1)
<https://example.org/"onmouseover="document.title='broken'>
![x](https://evil.example/x.png) ![y](/v1/history)
<noscript><p title="</noscript><img src=x onerror=document.title='broken'>">
<div id="question" name="ask" style="position:fixed;inset:0">over</div>
`<img src=x onerror=alert(1)>`

```html" onload="document.title='broken'
</code></pre><script>document.title='broken'</script>
```
"""
ALLOWED = re.compile("A|BLOCKQUOTE|BR|CODE|DEL|EM|H[456]|HR|LI|OL|P|PRE|S|SPAN|STRONG|TABLE|TBODY|TD|TH|THEAD|TR|UL")


def test_markdown_is_rendered_and_code_is_coloured_and_copied(playground, open_page, ask, answered):
    page = open_page(playground(FakeLLM("one", MARKDOWN)), permissions=["clipboard-read", "clipboard-write"])
    ask(page)
    answered(page)
    answer = page.locator(".card.answer .prose")
    expect(answer.get_by_role("heading", name="Title", level=4)).to_be_visible()
    expect(answer.locator("strong")).to_have_text("bold")
    expect(answer.locator("ol > li")).to_have_count(2)
    expect(answer.locator("p br")).to_have_count(1)
    expect(answer.locator("td.at-right")).to_have_text("1")
    expect(answer.locator("pre .hljs-keyword").first).to_have_text("def")
    links = answer.locator("a").evaluate_all("links => links.map(a => [a.getAttribute('href'), a.target, a.rel])")
    away = ["_blank", "noopener noreferrer nofollow"]
    assert links == [[f"https://example.org/{path}", *away] for path in ("page", "other", "picture.png")]
    answer.get_by_role("button", name="Copy the code").click()
    expect(answer.get_by_role("button", name="Copy the code")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "def double(x):\n    return 2 * x  # twice"
    page.locator(".card.answer .actions").get_by_role("button", name="Copy the answer").click()
    expect(page.locator(".card.answer .actions")).to_contain_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == MARKDOWN.strip()


def test_a_hostile_answer_is_inert(playground, open_page, ask, answered):
    page = open_page(playground(FakeLLM("bad", HOSTILE), FakeLLM("worse", HOSTILE * 2)))
    before = page.evaluate("performance.getEntriesByType('resource').length")
    ask(page, f"{HOSTILE}?")
    answered(page)
    for card in page.locator(".prose").all():
        found = card.evaluate("""root => [...root.querySelectorAll("*")].map(node => [node.tagName,
            [...node.attributes].map(({ name, value }) => `${name}=${value}`)])""")
        frame = ("DIV", "BUTTON")  # the page's own: language, button, scroller
        assert all(ALLOWED.fullmatch(tag) for tag, _ in found if tag not in frame)
        attributes = {each for tag, names in found if tag not in frame for each in names}
        assert {each.split("=")[0] for each in attributes} <= {
            "href",
            "class",
            "target",
            "rel",
            "tabindex",
            "role",
            "aria-label",
            "start",
        }
        hrefs = [each for each in attributes if each.startswith("href=")]
        assert all(each.startswith(("href=https://", "href=mailto:")) for each in hrefs), hrefs
    assert page.locator("main img, main script, main svg, main form form, main iframe, main style").count() == 0
    page.wait_for_timeout(200)
    assert page.title() == "LLM-Blender"
    after = page.evaluate("performance.getEntriesByType('resource').map(entry => entry.name)")
    assert not any("evil" in name or "/v1/history" in name for name in after[before:])
    expect(page.locator(".question .words")).to_contain_text("<script>document.title")


def test_no_other_code_makes_markup(playground, open_page):
    page = open_page(playground())
    policy = page.request.get(page.url).headers["content-security-policy"]
    assert "trusted-types dompurify" in policy
    hosts = page.evaluate("performance.getEntriesByType('resource').map(entry => new URL(entry.name).host)")
    assert len(hosts) >= 4
    assert set(hosts) == {page.url.split("/")[2]}
    for code in (
        "document.body.innerHTML = '<b>x</b>'",
        "document.body.insertAdjacentHTML('beforeend', '<b>x</b>')",
        "trustedTypes.createPolicy('other', { createHTML: text => text })",
        "trustedTypes.createPolicy('default', { createHTML: text => text })",
    ):
        assert page.evaluate(f"() => {{ try {{ {code} }} catch {{ return true }} }}"), code


def test_libraries_come_after_the_first_paint(playground, open_page):
    page = open_page(playground())
    expect(page.locator("#open-options")).to_have_text("4 models")
    names = page.evaluate("performance.getEntriesByType('resource').map(entry => entry.name)")
    assert not any("highlight" in name for name in names)
    paints = []
    for _ in range(3):  # the machine may be busy
        paints += page.evaluate("performance.getEntriesByType('paint').map(entry => entry.startTime)")
        page.reload()
    assert min(paints) < 500
