import importlib.util
import xml.etree.ElementTree as ElementTree

import pytest

from llm_blender.bench import agreements, baseline_predictions, labelled_pairs, plot_agreements, ranker_predictions
from llm_blender.errors import InputError, MissingExtraError
from llm_blender.testing import FakeRanker
from llm_blender.types import Candidate, Example, LabelledPair


@pytest.fixture(scope="module")
def judged():
    rows = [
        Example(
            f"{i}",
            candidates=(Candidate("x" * (i % 13)), Candidate("y" * (i % 5))),
            pairs=(LabelledPair(0, 1, "ab"[i % 3 == 0]),),
            extra={"part": "odd" if i % 2 else "even"},
        )
        for i in range(1, 40)
    ]
    return labelled_pairs("some/rows.jsonl.zst", rows, by="part")


@pytest.fixture(scope="module")
def results(judged):
    rankers = [ranker_predictions(judged, FakeRanker(noise=noise), f"runs/noise-{noise}") for noise in (1, 9)]
    return agreements(judged, [*rankers, *baseline_predictions(judged)])


def words(path):
    """Return the texts of an SVG, which are stored as text."""
    return " | ".join(text for element in ElementTree.parse(path).iter() if (text := (element.text or "").strip()))


@pytest.fixture(autouse=True)
def matplotlib():
    return pytest.importorskip("matplotlib", reason="needs the extra `plot`")


def test_two_pictures_in_two_formats(results, tmp_path):
    paths = plot_agreements(results, tmp_path / "new" / "plots")
    assert [path.name for path in paths] == ["agreement.png", "agreement.svg", "reliability.png", "reliability.svg"]
    assert all(path.parent == tmp_path / "new" / "plots" for path in paths)
    assert paths[0].read_bytes().startswith(b"\x89PNG")


def test_bars_are_labelled_with_names_and_values(results, tmp_path):
    text = words(plot_agreements(results, tmp_path)[1])
    assert "rows |" in text
    assert "rows: even" in text
    assert "rows: odd" in text
    assert f"{results[0].pairs} pairs" in text
    for result in results:
        if result.method != "random":  # it is the line at 50
            assert f"{100 * result.accuracy:.1f}" in text
            assert result.method.removeprefix("runs/") in text
    assert "random" not in text


def test_reliability_is_that_of_rankers_on_whole_files(results, tmp_path):
    text = words(plot_agreements(results, tmp_path)[3])
    for result in results[:2]:
        assert f"{result.method.removeprefix('runs/')}, rows" in text
        assert f"ECE {100 * result.ece:.1f} %, Brier {result.brier:.3f}" in text
    assert text.count("ECE") == 2
    assert "longest" not in text


def test_without_probabilities_there_is_no_reliability(judged, tmp_path):
    paths = plot_agreements(agreements(judged, baseline_predictions(judged)), tmp_path)
    assert [path.name for path in paths] == ["agreement.png", "agreement.svg"]


def test_names_are_short_only_where_they_differ(judged, tmp_path):
    methods = [ranker_predictions(judged, FakeRanker(), name) for name in ("one/best", "two/best")]
    text = words(plot_agreements(agreements(judged, methods), tmp_path)[1])
    assert "one/best" in text
    assert "two/best" in text


def test_the_same_results_make_the_same_picture(results, tmp_path):
    one, other = (plot_agreements(results, tmp_path / name) for name in ("one", "other"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


def test_settings_of_the_caller_stay(results, tmp_path, matplotlib):
    before = matplotlib.rcParams["font.size"]
    plot_agreements(results, tmp_path)
    assert matplotlib.rcParams["font.size"] == before


def test_a_folder_that_cannot_be_written(results, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot hold the plots"):
        plot_agreements(results, tmp_path / "file" / "plots")
    with pytest.raises(InputError, match="no results"):
        plot_agreements([], tmp_path)


def test_without_matplotlib(results, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"llm-blender\[plot\]"):
        plot_agreements(results, tmp_path)
