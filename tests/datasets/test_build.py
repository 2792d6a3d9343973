from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from llm_blender.config import Config
from llm_blender.data import read_mix_instruct
from llm_blender.datasets import BuildObserver, BuildPlan, build_data
from llm_blender.errors import InputError, WorkError
from llm_blender.jobs import Journal
from llm_blender.metrics import gpt_ranking
from llm_blender.testing import FakeReply

from .conftest import WRITERS, config_text, is_judgement, write_prompts


class Seen(BuildObserver):
    """Observer that records all events."""

    def __init__(self):
        self.estimates, self.itself = [], []

    def estimated(self, estimates, spent):
        self.estimates.append(([(e.what, e.calls, e.recalled) for e in estimates], spent))

    def judges_itself(self, judge, names):
        self.itself.append((judge, tuple(names)))


def plan(n=4, **options):
    path = Path("in.jsonl")
    if not path.exists():
        write_prompts(path, n)
    return BuildPlan(
        ("in.jsonl",), **{"out": "rows.jsonl", "metrics": ("bleu",), "max_cost": 5.0, "check": 0, **options}
    )


def build(server, given, *, observer=None, restart=False, **options):
    config = Config.from_toml(config_text(server.fake.base_url, **options))
    return build_data(given, config, observer=observer, restart=restart)


def rows(path="rows.jsonl"):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def failing(model, message="down", status=400, when=lambda body: True):
    return lambda body: FakeReply(message, status=status) if body["model"] == model and when(body) else None


def test_rows_in_the_format_of_mix_instruct(server):
    built = build(server, plan(judge="judge"))
    assert built.complete
    assert [row["id"] for row in rows()] == ["in-1", "in-2", "in-3", "in-4"]
    first = rows()[0]
    assert list(first) == ["id", "instruction", "input", "output", "candidates", "cmp_results", "pairs"]
    assert [candidate["model"] for candidate in first["candidates"]] == list(WRITERS)
    for candidate in first["candidates"]:
        assert candidate["text"].startswith(f"{candidate['model']} answers Question 0?")
        assert candidate["scores"].keys() == {"bleu"}
        assert candidate["decoding_method"] == "top_p_sampling"
        assert candidate["cost"] == pytest.approx(5e-6)
    outcomes = {"A is better", "B is better", "Same good", "Same bad"}
    assert set(first["cmp_results"].values()) <= outcomes
    both = {f"{a},{b}" for a in WRITERS for b in WRITERS if a != b}
    assert first["cmp_results"].keys() == both
    examples = list(read_mix_instruct("rows.jsonl"))
    ranking = gpt_ranking(first["cmp_results"], WRITERS)
    assert not bool(ranking.matrix[0, 1] != ranking.matrix[0, 1])
    for pair in examples[0].pairs:
        margin = ranking.matrix[pair.a, pair.b] - ranking.matrix[pair.b, pair.a]
        assert pair.label == ("a" if margin > 0 else "b" if margin < 0 else "tie")
        assert pair.by == "judge"
    assert built.cost == pytest.approx(server.calls * 5e-6)


def test_the_same_build_asks_nobody_again(server):
    build(server, plan(judge="judge"))
    before, calls = Path("rows.jsonl").read_bytes(), server.calls
    seen = Seen()
    build(server, plan(judge="judge"), observer=seen)
    assert (server.calls, Path("rows.jsonl").read_bytes()) == (calls, before)
    assert [estimates for estimates, _ in seen.estimates] == [
        [("candidates", 0, 0), ("judgements", 0, 0)],
        [("judgements", 0, 0)],
    ]
    seen = Seen()
    build(server, plan(judge="judge"), observer=seen, restart=True)
    assert (server.calls, Path("rows.jsonl").read_bytes()) == (calls, before)
    assert seen.estimates[0][0] == [("candidates", 0, 12), ("judgements", 24, 0)]  # the answers are not known yet
    assert seen.estimates[1] == ([("judgements", 0, 24)], 0.0)


def test_other_settings_are_refused(server):
    build(server, plan())
    with pytest.raises(InputError, match=r"rows.jsonl.job was begun with other settings .*seed: 0 then, 1 now"):
        build(server, plan(seed=1))
    with pytest.raises(InputError, match="temperature"):
        build(server, plan(), temperature=0.5)
    with pytest.raises(InputError, match=r'metrics: \["bleu"\] then, \["bleu", "rouge1"\] now'):
        build(server, plan(metrics=("bleu", "rouge1")))
    write_prompts(Path("in.jsonl"), 5)
    with pytest.raises(InputError, match="instructions: 4 then, 5 now"):
        build(server, plan())
    build(server, plan(max_cost=9.0), restart=True)


def test_what_may_change_between_runs(server):
    build(server, plan())
    calls = server.calls
    config = config_text(server.fake.base_url, price="2.0", concurrency=2)
    build_data(plan(max_cost=7.0), Config.from_toml(config))
    assert server.calls == calls


def test_failed_answers_are_noted_and_asked_again(server):
    server.answer = failing("bob", when=lambda body: "Question 2" in body["messages"][-1]["content"])
    built = build(server, plan(judge="judge"))
    assert not built.complete
    assert built.missing == {"bob": (1, "bob: the server refuses the request (400): down")}
    assert [len(row["candidates"]) for row in rows()] == [3, 3, 2, 3]
    assert rows()[2]["cmp_results"].keys() == {"ann,cy", "cy,ann"}
    calls = server.calls
    server.answer = lambda body: None
    built = build(server, plan(judge="judge"))
    assert built.complete
    assert server.calls == calls + 1 + 4  # bob's answer, and the pairs that it is in, in both orders
    assert [candidate["model"] for candidate in rows()[2]["candidates"]] == list(WRITERS)
    assert all(candidate["scores"] for candidate in rows()[2]["candidates"])


def test_incomplete_rows_can_be_left_out(server):
    server.answer = failing("bob", when=lambda body: "Question 2" in body["messages"][-1]["content"])
    built = build(server, plan(drop_incomplete=True))
    assert (built.dropped, len(rows())) == (1, 3)
    assert "| left out: an LLM's answer is missing | 1 |" in Path("rows.jsonl.md").read_text()


def test_an_llm_that_never_answers_stops_the_build_before_anything_is_judged(server):
    server.answer = failing("bob", status=401)
    with pytest.raises(WorkError, match=r"bob gave no answer at all \(bob: the server wants a key; .*fix that"):
        build(server, plan(judge="judge"))
    assert server.of_model("judge") == 0
    assert not Path("rows.jsonl").exists()


def test_an_llm_that_never_answers_is_removed_as_the_error_says(server):
    server.answer = failing("bob", status=401)
    with pytest.raises(WorkError, match=r"or remove bob from the configuration and add --restart: what the others"):
        build(server, plan())
    calls = server.calls
    assert build(server, plan(), restart=True, writers=("ann", "cy")).complete
    assert server.calls == calls


def test_an_empty_answer_is_none(server):
    server.answer = lambda body: FakeReply("  ") if body["model"] == "cy" and "1?" in str(body["messages"]) else None
    built = build(server, plan())
    (count, reason) = built.missing["cy"]
    assert count == 1
    assert "empty" in reason
    assert len(rows()[1]["candidates"]) == 2


def test_an_empty_answer_is_paid_for_and_a_killed_build_knows_what_it_has_paid(server, monkeypatch):
    server.answer = lambda body: FakeReply("") if body["model"] == "bob" and "Question 1" in str(body) else None
    built = build(server, plan())
    assert built.missing["bob"][0] == 1
    assert built.cost == pytest.approx(server.calls * 5e-6)

    class KilledError(BaseException):
        pass

    def killed(journal, entry):
        if "candidates" in str(journal.path):
            raise KilledError
        added(journal, entry)

    added, calls = Journal.add, server.calls
    monkeypatch.setattr(Journal, "add", killed)
    with pytest.raises(KilledError):
        build(server, plan(seed=1), restart=True)
    monkeypatch.setattr(Journal, "add", added)
    assert server.calls > calls
    built = build(server, plan(seed=1))
    assert built.cost == pytest.approx((server.calls - calls) * 5e-6)


def test_a_judge_that_answers_nonsense_is_counted(server):
    server.answer = lambda body: FakeReply("banana") if is_judgement(body) and "Question 0" in str(body) else None
    built = build(server, plan(judge="judge"))
    found = built.consistency
    assert (found.pairs, found.replies, found.unreadable, found.example) == (
        12,
        24,
        6,
        "banana",
    )
    assert (rows()[0]["cmp_results"], rows()[0]["pairs"]) == ({}, [])
    assert len(rows()[1]["cmp_results"]) == 6
    calls = server.calls
    build(server, plan(judge="judge"))
    assert server.calls == calls


def test_a_judge_that_fails_is_asked_again(server):
    server.answer = failing("judge", when=lambda body: "Question 3" in body["messages"][-1]["content"])
    built = build(server, plan(judge="judge"))
    assert (built.unjudged, built.complete, len(rows()[3]["cmp_results"])) == (6, False, 0)
    server.answer = lambda body: None
    assert build(server, plan(judge="judge")).complete
    assert len(rows()[3]["cmp_results"]) == 6


def test_a_judge_that_never_answers(server):
    server.answer = failing("judge")
    with pytest.raises(WorkError, match=r"judge judged nothing .*down"):
        build(server, plan(judge="judge"))


def test_one_order_is_drawn_by_the_seed(server):
    build(server, plan(judge="judge", orders="one"))
    orders = [key for row in rows() for key in row["cmp_results"]]
    assert len(orders) == 12
    assert {tuple(sorted(key.split(","))) for key in orders} == {("ann", "bob"), ("ann", "cy"), ("bob", "cy")}
    assert any(a > b for a, b in (key.split(",") for key in orders))
    assert any(a < b for a, b in (key.split(",") for key in orders))
    build(server, plan(judge="judge", orders="one", seed=1, out="other.jsonl"))
    assert [key for row in rows("other.jsonl") for key in row["cmp_results"]] != orders


def prefers_first(body):
    return FakeReply("1") if is_judgement(body) else None


def test_a_judge_that_prefers_what_it_reads_first_is_found_out(server):
    server.answer = prefers_first
    found = build(server, plan(judge="judge")).consistency
    assert (found.flip_rate, found.contradicted, found.first_wins, found.both_orders) == (
        1.0,
        12,
        1.0,
        12,
    )
    assert all(pair["label"] == "tie" for row in rows() for pair in row["pairs"])


def test_a_judge_that_looks_at_the_answers_agrees_with_itself(server):
    def longest_name(body):
        if not is_judgement(body):
            return None
        a, b = re.findall(r"begin answer [AB] ===\n(\w+) answers", body["messages"][1]["content"])
        return FakeReply("1" if a < b else "2")

    server.answer = longest_name
    found = build(server, plan(judge="judge", check=5)).consistency
    assert (found.flip_rate, found.contradicted, found.first_wins) == (0.0, 0, 0.5)
    assert (found.reruns, found.rerun_rate) == (5, 0.0)
    assert rows()[0]["cmp_results"]["ann,bob"] == "A is better"
    assert rows()[0]["cmp_results"]["bob,ann"] == "B is better"


def test_checked_pairs_are_turned_and_asked_again(server):
    found = build(server, plan(judge="judge", orders="one", check=4)).consistency
    assert (found.pairs, found.replies, found.both_orders, found.reruns) == (
        12,
        12 + 4 + 4,
        4,
        4,
    )
    seeds = [body["seed"] for body in server.fake.requests if is_judgement(body)]
    assert sorted(seeds) == [0] * 16 + [1] * 4


def test_a_judge_of_the_pool_is_told(server):
    seen = Seen()
    built = build(server, plan(judge="ann"), observer=seen, judge=None)
    assert seen.itself == [("ann", ("ann",))]
    assert built.consistency.in_pool == ("ann",)
    assert "**The judge is itself an LLM of the pool (ann)" in Path("rows.jsonl.md").read_text()
    text = config_text(server.fake.base_url).replace('model = "judge"', 'model = "BOB"')
    server.fake.models = (*server.fake.models, "BOB")
    built = build_data(plan(judge="judge", out="other.jsonl"), Config.from_toml(text))
    assert built.consistency.in_pool == ("bob",)
    assert build(server, plan(judge="judge", out="third.jsonl")).consistency.in_pool == ()


@pytest.mark.parametrize("options", [{"judge": None}, {"judge": "judge"}])
def test_a_price_that_is_not_known_is_never_zero(server, options, monkeypatch):
    monkeypatch.setattr("llm_blender.config.is_loopback", lambda host: False)
    with pytest.raises(InputError, match=r"The price of ann is not known, and is not taken for zero"):
        build(server, plan(), price=None)
    assert server.calls == 0
    given = plan(**options, allow_unpriced=True, max_cost=None)
    built = build(server, given, price=None)
    assert (built.cost, built.unpriced) == (0.0, server.calls)
    assert built.unpriced >= 12
    assert "| unknown |" in Path("rows.jsonl.md").read_text()


def test_what_costs_something_needs_a_cap(server):
    with pytest.raises(InputError, match=r"This would cost about \$0.0\d+: set a limit with --max-cost"):
        build(server, plan(max_cost=None))
    with pytest.raises(InputError, match=r"more than --max-cost 1e-05: raise it"):
        build(server, plan(max_cost=1e-5))
    assert server.calls == 0
    assert build(server, plan(max_cost=None), price="0.0").cost == 0


def test_a_build_stops_at_the_cap_and_goes_on_with_a_higher_one(server):
    # More than was expected, 0.0003, and not more than it may be, 0.0008.
    server.answer = lambda body: FakeReply("dear", usage=(100, 500))
    with pytest.raises(WorkError, match=r"more than is left of --max-cost 0.005; .*of 12 candidates are there"):
        build(server, plan(max_cost=0.005))
    calls = server.calls
    assert 6 <= calls <= 8
    assert calls * 0.0006 <= 0.005
    assert not Path("rows.jsonl").exists()
    built = build(server, plan(max_cost=1.0))
    assert built.complete
    assert server.calls == 12
    assert built.cost == pytest.approx(12 * 0.0006)


def test_splits_and_cards(server):
    write_prompts(Path("in.jsonl"), 30, licence="CC BY 4.0")
    built = build(server, plan(out="{split}.jsonl", split={"train": 0.7, "val": 0.3}, name="mine"))
    parts = [rows(f"{split}.jsonl") for split in ("train", "val")]
    assert all(parts)
    assert sum(map(len, parts)) == 30
    for file in built.written:
        card = Path(file.card).read_text()
        assert f"| `{file.split}.jsonl` | {file.split} | {file.rows} |" in card
        assert file.sha256 in card
        assert built.chosen.sources["in.jsonl"] in card
        assert "| CC BY 4.0 | 30 |" in card
        assert built.digest in card
        assert card.startswith("# mine\n")
    for row in parts[0]:
        assert row["licence"] == "CC BY 4.0"


def test_parquet_has_the_hubs_spelling(server):
    parquet = pytest.importorskip("pyarrow.parquet")
    Path("in.jsonl").write_text('{"prompt": "One?"}\n{"prompt": "Two?"}\n')
    server.answer = failing("cy", when=lambda body: "Two" in str(body))
    build(server, plan(judge="judge", out="rows.parquet"))
    assert isinstance(parquet.read_table("rows.parquet").to_pylist()[0]["cmp_results"], str)
    assert [len(row.extra["cmp_results"]) for row in read_mix_instruct("rows.parquet")] == [6, 2]


def test_recorded_answers_of_the_judge_are_its_own(server):
    build(server, plan())
    text = config_text(server.fake.base_url, ("ann",)).replace('model = "judge"', 'model = "bob"')
    text += '[[llm]]\nprovider = "replay"\nname = "recorded"\nmodel = "bob"\nrows = "rows.jsonl"\n'
    built = build_data(plan(judge="judge", out="again.jsonl"), Config.from_toml(text))
    assert built.consistency.in_pool == ("recorded",)


def test_a_metric_that_cannot_be_had_is_told_with_the_reason(server, monkeypatch):
    from llm_blender.metrics import evaluation

    def nowhere(predictions, references, progress=None):
        raise WorkError("no model here")

    monkeypatch.setitem(evaluation.METRICS, "bleurt", nowhere)
    built = build(server, plan(metrics=("bleurt", "bleu")))
    assert built.measured.unavailable == {"bleurt": "no model here"}
    assert not built.complete
    assert rows()[0]["candidates"][0]["scores"].keys() == {"bleu"}
    assert "| bleurt | not measured: no model here |" in Path("rows.jsonl.md").read_text()
    monkeypatch.undo()
    monkeypatch.setitem(evaluation.METRICS, "bleurt", evaluation.METRICS["bleu"])


def test_rows_without_a_reference_have_no_scores(server):
    Path("in.jsonl").write_text('{"prompt": "One?"}\n{"prompt": "Two?", "output": "Two words."}\n')
    build(server, plan())
    assert [bool(row["candidates"][0]["scores"]) for row in rows()] == [False, True]
    assert rows()[0]["output"] == ""


def test_samples_have_names_of_their_own(server):
    text = config_text(server.fake.base_url, ("ann",), judge=None, samples=3)
    build_data(plan(), Config.from_toml(text))
    assert [candidate["model"] for candidate in rows()[0]["candidates"]] == ["ann", "ann#2", "ann#3"]
    assert sorted(body["seed"] for body in server.fake.requests if "Question 0" in str(body)) == [0, 1, 2]


def test_recorded_answers_are_built_from_without_asking(server):
    build(server, plan())
    calls = server.calls
    replay = "".join(
        f'[[llm]]\nprovider = "replay"\nname = "{name}-again"\nmodel = "{name}"\nrows = "rows.jsonl"\n'
        for name in WRITERS
    )
    built = build_data(plan(out="again.jsonl", max_cost=None), Config.from_toml(replay))
    assert (built.complete, built.cost, server.calls) == (True, 0.0, calls)
    assert [c["text"] for c in rows("again.jsonl")[1]["candidates"]] == [c["text"] for c in rows()[1]["candidates"]]
    assert rows("again.jsonl")[0]["candidates"][0]["decoding_method"] == "replay"


def test_llms_of_one_model_have_seeds_of_their_own(server):
    text = config_text(server.fake.base_url, judge=None, samples=2).replace('model = "bob"', 'model = "ann"')
    build_data(plan(1), Config.from_toml(text))
    seeds = {model: sorted(b["seed"] for b in server.fake.requests if b["model"] == model) for model in WRITERS}
    assert seeds == {"ann": [0, 1, 2, 3], "bob": [], "cy": [0, 1]}
    texts = {candidate["model"]: candidate["text"] for candidate in rows()[0]["candidates"]}
    assert list(texts) == ["ann", "ann#2", "bob", "bob#2", "cy", "cy#2"]
    assert len(set(texts.values())) == 6


def test_the_same_question_about_two_names_is_asked_once(server):
    text = config_text(server.fake.base_url).replace('model = "bob"', 'model = "ann"')
    server.answer = lambda body: None if is_judgement(body) else FakeReply(f"{body['model']}", delay=0.05)
    built = build_data(plan(judge="judge"), Config.from_toml(text))
    assert built.complete
    assert (server.of_model("ann"), server.of_model("bob"), server.of_model("cy")) == (8, 0, 4)
    # Per row: ann and bob read the same, and each of them against cy is the same question.
    assert server.of_model("judge") == 4 * 3
    assert len(rows()[0]["cmp_results"]) == 6


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"out": "-"}, "its output is a file"),
        ({"out": "no/rows.jsonl"}, "no folder no"),
        ({"split": {"train": 1.0}}, r"holds \{split\}"),
        ({"out": "{split}.jsonl"}, "give the splits"),
        ({"metrics": ("bleux",)}, "Unknown metric 'bleux': did you mean 'bleu'"),
        ({"judge": "judgee"}, "Unknown LLM 'judgee': did you mean 'judge'"),
    ],
)
def test_wrong_plans(server, options, error):
    with pytest.raises(InputError, match=error):
        build(server, plan(**options))
    assert server.calls == 0


def test_names_that_cannot_stand_in_cmp_results(server):
    text = config_text(server.fake.base_url).replace('name = "ann"', 'name = "ann, the first"')
    with pytest.raises(InputError, match="has a comma in its name"):
        build_data(plan(judge="judge"), Config.from_toml(text))
    text = config_text(server.fake.base_url, judge=None, samples=2).replace('name = "bob"', 'name = "ann#2"')
    with pytest.raises(InputError, match="would be called 'ann#2'"):
        build_data(plan(), Config.from_toml(text))


def test_the_bundled_tokenizer_counts(server):
    from llm_blender.datasets.plan import token_counter
    from llm_blender.errors import NotFoundError

    count = token_counter("bundled")
    assert (count("Why is the sky blue?"), count("")) == (6, 0)
    with pytest.raises(NotFoundError, match="There is no tokenizer"):
        token_counter("none.json")
    Path("bad.json").write_text("{}")
    with pytest.raises(InputError, match="is no tokenizer"):
        token_counter("bad.json")
