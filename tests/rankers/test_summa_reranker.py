"""SummaReranker: its sequences, its mixture of experts, its checkpoints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llm_blender.errors import CheckpointError

if TYPE_CHECKING:
    import torch

    from llm_blender.rankers.summa_reranker import MixtureOfExperts, SummaInput


WIDTH = 12


@pytest.fixture
def moe() -> MixtureOfExperts:
    import torch

    from llm_blender.rankers.summa_reranker import MixtureOfExperts

    torch.manual_seed(0)
    module = MixtureOfExperts(WIDTH, experts=6, tasks=3, k=2)
    with torch.no_grad():
        for weight in (*module.w_gate, *module.w_noise):
            weight.copy_(torch.randn_like(weight))
    return module


@pytest.fixture
def rows() -> torch.Tensor:
    import torch

    return torch.randn(9, WIDTH, generator=torch.Generator().manual_seed(1))


class TestMixtureOfExperts:
    def test_by_hand(self, moe, rows):
        import torch

        mixed, _ = moe.eval()(rows)
        for task, gate in enumerate(moe.w_gate):
            for i, row in enumerate(rows):
                best = (row @ gate).topk(2)
                weighed = sum(
                    share * moe.experts[expert](row).exp()
                    for share, expert in zip(best.values.softmax(0), best.indices.tolist(), strict=True)
                )
                torch.testing.assert_close(mixed[i, task], weighed.log())

    def test_large_outputs_do_not_overflow(self, moe, rows):
        mixed, _ = moe.eval()(rows * 1e4)
        assert mixed.isfinite().all()

    def test_noise_in_training_only(self, moe, rows):
        import torch

        moe.train()
        assert not torch.equal(moe(rows)[0], moe(rows)[0])
        moe.eval()
        assert torch.equal(moe(rows)[0], moe(rows)[0])

    def test_each_weight_learns(self, moe, rows):
        mixed, balance = moe.train()(rows)
        (mixed.sum() + balance).backward()
        for name, weight in moe.named_parameters():
            assert weight.grad is not None, name
            assert weight.grad.abs().sum() > 0, name

    def test_balance_is_zero_only_where_all_experts_work_alike(self, rows):
        import torch

        from llm_blender.rankers.summa_reranker import MixtureOfExperts

        even = MixtureOfExperts(WIDTH, experts=2, tasks=1, k=2).eval()
        assert float(even(rows)[1].detach()) == pytest.approx(0, abs=1e-9)
        uneven = MixtureOfExperts(WIDTH, experts=4, tasks=1, k=1).eval()
        with torch.no_grad():
            uneven.w_gate[0][:, 2] = rows.sum(0)
            one = rows.sum(0).repeat(5, 1)
        assert float(uneven(one)[1].detach()) == pytest.approx(0.01 * 2 * 4, rel=1e-3)  # one expert does all the work

    def test_the_expected_load_is_that_of_many_draws(self, moe, rows):
        import torch

        moe.train()
        torch.manual_seed(3)
        with torch.no_grad():
            expected = torch.stack([moe._gates(rows, 0)[1] for _ in range(400)]).mean(0)
            counted = torch.stack([(moe._gates(rows, 0)[0] > 0).sum(0).float() for _ in range(400)]).mean(0)
        torch.testing.assert_close(expected, counted, atol=0.25, rtol=0)


class TestModel:
    def test_parameters_have_the_names_of_the_original(self, tiny_pointwise):
        from safetensors.torch import load_file

        state = load_file(tiny_pointwise("summareranker") / "model.safetensors")
        names = {name for name in state if not name.startswith("pretrained_model.")}
        assert names == {
            *(f"{layer}.{kind}" for layer in ("fc1", "fc2", "towers.0", "towers.1") for kind in ("weight", "bias")),
            *(
                f"moe.experts.{i}.{layer}.{kind}"
                for i in range(4)
                for layer in ("fc1", "fc2")
                for kind in ("weight", "bias")
            ),
            *(f"moe.{gate}.{task}" for gate in ("w_gate", "w_noise") for task in (0, 1)),
            "moe.mean",
            "moe.std",
        }
        assert not any("pooler" in name for name in state)

    def test_it_learns(self, tiny_pointwise):
        import torch

        from llm_blender.rankers.encoder_ranker import PointwiseConfig
        from llm_blender.rankers.summa_reranker import SummaRerankerModel

        folder = tiny_pointwise("summareranker")
        torch.manual_seed(0)
        model = SummaRerankerModel(PointwiseConfig.load(folder, "summareranker")).train()
        ids = torch.randint(5, 60, (8, 12))
        labels = torch.tensor([[1.0, 0.0]] * 4 + [[0.0, 1.0]] * 4)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        losses = []
        for _ in range(25):
            logits, balance = model.logits(ids, torch.ones_like(ids))
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels) + balance
            losses.append(float(loss.detach()))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert losses[-1] < 0.5 * losses[0]


class TestInput:
    @pytest.fixture
    def form(self, tiny_pointwise) -> SummaInput:
        from llm_blender.rankers.encoder_ranker import PointwiseConfig
        from llm_blender.rankers.summa_reranker import SummaInput

        folder = tiny_pointwise("summareranker")
        return SummaInput(folder, PointwiseConfig.load(folder, "summareranker"))

    def tokens(self, form: SummaInput, instruction, candidate: str) -> list[str]:
        (reading,) = form.read([(instruction, candidate)])
        return [form._tokenizer.id_to_token(token) for token in reading.ids]

    def test_prefixes_are_plain_text(self, form):
        prefix = ["<", "s", "##o", "##u", "##r", "##c", "##e", ">"]
        found = self.tokens(form, "why sky", "blue")
        assert found[: len(prefix) + 4] == ["[CLS]", *prefix, "why", "sky", "[SEP]"]
        assert found[-2:] == ["blue", "[SEP]"]

    def test_special_tokens_and_unknown_characters_fall_out(self, form):
        assert self.tokens(form, "why [SEP] sky 東", "[CLS] blue") == self.tokens(form, "why sky", "blue")

    def test_what_is_too_long(self, form):
        (reading,) = form.read([("sun " * 99, "moon " * 99)])
        assert len(reading.ids) == 40 + 32 + 3
        sun, moon = (reading.ids.count(form._tokenizer.token_to_id(word)) for word in ("sun", "moon"))
        assert sun == 38
        assert 0 < moon < 30  # the prefixes take a part of the budget
        assert (reading.read, reading.whole) == (sun + moon, 198)

    def test_a_conversation_keeps_its_end(self, form):
        talk = [{"role": "user", "content": "sun " * 99}, {"role": "assistant", "content": "a"}]
        talk.append({"role": "user", "content": "why is the sky blue"})
        found = self.tokens(form, talk, "moon")
        assert found[found.index("[SEP]") - 5 : found.index("[SEP]")] == ["why", "is", "the", "sky", "blue"]


class TestCheckpoints:
    def published(self, folder: Path, target: Path) -> Path:
        """The checkpoint as llm-blender 0.0.2 writes one: its config, pickled weights with a pooler, no backbone."""
        import torch
        from safetensors.torch import load_file

        target.mkdir()
        (target / "tokenizer.json").write_text((folder / "tokenizer.json").read_text())
        state = load_file(folder / "model.safetensors")
        state["pretrained_model.pooler.dense.weight"] = torch.zeros(2, 2)
        state["pretrained_model.embeddings.position_ids"] = torch.arange(9)
        torch.save(state, target / "pytorch_model.bin")
        values = {"ranker_type": "summareranker", "model_name": "some/encoder", "n_tasks": 2}
        lengths = {"source_maxlength": 40, "candidate_max_length": 32}
        (target / "config.json").write_text(json.dumps(values | lengths))
        return target

    def test_the_layout_of_the_original(self, tiny_pointwise, tmp_path):
        from llm_blender.rankers.summa_reranker import SummaReranker

        folder = tiny_pointwise("summareranker")
        ours = SummaReranker.from_pretrained(folder)
        old = SummaReranker.from_pretrained(
            self.published(folder, tmp_path / "old"), backbone=dict(ours.config.backbone)
        )
        texts = ["Because.", "Blue light scatters in the air."]
        assert old.rank("Why?", texts).scores == ours.rank("Why?", texts).scores
        old.save_pretrained(tmp_path / "new")  # the copy contains the backbone's configuration
        assert (
            SummaReranker.from_pretrained(tmp_path / "new").rank("Why?", texts).scores == old.rank("Why?", texts).scores
        )

    def test_a_config_comes_back_as_it_was(self, tmp_path):
        from llm_blender.rankers.encoder_ranker import PointwiseConfig

        config = PointwiseConfig("simcls", {"model_type": "bert"}, 96, 32, tasks=("a", "b"), temperature=0.7)
        config.save(tmp_path)
        assert PointwiseConfig.load(tmp_path, "simcls") == config

    def test_an_encoder_that_is_nowhere(self, tiny_pointwise, tmp_path, monkeypatch):
        from llm_blender.rankers.summa_reranker import SummaReranker

        monkeypatch.setenv("LLM_BLENDER_OFFLINE", "1")
        folder = self.published(tiny_pointwise("summareranker"), tmp_path / "old")
        with pytest.raises(CheckpointError, match=r"its encoder 'some/encoder' is built, .* as `backbone`"):
            SummaReranker.from_pretrained(folder)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"format_version": 2}, "format version 2, this package reads up to 1: pip install --upgrade"),
            ({"ranker_type": "simcls"}, "is a SimCLS, not a SummaReranker"),
            ({"source_max_length": "long"}, "source_max_length: "),
            ({"candidate_max_length": 3}, "must be numbers of tokens above 3"),
            ({"tasks": ["one"]}, "do not match its config.json and tokenizer.json"),
            ({"backbone": {"model_type": "no such encoder"}}, "do not match its config.json"),
        ],
    )
    def test_config_of_another_kind(self, tiny_pointwise, broken, values, message):
        from llm_blender.rankers.summa_reranker import SummaReranker

        folder = broken(tiny_pointwise("summareranker"))
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
        with pytest.raises(CheckpointError, match=message):
            SummaReranker.from_pretrained(folder)

    def test_weights_that_are_cut_off(self, tiny_pointwise, broken):
        from llm_blender.rankers.summa_reranker import SummaReranker

        path = broken(tiny_pointwise("summareranker")) / "model.safetensors"
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
            SummaReranker.from_pretrained(path.parent)

    def test_weights_of_a_pair_ranker(self, tiny_pointwise, tiny_ranker, broken):
        from safetensors.torch import load_file, save_file

        from llm_blender.rankers.summa_reranker import SummaReranker

        folder = broken(tiny_pointwise("summareranker"))
        save_file(load_file(tiny_ranker() / "model.safetensors"), folder / "model.safetensors")
        with pytest.raises(CheckpointError, match=r"do not match its config\.json and tokenizer\.json"):
            SummaReranker.from_pretrained(folder)

    def test_another_models_tokenizer(self, tiny_pointwise, broken):
        from tokenizers import Tokenizer

        from llm_blender.rankers.summa_reranker import SummaReranker

        folder = broken(tiny_pointwise("summareranker"))
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.add_tokens([f"word{i}" for i in range(10)])
        tokenizer.save(str(folder / "tokenizer.json"))
        with pytest.raises(CheckpointError, match=r"has \d+ tokens and the model knows \d+: it is not this model's"):
            SummaReranker.from_pretrained(folder)


def test_lengths_decide_what_is_read(tiny_pointwise):
    from llm_blender.rankers.encoder_ranker import PointwiseConfig
    from llm_blender.rankers.summa_reranker import SummaInput

    folder = tiny_pointwise("summareranker")
    config = PointwiseConfig.load(folder, "summareranker")
    (short,) = SummaInput(folder, replace(config, source_max_length=10)).read([("sun " * 20, "moon")])
    (long,) = SummaInput(folder, config).read([("sun " * 20, "moon")])
    assert (short.read, long.read) == (9, 21)
