"""PairRanker on the published layouts, compared with 0.0.2: token ids, logits, scores."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from llm_blender import PairRanker
from llm_blender.ranking import AGGREGATIONS, ranks_from_scores

LAYOUTS = ["PairRM", "pair-ranker", "PairRM-hf"]
CASES = json.loads((Path(__file__).parent / "fixtures" / "golden.json").read_text(encoding="utf-8"))["cases"]
OWN_LENGTHS = 1224, 412  # of PairRM; pair-ranker's are shorter, and the cases are not made with them
TOLERANCE = 1e-5


class Recorder:
    """A backend that notes what it is given to read."""

    parallel, ahead = 1, 0

    def __init__(self):
        self.read = set()

    def __call__(self, batch):
        rows = zip(batch.input_ids, batch.attention_mask, strict=True)
        self.read |= {tuple(ids[mask.astype(bool)].tolist()) for ids, mask in rows}
        return np.zeros((len(batch.input_ids), 1), np.float32)


@pytest.fixture(scope="module", params=LAYOUTS)
def ranker(request, published):
    itself = request.param == "PairRM-hf"  # says how its encoder is built
    return PairRanker.from_pretrained(
        published / request.param, device="cpu", backbone=None if itself else str(published / "backbone")
    )


@pytest.fixture(params=CASES, ids=lambda case: case["name"])
def case(request):
    return request.param


def read(ranker, case):
    """Return all ordered pairs of a case and their logits, batched as by 0.0.2."""
    lengths = case.get("source_max_length", OWN_LENGTHS[0]), case.get("candidate_max_length", OWN_LENGTHS[1])
    before = case["instructions"] or [""] * len(case["inputs"])
    sources = [instruction + text for instruction, text in zip(before, case["inputs"], strict=True)]
    sizes = [len(texts) for texts in case["candidates"]]
    pairs = [(i, left, right) for i, size in enumerate(sizes) for left, right in permutations(range(size), 2)]
    reader = ranker.with_lengths(*lengths)
    return pairs, reader.pair_logits(sources, case["candidates"], pairs, legacy_batch=case["batch_size"])


def test_token_ids(ranker, case, golden, monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(ranker, "backend", recorder)
    pairs, _ = read(ranker, case)
    of = golden["meta"]["special_ids"]

    def marked(ids, marker):
        return [of[marker] if token == of["<|candidate|>"] else token for token in ids]

    expected = set()
    for i, left, right in pairs:
        texts = case["token_ids"][i]
        first, second = texts["candidates"][left], texts["candidates"][right]
        expected.add((*texts["source"], *marked(first, "<|candidate1|>"), *marked(second, "<|candidate2|>")))
    assert recorder.read == expected


def test_logits(ranker, case):
    pairs, logits = read(ranker, case)
    expected = [case["pair_logits_full"][i][left][right] for i, left, right in pairs]
    assert logits.dtype == np.float32
    assert logits == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("policy", ["max_logits", "max_wins"])
def test_scores_and_ranks_by_our_aggregation(ranker, case, policy):
    pairs, logits = read(ranker, case)
    for i, texts in enumerate(case["candidates"]):
        matrix = np.zeros((len(texts), len(texts)))
        for (source, left, right), logit in zip(pairs, logits, strict=True):
            if source == i:
                matrix[left, right] = logit
        scores = AGGREGATIONS[policy](matrix.round(4))  # as the engine rounds
        assert ranks_from_scores(scores).tolist() == case[f"ranks_from_cmps_{policy}"][i]
        if policy == "max_logits":
            assert scores == pytest.approx(case["scores_max_logits"][i], abs=1e-4)


def test_the_batch_decided_in_the_original(ranker):
    coupled, alone = (next(c for c in CASES if c["name"] == f"trunc_batch_{how}") for how in ("coupled", "uncoupled"))
    assert coupled["rank"] != alone["rank"]
    (_, ours), (_, again) = (read(ranker, {**alone, "batch_size": size}) for size in (1, 0))
    assert ours.tolist() == again.tolist()  # by default, it does not


def test_weights_are_float32_and_all_there(ranker, golden):
    state = ranker.backend.model.state_dict()
    assert {name: list(weight.shape) for name, weight in state.items()} == golden["state_dict_shapes"]
    assert {str(weight.dtype) for weight in state.values()} == {"torch.float32"}


def test_lengths_of_the_layouts(ranker):
    short = ranker.folder.name == "pair-ranker"
    assert ranker.config.max_length == (3 * 128 if short else 2048)
    assert ranker.config.source_max_length + 3 == (128 if short else 1224)


@pytest.mark.parametrize("number", range(4))
def test_logits_of_pairrm_hf(ranker, golden, number):
    given = golden["pairrm_hf"][number]
    lengths = {name.removesuffix("_max_length"): value for name, value in given["kwargs"].items()}
    reader = ranker.with_lengths(**(lengths or dict(zip(("source", "candidate"), OWN_LENGTHS, strict=True))))
    candidates = list(zip(given["candidate1"], given["candidate2"], strict=True))
    logits = reader.pair_logits(given["sources"], candidates, [(i, 0, 1) for i in range(len(candidates))])
    assert logits == pytest.approx(given["logits"], abs=TOLERANCE)


def test_no_pairrm_hf_case_is_left_out(golden):
    assert len(golden["pairrm_hf"]) == 4
