from __future__ import annotations

import re

from llm_blender.bench import FusedRow, Table, fusion_page
from llm_blender.types import Candidate

BEST = "The sea is blue.\n\n1. It mirrors the sky.\n2. It is deep."
OTHER = "- Water takes in red light.\n- It mirrors clouds."
FUSED = "The sea is blue.\n\n1. It mirrors the sky.\n- Water takes in red light.\nFish swim <in> it."


def row(prompt="Why is the sea blue?", **fusion):
    candidates = (Candidate("Because.", "ann"), Candidate(BEST, "bob"), Candidate(OTHER, "cat & dog"))
    report = {"text": FUSED, "used": [1, 2], "returned": "fuse", "reason": "better", "probability": 0.625, **fusion}
    return FusedRow(prompt, candidates, reference="Water absorbs red.", answer=report["text"], best=1, fusion=report)


def sections(page):
    found = re.findall(r'<section><h3>(.*?)</h3><div class="text">(.*?)</div></section>', page, re.DOTALL)
    return dict(found)


def test_each_sentence_shows_who_said_it():
    shown = sections(fusion_page({"f.jsonl": [row()]}, []))
    assert list(shown) == ["Fused", "1: bob, the best", "2: cat &amp; dog", "Reference"]
    assert shown["Fused"] == (
        "The sea is blue.\n\n1. It mirrors the sky.\n<mark>- Water takes in red light.<sup>2</sup></mark>\n"
        '<span class="own">Fish swim &lt;in&gt; it.</span>'
    )
    assert shown["1: bob, the best"] == BEST


def test_what_became_of_it_is_said():
    rows = [row(), row(reason="worse", returned="pick"), row(text="", reason="empty", returned="pick"), row(reason="x")]
    page = fusion_page({"f.jsonl": rows}, [])
    assert re.findall(r'<p class="why">(.*?)</p>', page) == [
        "Row 1. Returned: the ranker prefers it to the best candidate (0.62).",
        "Row 2. Not returned: the ranker does not prefer it to the best candidate (0.62).",
        "Row 3. Not returned: it is empty (0.62).",
        "Row 4. X (0.62).",
    ]
    assert page.count("<h3>Fused</h3>") == 3


def test_the_seed_draws_the_same_rows_of_each_file():
    rows = [row(f"<{number}>") for number in range(50)]

    def prompts(seed):
        page = fusion_page({"a": rows, "b": rows}, [], examples=5, seed=seed)
        return re.findall(r'<div class="prompt">&lt;(\d+)&gt;', page)

    assert prompts(0)[:5] == prompts(0)[5:] == sorted(prompts(0)[:5], key=int)
    assert prompts(0) != prompts(1)
    assert "5 of 50 rows" in fusion_page({"a": rows}, [], examples=5)


def test_tables_stand_above():
    page = fusion_page({"<f>": []}, [Table(("a", "b"), (("1", "<2>"),), 1)])
    assert '<tr><th scope="row">1</th><td>&lt;2&gt;</td></tr>' in page
    assert "&lt;f&gt;: 0 of 0 rows" in page


def test_both_halves_around_a_colon_are_found_where_they_are():
    candidates = (
        Candidate("Here are some tips for wrapping it: Fold.", "ann"),
        Candidate("To wrap it, follow these steps:\n1. Cut.", "bob"),
    )
    text = "To wrap it, follow these steps: Here are some tips for wrapping it:\n**Own:** Cut.\nSee http://x.y now."
    report = {"text": text, "used": [0, 1], "returned": "fuse", "reason": "better"}
    page = fusion_page({"f": [FusedRow("Q", candidates, answer=text, best=0, fusion=report)]}, [])
    assert sections(page)["Fused"] == (
        "<mark>To wrap it, follow these steps:<sup>2</sup></mark> Here are some tips for wrapping it:\n"
        '<span class="own">**Own:**</span> <mark>Cut.<sup>2</sup></mark>\n'
        '<span class="own">See http://x.y now.</span>'
    )


def test_the_page_says_how_many_candidates_it_shows():
    page = fusion_page({"f": [row(), row(used=[0, 1, 2]), row(used=[])]}, [])
    assert re.findall(r'<p class="how">(.*?)</p>', page) == [
        "2 of 3 candidates are shown: the best one, and those that the fuser used.",
        "All 3 candidates are shown.",
        "1 of 3 candidates is shown: the best one.",
    ]


def test_rows_are_filtered_by_what_was_returned_without_a_script():
    rows = [row(), row(), row(reason="worse", returned="pick"), row(text="", reason="clear", returned="pick")]
    page = fusion_page({"f": rows}, [])
    assert re.findall(r'<article id="row-\d" class="(\w+)"', page) == ["given", "given", "back", "none"]
    boxes = re.findall(r'<input type="checkbox" id="(\w+)" checked> ([^<(]+) \((\d)\)</label>', page)
    assert boxes == [
        ("given", "fused text returned", "2"),
        ("back", "fused text written, best candidate returned", "1"),
        ("none", "not fused", "1"),
    ]
    for group, *_ in boxes:
        assert f"body:has(#{group}:not(:checked)) .{group}" in page
    assert "<script" not in page
