"""Other results of llm-blender 0.0.2: rankers that read one candidate at a time, losses, ranks, correlations."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fixture_goldens import plain
from fixture_texts import JUDGEMENTS, POINTWISE, REFERENCES
from llm_blender.gpt_eval.cor_eval import COR_MAPS
from llm_blender.gpt_eval.utils import (
    get_ranks_from_chatgpt_cmps,
    get_ranks_from_cmps,
    get_ranks_from_scores,
    get_scores_from_cmps,
)
from llm_blender.pair_ranker.config import RankerConfig
from llm_blender.pair_ranker.loss import simcls_loss
from llm_blender.pair_ranker.model_util import build_collator, build_ranker, build_tokenizer
from safetensors.torch import load_model

from llm_blender import Blender

_LOSSES = ["instructgpt", "BCE", "MSE", "open_instruct_BCE"]


def direct(folder: Path, backbone: Path, seed: int) -> dict[str, Any]:
    """Call SummaReranker and SimCLS as 0.0.2's trainer does, since its ``Blender`` cannot.

    The candidates' qualities, which only the loss reads, are random; the first candidate is SimCLS's target.
    """
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = RankerConfig(**{**values, "model_name": str(backbone)})
    tokenizer = build_tokenizer(str(backbone), cache_dir=None)
    collate = build_collator(config.ranker_type, tokenizer, config.source_maxlength, config.candidate_maxlength)
    ranker = build_ranker(config.ranker_type, config.model_type, config.model_name, None, config, tokenizer)
    load_model(ranker, str(folder / "model.safetensors"))
    random = np.random.default_rng(seed)
    rows = [
        {"source": text, "target": texts[0], "candidates": texts, "scores": random.random((4, 3)).round(3).tolist()}
        for text, texts in zip(POINTWISE["inputs"], POINTWISE["candidates"], strict=True)
    ]
    batch = collate(rows)
    with torch.inference_mode():
        output = ranker.eval()(**batch)
    ids = {name: tensor for name, tensor in batch.items() if name.endswith("_ids")}
    masks = [batch[name.removesuffix("ids").removeprefix("input_") + "attention_mask"] for name in ids]
    return {
        "batch": rows,
        "keys": {name: list(tensor.shape) for name, tensor in batch.items()},
        **{name: _unpadded(tensor, mask) for (name, tensor), mask in zip(ids.items(), masks, strict=True)},
        "loss_eval": plain(output["loss"].numpy()[()]),
        "logits": plain(output["logits"]),
    }


def _unpadded(ids: torch.Tensor, mask: torch.Tensor) -> list[Any]:
    if ids.ndim > 1:
        return [_unpadded(*row) for row in zip(ids, mask, strict=True)]
    return ids[mask.bool()].tolist()


def reward_model(blender: Blender) -> dict[str, Any]:
    """Run a sequence classifier through ``Blender``, which must load it."""
    inputs, candidates = POINTWISE["inputs"], POINTWISE["candidates"]
    instructions = [REFERENCES[i % 3] for i in range(len(inputs))]

    def ranked(**how: Any) -> Any:
        return plain(blender.rank(inputs, candidates, disable_tqdm=True, **how))

    batch = blender.ranker_collator([{"source": inputs[0], "candidates": candidates[0]}])
    return {
        "inputs": inputs,
        "candidates": candidates,
        "instructions": instructions,
        "first_ids": _unpadded(batch["input_ids"], batch["attention_mask"]),
        "scores": ranked(return_scores=True, batch_size=1),
        "scores_bs3": ranked(return_scores=True, batch_size=3),
        "ranks": ranked(batch_size=1),
        "scores_instructed": ranked(return_scores=True, instructions=instructions),
        "ranks_instructed": ranked(instructions=instructions),
    }


def losses(backbone: Path) -> dict[str, Any]:
    """Compute each loss of a PairRanker for the same predictions, and SimCLS's."""
    left, right = (
        torch.tensor([[0.3, -1.2], [2.0, 0.1], [-0.7, 0.6]]),
        torch.tensor([[-0.5, 0.4], [1.0, 0.2], [0.9, -2.5]]),
    )
    left_scores = torch.tensor([[1.0, 0.2], [0.5, 0.5], [0.1, 0.9]])
    right_scores = torch.tensor([[0.0, 0.6], [0.5, 0.1], [0.8, 0.3]])
    labels = torch.tensor([[1.0], [0.0], [1.0]])
    result: dict[str, Any] = {
        "left_pred": plain(left),
        "right_pred": plain(right),
        "left_scores": plain(left_scores),
        "right_scores": plain(right_scores),
        "left_labels": plain(labels),
        "right_labels": plain(1 - labels),
    }
    config = RankerConfig(ranker_type="pairranker", model_type="deberta", model_name=str(backbone))
    tokenizer = build_tokenizer(str(backbone), cache_dir=None)
    build_collator("pairranker", tokenizer, 8, 8)  # adds its tokens
    for name in _LOSSES:
        chosen = dataclasses.replace(config, loss_type=name)
        ranker = build_ranker("pairranker", "deberta", str(backbone), None, chosen, tokenizer)
        given = (left, right, left_scores, right_scores)
        if name == "open_instruct_BCE":  # of one task only
            given = (left[:, :1], right[:, :1], labels, 1 - labels)
        result[name] = plain(ranker.compute_loss(*given).numpy()[()])
    similarity = torch.tensor([[0.9, 0.1, 0.5], [0.2, 0.8, 0.3]])
    target, scores = torch.tensor([0.7, 0.6]), torch.tensor([[0.1, 0.9, 0.5], [0.3, 0.2, 0.1]])
    result["simcls"] = {
        "sim": plain(similarity),
        "target_sim": plain(target),
        "scores": plain(scores),
        "loss": plain(simcls_loss(similarity, target, scores).numpy()[()]),
    }
    return result


def aggregation(seed: int) -> dict[str, Any]:
    """Compute scores and ranks of four matrices of comparisons, the last one with many ties."""
    random = np.random.default_rng(seed)
    comparisons = random.normal(size=(4, 5, 5)).round(2)
    comparisons[3] = comparisons[3].round()
    comparisons *= 1 - np.eye(5)
    comparisons += 0.0  # no negative zeros
    scores = np.array([[0.5, 0.5, -1.0, 2.0], [1.0, 1.0, 1.0, 1.0], [3.0, 2.0, 3.0, 2.0]])
    result = {"cmps": plain(comparisons)}
    for policy in ["max_logits", "max_wins"]:
        result[f"scores_{policy}"] = plain(get_scores_from_cmps(comparisons.astype(np.float32), policy))
        result[f"ranks_{policy}"] = plain(get_ranks_from_cmps(comparisons.astype(np.float32), policy))
    return {
        **result,
        "ranks_from_scores": {"scores": plain(scores), "ranks": plain(get_ranks_from_scores(scores))},
    }


def gpt_rank() -> dict[str, Any]:
    """Compute ranks from judgements of pairs, and the matrices of comparisons behind them."""
    rows = [{"candidates": [{"model": name} for name in "wxyz"], "cmp_results": judged} for judged in JUDGEMENTS]
    ranks, matrices = get_ranks_from_chatgpt_cmps(rows)
    return {"data": rows, "ranks_by_model": plain(ranks), "cmp_matrix": plain(matrices)}


def correlation(seed: int) -> dict[str, Any]:
    """Compute the agreement of two sets of ranks in each of the four measures."""
    random = np.random.default_rng(seed)
    ranks, reference = (np.array([random.permutation(5) + 1 for _ in range(8)]) for _ in range(2))
    return {
        "hypo": ranks.tolist(),
        "ref": reference.tolist(),
        **{name: float(measure(ranks, reference)) for name, measure in COR_MAPS.items()},
    }
