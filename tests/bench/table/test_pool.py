import pytest

from llm_blender.bench.table import paper_table, read_pool
from llm_blender.errors import InputError
from llm_blender.types import Candidate, Example


def row(prompt="p", models="abc", outcomes=None, scores=None, **extra):
    candidates = tuple(
        Candidate(
            f"{prompt} by {model}", model, {} if scores is None else {"s": scores[i]} if scores[i] is not None else {}
        )
        for i, model in enumerate(models)
    )
    outcomes = {"a,b": "A is better"} if outcomes is None else outcomes
    return Example(prompt, candidates=candidates, extra={"cmp_results": outcomes, **extra})


FULL = {"a,b": "A is better", "a,c": "A is better", "b,c": "A is better"}


def test_repeated_rows_and_candidates_count_once():
    second = Example(
        "q",
        candidates=(*row("q").candidates, Candidate("again", "a"), Candidate("whose?")),
        extra={"cmp_results": FULL},
    )
    pool = read_pool("f", [row("p", outcomes=FULL), row("p", outcomes=FULL), second])
    assert len(pool.rows) == 2
    assert pool.rows[1].candidates[0].text == "q by a"
    assert pool.coverage.counts == {"repeated_rows": 1, "repeated_candidates": 1, "unnamed_candidates": 1}
    assert pool.coverage.found == 3
    assert pool.coverage.remarks()[0] == "f: 1 rows repeat the prompt and candidates of an earlier one and are left out"


def test_rows_may_lack_an_llm():
    pool = read_pool("f", [row("p", outcomes=FULL), row("q", "ab")])
    assert pool.coverage.missing_models == {"c": 1}
    assert pool.coverage.counts == {"ragged_rows": 1}
    table = paper_table(pool, [])
    assert table.cell("c", "gpt_rank").rows == 1
    assert table.cell("a", "gpt_rank").rows == table.cell("random", "gpt_rank").rows == 2
    assert [correlation.rows for correlation in table.correlations] == [1, 1]
    assert len(read_pool("f", [row("p", outcomes=FULL), row("q", "ab")], complete=True).rows) == 1


def test_an_llm_that_was_never_judged_is_left_out():
    pool = read_pool("f", [row("p"), row("q")])  # c is in both rows, and in no outcome
    assert pool.models == ("a", "b")
    assert pool.coverage.unjudged_models == {"c": 2}
    assert "judged in no row and left out: c 2 candidates" in pool.coverage.remarks()[0]


def test_in_a_judged_row_only_judged_candidates_count():
    pool = read_pool("f", [row("p", outcomes=FULL), row("q")])
    assert [list(found.models) for found in pool.rows] == [["a", "b", "c"], ["a", "b"]]
    assert pool.coverage.counts["uncompared_candidates"] == 1


def test_unjudged_rows_count_for_metrics_alone():
    pool = read_pool("f", [row("p", outcomes=FULL), row("q", outcomes="null", scores=(1, 2, 3)), row("r", outcomes="")])
    assert (len(pool.rows), pool.coverage.counts["unjudged_rows"], pool.coverage.counts["useless_rows"]) == (2, 1, 1)
    table = paper_table(pool, [])
    assert (table.cell("a", "s").value, table.cell("a", "s").rows) == (1, 1)
    assert table.cell("a", "gpt_rank").rows == 1
    assert table.coverage.missing_scores == {"s": 1}


def test_a_row_counts_for_a_metric_where_all_its_candidates_have_it():
    rows = [row("p", outcomes=FULL, scores=(1, 2, 3)), row("q", outcomes=FULL, scores=(9, None, 9))]
    table = paper_table(read_pool("f", rows), [])
    assert {line.cells["s"].value for line in table.lines if line.kind == "LLM"} == {1, 2, 3}
    assert table.coverage.missing_scores == {"s": 1}
    assert "since a candidate lacks it, by metric: s 1" in table.coverage.remarks()[-1]


def test_partly_judged_rows_and_unknown_outcomes():
    outcomes = {"a,b": "A is better", "b,c": "A is better", "a,zoe": "A is better"}
    pool = read_pool("f", [row(outcomes=outcomes)])
    assert pool.coverage.counts == {"unknown_outcomes": 1, "partly_judged_rows": 1}
    assert pool.rows[0].judged.ranks.tolist() == [1, 2, 3]


def test_only_these_llms_are_ranked_among_themselves():
    pool = read_pool("f", [row(outcomes=FULL)], ["c", "b"])
    assert pool.models == ("c", "b")
    assert pool.rows[0].judged.ranks.tolist() == [1, 2]


def test_rows_with_one_candidate():
    pool = read_pool("f", [row("p", outcomes=FULL), row("q", "a", scores=(1,), outcomes={})])
    assert pool.coverage.counts == {"few_candidates": 1}


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([row(outcomes={}, scores=(1, 2, 3))], {}, "no judged pairs.*score to compare by: s"),
        ([row(outcomes={})], {}, "the rows have none"),
        ([row(scores=(1, 2, 3))], {"score": "t"}, "Unknown score 't'"),
        ([row(scores=(1, None, None))], {"score": "s"}, "no row in which two candidates have the score"),
        ([row()], {"models": ["d"]}, "Unknown model 'd'"),
        ([row("p"), row("q", outcomes={"a,b": "A wins"})], {}, "f, row 2: .*wanted is one of"),
        ([row(), row("q", fusion={})], {}, "f, row 2: `fusion` has no `text`"),
        ([row("q", "ab"), row("r", "bc", {"b,c": "A is better"})], {"complete": True}, "holds no row in which"),
    ],
)
def test_errors(rows, options, message):
    with pytest.raises(InputError, match=message):
        read_pool("f", rows, **options)


def test_a_fused_answer_that_nobody_judged_is_counted():
    pool = read_pool("f", [row("p", outcomes=FULL, fusion={"answer": "new", "used": [0, 1]}), row("q", outcomes=FULL)])
    assert pool.coverage.counts == {"fused_rows": 1, "fused_unjudged_rows": 1}
    (fused,) = [line for line in paper_table(pool, []).lines if line.kind == "fusion"]
    assert fused.method == "LLM-Blender (top-2)"
    assert fused.cells["gpt_rank"] is None
