"""The accounting of ranking speed: formulas against torch's own counter, and a short run."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from llm_blender.testing import CountedBatch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def accounting(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("_accounting")


def test_useful_operations_are_those_of_torch(accounting, tiny_encoder):
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoConfig

    from llm_blender.rankers.pair_ranker import PairRankerConfig
    from llm_blender.rankers.pair_ranker.modeling import LatePairRankerModel

    config = PairRankerConfig(backbone=AutoConfig.from_pretrained(tiny_encoder).to_dict(), alone_layers=1)
    model, shape = LatePairRankerModel(config).eval(), accounting.Shape.of(config)
    ids, mask = torch.ones(4, 50, dtype=torch.long), torch.ones(4, 50, dtype=torch.long)
    counter, head = FlopCounterMode(display=False), 4 * 2 * (2 * 128 * 128 + 128)
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), counter:
        model(model.encode(ids, mask), mask, mask, torch.full((4,), 9))
    batches = [CountedBatch(part, (50,) * 4, (50,) * 4) for part in ("read", "compare")]
    assert shape.useful(batches) == counter.get_total_flops() - head


def test_padding_is_computed_and_not_useful(accounting):
    shape = accounting.Shape({"read": 2, "compare": 1}, width=4, inner=8, heads=2)
    batches = [CountedBatch("read", (3, 1), (3, 3)), CountedBatch("compare", (3, 1), (3, 3))]
    read, compare = 2 * (256 * 4 + 16 * (9 + 1)), 256 * 4 + 16 * (3 * 4 + 1 * 4)
    assert shape.useful(batches) == read + compare
    assert shape.computed(batches) == 2 * (256 * 6 + 16 * 18) + 256 * 6 + 16 * (3 * 6 + 3 * 6)
    assert shape.least([*batches, CountedBatch("compare", (3, 1), (3, 3))]) == read + 2 * compare - 6 * 16 * 4


def test_a_deberta_has_terms_of_positions_and_three_queries_at_the_end(accounting):
    from llm_blender.rankers.pair_ranker import PairRankerConfig

    backbone = {"model_type": "deberta-v2", "hidden_size": 4, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = PairRankerConfig(backbone=backbone | {"intermediate_size": 8}, pooling="marker")
    shape = accounting.Shape.of(config)
    whole, last = 256 * 10 + 2 * 16 * 100, 64 * 10 + (64 + 128) * 3 + 2 * 16 * 30
    assert shape.useful([CountedBatch("pairs", (10,), (10,))]) == 2 * whole + last
    unknown = PairRankerConfig(backbone=backbone | {"model_type": "modernbert"})
    assert accounting.Shape.of(unknown) is None


def test_the_accounting_adds_up(accounting, tiny_ranker, monkeypatch, capsys):
    import torch

    monkeypatch.setattr(accounting.Products, "peak", lambda self: 1e11)
    arguments = ["--rows", "2", "--candidates", "3", "--words", "8", "--rounds", "1", "--json", "--clock", "cpu"]
    arguments += ["--threads", str(torch.get_num_threads())]  # those of the other tests
    arguments += ["--run", "one=strategy=full", "--run", "baseline=ranker=longest"]
    arguments += ["--run", f"joint=ranker={tiny_ranker()},backend=torch,strategy=full,prompts=0"]
    monkeypatch.setattr(sys, "argv", ["ranking.py", *arguments])
    importlib.import_module("ranking").main()
    runs = json.loads(capsys.readouterr().out)["runs"]
    one, joint = runs["one"], runs["joint"]
    assert (one["pairs_a_prompt"], one["pairs_of_all"]) == (3, 1)
    assert one["work"]["compare"]["pairs"] == 6
    assert sum(one["outside_parts"].values()) == pytest.approx(one["outside"])
    assert one["outside"] + sum(one["inside_parts"].values()) == pytest.approx(1)
    product = 1.0
    for factor in one["factors"].values():
        product *= factor
    assert one["of_peak"] == pytest.approx(product)
    assert one["of_peak"] == pytest.approx(one["useful_flops_a_prompt"] / one["seconds_a_prompt"] / 1e11)
    assert (joint["work"]["pairs"]["pairs"], joint["pairs_of_all"]) == (12, 2)  # it has a position bias
    assert joint["padding"]["pairs"] == joint["work"]["pairs"]["tokens"] / joint["work"]["pairs"]["computed"]
    assert runs["baseline"]["pairs_a_prompt"] == 0
    assert runs["baseline"]["outside"] is None


class TestGpu:
    @pytest.fixture
    def gpu(self, monkeypatch):
        monkeypatch.syspath_prepend(BENCHMARKS)
        return importlib.import_module("gpu")

    def run(self, gpu, monkeypatch, *arguments):
        monkeypatch.setattr(sys, "argv", ["gpu.py", *arguments])
        with pytest.raises(SystemExit) as ended:
            gpu.main()
        return ended.value.code

    def test_without_the_device_it_says_so(self, gpu, monkeypatch, capsys):
        import torch

        monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
        assert self.run(gpu, monkeypatch) == 2
        assert "There is no device cuda on this machine: it has the CPU only." in capsys.readouterr().err

    @pytest.mark.slow
    def test_on_a_cpu(self, gpu, monkeypatch, capsys):
        texts = ["no", "yes, and the sea is blue", "because light scatters " * 4, "why not?", "it is"]
        monkeypatch.setattr(gpu, "chat_texts", lambda prompts, n: (["Why?"] * prompts, [texts[:n]] * prompts))
        small = "--device", "cpu", "--layers", "1", "--width", "64", "--checked", "1", "--prompts", "1"
        assert self.run(gpu, monkeypatch, *small, "--rounds", "1", "--tokens", "512", "--json") == 0
        found = json.loads(capsys.readouterr().out)
        checks = found["checks"]
        assert [(check["device"], check["dtype"]) for check in checks[:4]] == [
            ("cpu", "float32"), ("cpu", "bfloat16"), ("cpu,cpu", "float32"), ("cpu,cpu", "bfloat16"),
        ]  # fmt: skip
        assert all(check["passed"] and check["pairs"] == 10 for check in checks)
        assert checks[1]["difference"] > 10 * checks[2]["difference"]
        assert {speed["pairs"] for speed in found["speeds"]} == {10, 20}  # one order, or both

    @pytest.mark.parametrize("difference", [0.3, float("nan")])
    def test_logits_that_differ_are_an_error(self, gpu, monkeypatch, capsys, difference):
        wrong = gpu.Check("bundled", "cpu", "bfloat16", 9, difference, 0.15)
        monkeypatch.setattr(gpu, "random_checkpoint", lambda *size: "")
        monkeypatch.setattr(gpu, "check_logits", lambda *settings: [wrong])
        monkeypatch.setattr(gpu, "measure", lambda *settings: gpu.Speed("bundled", "cpu", "float32", 512, 9, 3.0))
        assert self.run(gpu, monkeypatch, "--device", "cpu") == 1
        printed = capsys.readouterr()
        assert "| bundled | cpu    | bfloat16 |" in printed.out
        assert f"bundled in bfloat16 on cpu differs by {difference:.2g} of the largest logit" in printed.err
