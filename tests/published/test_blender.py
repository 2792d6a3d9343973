"""`Blender`, method by method, compared with the results of 0.0.2."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import numpy as np
import pytest
from llm_blender.blender._ranking import bubble, make_reader, read_texts
from llm_blender.blender.blender_utils import get_pair_from_conv
from llm_blender.gpt_eval.cor_eval import COR_MAPS
from llm_blender.gpt_eval.utils import (
    get_ranks_from_chatgpt_cmps,
    get_ranks_from_cmps,
    get_ranks_from_scores,
    get_scores_from_cmps,
    is_evaluated,
)

from llm_blender import Blender, BlenderConfig

LAYOUTS = ["PairRM", "pair-ranker", "PairRM-hf"]
GOLDEN = json.loads((Path(__file__).parent / "fixtures" / "golden.json").read_text(encoding="utf-8"))
CASES = [pytest.param(case, id=case["name"]) for case in GOLDEN["cases"]]
BY_KEY = {key: [c for c in CASES if c.values[0].get(key)] for key in ("bubble", "compare", "rank_with_ref")}
OWN_LENGTHS = {"source_maxlength": 1224, "candidate_maxlength": 412}
TOLERANCE = 1e-5


@pytest.fixture(scope="module", params=LAYOUTS)
def blender(request, published):
    made = Blender(BlenderConfig(device="cpu"))
    encoder = {} if request.param == "PairRM-hf" else {"model_name": str(published / "backbone")}
    made.loadranker(str(published / request.param), **encoder, **OWN_LENGTHS)
    return made


def given(case):
    lengths = {name: case[name] for name in ("source_max_length", "candidate_max_length") if name in case}
    keywords = {name: case[name] for name in ("instructions", "batch_size")}
    return (case["inputs"], case["candidates"]), {**keywords, "truncation": "reference"}, lengths


def two_of(case):
    (inputs, candidates), keywords, _ = given(case)
    return (inputs, *([texts[side] for texts in candidates] for side in (0, 1))), keywords


def close(found, expected, dtype):
    assert found.dtype == dtype
    assert found.shape == np.shape(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


def same(found, expected, dtype):
    assert isinstance(found, np.ndarray)
    assert found.dtype == dtype
    assert found.tolist() == expected


@pytest.mark.parametrize("case", CASES)
def test_rank(blender, case):
    texts, keywords, lengths = given(case)
    same(blender.rank(*texts, **keywords, **lengths), case["rank"], np.int32)
    close(blender.rank(*texts, return_scores=True, **keywords, **lengths), case["rank_scores"], np.float32)


@pytest.mark.parametrize("case", [c for c in CASES if c.values[0]["batch_size"] == 1])
def test_by_default_as_in_batches_of_one(blender, case):
    texts, keywords, lengths = given(case)
    alone = {**keywords, "truncation": "auto", "batch_size": 8}
    same(blender.rank(*texts, **alone, **lengths), case["rank"], np.int32)


@pytest.mark.parametrize("case", BY_KEY["bubble"])
@pytest.mark.parametrize("which", ["best", "worst"])
def test_bubble(blender, case, which):
    texts, keywords, lengths = given(case)
    batches = [batch for batch in case["bubble"] if batch["best_or_worst"] == which]
    reader = make_reader(
        blender.ranker,
        truncation="reference",
        batch_size=case["batch_size"],
        lengths=(lengths.get("source_max_length"), lengths.get("candidate_max_length")),
    )
    starts = [batch["start_permutation"] for batch in batches for _ in batch["select_process"]]
    steps = bubble(reader, read_texts(*texts, keywords["instructions"]), starts, worst=which == "worst")
    assert [np.transpose(row).tolist() for row in steps] == [
        row for batch in batches for row in batch["select_process"]
    ]


@pytest.mark.parametrize("case", [c for c in CASES if "get_best_of_n_full" in c.values[0]])
@pytest.mark.parametrize("which", ["best", "worst"])
class TestBestAndWorstOfN:
    @pytest.mark.parametrize("everything", [False, True])
    def test_by_bubble(self, blender, case, which, everything):
        torch = pytest.importorskip("torch")
        texts, keywords, _ = given(case)
        torch.manual_seed(GOLDEN["meta"]["bubble_seed"])
        choose = getattr(blender, f"get_{which}_of_n")
        found = choose(*texts, pairrm_cmp_type="reference", return_all=everything, **keywords)
        assert found == case[f"get_{which}_of_n_bubble{'_all' if everything else ''}_seed123"]

    def test_by_all_comparisons(self, blender, case, which):
        texts, keywords, _ = given(case)
        choose = getattr(blender, f"get_{which}_of_n")
        found = choose(*texts, pairrm_cmp_type="full", **keywords)
        everything = choose(*texts, pairrm_cmp_type="full", return_all=True, **keywords)
        assert [row[0] for row in everything] == found
        assert isinstance(everything, np.ndarray)
        for row, ours, expected in zip(
            range(len(found)), everything.tolist(), case[f"get_{which}_of_n_full_all"], strict=True
        ):
            # Ties may have either order: 0.0.2 used numpy's unstable sort.
            rank_of = dict(zip(case["candidates"][row], case["rank"][row], strict=True))
            assert sorted(ours) == sorted(expected)
            assert [rank_of[text] for text in ours] == [rank_of[text] for text in expected]
            assert rank_of[found[row]] == rank_of[case[f"get_{which}_of_n_full"][row]]


@pytest.mark.parametrize("case", BY_KEY["compare"])
@pytest.mark.parametrize("mode", ["[A,B]", "[B,A]", "[A,B]+[B,A]"])
def test_compare(blender, case, mode):
    texts, keywords = two_of(case)
    close(
        blender.compare(*texts, mode=mode, return_logits=True, **keywords), case["compare"][mode]["logits"], "float32"
    )
    same(blender.compare(*texts, mode=mode, **keywords), case["compare"][mode]["bool"], bool)


@pytest.mark.parametrize("case", BY_KEY["rank_with_ref"])
@pytest.mark.parametrize("mode", ["longest", "shortest", "median_length", "first", "last", "explicit_ref"])
def test_rank_with_ref(blender, case, mode):
    texts, keywords, _ = given(case)
    expected = case["rank_with_ref"][mode]
    how = {"ref_candidates": expected["ref_candidates"]} if mode == "explicit_ref" else {"ref_mode": mode}
    close(blender.rank_with_ref(*texts, return_scores=True, **how, **keywords), expected["scores"], np.float64)
    same(blender.rank_with_ref(*texts, **how, **keywords), expected["ranks"], np.int32)


@pytest.mark.parametrize(("mode", "key"), [("[A,B]+[B,A]", "logits"), ("[A,B]", "logits_AB"), ("[B,A]", "logits_BA")])
def test_compare_conversations(blender, mode, key):
    part = GOLDEN["conversations"]
    two = part["conversations_a"], part["conversations_b"]
    close(blender.compare_conversations(*two, return_logits=True, mode=mode), part[key], np.float32)
    if key == "logits":
        same(blender.compare_conversations(*two), part["bool"], bool)


def test_texts_of_conversations():
    part = GOLDEN["conversations"]
    texts = get_pair_from_conv(part["conversations_a"], part["conversations_b"])
    assert texts == tuple(part[name] for name in ("source_text", "candidate1_text", "candidate2_text"))


@pytest.fixture(scope="module")
def model_and_tokenizer(published):
    transformers = pytest.importorskip("transformers")
    from llm_blender.pair_ranker.pairrm import DebertaV2PairRM

    folder = published / "PairRM-hf"
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    return DebertaV2PairRM.from_pretrained(folder).eval(), tokenizer


class TestPairRMHf:
    """The class of transformers, with rows from `tokenize_pair`."""

    @pytest.mark.parametrize("part", GOLDEN["pairrm_hf"], ids=lambda part: f"{part['case']}-{len(part['kwargs'])}")
    def test_ids_logits_losses(self, model_and_tokenizer, part):
        import torch
        from llm_blender.blender.blender_utils import tokenize_pair

        model, tokenizer = model_and_tokenizer
        encoded = tokenize_pair(tokenizer, part["sources"], part["candidate1"], part["candidate2"], **part["kwargs"])
        assert list(encoded["input_ids"].shape) == part["padded_shape"]
        assert unpadded(encoded) == part["input_ids"]
        with torch.inference_mode():
            output = model(**encoded)
            assert output.loss is None
            assert output.logits.tolist() == pytest.approx(part["logits"], abs=TOLERANCE)
            for label in (1, -1, 0):
                labels = torch.full((len(part["sources"]),), label)
                name = "loss_labels_0" if label == 0 else f"loss_labels_{label:+d}"
                assert model(**encoded, labels=labels).loss.item() == pytest.approx(part[name], abs=TOLERANCE)

    def test_ids_of_conversations(self, model_and_tokenizer):
        from llm_blender.blender.blender_utils import tokenize_conv_pair

        part = GOLDEN["conversations"]
        encoded = tokenize_conv_pair(model_and_tokenizer[1], part["conversations_a"], part["conversations_b"])
        assert unpadded(encoded) == part["input_ids"]


def unpadded(encoded):
    rows = zip(encoded["input_ids"], encoded["attention_mask"], strict=True)
    return [ids[mask.bool()].tolist() for ids, mask in rows]


class TestOtherRankers:
    """Pointwise rankers; 0.0.2 could only use the reward model."""

    @pytest.fixture
    def load(self, published):
        made = Blender(BlenderConfig(device="cpu"))

        def load(name, **values):
            made.loadranker(str(published / name), **values)
            return made

        return load

    @pytest.mark.parametrize("suffix", ["", "_instructed"])
    def test_reward_model(self, load, suffix):
        part = GOLDEN["reward_model"]
        *plain, spelled = range(len(part["inputs"]))
        assert "[SEP]" in part["inputs"][spelled]  # a token for 0.0.2, text for this package

        def rows(name):
            return [part[name][i] for i in plain]

        texts = rows("inputs"), rows("candidates"), rows("instructions") if suffix else None
        loaded = load("OpenAssistant/reward-model-deberta-v3-large-v2")
        close(loaded.rank(*texts, return_scores=True), rows(f"scores{suffix}"), np.float32)
        same(loaded.rank(*texts), rows(f"ranks{suffix}"), np.int32)

    @pytest.mark.parametrize("name", ["SummaReranker", "SimCLS"])
    def test_summareranker_and_simcls(self, load, published, name):
        part = GOLDEN["other_rankers"][name]
        texts = [row["source"] for row in part["batch"]], [row["candidates"] for row in part["batch"]]
        loaded = load(name, model_name=str(published / "backbone"))
        close(loaded.rank(*texts, return_scores=True), part["logits"], np.float32)


class TestFunctionsOfNumbers:
    @pytest.mark.parametrize("policy", ["max_logits", "max_wins"])
    def test_of_random_matrices(self, policy):
        part = GOLDEN["aggregation"]
        close(get_scores_from_cmps(part["cmps"], policy), part[f"scores_{policy}"], np.float32)
        same(get_ranks_from_cmps(np.array(part["cmps"]), policy), part[f"ranks_{policy}"], np.int32)

    @pytest.mark.parametrize("policy", ["max_logits", "max_wins"])
    @pytest.mark.parametrize("case", CASES)
    def test_of_the_rankers_matrices(self, case, policy):
        close(get_scores_from_cmps(case["pair_logits_full"], policy), case[f"scores_{policy}"], np.float32)
        same(get_ranks_from_cmps(case["pair_logits_full"], policy), case[f"ranks_from_cmps_{policy}"], np.int32)

    def test_ranks_from_scores(self):
        part = GOLDEN["aggregation"]["ranks_from_scores"]
        same(get_ranks_from_scores(part["scores"]), part["ranks"], np.int32)

    def test_gpt_rank(self):
        part = GOLDEN["gpt_rank"]
        ranks, matrix = get_ranks_from_chatgpt_cmps(part["data"])
        assert {name: of.tolist() for name, of in ranks.items()} == part["ranks_by_model"]
        assert matrix.tolist() == part["cmp_matrix"]
        assert {of.dtype for of in ranks.values()} == {np.dtype(np.int32)}
        assert all(map(is_evaluated, part["data"]))

    def test_correlations(self):
        part = GOLDEN["correlation"]
        assert list(COR_MAPS) == ["pearson", "spearman", "spearman_footrule", "set_based"]
        for name, correlate in COR_MAPS.items():
            assert correlate(part["hypo"], np.array(part["ref"])) == pytest.approx(part[name], abs=TOLERANCE)


def hub_is_reached():
    if os.environ.get("LLM_BLENDER_OFFLINE") == "1" or os.environ.get("HF_HUB_OFFLINE") == "1":
        return False
    try:
        with socket.create_connection(("huggingface.co", 443), timeout=3):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def hub():
    if not hub_is_reached():
        pytest.skip("the Hub cannot be reached: the published weights are not tested")


@pytest.fixture(scope="module")
def pairrm(hub):
    made = Blender(BlenderConfig(device="cpu"))
    made.loadranker("llm-blender/PairRM")
    return made


@pytest.mark.network
class TestThePublishedWeights:
    """What llm-blender/PairRM's card and notebook print."""

    def test_ranks_of_the_readme(self, pairrm):
        ranks = pairrm.rank(
            ["hello, how are you!", "I love you!"],
            [
                ["get out!", "hi! I am fine, thanks!", "bye!"],
                ["I love you too!", "I hate you!", "Thanks! You're a good guy!"],
            ],
        )
        assert ranks.tolist() == [[3, 1, 2], [1, 3, 2]]

    @pytest.mark.parametrize("name", ["llm-blender/PairRM", "llm-blender/PairRM-hf"])
    def test_logits_of_the_notebook(self, hub, name):
        made = Blender(BlenderConfig(device="cpu"))
        made.loadranker(name)
        texts = ["hello!", "I love you!"], ["hi!", "I hate you!"], ["f**k off!", "I love you, too!"]
        logits = made.compare(*texts, mode="[A,B]", return_logits=True)
        assert logits.tolist() == pytest.approx([1.9003021717071533, -1.2547134160995483], abs=1e-4)
