"""`Blender` with a fuser."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from llm_blender import Blender, BlenderConfig, GenFuser, GenFuserConfig, InputError, NotFoundError

INPUTS = ["Why is the sky blue?", "Say a word."]
INSTRUCTIONS = ["Say why.", ""]
CANDIDATES = [["Air scatters.", "The sea mirrors the sky. " * 9, "It is the sun."], ["a", "b", "a longer one"]]


@pytest.fixture
def fusing(blender, tiny_t5):
    blender.loadfuser(tiny_t5, torch_dtype="float32")
    return blender


@pytest.fixture
def read(fusing, monkeypatch):
    """The prompts that the fuser reads, as text, and the options with which it writes."""
    calls: list[tuple[list[str], dict]] = []
    original = fusing.fuser._writers.write

    def noted(prompts, options, **more):
        calls.append(([fusing.fuser._tokenizer.decode(ids) for ids in prompts], dict(options)))
        return original(prompts, options, **more)

    monkeypatch.setattr(fusing.fuser._writers, "write", noted)
    return calls


def test_fuse_reads_and_writes_as_before(fusing, read):
    texts = fusing.fuse(INPUTS, CANDIDATES, INSTRUCTIONS, max_new_tokens=8)
    assert isinstance(texts, list)
    assert all(isinstance(text, str) for text in texts)
    (prompts, options) = read[0]
    assert options["num_beams"] == 4
    assert options["max_new_tokens"] == 8
    longest = "".join(prompts[0].split())
    assert longest.startswith(
        "Instruction:Saywhy.</s>Input:Whyistheskyblue?</s>Candidate0:<extra_id_0>:Airscatters.</s>"
    )
    assert "Instruction:</s>Input:Sayaword.</s>" in "".join(prompts[1].split())


def test_what_is_written_is_as_long_as_a_candidate(fusing, read):
    fusing.fuse(INPUTS, CANDIDATES)
    assert read[-1][1]["max_new_tokens"] == 128
    fusing.fuse(INPUTS, CANDIDATES, candidate_max_length=5)
    assert read[-1][1]["max_new_tokens"] == 5
    assert "..." in read[-1][0][0]
    fusing.fuse(INPUTS, CANDIDATES, candidate_max_length=5, max_new_tokens=7, num_beams=2)
    assert (read[-1][1]["max_new_tokens"], read[-1][1]["num_beams"]) == (7, 2)


def test_batches_change_nothing(fusing):
    options = {"max_new_tokens": 8}
    together = fusing.fuse(INPUTS * 3, CANDIDATES * 3, batch_size=4, **options)
    assert together == fusing.fuse(INPUTS, CANDIDATES, batch_size=1, **options) * 3


def test_candidates_are_not_changed(fusing):
    before = [list(texts) for texts in CANDIDATES]
    fusing.fuse(INPUTS, CANDIDATES, candidate_max_length=3)
    assert before == CANDIDATES


def test_arrays_and_lists_of_different_lengths(fusing):
    options = {"max_new_tokens": 8}
    assert fusing.fuse(np.array(INPUTS), np.array(CANDIDATES), **options) == fusing.fuse(INPUTS, CANDIDATES, **options)
    assert len(fusing.fuse(INPUTS, [CANDIDATES[0][:1], CANDIDATES[1]], **options)) == 2


@pytest.mark.parametrize("return_scores", [False, True])
def test_rank_and_fuse(fusing, read, return_scores):
    fused, found = fusing.rank_and_fuse(
        INPUTS, CANDIDATES, INSTRUCTIONS, return_scores=return_scores, batch_size=1, top_k=2, max_new_tokens=8
    )
    expected = fusing.rank(INPUTS, CANDIDATES, INSTRUCTIONS, return_scores=return_scores)
    assert np.array_equal(found, expected)
    ranks = fusing.rank(INPUTS, CANDIDATES, INSTRUCTIONS)
    best = [
        [row[i] for i in np.argsort(order, kind="stable")[:2]] for row, order in zip(CANDIDATES, ranks, strict=True)
    ]
    assert fused == fusing.fuse(INPUTS, best, INSTRUCTIONS, max_new_tokens=8)
    assert all(prompt.count("Candidate") == 2 for prompts, _ in read for prompt in prompts)


def test_rank_and_fuse_takes_all_or_three(fusing, read):
    four = [[*CANDIDATES[1], "one more"]]
    fusing.rank_and_fuse(INPUTS[:1], four, max_new_tokens=4)
    fusing.rank_and_fuse(INPUTS[:1], four, top_k=None, max_new_tokens=4)
    assert [prompts[0].count("<extra_id_") for prompts, _ in read] == [3, 4]


def test_the_configuration_loads_a_fuser(tiny_t5):
    import torch

    config = GenFuserConfig(model_name=str(tiny_t5), max_length=300, candidate_maxlength=20)
    made = Blender(BlenderConfig(device="cpu"), fuser_config=config)
    assert isinstance(made.fuser, GenFuser)
    assert made.fuser.options["max_new_tokens"] == 20
    assert (made.fuser.prompts.max_length, made.fuser.prompts.candidate_max_length) == (300, 20)
    assert made.fuser_config.device == "cpu"
    assert made.fuser._writers._models[0].dtype == torch.bfloat16  # as before


def test_a_fuser_below_the_cache_directory(blender, tiny_t5, tmp_path):
    shutil.copytree(tiny_t5, tmp_path / "cache" / "owner" / "fuser")
    blender.loadfuser("owner/fuser", cache_dir=str(tmp_path / "cache"))
    assert blender.fuser is not None


def test_what_is_refused(blender, fusing, tiny_t5):
    fresh = Blender(BlenderConfig(device="cpu"))
    for call in (lambda: fresh.fuse(INPUTS, CANDIDATES), lambda: fresh.rank_and_fuse(INPUTS, CANDIDATES)):
        with pytest.raises(InputError, match=r"No fuser is loaded: call blender\.loadfuser"):
            call()
    with pytest.raises(InputError, match="Unknown field of GenFuserConfig 'max_len': did you mean 'max_length'"):
        blender.loadfuser(tiny_t5, max_len=3)
    with pytest.raises(NotFoundError, match="No fuser 'nowhere'"):
        blender.loadfuser("nowhere")
    with pytest.raises(InputError, match="A fuser is loaded by the name of a folder or a Hub repository, not by None"):
        blender.loadfuser(None)
    with pytest.raises(InputError, match="pip install bitsandbytes"):
        blender.loadfuser(tiny_t5, load_in_4bit=True)
    with pytest.raises(InputError, match="2 inputs need as many candidates, not 1"):
        fusing.fuse(INPUTS, CANDIDATES[:1])
    with pytest.raises(InputError, match=r"candidates\[0\] is empty"):
        fusing.fuse(INPUTS[:1], [[]])
    with pytest.raises(InputError, match="leave num_return_sequences out"):
        fusing.fuse(INPUTS, CANDIDATES, num_return_sequences=2)
    with pytest.raises(InputError, match="batch_size must be above zero"):
        fusing.fuse(INPUTS, CANDIDATES, batch_size=0)
    with pytest.raises(InputError, match="top_k must be above zero, not 0"):
        fusing.rank_and_fuse(INPUTS, CANDIDATES, top_k=0)
    fusing.loadfuser(tiny_t5, max_length=44)
    with pytest.raises(InputError, match=r"inputs\[0\] and its candidates are not fused: the prompt holds at most 44"):
        fusing.fuse(INPUTS, CANDIDATES)
