"""Each column by figures worked out by hand; see `conftest.examples` for the rows."""

import json

import numpy as np
import pytest

from llm_blender.bench.table import correlation_table, method_table, paper_table, rank_pool, read_pool, with_tradeoff
from llm_blender.testing import FakeRanker
from llm_blender.types import Candidate, Example


@pytest.fixture
def table(pool):
    return paper_table(pool, [rank_pool(pool, FakeRanker(), "ours")])  # the longer text is the better one


def value(table, method, column):
    return table.cell(method, column).value


def test_gpt_rank(table):
    # ann (1 + 1 + 2) / 3, bob (3 + 1 + 1) / 3, cy (2 + 1 + 2) / 3
    assert [value(table, name, "gpt_rank") for name in ("ann", "bob", "cy")] == pytest.approx([4 / 3, 5 / 3, 5 / 3])
    # the longest: bob, ann, cy: (3 + 1 + 2) / 3
    assert value(table, "ours", "gpt_rank") == pytest.approx(2)
    # what is expected of a draw: (2 + 1 + 5/3) / 3
    assert value(table, "random", "gpt_rank") == pytest.approx(14 / 9)
    # it knows the ranks, and always takes a first one
    assert value(table, "oracle, GPT-Rank", "gpt_rank") == 1


def test_top_rates_count_a_shared_rank(table):
    # ann 1, 1, 2: bob 3, 1, 1: cy 2, 1, 2
    assert [value(table, "ann", f"top{k}") for k in (1, 2, 3)] == pytest.approx([2 / 3, 1, 1])
    assert [value(table, "bob", f"top{k}") for k in (1, 2, 3)] == pytest.approx([2 / 3, 2 / 3, 1])
    assert [value(table, "cy", f"top{k}") for k in (1, 2, 3)] == pytest.approx([1 / 3, 1, 1])
    # bob's 3, ann's 1, cy's 2
    assert [value(table, "ours", f"top{k}") for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])


def test_at_least_as_good_as_the_two_best_llms(table):
    assert table.bases == ("ann", "bob")  # bob and cy are equally good: the first one
    # bob beside ann: loss, same, win; cy beside ann: loss, same, same
    assert value(table, "bob", "at_least_ann_ties_as_wins") == pytest.approx(2 / 3)
    assert value(table, "bob", "at_least_ann_ties_as_half") == pytest.approx((0 + 0.5 + 1) / 3)
    assert value(table, "cy", "at_least_ann_ties_as_wins") == pytest.approx(2 / 3)
    assert value(table, "cy", "at_least_ann_ties_as_half") == pytest.approx((0 + 0.5 + 0.5) / 3)
    # ours takes bob (loss), ann herself, cy (same)
    assert value(table, "ours", "at_least_ann_ties_as_wins") == pytest.approx(2 / 3)
    assert value(table, "ours", "at_least_ann_ties_as_half") == pytest.approx((0 + 0.5 + 0.5) / 3)
    # ours beside bob: himself, same, loss
    assert value(table, "ours", "at_least_bob_ties_as_wins") == pytest.approx(2 / 3)
    assert value(table, "ours", "at_least_bob_ties_as_half") == pytest.approx((0.5 + 0.5 + 0) / 3)
    # a draw beside ann, row by row: (1 + 0 + 0) / 3, all tie, (1 + 1 + 1) / 3
    assert value(table, "random", "at_least_ann_ties_as_wins") == pytest.approx((1 / 3 + 1 + 1) / 3)
    assert value(table, "random", "at_least_ann_ties_as_half") == pytest.approx((0.5 / 3 + 0.5 + 2 / 3) / 3)


def test_an_llm_is_not_measured_by_itself(table):
    assert table.cell("ann", "at_least_ann_ties_as_wins") is None
    assert table.cell("ann", "at_least_bob_ties_as_wins") is not None


def test_metrics(table):
    # ann (.8 + .5 + .6) / 3, bob (.6 + .9 + .6) / 3, cy (.7 + .7 + .9) / 3
    assert [value(table, name, "bertscore") for name in ("ann", "bob", "cy")] == pytest.approx([1.9 / 3, 0.7, 2.3 / 3])
    assert value(table, "random", "bertscore") == pytest.approx(0.7)
    # bob, ann, cy
    assert value(table, "ours", "bertscore") == pytest.approx((0.6 + 0.5 + 0.9) / 3)
    assert value(table, "longest", "bertscore") == value(table, "ours", "bertscore")


def test_oracles(table):
    # by BERTScore ann, bob, cy
    assert value(table, "oracle, BERTScore", "bertscore") == pytest.approx((0.8 + 0.9 + 0.9) / 3)
    assert value(table, "oracle, BERTScore", "gpt_rank") == pytest.approx((1 + 1 + 2) / 3)
    # by GPT-Rank ann, any of the three (mean .7), bob
    assert value(table, "oracle, GPT-Rank", "bertscore") == pytest.approx((0.8 + 0.7 + 0.6) / 3)


def test_the_fused_answer_is_ranked_among_itself_and_all_candidates(table):
    (fused,) = [line for line in table.lines if line.kind == "fusion"]
    assert fused.method == "LLM-Blender (top-3, gen)"
    # row 1: beats all three, rank 1. Row 2: all four tie, rank 1. Row 3: loses to bob, ties with the others, rank 2
    assert fused.cells["gpt_rank"].value == pytest.approx(4 / 3)
    assert fused.cells["top1"].value == pytest.approx(2 / 3)
    # beside ann: win, same, same; beside bob: win, same, loss
    assert fused.cells["at_least_ann_ties_as_wins"].value == pytest.approx(1)
    assert fused.cells["at_least_ann_ties_as_half"].value == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert fused.cells["at_least_bob_ties_as_wins"].value == pytest.approx(2 / 3)
    assert fused.cells["bertscore"].value == pytest.approx((1.0 + 0.4 + 0.1) / 3)
    # the candidates' own ranks leave it out
    assert value(table, "ann", "gpt_rank") == pytest.approx(4 / 3)


def test_a_fused_answer_that_is_a_candidates_text_counts_as_that_candidate(examples):
    first = examples[0]
    first.extra["fusion"].pop("cmp_results")
    first.extra["fusion"].update(text="bbb\n", scores={})
    table = paper_table(read_pool("rows.jsonl", [first]), [])
    (fused,) = [line for line in table.lines if line.kind == "fusion"]
    assert (fused.cells["gpt_rank"].value, fused.cells["bertscore"].value) == (3, 0.6)  # bob's


def test_correlations(table):
    found = {correlation.method: correlation for correlation in table.correlations}
    assert list(found) == ["random", "longest", "BERTScore", "ours"]
    # ranks by BERTScore: 1 3 2, 3 1 2, 2 2 1; the judge's: 1 3 2, 1 1 1, 2 1 2
    measures = found["BERTScore"].measures
    assert measures["spearman_footrule"].value == pytest.approx((0 + 3 + 2) / 3)
    # columns: ann 1 3 2 and 1 1 2: 0; bob 3 1 2 and 3 1 1: 2 / sqrt(2 · 24/9); cy 2 2 1 and 2 1 2: −½
    assert measures["pearson"].value == pytest.approx((0 + 2 / np.sqrt(48 / 9) - 0.5) / 3)
    assert found["ours"].rows == 3
    # who orders as the judge does has 1 and 0
    same = paper_table_of_scores()
    assert same["pearson"].value == pytest.approx(1)
    assert same["spearman_footrule"].value == 0


def paper_table_of_scores():
    rows = [
        Example(
            f"{i}", candidates=tuple(Candidate("x" * (1 + (i + j) % 3), "abc"[j], {"s": (i + j) % 3}) for j in range(3))
        )
        for i in range(4)
    ]
    table = paper_table(read_pool("f", rows, score="s"), [])
    return {correlation.method: correlation.measures for correlation in table.correlations}["longest"]


def test_best_shares_add_up(table):
    # row 1 ann's, row 2 a third each, row 3 bob's
    assert {best.model: best.share for best in table.best} == pytest.approx({"ann": 4 / 9, "bob": 4 / 9, "cy": 1 / 9})
    assert {best.model: best.top for best in table.best} == pytest.approx({"ann": 2 / 3, "bob": 2 / 3, "cy": 1 / 3})


def test_pair_rates(table):
    rates = {(pair.model, pair.other): pair.rate for pair in table.pairs}
    # ann beside bob: win, tie, loss; cy beside bob: win, tie, loss; ann beside cy: win, tie, tie
    assert rates["ann", "bob"] == rates["bob", "ann"] == pytest.approx(0.5)
    assert rates["ann", "cy"] == pytest.approx(2 / 3)
    assert rates["cy", "ann"] == pytest.approx(1 / 3)


def test_length_bias(table):
    found = {bias.method: bias for bias in table.lengths}
    # pairs with a winner: ann over bob, ann over cy, cy over bob (the longer one loses all three);
    # bob over ann and bob over cy (again the shorter one)
    assert (found["judge"].rate, found["judge"].pairs) == (0, 5)
    assert found["ours"].rate == 1
    # by BERTScore: ann, ann, cy (shorter), ann and bob tie (a half), cy over bob (longer)
    assert found["BERTScore"].rate == pytest.approx((0 + 0 + 0 + 0.5 + 1) / 5)


def test_tradeoff_rests_on_the_matrix(pool, table):
    ranker = FakeRanker()
    ranked = rank_pool(pool, ranker, "ours")
    made = ranker.comparisons
    points = with_tradeoff(table, pool, [ranked]).tradeoff
    assert ranker.comparisons == made == 3 * 6
    by_name = {(point.strategy, point.aggregation): point for point in points}
    assert by_name["full", "max_logits"].comparisons == 6
    assert by_name["full", "max_logits"].quality == value(table, "ours", "gpt_rank")
    assert by_name["knockout", None].quality == value(table, "ours", "gpt_rank")  # without noise all find the best
    assert (by_name["random", None].comparisons, by_name["random", None].quality) == (0, pytest.approx(14 / 9))


def test_a_score_stands_in_for_the_judge():
    scores = [(1, 0, 0.5), (1, 1, 0)]
    rows = [
        Example(
            f"{i}",
            candidates=tuple(
                Candidate(name * (i + 1), name, {"win": score}) for name, score in zip("abc", row, strict=True)
            ),
        )
        for i, row in enumerate(scores)
    ]
    table = paper_table(read_pool("rows.jsonl", rows, score="win"), [])
    # ranks 1 3 2 and 1 1 3
    assert [value(table, name, "gpt_rank") for name in "abc"] == pytest.approx([1, 2, 2.5])
    # b beside a: loss, tie
    assert value(table, "b", "at_least_a_ties_as_wins") == pytest.approx(0.5)
    assert value(table, "b", "at_least_a_ties_as_half") == pytest.approx(0.25)
    assert value(table, "c", "win") == pytest.approx(0.25)
    assert "the pairs that the score `win` implies, not from judged pairs" in table.caption
    assert [line.method for line in table.lines if line.kind == "oracle"] == ["oracle, GPT-Rank"]
    assert table.quality.key == "win"


def test_tables_and_json(table):
    shown = method_table(table)
    assert shown.columns[:3] == ("method", "BERTScore", "GPT-Rank")
    assert shown.rows[0][:3] == ("ann", "63.3 ±15.0", "1.33 ±0.50")
    assert "–" in shown.rows[0]
    parts = [method_table(table, kinds) for kinds in (("metric",), ("rank", "top"), ("versus",))]  # for a terminal
    assert sum(len(part.columns) - 1 for part in parts) == len(shown.columns) - 1
    assert parts[1].columns == ("method", "GPT-Rank", "top-1", "top-2", "top-3")
    assert correlation_table(table).rows[-1][0] == "ours"
    values = json.loads(json.dumps(table.to_dict(), allow_nan=False))
    assert values["lines"][0]["cells"]["gpt_rank"]["rows"] == 3
    assert {column["better"] for column in values["columns"] if column["kind"] == "rank"} == {"lower"}


def test_intervals_draw_rows_of_one_prompt_together(examples):
    twice = [*examples, *(row for row in map(with_other_texts, examples))]
    once, doubled = (paper_table(read_pool("f", rows), []) for rows in (examples, twice))
    assert doubled.cell("ann", "gpt_rank").ci95 == pytest.approx(once.cell("ann", "gpt_rank").ci95)
    assert doubled.coverage.counts["same_prompt_rows"] == 3


def with_other_texts(row):
    candidates = tuple(Candidate(f"{c.text}!", c.model, c.scores) for c in row.candidates)
    return Example(row.instruction, reference=row.reference, candidates=candidates, extra=row.extra)
