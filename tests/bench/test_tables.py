from llm_blender.bench import Agreement, Selection, Table, agreement_table, selection_table
from llm_blender.ranking import Interval


def test_markdown_is_aligned_and_numbers_stand_to_the_right():
    table = Table(("name", "n"), (("a|b", "1"), ("long name", "1,000")), names=1)
    assert table.markdown() == (
        "| name      |     n |\n"
        "| --------- | ----: |\n"
        "| a\\|b      |     1 |\n"
        "| long name | 1,000 |"
    )  # fmt: skip


def test_agreement():
    ours = Agreement("x.jsonl", "fake", 1234, 5, 0.6543, Interval(0.6, 0.7), 0.55, 0.1, 0.034, 0.2224)
    random = Agreement("x.jsonl", "random", 1234, 5, 0.5, None, 0.55, brier=0.25)
    table = agreement_table([ours, random])
    assert table.rows == (
        ("x.jsonl", "fake", "1,234", "5", "65.4", "60.0 to 70.0", "55.0", "10.0", "3.4", "0.222"),
        ("x.jsonl", "random", "1,234", "5", "50.0", "by definition", "55.0", "–", "–", "0.250"),
    )
    assert len(table.columns) == len(table.rows[0])


def test_selection_in_percent_or_on_its_own_scale():
    selection = Selection("oracle", 120, 0.9458, Interval(0.9, 1.0), Interval(-0.05, 0.25), 2400)
    percent, own = (selection_table([selection], percent=percent) for percent in (True, False))
    assert percent.rows == (("oracle", "120", "94.6", "90.0 to 100.0", "-5.0 to +25.0", "2,400"),)
    assert own.rows == (("oracle", "120", "0.946", "0.9 to 1", "-0.05 to +0.25", "2,400"),)
    random = Selection("random", 3, 7.125, Interval(6, 8), None)
    assert selection_table([random], percent=False).rows == (("random", "3", "7.12", "6 to 8", "–", "0"),)
