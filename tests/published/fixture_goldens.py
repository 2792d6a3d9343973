"""Results of llm-blender 0.0.2 with the checkpoints: the PairRanker and ``Blender``'s methods."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from fixture_texts import CONVERSATIONS_A, CONVERSATIONS_B, REFERENCES, Case
from llm_blender.blender.blender_utils import RankerDataset, get_pair_from_conv, tokenize_conv_pair, tokenize_pair
from llm_blender.gpt_eval.utils import get_ranks_from_cmps, get_scores_from_cmps
from llm_blender.pair_ranker.model_util import build_collator
from llm_blender.pair_ranker.pairrm import DebertaV2PairRM

from llm_blender import Blender

BUBBLE_SEED = 123
MODES = ["[A,B]", "[B,A]", "[A,B]+[B,A]"]
REF_MODES = ["longest", "shortest", "median_length", "first", "last"]


def plain(values: Any) -> Any:
    """Convert arrays to lists, and a float32 to the shortest decimal that reads back equal."""
    if isinstance(values, torch.Tensor):
        values = values.detach().numpy()
    if isinstance(values, np.ndarray | list | tuple):
        return [plain(value) for value in values]
    if isinstance(values, dict):
        return {name: plain(value) for name, value in values.items()}
    if isinstance(values, np.floating | float):
        return float(str(np.float32(values)))
    return values.item() if isinstance(values, np.generic) else values


def case(blender: Blender, given: Case) -> dict[str, Any]:
    """Run one case through the model and, with the checkpoint's own lengths, through every method."""
    inputs, candidates, instructions = given.inputs, given.candidates, given.instructions
    lengths = given.lengths or (blender.ranker_config.source_maxlength, blender.ranker_config.candidate_maxlength)
    collate = build_collator("pairranker", blender.ranker_tokenizer, *lengths)
    dataset = RankerDataset(inputs, candidates, instructions=instructions)
    starts = range(0, len(inputs), given.batch_size)
    batches = [collate([dataset[i] for i in range(s, min(s + given.batch_size, len(inputs)))]) for s in starts]
    with torch.inference_mode():
        logits = np.concatenate([blender.ranker.predict(**batch, mode="full")["logits"].numpy() for batch in batches])
    keywords: dict[str, Any] = {"instructions": instructions, "batch_size": given.batch_size}
    named = dict(zip(["source_max_length", "candidate_max_length"], lengths, strict=True)) if given.lengths else {}
    ranking = {**keywords, **named, "disable_tqdm": True}
    scores = {p: plain(get_scores_from_cmps(logits.copy(), p)) for p in ["max_logits", "max_wins"]}
    ranks = {p: plain(get_ranks_from_cmps(logits.copy(), p)) for p in ["max_logits", "max_wins"]}
    result = {
        "name": given.name,
        "inputs": inputs,
        "candidates": candidates,
        **keywords,
        **named,
        "token_ids": [ids for batch in batches for ids in _token_ids(batch)],
        "pair_logits_full": plain(logits),
        **{f"scores_{policy}": values for policy, values in scores.items()},
        **{f"ranks_from_cmps_{policy}": values for policy, values in ranks.items()},
        "rank": plain(blender.rank(inputs, candidates, **ranking)),
        "rank_scores": plain(blender.rank(inputs, candidates, return_scores=True, **ranking)),
        "bubble": [b for batch in batches for b in _bubbles(blender, batch)] if len(candidates[0]) > 1 else [],
    }
    if given.lengths is None:
        result |= _chosen(blender, inputs, candidates, keywords)
        if len(candidates[0]) > 1:
            result |= _compared(blender, inputs, candidates, keywords)
    return result


def _token_ids(batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
    def row(ids: torch.Tensor, mask: torch.Tensor) -> list[int]:
        return ids[mask.bool()].tolist()

    for i, source in enumerate(batch["source_ids"]):
        texts = zip(batch["candidate_ids"][i], batch["candidate_attention_mask"][i], strict=True)
        yield {
            "source": row(source, batch["source_attention_mask"][i]),
            "candidates": [row(ids, mask) for ids, mask in texts],
        }


@contextmanager
def _starts(into: list[list[int]]) -> Iterator[None]:
    """Seed the start order of bubbles and note the ones that are drawn."""
    draw = torch.randperm

    def noted(*arguments: Any, **keywords: Any) -> torch.Tensor:
        order = draw(*arguments, **keywords)
        into.append(order.tolist())
        return order

    torch.manual_seed(BUBBLE_SEED)
    with patch("torch.randperm", noted):
        yield


def _bubbles(blender: Blender, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for which in ["best", "worst"]:
        drawn: list[list[int]] = []
        with _starts(drawn), torch.inference_mode():
            process = blender.ranker._bubble_predict(**batch, best_or_worst=which)["select_process"]
        (start,) = drawn
        if process[:, 0, 0].tolist() != [start[0]] * len(process) or process[0, 1].tolist() != start[1:]:
            raise RuntimeError(f"The start order {start} is not where the bubble started: {process.tolist()}")
        yield {"best_or_worst": which, "start_permutation": start, "select_process": plain(process)}


def _chosen(
    blender: Blender, inputs: list[str], candidates: list[list[str]], keywords: dict[str, Any]
) -> dict[str, Any]:
    """Best and worst of n, in both types."""
    result: dict[str, Any] = {}
    for which, choose in {"best": blender.get_best_of_n, "worst": blender.get_worst_of_n}.items():
        for kind, seeded in {"full": "", "bubble": f"_seed{BUBBLE_SEED}"}.items():
            for everything in [False, True]:
                drawn: list[list[int]] = []
                with _starts(drawn):
                    texts = choose(inputs, candidates, pairrm_cmp_type=kind, return_all=everything, **keywords)
                name = f"get_{which}_of_n_{kind}{'_all' if everything else ''}{seeded}"
                result[name] = [list(map(str, t)) if everything else str(t) for t in texts]
                if kind == "bubble":
                    result["bubble_start_permutations"] = drawn  # the same in all four, one a batch
    return result


def _compared(
    blender: Blender, inputs: list[str], candidates: list[list[str]], keywords: dict[str, Any]
) -> dict[str, Any]:
    left, right = ([texts[side] for texts in candidates] for side in (0, 1))
    references = [REFERENCES[i % len(REFERENCES)] for i in range(len(inputs))]

    def referred(**how: Any) -> dict[str, Any]:
        return {
            "scores": plain(blender.rank_with_ref(inputs, candidates, return_scores=True, **how, **keywords)),
            "ranks": plain(blender.rank_with_ref(inputs, candidates, **how, **keywords)),
        }

    def compared(mode: str, logits: bool) -> Any:
        how = {"mode": mode, "return_logits": logits, "disable_tqdm": True, **keywords}
        return plain(blender.compare(inputs, left, right, **how))

    return {
        "compare": {mode: {"logits": compared(mode, True), "bool": compared(mode, False)} for mode in MODES},
        "rank_with_ref": {
            **{mode: referred(ref_mode=mode) for mode in REF_MODES},
            "explicit_ref": {"ref_candidates": references, **referred(ref_candidates=references)},
        },
    }


def conversations(blender: Blender) -> dict[str, Any]:
    """Render conversations as texts and ids, and compare them."""
    sources, left, right = get_pair_from_conv(CONVERSATIONS_A, CONVERSATIONS_B)

    def compared(mode: str, logits: bool = True) -> Any:
        return plain(blender.compare_conversations(CONVERSATIONS_A, CONVERSATIONS_B, mode=mode, return_logits=logits))

    encoded = tokenize_conv_pair(blender.ranker_tokenizer, CONVERSATIONS_A, CONVERSATIONS_B)
    return {
        "conversations_a": CONVERSATIONS_A,
        "conversations_b": CONVERSATIONS_B,
        "source_text": sources,
        "candidate1_text": left,
        "candidate2_text": right,
        "input_ids": [row[mask.bool()].tolist() for row, mask in zip(*_ids(encoded), strict=True)],
        "logits": compared("[A,B]+[B,A]"),
        "logits_AB": compared("[A,B]"),
        "logits_BA": compared("[B,A]"),
        "bool": compared("[A,B]+[B,A]", logits=False),
    }


def pairrm_hf(folder: Path, tokenizer: Any, given: Case, **lengths: int) -> dict[str, Any]:
    """Run the first two candidates of a case through ``tokenize_pair`` and the class of transformers."""
    left, right = ([texts[side] for texts in given.candidates] for side in (0, 1))
    model = DebertaV2PairRM.from_pretrained(folder).eval()
    encoded = tokenize_pair(tokenizer, given.inputs, left, right, **lengths)
    ids, masks = _ids(encoded)

    def loss(label: int) -> float:
        with torch.inference_mode():
            return plain(model(**encoded, labels=torch.full((len(ids),), label))["loss"].numpy()[()])

    with torch.inference_mode():
        logits = model(**encoded)["logits"]
    return {
        "case": given.name,
        "sources": given.inputs,
        "candidate1": left,
        "candidate2": right,
        "kwargs": lengths,
        "padded_shape": list(ids.shape),
        "input_ids": [row[mask.bool()].tolist() for row, mask in zip(ids, masks, strict=True)],
        "logits": plain(logits),
        **{f"loss_labels_{label}": loss(int(label)) for label in ("+1", "-1", "0")},
    }


def _ids(encoded: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.as_tensor(encoded["input_ids"]), torch.as_tensor(encoded["attention_mask"])
