"""What the README of 0.0.2 shows of ranking, call by call, with other texts.

Only the checkpoint is another one: its folder stands where the Hub name stood.
"""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def name_of_checkpoint(published_ranker, tmp_path):
    """A checkpoint that says how its encoder is built, as llm-blender/PairRM does by name."""
    import json
    import shutil

    copy = tmp_path / "PairRM"
    shutil.copytree(published_ranker / "ranker", copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "model_name": str(published_ranker / "encoder")}))
    return str(copy)


@pytest.fixture
def blender(name_of_checkpoint):
    import llm_blender

    blender = llm_blender.Blender()
    blender.loadranker(name_of_checkpoint)
    return blender


def test_rank(blender):
    inputs = ["hello, how are you!", "i love you!"]
    candidates_texts = [
        ["get out!", "hi! i am fine, thanks!", "bye!"],
        ["i love you too!", "i hate you!", "thanks! you are a good guy!"],
    ]
    ranks = blender.rank(inputs, candidates_texts, return_scores=False, batch_size=1)
    assert ranks.shape == (2, 3)
    assert [sorted(row) for row in ranks.tolist()] == [[1, 2, 3]] * 2
    scores = blender.rank(inputs, candidates_texts, return_scores=True, batch_size=1)
    assert (np.argsort(-scores, axis=1) == np.argsort(ranks, axis=1)).all()


def test_compare(blender):
    inputs = ["hello!", "i love you!"]
    candidates_A = ["hi!", "i hate you!"]  # noqa: N806
    candidates_B = ["get out!", "i love you, too!"]  # noqa: N806
    comparison_results = blender.compare(inputs, candidates_A, candidates_B)
    assert comparison_results.dtype == bool
    logits = blender.compare(inputs, candidates_A, candidates_B, return_logits=True, mode="[A,B]")
    assert logits.dtype == np.float32


def test_rank_with_ref(blender):
    inputs = ["hello, how are you!", "i love you!"]
    candidates_texts = [["get out!", "hi!", "bye!"], ["i love you too!", "i hate you!", "thanks!"]]
    ranks = blender.rank_with_ref(inputs, candidates_texts, return_scores=False, batch_size=2, mode="longest")
    assert ranks.shape == (2, 3)
    ref_candidates = [row[0] for row in candidates_texts]
    scores = blender.rank_with_ref(
        inputs, candidates_texts, return_scores=True, batch_size=2, ref_candidates=ref_candidates
    )
    assert scores[:, 0].tolist() == [0, 0]


def test_conversations(blender):
    conv1 = [
        {"content": "hello", "role": "USER"},
        {"content": "hi! how are you", "role": "ASSISTANT"},
        {"content": "i am fine", "role": "USER"},
        {"content": "too good!", "role": "ASSISTANT"},
    ]
    conv2 = [dict(message) for message in conv1]
    conv2[3] = {"content": "get out!", "role": "ASSISTANT"}
    assert blender.compare_conversations([conv1], [conv2]).shape == (1,)


def test_best_of_n(blender):
    inputs = ["hello, how are you!"]
    candidates_texts = [["get out!", "hi! i am fine, thanks!", "bye!"]]
    best = blender.get_best_of_n(inputs, candidates_texts, pairrm_cmp_type="bubble", batch_size=2)
    everything = blender.get_best_of_n(inputs, candidates_texts, return_all=True)
    assert everything[0][0] == best[0]
    assert blender.get_worst_of_n(inputs, candidates_texts)[0] in candidates_texts[0]


def test_best_candidates_from_ranks(blender):
    from llm_blender.blender.blender_utils import get_topk_candidates_from_ranks

    inputs, candidates_texts = ["hello!"], [["get out!", "hi! i am fine, thanks!", "bye!"]]
    ranks = blender.rank(inputs, candidates_texts, return_scores=False, batch_size=2)
    topk = get_topk_candidates_from_ranks(ranks, candidates_texts, top_k=2)
    assert topk.shape == (1, 2)
    assert topk[0][0] == candidates_texts[0][ranks[0].tolist().index(1)]


def test_chatgpt_judgements():
    from llm_blender.gpt_eval.cor_eval import COR_MAPS
    from llm_blender.gpt_eval.utils import get_ranks_from_chatgpt_cmps

    rows = [
        {
            "candidates": [{"model": "a", "text": "x"}, {"model": "b", "text": "y"}],
            "cmp_results": '{"a,b": "B is better"}',
        },
        {"candidates": [{"model": "b", "text": "x"}, {"model": "a", "text": "y"}], "cmp_results": None},
    ]
    ranks, _ = get_ranks_from_chatgpt_cmps(rows)
    assert {model: row.tolist() for model, row in ranks.items()} == {"a": [2, 1], "b": [1, 1]}
    table = np.array([ranks[model] for model in ranks]).T
    assert COR_MAPS["spearman_footrule"](table, table) == 0
