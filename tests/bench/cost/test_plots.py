import importlib.util
import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from llm_blender.bench import BenchRow
from llm_blender.bench.cost import MethodCosts, cost_quality, plot_costs
from llm_blender.bench.cost.report import _figure
from llm_blender.bench.plots import LIGHT
from llm_blender.errors import InputError, MissingExtraError

ROWS = [BenchRow(f"{i}", (), (0, 1)) for i in range(20)]


@pytest.fixture(autouse=True)
def matplotlib():
    return pytest.importorskip("matplotlib", reason="needs the extra `plot`")


def costs(method, kind, quality, dollars, calls=1, seconds=math.nan):
    values = (quality + 0.1 * (np.arange(20) % 3), *(np.full(20, value) for value in (dollars, seconds, calls, 0)))
    return MethodCosts(method, kind, *values)


def results(seconds=math.nan):
    return cost_quality(
        ROWS,
        [
            costs("best single: ann", "single", 0.5, 0.001, seconds=seconds),
            costs("single: bob", "single", 0.4, 0.0001),
            costs("single: cy", "single", 0.4, math.nan),
            costs("routing, 20 nearest", "routing", 0.55, 0.002),
            costs("fake, all 3", "pick", 0.6, 0.03, 3),
            costs("fake, best 2", "pick", 0.6, 0.02, 2),
            costs("random", "random", 0.3, 0.001),
            costs("oracle, routing", "oracle", 0.7, 0.001),
        ],
    )


def words(path):
    return " | ".join(text for element in ElementTree.parse(path).iter() if (text := (element.text or "").strip()))


def test_what_is_drawn(tmp_path):
    paths = plot_costs(results(), tmp_path / "pictures", percent=True)
    assert [path.name for path in paths] == ["pays-dollars.png", "pays-dollars.svg"]  # no seconds are known
    text = words(paths[1])
    for word in ("best single: ann", "routing, 20 nearest", "fake, best 2, 3, … LLMs", "oracle, routing", "20 instr"):
        assert word in text


@pytest.mark.parametrize("count", [2, 8])  # of lines: an axis as it is, and a logarithmic one
def test_all_lies_within_the_axes(count):
    drawn = [line for line in results()[:count] if line.dollars is not None]
    (axis,) = _figure(drawn, "dollars", 100, LIGHT).axes
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    for line in drawn:
        assert left < line.dollars.value < right
        assert bottom < 100 * line.quality.ci95.low <= 100 * line.quality.ci95.high < top


def test_the_same_results_give_the_same_bytes(tmp_path):
    first, second = (plot_costs(results(2), tmp_path / name, percent=False) for name in ("one", "two"))
    assert [path.name for path in first[2:]] == ["pays-seconds.png", "pays-seconds.svg"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_nothing_to_draw(tmp_path):
    with pytest.raises(InputError, match="nothing to draw"):
        plot_costs(results()[2:3], tmp_path, percent=True)


def test_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="plot"):
        plot_costs(results(), tmp_path, percent=True)


def label(lines, axis):
    (drawn,) = _figure(lines, axis, 100, LIGHT).axes
    return " ".join(drawn.get_xlabel().split())


def test_the_picture_names_what_it_lacks_and_why():
    assert label(results(2), "dollars").endswith(
        "Not drawn: single: cy. The price of an answer by an LLM is unknown; --prices gives it."
    )
    lines = [
        costs("best single: ann", "single", 0.5, 0.001, seconds=2),
        costs("fake, best 2", "pick", 0.6, 0.02, 2),
        costs("fake, all 3", "pick", 0.6, 0.03, 3),
        costs("fused: chat", "fused", 0.6, 0.03, 3),
    ]
    found = cost_quality(ROWS, lines)
    assert label(found, "seconds") == (
        "seconds an answer Not drawn: fake, best 2, 3, … LLMs; fused: chat. The time of a comparison by the ranker "
        "(cached ones have none) is unknown; --prices gives it."
    )
    assert label(found, "dollars") == "dollars for 1,000 answers"
    fused = [lines[0], costs("fused: chat", "fused", 0.6, 0.03, 3)]
    assert "fused: chat. The time of fusing is unknown" in label(cost_quality(ROWS, fused), "seconds")
