"""`RankGenerations` against the real library."""

from __future__ import annotations

import gc
import multiprocessing
import warnings

import pytest

with warnings.catch_warnings():
    # The library's own: fields that pydantic 2.12 warns of, and imports from where it says not to import from any more
    # (https://github.com/argilla-io/distilabel/tree/1.5.3: mixins/runtime_parameters.py, pipeline/templates).
    warnings.simplefilter("ignore")
    pytest.importorskip("distilabel", reason="distilabel is not installed: .ci/integrations runs this")
    from distilabel.pipeline import Pipeline
    from distilabel.steps import FormatTextGenerationDPO, LoadDataFromDicts, Step

    from llm_blender import InputError
    from llm_blender.integrations.distilabel import RankGenerations
    from llm_blender.testing import FakeRanker

# https://github.com/argilla-io/distilabel/blob/1.5.3/src/distilabel/utils/serialization.py
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the 'model_fields' attribute on the instance")


@pytest.fixture
def no_garbage():
    """Frees the ONNX sessions of earlier tests: a forked process that collected them would wait for their threads."""
    gc.collect()


# A pipeline's processes and their manager are the library's own.
of_pipelines = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


class PlantedOrder(RankGenerations):
    """The longer is the better."""

    def make_ranker(self):
        return FakeRanker()


def rank(rows, step=None, **options):
    if step is None:
        step = PlantedOrder(name="rank", pipeline=Pipeline(), **options)
    step.load()
    (out,) = step.process_applying_mappings(rows)
    return out


def test_generations_are_sorted_and_not_permuted_the_wrong_way():
    # Ranks 2, 3, 1: its inverse permutation is another one.
    (row,) = rank([{"instruction": "Why?", "generations": ["bb", "a", "ccc"]}])
    assert row["ranks"] == [2, 3, 1]
    assert row["ranked_generations"] == ["ccc", "bb", "a"]
    assert row["scores"][2] > row["scores"][0] > row["scores"][1]
    assert row["winner_probability"] == pytest.approx(0.7310586)  # sigmoid(3 − 2)
    assert row["ranker_name"] == "bundled"
    assert row["generations"] == ["bb", "a", "ccc"]


def test_failed_generations_come_last_and_are_not_compared():
    rows = [
        {"instruction": "Why?", "generations": [None, "a", None, "ccc"]},
        {"instruction": "Why?", "generations": [None, None]},
        {"instruction": "Why?", "generations": []},
        {"instruction": "Why?", "generations": ["a"]},
    ]
    some, none, empty, alone = rank(rows)
    assert some["ranks"] == [3, 2, 3, 1]
    assert some["ranked_generations"] == ["ccc", "a", None, None]
    assert some["scores"][0] is None
    assert some["scores"][3] > some["scores"][1]
    assert (none["ranks"], none["ranked_generations"], none["scores"]) == ([1, 1], [None, None], [None, None])
    assert (empty["ranks"], empty["ranked_generations"]) == ([], [])
    assert (alone["ranks"], alone["ranked_generations"], alone["winner_probability"]) == ([1], ["a"], None)


def test_a_row_that_cannot_be_read_costs_no_other_its_ranks(caplog):
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    tool = [
        {"role": "user", "content": [{"type": "text", "text": "Q"}]},
        {"role": "tool", "name": "f", "content": "42"},
    ]
    rows = [
        {"instruction": None, "generations": ["a", "bb"]},
        {"instruction": image, "generations": ["a", None]},
        {"instruction": "Why?", "generations": None},
        {"instruction": "Why?", "generations": [["a"], "bb"]},
        {"instruction": tool, "generations": ["a", "bb"]},
    ]
    step = PlantedOrder(name="rank", pipeline=Pipeline())
    none, picture, nothing, list_of_lists, called = rank(rows, step)
    assert (none["ranks"], none["scores"], none["winner_probability"]) == ([None, None], [None, None], None)
    assert (picture["ranks"], picture["ranked_generations"]) == ([None, None], ["a", None])
    assert (nothing["ranks"], nothing["ranked_generations"]) == (None, None)
    assert list_of_lists["ranks"] == [None, None]
    assert called["ranks"] == [2, 1]
    assert step._loaded.batches[0][0][0] == "User: Q\n\nUser: Result of a tool: 42"
    assert [record.args[0] for record in caplog.records] == [0, 1, 2, 3]
    assert "images are not read" in caplog.text


def test_ties_share_a_rank():
    (row,) = rank([{"instruction": "Why?", "generations": ["aa", "bbb", "cc"]}])
    assert row["ranks"] == [2, 1, 2]
    (row,) = rank([{"instruction": "Why?", "generations": ["same", "same"]}])
    assert (row["ranks"], row["winner_probability"]) == ([1, 1], 0.5)


def test_thoughts_are_not_ranked_but_kept():
    thoughtful = "<think>A very long thought indeed.</think>\na"
    (row,) = rank([{"instruction": "Why?", "generations": [thoughtful, "bb"]}])
    assert row["ranked_generations"] == ["bb", thoughtful]


def test_conversations_and_mappings():
    step = PlantedOrder(
        name="rank",
        pipeline=Pipeline(),
        input_mappings={"instruction": "messages", "generations": "candidates"},
        output_mappings={"ranked_generations": "ranked_candidates"},
    )
    messages = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Why?"},
    ]
    (row,) = rank([{"messages": messages, "candidates": ["a", "bb"], "model_name": "writer"}], step)
    assert row["ranked_candidates"] == ["bb", "a"]
    assert (row["model_name"], row["ranker_name"]) == ("writer", "bundled")
    assert step._loaded.batches[0][0][0] == "User: Hello\n\nAssistant: Hello!\n\nUser: Why?"


def test_rows_of_a_batch_are_compared_together():
    step = PlantedOrder(name="rank", pipeline=Pipeline(), strategy="full")
    rank([{"instruction": f"Why {i}?", "generations": ["a", "bb", "ccc"]} for i in range(5)], step)
    assert [len(batch) for batch in step._loaded.batches] == [5 * 6]
    step.unload()
    assert step._loaded is None


def test_the_bundled_ranker():
    step = RankGenerations(name="rank", pipeline=Pipeline())
    rows = [{"instruction": "What is the capital of France?", "generations": ["No idea.", "The capital is Paris."]}]
    (row,) = rank(rows, step)
    assert row["ranks"] == [2, 1]
    assert row["ranked_generations"] == ["The capital is Paris.", "No idea."]
    assert 0.5 < row["winner_probability"] < 1


def test_an_unknown_ranker_is_refused_when_the_step_loads():
    step = RankGenerations(name="rank", pipeline=Pipeline(), ranker="no-such-ranker")
    with pytest.raises(InputError, match="no-such-ranker"):
        step.load()


def test_the_step_survives_its_own_serialisation():
    step = RankGenerations(name="rank", pipeline=Pipeline(), strategy="full", budget=20)
    again = Step.from_dict(step.dump())
    assert type(again) is RankGenerations
    assert (again.ranker, again.strategy, again.budget) == ("bundled", "full", 20)
    assert set(step.runtime_parameters_names) >= {"ranker", "strategy", "budget"}
    other = RankGenerations(name="rank", pipeline=Pipeline(), strategy="single", budget=20)
    assert other.signature != step.signature  # what the cache goes by


@pytest.mark.usefixtures("no_garbage")
@of_pipelines
def test_a_pipeline_runs_the_step():
    rows = [
        {"instruction": "What is the capital of France?", "generations": ["No idea.", "The capital is Paris.", "Hm."]},
        {"instruction": "Say nothing.", "generations": ["...", None, "Nothing at all, as you asked me to."]},
    ]
    with Pipeline("ranking") as pipeline:
        load = LoadDataFromDicts(data=rows)
        ranking = RankGenerations(strategy="full", output_mappings={"ranks": "places"})
        load >> ranking
    dataset = pipeline.run(use_cache=False)["default"]["train"]
    assert len(dataset) == 2
    by_instruction = {row["instruction"]: row for row in dataset}
    first, second = (by_instruction[row["instruction"]] for row in rows)
    assert first["ranked_generations"][0] == "The capital is Paris."
    assert first["ranked_generations"][first["places"][0] - 1] == "No idea."
    assert second["places"][1] == 3
    assert second["ranked_generations"][2] is None
    assert not multiprocessing.active_children()


def test_scores_are_ratings_for_the_librarys_formatter():
    rows = [{"instruction": "Why?", "generations": ["bb", "a", "ccc"]}]
    ranked = rank(rows, output_mappings={"scores": "ratings"})
    formatter = FormatTextGenerationDPO(name="format", pipeline=Pipeline())
    formatter.load()
    (row,) = next(formatter.process(ranked))
    assert row["chosen"][-1]["content"] == "ccc"
    assert row["rejected"][-1]["content"] == "a"


@pytest.mark.usefixtures("no_garbage")
@of_pipelines
def test_the_pages_examples_run(run_examples):
    names = run_examples("distilabel")
    good, bad = "Air scatters blue light more than red.", "Because."
    assert names["ranked"]["ranks"] == [2, 1, 3]
    assert names["ranked"]["ranked_generations"] == [good, bad, None]
    (row,) = names["run"]()
    assert (row["chosen"][-1]["content"], row["rejected"][-1]["content"]) == (good, bad)
