"""The import paths of 0.0.2."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest

import llm_blender

OLD_NAMES = {
    "llm_blender": ["Blender", "BlenderConfig", "GenFuserConfig", "RankerConfig"],
    "llm_blender.blender.blender": ["Blender", "BlenderConfig", "RankerConfig", "GenFuserConfig"],
    "llm_blender.blender.config": ["BlenderConfig"],
    "llm_blender.blender.blender_utils": [
        "get_pair_from_conv",
        "get_topk_candidates_from_ranks",
        "tokenize_conv_pair",
        "tokenize_pair",
    ],
    "llm_blender.gen_fuser.config": ["GenFuserConfig"],
    "llm_blender.gpt_eval.cor_eval": ["COR_MAPS"],
    "llm_blender.gpt_eval.utils": [
        "get_ranks_from_chatgpt_cmps",
        "get_ranks_from_cmps",
        "get_ranks_from_scores",
        "get_scores_from_cmps",
    ],
    "llm_blender.pair_ranker.config": ["RankerConfig"],
    "llm_blender.pair_ranker.pairrm": ["DebertaV2PairRM"],
}
SIGNATURES = {
    "__init__": ["blender_config", "ranker_config", "fuser_config"],
    "loadranker": ["ranker_path", "device"],
    "loadfuser": ["fuser_path", "device"],
    "fuse": ["inputs", "candidates", "instructions", "batch_size"],
    "rank_and_fuse": ["inputs", "candidates", "instructions", "return_scores", "batch_size", "top_k"],
    "rank": ["inputs", "candidates", "instructions", "return_scores", "batch_size", "disable_tqdm"],
    "rank_with_ref": [
        *("inputs", "candidates", "instructions", "return_scores", "batch_size", "ref_mode", "ref_candidates"),
    ],
    "compare": [
        *("inputs", "candidates_A", "candidates_B", "instructions", "batch_size", "return_logits", "mode"),
        "disable_tqdm",
    ],
    "compare_conversations": ["conversations_a", "conversations_b", "batch_size", "return_logits", "mode"],
    "get_best_of_n": ["inputs", "candidates", "instructions", "pairrm_cmp_type", "return_all", "batch_size"],
    "get_worst_of_n": ["inputs", "candidates", "instructions", "pairrm_cmp_type", "return_all", "batch_size"],
    "n_generate": [
        *("model", "model_tokenizer", "inputs", "instructions", "n", "sampling_mode", "batch_size"),
    ],
    "best_of_n_generate": [
        *("model", "model_tokenizer", "inputs", "instructions", "n", "sampling_mode", "batch_size"),
        *("pairrm_cmp_type", "return_all"),
    ],
}


@pytest.mark.parametrize(("module", "name"), [(module, name) for module in OLD_NAMES for name in OLD_NAMES[module]])
def test_old_names(module, name):
    value = getattr(importlib.import_module(module), name)
    if inspect.isclass(value) and hasattr(llm_blender, name):
        assert value is getattr(llm_blender, name)  # one class, whichever way it is imported


def test_no_second_way_in():
    with pytest.raises(ModuleNotFoundError, match=r"llm_blender\.legacy\.blender"):
        importlib.import_module("llm_blender.legacy.blender")


@pytest.mark.parametrize("method", SIGNATURES)
def test_positional_arguments(method):
    parameters = inspect.signature(getattr(llm_blender.Blender, method)).parameters.values()
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == ["self", *SIGNATURES[method]]


def test_blender_needs_no_torch():
    code = (
        "import sys\nfrom llm_blender import Blender\nblender = Blender()\nblender.loadranker('bundled')\n"
        "assert blender.rank(['Say hello.'], [['Hello!', 'No.']]).shape == (1, 2)\n"
        "print(*[name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
