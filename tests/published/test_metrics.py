"""GPT-Rank, correlations and losses, compared with llm-blender 0.0.2."""

import json

import pytest

from llm_blender.metrics import CORRELATIONS, gpt_ranking

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def judged(golden):
    """Read outcomes, LLMs, matrix and ranks of each row."""
    part = golden["gpt_rank"]
    ranks = zip(*part["ranks_by_model"].values(), strict=True)
    models = [tuple(candidate["model"] for candidate in row["candidates"]) for row in part["data"]]
    assert all(names == tuple(part["ranks_by_model"]) for names in models)
    outcomes = [row["cmp_results"] for row in part["data"]]
    return list(zip(outcomes, models, part["cmp_matrix"], ranks, strict=True))


def test_gpt_rank(judged):
    assert judged
    for outcomes, models, matrix, ranks in judged:
        ranking = gpt_ranking(outcomes, models)
        assert ranking.matrix.tolist() == matrix
        assert ranking.ranks.tolist() == list(ranks)


def test_gpt_rank_of_the_hubs_text(judged):
    for outcomes, models, matrix, _ in judged:
        assert gpt_ranking(json.dumps(outcomes), models).matrix.tolist() == matrix


@pytest.mark.parametrize("name", CORRELATIONS)
def test_correlations(golden, name):
    part = golden["correlation"]
    assert CORRELATIONS[name](part["hypo"], part["ref"]) == pytest.approx(part[name], abs=TOLERANCE)


@pytest.mark.parametrize("name", ["instructgpt", "BCE", "MSE", "open_instruct_BCE"])
def test_losses(golden, name):
    torch = pytest.importorskip("torch")
    from llm_blender.training.losses import find_loss

    part = golden["losses"]
    targets = ("left_scores", "right_scores")
    tasks = slice(None)
    if name == "open_instruct_BCE":  # its targets are labels, of one task
        targets, tasks = ("left_labels", "right_labels"), slice(1)
    left, right, *true = (torch.tensor(part[key])[:, tasks] for key in ("left_pred", "right_pred", *targets))
    assert find_loss(name)(left, right, *true).item() == pytest.approx(part[name], abs=TOLERANCE)


def test_simcls_loss(golden):
    torch = pytest.importorskip("torch")
    from llm_blender.training.losses import rank_margins, reference_margins

    part = golden["losses"]["simcls"]
    similarities, reference, scores = (torch.tensor(part[key]) for key in ("sim", "target_sim", "scores"))
    loss = reference_margins(similarities, reference) + rank_margins(similarities, scores)
    assert loss.item() == pytest.approx(part["loss"], abs=TOLERANCE)


def test_pairrm_hf_losses(golden):
    torch = pytest.importorskip("torch")
    from llm_blender.rankers.pair_ranker.modeling import signed_logistic

    for case in golden["pairrm_hf"]:
        logits = torch.tensor(case["logits"])
        for sign, key in ((1, "+1"), (-1, "-1"), (0, "0")):
            loss = signed_logistic(logits, torch.full_like(logits, sign)).item()
            assert loss == pytest.approx(case[f"loss_labels_{key}"], abs=TOLERANCE)
