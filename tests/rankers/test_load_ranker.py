"""Loading rankers by name."""

from __future__ import annotations

import json

import pytest

from llm_blender.errors import CheckpointError, InputError, NotFoundError
from llm_blender.rankers import load_ranker


def test_each_kind_by_its_config(tiny_ranker, tiny_pointwise, tiny_reward_model):
    from llm_blender import PairRanker, RewardModel, SimCLS, SummaReranker  # on torch

    assert type(load_ranker(tiny_ranker())) is PairRanker
    assert type(load_ranker(str(tiny_pointwise("summareranker")))) is SummaReranker
    assert type(load_ranker(tiny_pointwise("simcls"))) is SimCLS
    assert type(load_ranker(tiny_reward_model(), backend="torch", device="cpu", precision="fp32")) is RewardModel


def test_onnx_is_the_pair_rankers(tiny_pointwise, tiny_ranker):
    with pytest.raises(InputError, match="is a simcls, which only the torch backend runs"):
        load_ranker(tiny_pointwise("simcls"), backend="onnx")
    with pytest.raises(InputError, match="The device 'cpu' is for the torch backend"):
        load_ranker(tiny_ranker(), backend="onnx", device="cpu")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
            r"says architectures .'LlamaForCausalLM'.*Known are",
        ),
        ({"ranker_type": "ultra-rm"}, "says ranker_type 'ultra-rm'"),
        ({}, "says nothing of its kind"),
    ],
)
def test_what_is_no_ranker(tmp_path, values, message):
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=message):
        load_ranker(tmp_path)


def test_what_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=r"is no checkpoint: it holds no config\.json"):
        load_ranker(tmp_path)
    with pytest.raises(NotFoundError, match="No ranker '/no/where'"):
        load_ranker("/no/where")


def test_of_another_kind_than_asked_for(tiny_pointwise, tiny_ranker, tiny_reward_model):
    from llm_blender import PairRanker, RewardModel, SimCLS, SummaReranker  # on torch

    for cls, folder, message in (
        (SimCLS, tiny_pointwise("summareranker"), "is a SummaReranker, not a SimCLS: .*load_ranker loads either"),
        (SummaReranker, tiny_ranker(), "is a PairRanker, not a SummaReranker"),
        (SummaReranker, tiny_reward_model(), r"has an unknown layout \(ranker_type None, model_type 'bert'\)"),
        (RewardModel, tiny_pointwise("simcls"), "is not a reward model: .* this one is simcls"),
        (PairRanker, tiny_pointwise("simcls"), "an unknown layout"),
    ):
        with pytest.raises(CheckpointError, match=message):
            cls.from_pretrained(folder)


def test_what_lies_in_the_hubs_cache_without_its_weights_is_not_there(tmp_path, monkeypatch):
    from huggingface_hub import constants

    snapshot = tmp_path / "models--some--ranker" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (tmp_path / "models--some--ranker" / "refs").mkdir()
    (tmp_path / "models--some--ranker" / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("LLM_BLENDER_OFFLINE", "1")
    with pytest.raises(NotFoundError, match="not in the Hub's cache, and offline mode is on"):
        load_ranker("some/ranker")
    (snapshot / "pytorch_model.bin").touch()
    with pytest.raises(CheckpointError, match="says nothing of its kind"):
        load_ranker("some/ranker")


@pytest.mark.parametrize(("name", "hint"), [("longst", "Did you mean 'longest'? "), ("nosuch", "")])
def test_an_unknown_name_lists_the_known_ones(name, hint):
    with pytest.raises(NotFoundError) as error:
        load_ranker(name)
    names = "bundled, longest, shortest, consensus, first, random"
    assert str(error.value).endswith(f"it is not a Hub name (owner/name). {hint}Known names: {names}.")
