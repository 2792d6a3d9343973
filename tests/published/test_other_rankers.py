"""Pointwise rankers, compared with llm-blender 0.0.2 on the same checkpoints."""

from __future__ import annotations

import numpy as np
import pytest

import llm_blender
from llm_blender.rankers import load_ranker

REWARD_MODEL = "OpenAssistant/reward-model-deberta-v3-large-v2"


def texts(case: dict) -> tuple[list[str], list[list[str]]]:
    return [row["source"] for row in case["batch"]], [row["candidates"] for row in case["batch"]]


@pytest.fixture(scope="module")
def summa(published):
    return llm_blender.SummaReranker.from_pretrained(published / "SummaReranker", backbone=str(published / "backbone"))


@pytest.fixture(scope="module")
def simcls(published):
    return llm_blender.SimCLS.from_pretrained(published / "SimCLS", backbone=str(published / "backbone"))


@pytest.fixture(scope="module")
def reward(published):
    return llm_blender.RewardModel.from_pretrained(published / REWARD_MODEL, reference=True)


class TestSummaReranker:
    def test_token_ids(self, summa, golden):
        case = golden["other_rankers"]["SummaReranker"]
        for source, candidates, expected in zip(*texts(case), case["input_ids"], strict=True):
            found = summa.input_format.read([(source, candidate) for candidate in candidates])
            assert [reading.ids for reading in found] == expected

    def test_scores(self, summa, golden):
        case = golden["other_rankers"]["SummaReranker"]
        np.testing.assert_allclose(summa.scores(*texts(case)), case["logits"], atol=1e-5)

    def test_loss_of_tasks_and_experts(self, published, golden):
        import torch

        from llm_blender.rankers._torch import load_module
        from llm_blender.rankers.encoder_ranker import PointwiseConfig
        from llm_blender.rankers.summa_reranker import SummaRerankerModel

        case = golden["other_rankers"]["SummaReranker"]
        folder = published / "SummaReranker"
        config = PointwiseConfig.load(folder, "summareranker", str(published / "backbone"))
        model = load_module(folder, lambda: SummaRerankerModel(config)).eval()
        rows = [torch.tensor(ids) for prompt in case["input_ids"] for ids in prompt]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        scores = torch.tensor([row["scores"] for row in case["batch"]])
        best = (scores == scores.amax(1, keepdim=True)).float().flatten(0, 1)
        with torch.inference_mode():
            logits, balance = model.logits(ids, (ids != 0).long())
        of_tasks = torch.nn.functional.binary_cross_entropy_with_logits(logits, best)
        assert float(of_tasks + balance) == pytest.approx(case["loss_eval"], abs=1e-5)
        assert float(balance) > 1e-3


class TestSimCLS:
    def test_token_ids(self, simcls, golden):
        case = golden["other_rankers"]["SimCLS"]
        sources, candidates = texts(case)
        found = simcls.input_format.read_sources(sources, [False] * len(sources))
        assert [reading.ids for reading in found] == case["source_ids"]
        assert [[reading.ids for reading in simcls.input_format.read_candidates(row)] for row in candidates] == case[
            "candidate_ids"
        ]

    def test_scores(self, simcls, golden):
        case = golden["other_rankers"]["SimCLS"]
        np.testing.assert_allclose(simcls.scores(*texts(case)), case["logits"], atol=1e-5)


class TestRewardModel:
    def test_token_ids(self, reward, golden):
        case = golden["reward_model"]
        pairs = [(case["inputs"][0], candidate) for candidate in case["candidates"][0]]
        found = [reading.ids for reading in reward.input_format.read(pairs)]
        assert found == (case["first_ids"][0] if isinstance(case["first_ids"][0][0], list) else case["first_ids"])

    def test_scores_and_ranks(self, reward, golden):
        case = golden["reward_model"]
        np.testing.assert_allclose(reward.scores(case["inputs"], case["candidates"]), case["scores"], atol=1e-5)
        rankings = reward.rank_many(case["inputs"], case["candidates"])
        assert [list(ranking.ranks) for ranking in rankings] == case["ranks"]

    def test_with_instructions_before_the_inputs(self, reward, golden):
        case = golden["reward_model"]
        prompts = [a + b for a, b in zip(case["instructions"], case["inputs"], strict=True)]
        np.testing.assert_allclose(reward.scores(prompts, case["candidates"]), case["scores_instructed"], atol=1e-5)
        rankings = reward.rank_many(prompts, case["candidates"])
        assert [list(ranking.ranks) for ranking in rankings] == case["ranks_instructed"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("PairRM-hf", "PairRanker"), (REWARD_MODEL, "RewardModel")],
)
def test_one_door_for_all(published, name, kind):
    assert type(load_ranker(published / name)).__name__ == kind
