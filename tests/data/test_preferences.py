from __future__ import annotations

import math

import numpy as np
import pytest

from llm_blender.data import ChosenPairs, make_preferences, parse_row
from llm_blender.errors import InputError
from llm_blender.ranking import ranking_from_scores
from llm_blender.testing import FakeRanker
from llm_blender.types import Candidate, Example

LOGITS = np.array([[np.nan, 1.0, -3.0], [0.0, np.nan, 0.25], [2.0, -0.75, np.nan]])
"""Logits of the pairs: 0 over 1: 0.5; 2 over 0: 2.5; 1 over 2: 0.5, so 1 beats 2 beats 0 beats 1."""
EXAMPLE = Example(
    "Say something.",
    input="Softly.",
    candidates=(Candidate("zero", "m0"), Candidate("one", "m1"), Candidate("two")),
    id="7",
)
RANKING = ranking_from_scores("full", [0.0, -1.0, 5.0], LOGITS)


def the_record(example, ranking, *args, **options):
    made = make_preferences(example, ranking, *args, **options)
    assert made.dropped == ()
    (record,) = made.records
    return record.to_dict()


def test_conversational_is_messages():
    assert the_record(EXAMPLE, RANKING, "best_second") == {
        "prompt": [{"role": "user", "content": "Say something.\nSoftly."}],
        "chosen": [{"role": "assistant", "content": "two"}],
        "rejected": [{"role": "assistant", "content": "zero"}],
        "margin": 2.5,
        "probability": pytest.approx(1 / (1 + math.exp(-2.5))),
        "chosen_model": None,
        "rejected_model": "m0",
        "id": "7",
    }


def test_standard_is_texts():
    record = the_record(EXAMPLE, RANKING, "best_second", format="standard")
    assert (record["prompt"], record["chosen"], record["rejected"]) == ("Say something.\nSoftly.", "two", "zero")


CONVERSATION = [
    {"role": "developer", "content": "Be brief."},
    {"role": "human", "content": "Hi"},
    {"role": "gpt", "content": "Hello."},
    {"role": "user", "content": "Translate."},
]


def test_a_conversation_keeps_its_turns_and_the_input_belongs_to_the_last():
    row = {"instruction": CONVERSATION, "input": "Bonjour", "candidates": ["a", "bb"]}
    ranking = FakeRanker().rank(CONVERSATION, ["a", "bb"])
    assert the_record(parse_row(row), ranking)["prompt"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Translate.\nBonjour"},
    ]
    text = the_record(parse_row(row), ranking, format="standard")["prompt"]
    assert text == "System: Be brief.\n\nUser: Hi\n\nAssistant: Hello.\n\nUser: Translate.\nBonjour"


def test_an_input_without_instruction_is_the_prompt():
    example = Example("", input="Only this.", candidates=(Candidate("a"), Candidate("bb")))
    assert the_record(example, FakeRanker().rank("x", ["a", "bb"]))["prompt"] == [
        {"role": "user", "content": "Only this."}
    ]


def test_margin_and_probability_are_the_rankers_comparison():
    ranker = FakeRanker(order_bias=0.4, noise=1.0, temperature=2.5)
    texts = ["aaa", "bbbbbb", "c"]
    example = Example("say", candidates=tuple(map(Candidate, texts)))
    record = the_record(example, ranker.rank("say", texts), format="standard")
    comparison = ranker.compare("say", record["chosen"], record["rejected"])
    assert record["margin"] == pytest.approx(comparison.logit, abs=1e-4)
    assert record["probability"] == pytest.approx(comparison.probability, abs=1e-4)


def test_without_a_comparison_the_margin_is_the_difference_of_the_scores():
    ranking = ranking_from_scores("knockout", [0.0, -1.0, 5.0], np.full((3, 3), np.nan))
    record = the_record(EXAMPLE, ranking)
    assert (record["margin"], record["probability"]) == (6.0, None)
    assert make_preferences(EXAMPLE, ranking, min_confidence=0.6).dropped == ("uncompared",)


def test_a_comparison_against_the_ranks_gives_no_record():
    # By the scores 2 is best and 1 worst, but 1 beats 2.
    made = make_preferences(EXAMPLE, RANKING, "best_worst")
    assert (made.records, made.dropped) == ((), ("contradicted",))


def test_all_pairs_are_judged_one_by_one():
    made = make_preferences(EXAMPLE, RANKING, "all")
    assert [(record.chosen_model, record.rejected_model) for record in made.records] == [(None, "m0"), ("m0", "m1")]
    assert made.dropped == ("contradicted",)


def test_zero_evidence_is_a_tie():
    logits = np.array([[np.nan, 0.5], [0.5, np.nan]])
    example = Example("say", candidates=(Candidate("a"), Candidate("b")))
    assert make_preferences(example, ranking_from_scores("full", [1, 0], logits)).dropped == ("tie",)


@pytest.mark.parametrize(("least", "dropped"), [(0.5, ()), (0.62, ()), (0.63, ("unsure",)), (1.0, ("unsure",))])
def test_the_least_confidence(least, dropped):
    made = make_preferences(EXAMPLE, RANKING, ChosenPairs(((0, 1),)), min_confidence=least)  # sigmoid(0.5) = 0.6225
    assert made.dropped == dropped
    assert len(made.records) == 1 - len(dropped)


def test_a_probability_of_exactly_the_least_is_enough():
    probability = RANKING.probability(0, 1)
    assert make_preferences(EXAMPLE, RANKING, ChosenPairs(((0, 1),)), min_confidence=probability).records


def test_what_the_choice_dropped_is_handed_on():
    example = Example("say", candidates=(Candidate("a"), Candidate("a")))
    assert make_preferences(example, FakeRanker().rank("say", ["a", "a"])).dropped == ("equal",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "chat"}, "Unknown format 'chat'"),
        ({"min_confidence": 0.4}, "from 0.5 to 1, not 0.4"),
        ({"min_confidence": float("nan")}, "from 0.5 to 1, not nan"),
        ({"pairs": "worst_best"}, "Unknown choice of pairs"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(InputError, match=message):
        make_preferences(EXAMPLE, RANKING, **options)


def test_a_ranking_of_other_candidates_is_refused():
    with pytest.raises(InputError, match="2 candidates sorts as many items, not 3"):
        make_preferences(EXAMPLE, FakeRanker().rank("say", ["a", "b"]))
