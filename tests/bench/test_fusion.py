from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from llm_blender import bench
from llm_blender.data import parse_row
from llm_blender.errors import InputError
from llm_blender.fusers import FusionRule
from llm_blender.metrics import rouge
from llm_blender.ranking import bootstrap_interval
from llm_blender.testing import FakeRanker

TEXTS = [
    ("the sky is blue today", ["the sky", "the sky is blue", "rain falls on the roof of the house"]),
    ("birds sing in the old tree", ["birds sing", "cats sleep", "the old tree"]),
    ("drink water and sleep early", ["drink water", "sleep early and drink", "run"]),
    ("two and two make four", ["four", "five or six", "two and two"]),
]
ANSWERS = ["the sky is blue", "birds sing in the tree", "", "two make four"]
BEST = [1, 0, 1, 2]


def record(number, **more):
    reference, texts = TEXTS[number]
    candidates = [{"text": text, "model": model} for text, model in zip(texts, ("ann", "bob", "cy"), strict=True)]
    return {"instruction": f"Say {number}.", "output": reference, "candidates": candidates, **more}


def rows_of(*records):
    return [parse_row(values) for values in records]


@pytest.fixture
def rows():
    fused = [record(i, fusion={"text": ANSWERS[i], "fuser": "f", "used": [BEST[i], 0]}) for i in range(4)]
    found, left_out = bench.fused_rows("x", rows_of(*fused))
    assert not left_out
    return found


def scores(texts, indices=range(4)):
    return rouge(texts, [TEXTS[i][0] for i in indices]).values


class TestRows:
    def test_which_rows_count(self):
        records = [
            record(0, fusion={"text": "a"}),
            record(1),
            record(2, fusion={"text": "b"}) | {"output": " "},
            record(3, fusion={"text": "c"}) | {"candidates": []},
        ]
        found, left_out = bench.fused_rows("x", rows_of(*records))
        assert ([row.answer for row in found], left_out) == (["a"], 3)
        with pytest.raises(InputError, match="x holds no row with both a fused answer"):
            bench.fused_rows("x", rows_of(record(1)))

    def test_the_answer_is_what_was_given_back(self):
        guarded = record(0, fusion={"text": "written", "answer": "given back", "returned": "pick"})
        unasked = record(1, fusion={"answer": "the only one", "reason": "one_candidate"})
        found, _ = bench.fused_rows("x", rows_of(guarded, unasked))
        assert [row.answer for row in found] == ["given back", "the only one"]

    @pytest.mark.parametrize("fusion", ["a text", {"used": [0]}, {"text": 3}])
    def test_a_fusion_without_text(self, fusion):
        with pytest.raises(InputError, match=r"x, row 2: `fusion` has no `text`"):
            bench.fused_rows("x", rows_of(record(0, fusion={"text": "a"}), record(1, fusion=fusion)))

    @pytest.mark.parametrize(
        ("more", "best"),
        [
            ({"ranking": {"best": 2}, "fusion": {"text": "a", "used": [1, 0]}}, 2),
            ({"fusion": {"text": "a", "used": [1, 0]}}, 1),
            ({"fusion": {"text": "a", "used": []}}, None),
            ({"fusion": {"text": "a", "used": [7]}}, None),
            ({"ranking": {"best": "0"}, "fusion": {"text": "a"}}, None),
            ({"fusion": {"text": "a"}}, None),
        ],
    )
    def test_which_candidate_was_best(self, more, best):
        ((row,), _) = bench.fused_rows("x", rows_of(record(0, **more)))
        assert row.best == best


class TestMeasures:
    def test_answer_and_best_candidate(self, rows):
        results = bench.measure_fusions(rows, {"rougeL": {}}, seed=2)
        answer, best = results.measures
        values, others = scores(ANSWERS), scores([TEXTS[i][1][BEST[i]] for i in range(4)])
        assert (answer.metric, answer.method, answer.rows, answer.mean) == ("rougeL", "answer", 4, values.mean())
        assert answer.ci95 == bootstrap_interval(values, seed=2)
        assert answer.versus.method == "best candidate"
        assert answer.versus.mean == pytest.approx(values.mean() - others.mean())
        assert answer.versus.ci95 == bootstrap_interval(values - others, seed=2)
        assert (best.method, best.mean, best.versus) == ("best candidate", others.mean(), None)

    def test_all_candidates(self, rows):
        results = bench.measure_fusions(rows, {"rougeL": {}}, candidates=True)
        found = {measure.method: measure.mean for measure in results.measures}
        table = np.array([scores([TEXTS[i][1][place] for i in range(4)]) for place in range(3)]).T  # [rows, candidates]
        longest = [2, 2, 1, 1]
        assert found == pytest.approx(
            {
                "answer": scores(ANSWERS).mean(),
                "best candidate": table[range(4), BEST].mean(),
                "random": table.mean(),
                "longest": table[range(4), longest].mean(),
                "ann": table[:, 0].mean(),
                "bob": table[:, 1].mean(),
                "cy": table[:, 2].mean(),
                "oracle": table.max(axis=1).mean(),
            }
        )
        assert len(set(found.values())) == 8

    def test_where_the_best_is_not_known_random_stands_in_for_it(self):
        records = [record(i, fusion={"text": ANSWERS[i], "used": [0] if i else []}) for i in range(4)]
        found, _ = bench.fused_rows("x", rows_of(*records))
        (alone,) = bench.measure_fusions(found, {"rougeL": {}}).measures
        assert (alone.method, alone.mean, alone.versus) == ("answer", scores(ANSWERS).mean(), None)
        answer, random, *_ = bench.measure_fusions(found, {"rougeL": {}}, candidates=True).measures
        assert (answer.mean, answer.versus.method, random.versus) == (scores(ANSWERS).mean(), "random", None)

    def test_an_llm_counts_where_it_answered_everywhere(self, rows):
        lists = [list(row.candidates) for row in rows]
        del lists[2][0]
        fewer = [
            replace(row, candidates=tuple(kept), best=None, fusion={}) for row, kept in zip(rows, lists, strict=True)
        ]
        results = bench.measure_fusions(fewer, {"rougeL": {}}, candidates=True)
        assert [m.method for m in results.measures] == ["answer", "random", "longest", "bob", "cy", "oracle"]

    def test_rows_of_one_instruction_are_drawn_together(self, rows):
        same = [replace(row, prompt="Say it.", fusion={}) for row in rows]
        answer, best = bench.measure_fusions(same, {"rougeL": {}}).measures
        assert answer.ci95 == pytest.approx((answer.mean, answer.mean))
        assert best.mean != answer.mean

    def test_metrics_that_cannot_be_had(self, rows):
        results = bench.measure_fusions(rows, {"bertscore": {"model": "/nowhere"}, "rouge1": {}})
        assert {measure.metric for measure in results.measures} == {"rouge1"}
        assert results.unavailable["bertscore"].startswith("No model '/nowhere'")
        table = bench.fusion_table({"x": results})
        assert table.rows[-1] == ("bertscore", "unavailable", "–", "–", "–", "–", "–")

    def test_progress(self, rows):
        calls = []
        bench.measure_fusions(rows, {"rouge1": {}, "rouge2": {}}, progress=lambda *call: calls.append(call))
        assert calls == [(n, 14) for n in range(1, 15)]  # one answer is its best candidate


FUSIONS = [
    {"returned": "fuse", "reason": "better", "answer": "the sky is blue", "text": "the sky is blue", "lead": 0.9,
     "overlap": 0.5, "fuser": "f", "usage": {"prompt_tokens": 10, "completion_tokens": 4}, "seconds": 2.0, "cost": 0.5},
    {"returned": "pick", "reason": "worse", "answer": "birds sing", "text": "birds sing in the tree", "lead": 0.5,
     "overlap": 0.5, "fuser": "f", "usage": {"prompt_tokens": 20, "completion_tokens": 6}, "seconds": 1.0, "cost": 0.0},
    {"returned": "pick", "reason": "repeats", "answer": "sleep early and drink", "text": "a a a", "flaw": "repeats",
     "lead": 0.9, "overlap": 0.5, "fuser": "f", "truncated": 0.3, "cost": 0.0},
    {"returned": "fuse", "reason": "better", "answer": "two two make four", "text": "two two make four", "lead": 0.9,
     "overlap": 0.1, "fuser": "f", "cost": 0.0},
]  # fmt: skip


class TestGuarded:
    @pytest.fixture
    def rows(self):
        best = [0, 0, 1, 2]
        return bench.fused_rows(
            "x", rows_of(*(record(i, fusion=FUSIONS[i], ranking={"best": best[i]}) for i in range(4)))
        )[0]

    def test_what_was_written_let_through_and_left_alone(self, rows):
        results = bench.measure_fusions(rows, {"rougeL": {}}, seed=2)
        found = {measure.method: measure for measure in results.measures}
        assert list(found) == ["answer", "let through", "fused", "auto", "best candidate"]
        best = scores(["the sky", "birds sing", "sleep early and drink", "two and two"])
        fused = scores(["the sky is blue", "birds sing in the tree", "sleep early and drink", "two two make four"])
        assert found["fused"].mean == pytest.approx(fused.mean())
        answer = np.array([fused[0], best[1], best[2], fused[3]])
        assert found["answer"].mean == pytest.approx(answer.mean())
        through = found["let through"]
        assert (through.rows, through.mean) == (2, pytest.approx(answer[[0, 3]].mean()))
        assert through.versus.mean == pytest.approx((answer - best)[[0, 3]].mean())
        assert through.versus.ci95 == bootstrap_interval((answer - best)[[0, 3]], seed=2)
        # Of the first, the best candidate is clear; of the last, the others hold what it lacks.
        assert found["auto"].mean == pytest.approx(np.array([best[0], best[1], best[2], fused[3]]).mean())

    def test_the_rule_is_the_callers(self, rows):
        results = bench.measure_fusions(rows, {"rougeL": {}}, rule=FusionRule(close=1.0))
        assert "auto" not in {measure.method for measure in results.measures}  # it would have fused everywhere

    def test_effort(self, rows):
        effort = bench.fusion_effort(rows)
        assert (effort.rows, effort.asked, effort.let_through) == (4, 4, 2)
        assert effort.reasons == {"better": 2, "worse": 1, "repeats": 1}
        assert (effort.prompt_tokens, effort.completion_tokens, effort.seconds) == (7.5, 2.5, 1.5)
        assert (effort.cost, effort.truncated) == (0.5, pytest.approx(0.075))
        unknown = {key: value for key, value in FUSIONS[0].items() if key != "cost"}
        assert bench.fusion_effort(bench.fused_rows("x", rows_of(record(0, fusion=unknown)))[0]).cost is None

    def test_a_judge(self, rows):
        longer = bench.judge_fusions(rows, FakeRanker(), "long")
        assert (longer.judge, longer.rows, longer.wins, longer.ties, longer.share) == ("long", 2, 2, 0, 1.0)
        shorter = bench.judge_fusions(rows, FakeRanker(lambda text: -len(text)), "short")
        assert (shorter.wins, shorter.share) == (0, 0.0)
        even = bench.judge_fusions(rows, FakeRanker(lambda text: 0.0), "even")
        assert (even.wins, even.ties, even.share) == (0, 2, 0.5)
        assert bench.judge_fusions(rows[1:3], FakeRanker(), "long") is None
        table = bench.fusion_effort_table(
            {"a": bench.fusion_effort(rows), "b": bench.fusion_effort(rows)}, {"b": longer}
        )
        assert table.columns[0] == "file"
        assert [row[-1] for row in table.rows] == ["–", "100.0 (100.0 to 100.0) of 2"]
        assert table.rows[0][1] == "better 2, worse 1, repeats 1"


def test_table(rows):
    results = bench.measure_fusions(rows, {"rougeL": {}})
    table = bench.fusion_table({"x": results})
    assert table.columns == ("metric", "method", "rows", "mean", "95 %", "against best candidate", "95 %")
    answer, best = results.measures
    low, high = answer.versus.ci95
    assert table.rows[0][:4] == ("rougeL", "answer", "4", f"{answer.mean:.4f}")
    assert table.rows[0][5:] == (f"{answer.versus.mean:+.4f}", f"{low:+.4f} to {high:+.4f}")
    assert table.rows[1] == ("rougeL", "best candidate", "4", f"{best.mean:.4f}", table.rows[1][4], "–", "–")
    assert answer.to_dict()["versus"]["method"] == "best candidate"
    both = bench.fusion_table({"x": results, "y": results})
    assert (both.columns[0], [row[0] for row in both.rows]) == ("file", ["x", "x", "y", "y"])
