from __future__ import annotations

import pytest

from llm_blender.data import parse_row
from llm_blender.errors import RowError


def ultra(*scores, **change):
    completions = [
        {
            "model": f"m{n}",
            "principle": "helpfulness",
            "response": f"Answer {n}.",
            "overall_score": score,
            "fine-grained_score": score / 2,
            "critique": "Fine.",
            "annotations": {"honesty": {"Rating": "4", "Rationale": "x"}, "truthfulness": {"Rating": "N/A"}},
        }
        for n, score in enumerate(scores)
    ]
    return {"source": "own", "instruction": "Why?", "models": ["m0"], "completions": completions, **change}


def parallel(**change):
    return {"instruction": "Why?", "generations": ["a", "b"], "ratings": [4, None], "model_names": ["x", "y"], **change}


def test_completions_with_scores(imported, write):
    ((row,), summary) = imported(write("ultra.jsonl", [ultra(8.5, 3)]), name="ultra")
    assert summary.format == "scored_responses"
    assert (row["source"], row["instruction"], row["pairs"]) == ("ultra", "Why?", [])
    assert row["meta"] == {"source": "own"}
    assert row["candidates"] == [
        {
            "model": "m0",
            "text": "Answer 0.",
            "scores": {"overall_score": 8.5, "fine-grained_score": 4.25, "honesty": 4},
        },
        {"model": "m1", "text": "Answer 1.", "scores": {"overall_score": 3, "fine-grained_score": 1.5, "honesty": 4}},
    ]


def test_lists_beside_each_other(imported, write):
    ((row,), _) = imported(write("rated.jsonl", [parallel()]))
    assert row["candidates"] == [
        {"model": "x", "text": "a", "scores": {"rating": 4}},
        {"model": "y", "text": "b", "scores": {}},
    ]


def test_a_conversation_is_a_prompt_too(imported, write):
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    ((row,), _) = imported(write("rated.jsonl", [{**parallel(instruction=None), "messages": turns}]))
    assert row["instruction"] == turns


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (ultra(), "there are fewer than two answers"),
        (ultra(5), "there are fewer than two answers"),
        (parallel(ratings=[None, "N/A"]), "no answer has a score"),
        (ultra(1, 2, instruction=" "), "the prompt is empty"),
    ],
)
def test_what_teaches_nothing_is_counted(imported, write, record, reason):
    rows, summary = imported(write("x.jsonl", [ultra(1, 2), record]))
    assert (len(rows), summary.skipped) == (1, {reason: 1})


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"completions": []}, "there is no prompt: one of prompt, instruction, question, messages; the keys are"),
        ({"instruction": "Why?"}, "there is no list of answers: one of completions, generations, responses"),
        (ultra(completions=5), "there is no list of answers"),
        (ultra(completions=[{"response": "a"}, 5]), "answer 1 must be an object with a text and scores, not int"),
        (ultra(completions=[{"score": 1}]), "answer 0 has no text: one of response, text"),
        (ultra(completions=[{"response": None}]), "`response` must be a text, not NoneType"),
        (parallel(ratings=[1]), "2 generations, 1 ratings and 2 models do not fit"),
        ({"instruction": "Why?", "generations": ["a", "b"]}, "`generations` has no scores"),
    ],
)
def test_a_wrong_record_stops_with_file_and_line(imported, write, record, reason):
    path = write("x.jsonl", [ultra(1, 2), record])
    with pytest.raises(RowError) as caught:
        imported(path)
    assert str(caught.value).startswith(f"{path}, line 2: ")
    assert reason in str(caught.value)


def test_bench_reads_it(imported, write):
    from llm_blender.bench.judged_pairs import implied_pairs
    from llm_blender.bench.rows import scored_rows

    rows = [parse_row(row) for row in imported(write("ultra.jsonl", [ultra(8.5, 3)]))[0]]
    bench = implied_pairs("x", scored_rows(rows, "overall_score"))
    assert [(pair.a, pair.b) for pair in bench.pairs] == [("Answer 0.", "Answer 1.")]
    assert bench.a_wins == (True,)
