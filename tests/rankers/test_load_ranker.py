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
    with pytest.raises(InputError, match="is a simcls, which has no precision 'int8': give a dtype"):
        load_ranker(tiny_pointwise("simcls"), precision="int8")
    with pytest.raises(InputError, match="The device 'cpu' is for the torch backend"):
        load_ranker(tiny_ranker(), backend="onnx", device="cpu")


@pytest.mark.parametrize("name", ["summareranker", "simcls", "bert", "pairs", "mlm:"])
def test_device_dtype_and_batches_reach_each_ranker_on_torch(
    name, tiny_pointwise, tiny_reward_model, tiny_ranker, tiny_encoder, tmp_path
):
    import torch
    from transformers import AutoConfig, AutoModelForMaskedLM

    if name == "mlm:":
        config = AutoConfig.from_pretrained(tiny_encoder)
        AutoModelForMaskedLM.from_config(config).save_pretrained(tmp_path)
        (tmp_path / "tokenizer.json").write_bytes((tiny_encoder / "tokenizer.json").read_bytes())
        folder = f"mlm:{tmp_path}"
    else:
        folder = {"bert": tiny_reward_model, "pairs": tiny_ranker}.get(name, lambda: tiny_pointwise(name))()
    ranker = load_ranker(folder, device="cpu, cpu", dtype="bfloat16", max_tokens=70)
    replicas = ranker.backend._replicas if name == "pairs" else ranker.model
    assert (replicas.parallel, ranker.max_tokens) == (2, 70)
    assert {next(model.parameters()).dtype for model in replicas._models} == {torch.bfloat16}
    assert load_ranker(folder, device="cpu").max_tokens == 2_048
    exact, near = (r.rank("Why?", ["the sea", "blue light scatters", ""]).scores for r in (load_ranker(folder), ranker))
    assert near == pytest.approx(exact, abs=0.05 * max(1, *map(abs, exact)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda"}, r"There is no device cuda on this machine: it has the CPU only\."),
        ({"device": "cpu,cuda:1"}, "There is no device cuda:1 on this machine"),
        ({"device": ["cpu", "mps"]}, "There is no device mps on this machine"),
        ({"device": "cdua"}, r"Unknown device 'cdua': this machine has the CPU only\."),
        ({"device": "meta"}, "Unknown device 'meta'"),
        ({"device": "cpu,"}, "Unknown device 'cpu,'"),
        ({"dtype": "bfloat32"}, "Unknown dtype 'bfloat32': did you mean 'float32'"),
        ({"device": "cpu", "max_tokens": 0}, "max_tokens must be 1 or more tokens, not 0"),
        ({"backend": "onnx", "dtype": "bfloat16"}, "The dtype 'bfloat16' is for the torch backend"),
        ({"backend": "openvino", "device": "cuda"}, "The device 'cuda' is for the torch backend"),
        ({"max_tokens": 100}, "The onnx backend computes one text at a time: max_tokens needs a device"),
    ],
)
def test_options_that_cannot_be_kept_are_refused_before_anything_is_loaded(monkeypatch, options, message):
    import torch

    from llm_blender.rankers import checkpoints

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(checkpoints, "load_weights", lambda folder: pytest.fail("loaded"))
    with pytest.raises(InputError, match=message):
        load_ranker(**options)


@pytest.mark.parametrize("options", [{"device": "cpu"}, {"dtype": "bfloat16"}, {"max_tokens": 9}, {"backend": "torch"}])
def test_a_baseline_has_no_model_to_place(options):
    (option,) = options
    with pytest.raises(InputError, match=f"The ranker 'longest' runs no model, and has no {option}: leave that out"):
        load_ranker("longest", **options)


def test_an_accelerator_gets_larger_batches(monkeypatch):
    import torch

    from llm_blender.rankers import _torch

    monkeypatch.setattr(_torch, "parse_devices", lambda device: [torch.device(name) for name in device.split(",")])
    assert _torch.Loading.of(device="cuda:0,cuda:1").max_tokens == 32_768
    assert _torch.Loading.of(device="cpu,cuda:1").max_tokens == 2_048
    assert _torch.Loading.of(device="cuda", max_tokens=5).max_tokens == 5


def test_the_devices_of_a_machine_are_listed(monkeypatch):
    import torch

    from llm_blender import _torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert _torch.available_devices()[:3] == ["cpu", "cuda:0", "cuda:1"]
    assert [str(place) for place in _torch.parse_devices("cuda:1, cuda")] == ["cuda:1", "cuda"]
    with pytest.raises(InputError, match=r"no device cuda:2 on this machine: it has cpu, cuda:0, cuda:1"):
        _torch.parse_devices("cuda:0,cuda:2")


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
