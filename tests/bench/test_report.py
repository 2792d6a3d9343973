from llm_blender.bench import Agreement, Difference, Selection, Table, agreement_table, selection_table
from llm_blender.ranking import Interval


def test_markdown_is_aligned_and_numbers_stand_to_the_right():
    table = Table(("name", "n"), (("a|b", "1"), ("long name", "1,000")), names=1)
    assert table.markdown() == (
        "| name      |     n |\n"
        "| --------- | ----: |\n"
        "| a\\|b      |     1 |\n"
        "| long name | 1,000 |"
    )  # fmt: skip


def agreement(method, subset=None, **values):
    common = {
        "file": "x.jsonl", "pairs": 1234, "ties": 5, "accuracy": 0.5, "ci95": None, "with_ties": 0.5, "undecided": 0.0,
        "longest": 0.55, "prefers_longer": 0.5, "flip_rate": None, "ece": None, "brier": None, "brier_base_rate": 0.24,
    }  # fmt: skip
    return Agreement(method=method, subset=subset, **(common | values))


def test_agreement():
    ours = agreement(
        "fake", accuracy=0.6543, ci95=Interval(0.6, 0.7), prefers_longer=0.61, flip_rate=0.1, ece=0.034, brier=0.2224
    )
    versus = Difference("fake", -0.1543, Interval(-0.2, 0.01))
    random = agreement("random", brier=0.25, undecided=1.0, versus=versus)
    table = agreement_table([ours, random])
    assert table.columns[5:8] == ("95 %", "against fake, 95 %", "undecided")
    assert table.rows == (
        ("x.jsonl", "fake", "1,234", "5", "65.4", "60.0 to 70.0", "–", "0.0", "61.0", "10.0", "3.4", "0.222"),
        ("x.jsonl", "random", "1,234", "5", "50.0", "by definition", "-20.0 to +1.0", "100.0", "50.0", "–", "–",
         "0.250"),
        ("x.jsonl", "judges", "1,234", "5", "–", "–", "–", "–", "55.0", "–", "–", "0.240"),
    )  # fmt: skip
    assert len(table.columns) == len(table.rows[0])
    assert table.names == 2


def test_agreement_by_subset():
    table = agreement_table([agreement("fake"), agreement("fake", "hard", longest=0.3)])
    assert table.columns[:3] == ("file", "subset", "method")
    assert table.names == 3
    assert [row[1:3] for row in table.rows] == [
        ("(all)", "fake"), ("(all)", "judges"), ("hard", "fake"), ("hard", "judges")
    ]  # fmt: skip
    assert [row[9] for row in table.rows] == ["50.0", "55.0", "50.0", "30.0"]


def test_selection_in_percent_or_on_its_own_scale():
    selection = Selection("oracle", 120, 0.9458, Interval(0.9, 1.0), Interval(-0.05, 0.25), 2400)
    percent, own = (selection_table([selection], percent=percent) for percent in (True, False))
    assert percent.rows == (("oracle", "120", "94.6", "90.0 to 100.0", "-5.0 to +25.0", "2,400"),)
    assert own.rows == (("oracle", "120", "0.946", "0.900 to 1.000", "-0.050 to +0.250", "2,400"),)
    random = Selection("random", 3, 7.125, Interval(6, 8), None)
    assert selection_table([random], percent=False).rows == (("random", "3", "7.125", "6.000 to 8.000", "–", "0"),)
