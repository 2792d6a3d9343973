"""Model cards of runs on a user's own data, and the remarks on runs that failed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from llm_blender.training.card import Quality, Run, fuser_card, model_card
from llm_blender.training.groups import Preference, SourceCount, TrainingGroup, file_card
from llm_blender.training.recipes import Recipe, Source
from llm_blender.training.remarks import fuser_remarks, ranker_remarks

DEV = {
    "pairs": 400.0,
    "agreement": 0.7,
    "agreement_low": 0.65,
    "agreement_high": 0.75,
    "longest": 0.6,
    "flip_rate": 0.05,
    "ece": 0.03,
    "brier": 0.2,
    "log_loss": 0.6,
}
LOG = ({"stage": "late", "step": 0, "eval_loss": 0.7}, {"stage": "late", "step": 9, "eval_loss": 0.6})


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"prompt": "Why?", "chosen": "A.", "rejected": "B."}) + "\n")
    return path


def make_run(rows: Path, *, licence: str = "", quality: Quality | None = None, log=LOG, **recipe) -> Run:
    source = Source(file=str(rows), licence=licence)
    count = SourceCount(source, rows, 1, 0, 1, 1)
    found = Quality(DEV, 2.0) if quality is None else quality
    return Run(Recipe.model_validate(recipe), (count,), (), (), log, found, 90.0)


class TestLicence:
    def test_own_data_and_a_fresh_ranker(self, rows):
        card = model_card(make_run(rows, licence="MIT", backbone="org/encoder"), Path("mine"))
        assert "Licence of the data: MIT." in card
        assert "| mine.jsonl | MIT |" in card
        assert "derived from `encoder`, which has its own licence" in card
        assert "base_model: org/encoder\n" in card
        assert "non-commercial" not in card

    def test_none_named(self, rows):
        card = model_card(make_run(rows), Path("mine"))
        assert "Licence of the data: not named." in card
        assert "| mine.jsonl | not named |" in card

    def test_from_the_bundled_ranker_its_terms_are_named_as_its_own(self, rows):
        card = model_card(make_run(rows, licence="MIT", init="bundled"), Path("mine"))
        assert "# A PairRanker trained on from the bundled ranker" in card
        assert "the bundled ranker of llm-blender, which was trained in part on data for non-commercial use" in card
        assert "Licence of the data: MIT." in card
        assert "base_model" not in card

    def test_a_folder_is_named_without_its_path(self, rows, tmp_path):
        (tmp_path / "encoder").mkdir()
        card = model_card(make_run(rows, backbone=str(tmp_path / "encoder")), Path("mine"))
        assert str(tmp_path) not in card
        assert "base_model" not in card

    def test_the_card_of_an_import_is_carried_over(self, rows):
        assert file_card(rows) == {}
        rows.with_name("mine.jsonl.md").write_text(
            "# Mine\n\n|  |  |\n|---|---|\n| source | my \\| data |\n| url | unknown |\n| licence | CC BY 4.0 |\n"
        )
        assert file_card(rows) == {"name": "my | data", "licence": "CC BY 4.0"}

    def test_what_import_writes_is_read(self, rows, tmp_path):
        from llm_blender.datasets import ImportPlan, import_rows

        plan = ImportPlan(inputs=(rows,), name="mine", url="https://example.org", licence="MIT")
        import_rows(plan, str(tmp_path / "rows.jsonl"))
        expected = {"name": "mine", "url": "https://example.org", "licence": "MIT"}
        assert file_card(tmp_path / "rows.jsonl") == expected

    def test_a_fuser(self, rows, tmp_path):
        from llm_blender.training.card import FuserRun
        from llm_blender.training.fuser_rows import FuserRowCount
        from llm_blender.training.recipes import FuserRecipe, FuserSource

        source = FuserSource(file=str(rows), licence="CC0-1.0")
        count = FuserRowCount(source, rows, 1, 0, 0, 0, {})
        run = FuserRun(FuserRecipe(), (count,), (), (), (), too_long=0, seconds=1.0, resumed=0)
        card = fuser_card(run, Path("mine"))
        assert "Licence of the data: CC0-1.0." in card
        assert "- Nothing is known of its quality" in card


class TestRemarks:
    def test_none_on_a_good_run(self, rows):
        assert ranker_remarks(make_run(rows)) == []
        assert "## Remarks" not in model_card(make_run(rows), Path("mine"))

    @pytest.mark.parametrize(
        ("changes", "temperature", "words", "remedy"),
        [
            (
                {"longest": 0.8},
                2.0,
                "less than the rule that takes the longer answer: 0.700 against 0.800",
                "more pairs",
            ),
            (
                {"agreement": 0.52, "agreement_low": 0.45, "agreement_high": 0.6, "longest": 0.5},
                2.0,
                "may be no better than chance",
                "Give more pairs",
            ),
            (
                {"agreement": 0.3, "agreement_low": 0.25, "agreement_high": 0.35, "longest": 0.2},
                2.0,
                "prefers the worse answer more often than not",
                "Check that `chosen`",
            ),
            (
                {"agreement_low": 0.55, "agreement_high": 0.85},
                2.0,
                "400 development pairs tell little",
                "pairs of diff",
            ),
            ({}, 999.99, "temperature 1e+03 is at its bound", "whether the loss falls"),
            ({}, 0.001, "temperature 0.001 is at its bound", "blend train calibrate"),
            ({"ece": 0.2}, 2.0, "20 points off", "blend train calibrate"),
            ({"flip_rate": 0.96}, 2.0, "changes 96% of its decisions", "--init bundled"),
        ],
    )
    def test_on_quality(self, rows, changes, temperature, words, remedy):
        run = make_run(rows, quality=Quality(DEV | changes, temperature))
        (remark,) = ranker_remarks(run)
        assert words in remark
        assert remedy in remark
        assert f"## Remarks\n\n- {remark}\n" in model_card(run, Path("mine"))

    def test_on_what_is_not_known(self, rows):
        (remark,) = ranker_remarks(make_run(rows, quality=Quality()))
        assert "no development pairs" in remark
        assert "--dev" in remark

    def test_on_int8(self, rows):
        int8 = {"same_decision": 0.8, "agreement_fp32": 0.7, "largest_difference": 1.0}
        (remark,) = ranker_remarks(make_run(rows, quality=Quality(DEV, 2.0, int8)))
        assert 'precision="fp32"' in remark

    def test_on_what_was_not_kept(self, rows):
        worse = DEV | {"agreement": 0.66, "log_loss": 0.66}
        run = make_run(rows, quality=Quality(DEV, 2.0, {}, DEV, worse), init="bundled")
        (remark,) = ranker_remarks(run)
        assert "(agreement 0.700 before, 0.660 after; log loss 0.600, 0.660): the weights of bundled are kept" in remark
        assert "trained, it had an agreement of 0.66" in model_card(run, Path("mine"))

    @pytest.mark.parametrize(
        ("losses", "words"),
        [
            ((0.69, 0.7), "loss did not fall: 0.690 at first, 0.700 at the end"),
            ((0.7, 0.5, 0.6), "loss rose again: 0.500 at its best"),
            ((0.7, 0.6), None),
            ((0.7,), None),
        ],
    )
    @pytest.mark.parametrize("name", ["eval_loss", "loss"])
    def test_on_the_loss(self, rows, losses, words, name):
        log = tuple({"stage": "one", "step": step, name: loss} for step, loss in enumerate(losses))
        found = ranker_remarks(make_run(rows, log=log))
        assert len(found) == (words is not None)
        assert words is None or words in found[0]

    def test_on_a_fuser(self, rows):
        @dataclasses.dataclass
        class Fake:
            evaluations: list
            sources: tuple = ()
            too_long: int = 0

        first = {"loss": 2.0, "loss_low": 1.8, "loss_high": 2.2, "rows": 30}
        assert "did not fall" in fuser_remarks(Fake([first, first]))[0]
        assert "cannot tell" in fuser_remarks(Fake([first, first | {"loss": 1.9, "loss_high": 2.1}]))[0]
        assert fuser_remarks(Fake([first, first | {"loss": 1.0, "loss_high": 1.1}])) == []


def test_the_groups_of_a_preference(rows):
    from llm_blender.training.groups import load_groups

    groups, (count,) = load_groups([Source(file=rows.name)], rows.parent, frozenset(), 0)
    (group,) = groups
    better = group.texts.index("A.")
    assert group == TrainingGroup("Why?", group.texts, (Preference(0, 1, float(better == 0)),))
    assert count.source.pairs == "labelled"
