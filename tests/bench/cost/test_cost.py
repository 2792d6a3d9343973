import json
import math

import pytest

from llm_blender.bench import baseline_selections
from llm_blender.bench.cost import (
    NearestRouter,
    Picker,
    PriceList,
    RankerPrice,
    best_of_n,
    bounds,
    cost_quality,
    cost_table,
    fused_answers,
    picks,
    priced_rows,
    routed,
    singles,
)
from llm_blender.bench.methods import order_models
from llm_blender.errors import InputError, RowError
from llm_blender.ranking import Priors
from llm_blender.testing import FakeRanker

USAGE = {"prompt_tokens": 100, "completion_tokens": 50}
PRICES = PriceList.model_validate(
    {
        "llm": [
            {"name": "ann", "price": {"input": 1, "output": 2}, "seconds": 1},  # 0.2 dollars for 1,000 answers
            {"name": "bob", "price": {"input": 10, "output": 20}, "tokens_per_second": 25},  # 2 dollars, 2 seconds
            {"name": "cy", "price": {"input": 100, "output": 200}},  # 20 dollars; its seconds stand in the rows
            {"name": "fuse", "price": {"input": 2, "output": 4}},  # 0.4 dollars
        ]
    }
)
TEXTS = {"ann": "a", "bob": "bb", "cy": "ccc"}


def candidate(model, quality, **more):
    return {"model": model, "text": TEXTS[model], "scores": {"s": quality}, "usage": USAGE, "seconds": 3.0, **more}


def row(instruction, ann, bob, cy, **more):
    scores = {"ann": ann, "bob": bob, "cy": cy}
    return {"instruction": instruction, "candidates": [candidate(*item) for item in scores.items()], **more}


TEST = [
    row("sort a list in python", 0.0, 1.0, 0.5),
    row("a poem on rain", 1.0, 0.4, 0.6),
    row("entirely different", 0.8, 0.0, 1.0),
]
TRAIN = [
    row("reverse a list in python", 0.2, 1.0, 0.0),
    row("write a poem on snow", 1.0, 0.4, 0.0),
    row("write a poem on rain", 1.0, 0.2, 0.3),
]


@pytest.fixture
def read(tmp_path):
    def reader(records, prices=PRICES, **options):
        (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, records)))
        return priced_rows(tmp_path / "rows.jsonl", prices, "s", **options)

    return reader


@pytest.fixture
def rows(read):
    return read(TEST)


@pytest.fixture
def known(read):
    return read(TRAIN).rows


def picker(ranker=None, **options):
    return Picker(ranker or FakeRanker(), "fake", RankerPrice(name="fake", seconds=0.5, dollars=1e-5), **options)


def figures(rows, costs):
    """Quality, dollars of 1,000 answers, seconds, calls and comparisons by method."""
    return {
        line.method: (
            line.quality.value,
            None if line.dollars is None else line.dollars.value,
            None if line.seconds is None else line.seconds.value,
            line.calls,
            line.comparisons,
        )
        for line in cost_quality(rows.rows, costs)
    }


def test_the_order_is_that_of_the_training_rows(rows, known):
    assert order_models(rows.rows, known) == ["ann", "bob", "cy"]
    chosen = baseline_selections(rows.rows, known)
    assert "best single: ann" in [selection.method for selection in chosen]
    with pytest.raises(InputError, match="none of the LLMs"):
        order_models(rows.rows, [])


def test_single_llms(rows):
    assert figures(rows, singles(rows, ["ann", "bob", "cy"])) == {
        "best single: ann": pytest.approx((0.6, 0.2, 1.0, 1, 0)),
        "single: bob": pytest.approx((1.4 / 3, 2.0, 2.0, 1, 0)),
        "single: cy": pytest.approx((0.7, 20.0, 3.0, 1, 0)),
    }


def test_picking_asks_all_and_waits_for_the_slowest_and_the_ranker(rows):
    """Compare 2 ordered pairs of two candidates, 6 of three; the fake ranker prefers the longer text."""
    costs = picks(rows, picker(strategy="full"), ["ann", "bob", "cy"])
    assert figures(rows, costs) == {
        "fake, best 2": pytest.approx((1.4 / 3, 2.2 + 0.02, 2 + 1.0, 2, 2)),
        "fake, all 3": pytest.approx((0.7, 22.2 + 0.06, 3 + 3.0, 3, 6)),
    }


def test_priors_pick_by_the_same_comparisons(rows):
    costs = picks(rows, picker(strategy="full", priors=Priors({"ann": 50.0})), ["ann", "bob", "cy"])
    found = figures(rows, costs)
    assert list(found) == ["fake, best 2", "fake, all 3", "fake with priors, best 2", "fake with priors, all 3"]
    assert found["fake with priors, all 3"] == pytest.approx((0.6, 22.26, 6.0, 3, 6))
    assert found["fake with priors, best 2"] == pytest.approx((0.6, 2.22, 3.0, 2, 2))


def test_best_of_n(read):
    records = [
        {
            "instruction": name,
            "candidates": [candidate("ann", 0.2), candidate("ann", 0.9, text="aaaa"), candidate("bob", 0.5)],
        }
        for name in ("one", "two")
    ]
    rows = read(records)
    costs = [*singles(rows, ["ann"]), *best_of_n(rows, picker(strategy="full"), "ann")]
    assert figures(rows, costs) == {
        "best single: ann": pytest.approx((0.55, 0.2, 1.0, 1, 0)),  # one of its samples, drawn
        "fake, best of 2: ann": pytest.approx((0.9, 0.4 + 0.02, 1 + 1.0, 2, 2)),
    }


def test_best_of_n_needs_samples(rows):
    assert best_of_n(rows, picker(), "ann") == []


def test_routing_asks_one(rows, known):
    order = ["ann", "bob", "cy"]
    costs = routed(rows, known, order, 1)  # bob for the list, ann for the poem, and ann where nothing is near
    assert figures(rows, [costs]) == {"routing, 1 nearest": pytest.approx((2.8 / 3, 2.4 / 3, 4 / 3, 1, 0))}
    again = routed(rows, known, order, 1)
    assert list(costs.quality) == list(again.quality)


def test_neighbours_and_ties(known):
    router = NearestRouter(known, ["ann", "bob", "cy"], nearest=2)
    assert router.neighbours("A poem on RAIN, please") == [2, 1]
    assert router.neighbours("nothing here") == []
    assert router.route("nothing here", ["cy", "bob"]) == "bob"
    assert router.route("anything", ["zoe"]) is None
    twins = NearestRouter([known[0], known[0]], ["cy", "bob"], nearest=1)
    assert twins.neighbours("python") == [0]  # equally near: the earlier row
    level = NearestRouter(known[1:], ["cy", "ann"], nearest=2)
    assert level.route("poem", ["ann", "cy"]) == "ann"


def test_where_llms_tie_the_better_one_in_training_is_asked(read):
    known = read([row("one thing", 1.0, 1.0, 1.0)]).rows
    for order in (["bob", "ann", "cy"], ["cy", "bob", "ann"]):
        assert NearestRouter(known, order).route("thing", ["ann", "bob", "cy"]) == order[0]


def test_bounds(rows):
    assert figures(rows, bounds(rows)) == {
        "random": pytest.approx((5.3 / 9, 22.2 / 3, 2.0, 1, 0)),
        "oracle, routing": pytest.approx((1.0, (2 + 0.2 + 20) / 3, (2 + 1 + 3) / 3, 1, 0)),
        "oracle, picking": pytest.approx((1.0, 22.2, 3.0, 3, 0)),
    }


def test_fused_answers_pay_for_all_and_for_the_fuser(read):
    fusion = {"fuser": "chat:fuse", "text": "both", "usage": USAGE, "seconds": 1.5, "scores": {"s": 0.9}}
    copied = {"text": "ccc", "answer": "ccc", "seconds": 0.0}  # no fuser was called: a candidate is the answer
    found = read([{**TEST[0], "fusion": fusion}, {**TEST[1], "fusion": copied}, TEST[2]])
    rows = found
    everyone = picks(rows, picker(strategy="full"), ["ann"])[-1]
    single, fused = cost_quality(rows.rows, [*singles(rows, ["ann"]), *fused_answers(rows, everyone)])
    assert (fused.method, fused.rows, single.rows) == ("fused: fuse", 2, 3)
    assert fused.quality.value == pytest.approx((0.9 + 0.6) / 2)
    assert fused.gain.value == pytest.approx((0.9 + 0.6 - 0 - 1) / 2)  # on the same two rows
    assert fused.dollars.value == pytest.approx((22.26 + 0.4 + 22.26) / 2)
    assert fused.seconds.value == pytest.approx((3 + 3 + 1.5 + 3 + 3) / 2)
    assert fused.calls == 3.5


def test_fused_answers_without_the_score_or_the_price(read):
    fusion = {"fuser": "other", "text": "both", "usage": USAGE, "stored": True, "seconds": 0.0}
    assert read([{**TEST[0], "fusion": fusion}, *TEST[1:]]).unscored_fusions == 1
    assert fused_answers(read(TEST), None) == []
    found = read([{**TEST[0], "fusion": {**fusion, "scores": {"s": 1}}}, *TEST[1:]])
    (fused,) = cost_quality(found.rows, fused_answers(found, None))
    assert (fused.dollars, fused.seconds) == (None, None)
    assert (found.unknown("dollars"), found.unknown("seconds")) == (("other",), ("other",))


def test_gain_per_dollar(rows):
    ann, bob, cy = cost_quality(rows.rows, singles(rows, ["ann", "bob", "cy"]))
    assert (ann.gain, ann.extra_dollars, ann.gain_per_dollar) == (None, None, None)
    assert cy.extra_dollars.value == pytest.approx(19.8)
    assert cy.gain_per_dollar.value == pytest.approx(0.1 / 19.8)
    low, high = cy.gain.ci95
    assert cy.gain_per_dollar.ci95 == pytest.approx((low / 19.8, high / 19.8))
    assert low <= cy.gain.value <= high
    assert bob.gain_per_dollar.value == pytest.approx((1.4 / 3 - 0.6) / 1.8)


def test_what_costs_no_more_has_no_gain_per_dollar(rows):
    results = cost_quality(rows.rows, singles(rows, ["bob", "ann"]))
    assert results[1].extra_dollars.value == pytest.approx(-1.8)
    assert results[1].gain_per_dollar is None
    table = cost_table(results, percent=True)
    assert "costs less" in table.rows[1]
    assert "60.0" in table.rows[1]


def test_without_a_sure_price_difference_the_ratio_has_no_interval(read):
    long = {"prompt_tokens": 1000, "completion_tokens": 5000}
    records = [TEST[0], row("x", 0.1, 0.2, 0.3)]
    records[1]["candidates"][0]["usage"] = long  # ann: dearer than bob here, cheaper there
    rows = read(records)
    results = cost_quality(rows.rows, singles(rows, ["bob", "ann"]))
    assert results[1].gain_per_dollar.value < 0
    assert results[1].gain_per_dollar.ci95 is None


def test_an_unknown_price_is_never_zero(read):
    prices = PRICES.model_copy(update={"llm": PRICES.llm[:2]})
    found = read(TEST, prices)
    rows = found
    assert found.unknown("dollars") == ("cy",)
    order = ["ann", "bob", "cy"]
    ranked = picks(rows, picker(strategy="full"), order)
    lines = cost_quality(rows.rows, [*singles(rows, order), *ranked, *bounds(rows)])
    unknown = {line.method for line in lines if line.dollars is None}
    assert unknown == {"single: cy", "fake, all 3", "random", "oracle, routing", "oracle, picking"}
    assert all(line.gain_per_dollar is None for line in lines if line.method in unknown)
    assert json.loads(json.dumps(lines[2].to_dict()))["dollars"] is None
    assert cost_table(lines, percent=False).rows[2].count("unknown") == 2


def test_unknown_seconds(read):
    records = [row("x", 0.1, 0.2, 0.3), row("y", 0.1, 0.2, 0.3)]
    for record in records:
        del record["candidates"][2]["seconds"]
    found = read(records)
    assert found.unknown("seconds") == ("cy",)
    ann, bob, cy = cost_quality(found.rows, singles(found, ["ann", "bob", "cy"]))
    assert (ann.seconds.value, bob.seconds.value, cy.seconds) == (1, 2, None)


def test_a_ranker_without_a_known_time_or_price(rows):
    def line(**options):
        chosen = Picker(FakeRanker(), "fake", RankerPrice(name="fake"), strategy="full", **options)
        return cost_quality(rows.rows, picks(rows, chosen, ["ann"])[-1:])[0]

    recorded, timed, judge = line(), line(timed=True), line(paid=True)
    assert recorded.seconds is None
    assert recorded.dollars.value == pytest.approx(22.2)
    assert timed.seconds.value > 3
    assert judge.dollars is None


def test_tokens_are_estimated_where_the_row_has_none(read):
    record = row("twelve chars", 1.0, 0.5, 0.5)
    record["candidates"][0] |= {"usage": None, "text": "12345", "reasoning": "678"}  # 3 tokens read, 2 written
    record["candidates"][1] |= {"usage": {"prompt_tokens": 0, "completion_tokens": 0}}
    found = read([record])
    assert (found.answers, found.estimated) == (3, 2)
    assert list(found.dollars[0]) == pytest.approx([(3 * 1 + 2 * 2) / 1e6, (3 * 10 + 1 * 20) / 1e6, 0.02])


def test_an_llm_without_an_answer_counts_as_a_draw(read):
    records = [TEST[0], {**TEST[1], "candidates": TEST[1]["candidates"][1:]}]
    rows = read(records)
    (single,) = cost_quality(rows.rows, singles(rows, ["ann"]))
    assert single.quality.value == pytest.approx((0 + 0.5) / 2)
    assert single.dollars.value == pytest.approx((0.2 + 11) / 2)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("usage", 7, "`usage` of candidate 0"),
        ("usage", {"prompt_tokens": -1}, "`prompt_tokens` of candidate 0"),
        ("seconds", "fast", "`seconds` of candidate 0"),
        ("seconds", math.inf, "`seconds` of candidate 0"),
    ],
)
def test_wrong_fields(read, field, value, message):
    record = row("x", 1, 0, 0)
    record["candidates"][0][field] = value
    with pytest.raises(RowError, match=message):
        read([record])


@pytest.mark.parametrize("wrong", [{"usage": 7}, {"seconds": "fast"}])
def test_a_wrong_fusion(read, wrong):
    with pytest.raises(RowError, match=r"line 1: .* of the fusion"):
        read([row("x", 1, 0, 0, fusion={"text": "both", **wrong})])


def test_who_wrote_an_answer_must_be_known(read):
    record = row("x", 1, 0, 0)
    del record["candidates"][0]["model"]
    with pytest.raises(InputError, match="names no `model`"):
        read([record])
    assert read([record], models=["bob", "cy"]).models == ("bob", "cy")
