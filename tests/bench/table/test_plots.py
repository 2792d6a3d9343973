import base64
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest

from llm_blender.bench import write_page
from llm_blender.bench.report import DARK, LIGHT
from llm_blender.bench.table import (
    paper_table,
    plot_table,
    rank_pool,
    read_pool,
    report_page,
    svg_pictures,
    with_tradeoff,
)
from llm_blender.bench.table.plots import _draw_tradeoff
from llm_blender.errors import InputError
from llm_blender.testing import FakeRanker
from llm_blender.types import Candidate, Example

pytest.importorskip("matplotlib", reason="needs the extra `plot`")


@pytest.fixture
def table(pool):
    ranked = [rank_pool(pool, FakeRanker(), "runs/ours")]
    return with_tradeoff(paper_table(pool, ranked), pool, ranked)


def words(svg):
    return " | ".join(text for element in ElementTree.fromstring(svg).iter() if (text := (element.text or "").strip()))


def test_four_pictures_in_two_formats(table, tmp_path):
    paths = plot_table(table, tmp_path / "new")
    names = [f"{name}.{kind}" for name in ("best", "wins", "tradeoff", "lengths") for kind in ("png", "svg")]
    assert [path.name for path in paths] == names
    assert paths[0].read_bytes().startswith(b"\x89PNG")


def test_what_the_pictures_say(table):
    found = {name: words(svg) for name, svg in svg_pictures(table, LIGHT).items()}
    assert "44.4" in found["best"]
    assert "ann" in found["best"]
    assert "each gets 1/k of the instruction" in found["best"]
    assert "67" in found["wins"]  # ann beside cy: win, tie, tie
    assert "Quality for comparisons: ours" in found["tradeoff"]
    assert "full, MaxLogits" in found["tradeoff"]
    assert "GPT-Rank" in found["tradeoff"]
    assert "5 pairs without a tie by the judge" in found["lengths"]
    assert "runs/" not in found["lengths"]


def test_the_same_table_makes_the_same_pictures_and_a_dark_room_others(table):
    assert svg_pictures(table, LIGHT) == svg_pictures(table, LIGHT)
    assert DARK.paper in svg_pictures(table, DARK)["wins"]
    assert DARK.paper not in svg_pictures(table, LIGHT)["wins"]


def test_without_comparisons_or_winners_there_is_less_to_draw(tmp_path):
    rows = [
        Example("p", candidates=(Candidate("x", "a"), Candidate("y", "b")), extra={"cmp_results": {"a,b": "Same good"}})
    ]
    table = paper_table(read_pool("f", rows), [])
    assert list(svg_pictures(table, LIGHT)) == ["best", "wins"]


def test_many_llms_fit(tmp_path):
    rows = [
        Example(f"{i}", candidates=tuple(Candidate(f"{i} {j}", f"llm-{j}", {"s": (i * j) % 7}) for j in range(25)))
        for i in range(3)
    ]
    table = paper_table(read_pool("f", rows, score="s"), [])
    assert "llm-24" in words(svg_pictures(table, LIGHT)["wins"])


def test_the_trade_off_counts_whole_comparisons(table):
    (*_, axis) = _draw_tradeoff(table, LIGHT).axes
    ticks = axis.get_xticks()
    assert len(ticks) > 2
    assert all(tick == int(tick) for tick in ticks)


class _Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("src", "srcset", "href")]


def test_the_page_needs_nothing_else(table, tmp_path):
    path = write_page(report_page(table), tmp_path / "new" / "page.html")
    page = path.read_text(encoding="utf-8")
    links = _Links()
    links.feed(page)
    assert len(links.found) == 8
    assert all(link.startswith("data:image/svg+xml;base64,") for link in links.found)
    svg = base64.b64decode(links.found[0].partition(",")[2]).decode()
    assert "How often each LLM is best" in svg
    assert "each gets 1/k of the instruction; GPT-Rank counts all places" in page
    assert "url(http" not in page
    assert "prefers-color-scheme: dark" in page
    assert "<td>1.33<small>1.00 to 2.00</small></td>" in page
    assert re.search(r'<td class="best">66\.7<small>', page)


def test_names_are_text_in_the_page(examples):
    evil = "<script>alert(1)</script>"
    for row in examples:
        object.__setattr__(row.candidates[2], "model", evil)
        row.extra.update(cmp_results={"ann,bob": "A is better", f"ann,{evil}": "A is better"}, fusion=None)
    page = report_page(paper_table(read_pool("<b>rows.jsonl", examples), []))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "<b>" not in page


def test_a_page_that_cannot_be_written(table, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot hold the page"):
        write_page(report_page(table), tmp_path / "file" / "page.html")
