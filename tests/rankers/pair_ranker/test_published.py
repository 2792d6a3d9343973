"""PairRanker checkpoints in the layouts published by llm-blender 0.0.2, intact and damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from llm_blender.errors import CheckpointError, InputError
from llm_blender.rankers.pair_ranker import PairRanker, PairRankerConfig

PROMPT, TEXTS = "Why is the sky blue?", ["Because.", "Blue light scatters.", "It is not.", "sun " * 12]
TALK = [
    {"role": "user", "content": "sun " * 60},
    {"role": "assistant", "content": "moon " * 30},
    {"role": "user", "content": "Why is the sky blue?"},
]
MARKERS = ["<|source|>", "<|candidate1|>", "<|candidate2|>", "<|candidate|>"]


@pytest.fixture(scope="module")
def backbone(tiny_ranker) -> dict[str, Any]:
    return dict(PairRankerConfig.load(tiny_ranker("marker")).backbone)


@pytest.fixture
def published(tiny_ranker, backbone, tmp_path) -> Callable[..., Path]:
    """Writes a checkpoint in the layout ``PairRM``, ``pair-ranker`` or ``PairRM-hf``."""
    import torch
    from safetensors.torch import load_file, save_file

    def write(layout: str = "PairRM") -> Path:
        folder, own = tmp_path / layout, tiny_ranker("marker")
        folder.mkdir()
        tokenizer = Tokenizer.from_file(str(own / "tokenizer.json"))
        tokenizer.add_tokens(MARKERS)
        tokenizer.save(str(folder / "tokenizer.json"))
        state = {name: tensor.float() for name, tensor in load_file(own / "model.safetensors").items()}
        words = "pretrained_model.embeddings.word_embeddings.weight"
        missing = tokenizer.get_vocab_size() - len(state[words])
        state[words] = torch.cat([state[words], torch.zeros(missing, state[words].shape[1])])
        if layout == "pair-ranker":
            state["pretrained_model.embeddings.position_ids"] = torch.arange(9)
            torch.save(state, folder / "pytorch_model.bin")
        else:
            save_file(state, folder / "model.safetensors")
        values: dict[str, Any] = {"ranker_type": "pairranker", "model_name": "some/encoder", "n_tasks": 1}
        values |= {"source_maxlength": 24, "candidate_maxlength": 24, "drop_out": 0.05, "cache_dir": None}
        if layout == "pair-ranker":
            values = {name.replace("maxlength", "max_length"): value for name, value in values.items()}
        if layout == "PairRM-hf":
            ids = {f"{name}_prefix_id": tokenizer.token_to_id(MARKERS[i]) for i, name in enumerate(["source", "cand1"])}
            values = {**backbone, "n_tasks": 1, "drop_out": 0.05, **ids, "architectures": ["DebertaV2PairRM"]}
        (folder / "config.json").write_text(json.dumps(values))
        return folder

    return write


@pytest.fixture
def load(published, backbone) -> Callable[..., PairRanker]:
    return lambda layout="PairRM", **how: PairRanker.from_pretrained(published(layout), backbone=backbone, **how)


def change(folder: Path, **values: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder


class TestLayouts:
    def test_all_hold_the_same_model(self, load):
        rankers = [load("PairRM"), load("pair-ranker"), load("PairRM-hf").with_lengths(24, 24)]
        rankings = [ranker.rank(PROMPT, TEXTS, strategy="full") for ranker in rankers]
        assert np.nanmax(np.abs(rankings[0].logits)) > 0.01
        for ranking in rankings[1:]:
            np.testing.assert_allclose(ranking.logits, rankings[0].logits, atol=1e-4)

    def test_pairrm_hf_says_how_its_encoder_is_built(self, published, backbone):
        folder = published("PairRM-hf")
        assert PairRankerConfig.load(folder).backbone["hidden_size"] == backbone["hidden_size"]

    def test_a_copy_loads_as_its_original(self, load, backbone, tmp_path):
        ranker = load("pair-ranker")
        ranker.save_pretrained(tmp_path / "copy")
        copy = PairRanker.from_pretrained(tmp_path / "copy", backbone=backbone)
        assert copy.rank(PROMPT, TEXTS).scores == ranker.rank(PROMPT, TEXTS).scores

    @pytest.mark.parametrize("layout", ["PairRM", "pair-ranker"])
    def test_without_the_encoder_it_is_asked_for(self, published, layout, monkeypatch):
        monkeypatch.setenv("LLM_BLENDER_OFFLINE", "1")
        with pytest.raises(
            CheckpointError, match=r"does not say how its encoder 'some/encoder' is built.*as `backbone`"
        ):
            PairRanker.from_pretrained(published(layout))

    def test_an_encoder_in_a_folder(self, published, backbone, tmp_path, load):
        (tmp_path / "encoder").mkdir()
        (tmp_path / "encoder" / "config.json").write_text(json.dumps(backbone))
        found = PairRanker.from_pretrained(change(published(), model_name=str(tmp_path / "encoder")))
        assert found.rank(PROMPT, TEXTS).best in range(4)


class TestDevices:
    def test_several_share_the_work(self, published, backbone):
        folder = published()
        one = PairRanker.from_pretrained(folder, backbone=backbone)
        two = PairRanker.from_pretrained(folder, backbone=backbone, device=["cpu", "cpu"], max_tokens=64)
        assert (one.backend.parallel, two.backend.parallel) == (1, 2)
        np.testing.assert_allclose(
            two.rank(PROMPT, TEXTS, strategy="full").logits,
            one.rank(PROMPT, TEXTS, strategy="full").logits,
            atol=1.1e-4,
        )

    def test_bfloat16_is_near(self, published, backbone):
        folder = published()
        one, half = (PairRanker.from_pretrained(folder, backbone=backbone, dtype=d) for d in (None, "bfloat16"))
        exact, near = (r.rank(PROMPT, TEXTS, strategy="full").logits for r in (one, half))
        assert 0 < np.nanmax(np.abs(exact - near)) < 0.1 * max(1, np.nanmax(np.abs(exact)))

    @pytest.mark.parametrize(
        ("how", "message"),
        [
            ({"device": "gpu9"}, "Unknown device 'gpu9': this machine has "),
            ({"device": ["cpu", 1.5]}, r"Unknown device \['cpu', 1.5\]"),
            ({"device": []}, r"Unknown device \[\]"),
            ({"dtype": "int4"}, "Unknown dtype 'int4'"),
            ({"truncation": "centre"}, "Unknown truncation 'centre'"),
        ],
    )
    def test_unknown(self, load, how, message):
        with pytest.raises(InputError, match=message):
            load(**how)

    def test_a_device_that_is_not_there(self, load):
        import torch

        if torch.cuda.is_available():
            pytest.skip("this machine has CUDA")
        with pytest.raises(InputError, match="There is no device cuda:3 on this machine: it has the CPU only"):
            load(device="cuda:3")


class TestTruncation:
    @pytest.mark.parametrize("truncation", ["auto", "left"])
    def test_a_conversation_keeps_its_last_turn(self, load, truncation):
        ranker = load(truncation=truncation)
        other = [*TALK[:-1], {"role": "user", "content": "What is the sun?"}]
        one, two = (ranker.rank(talk, TEXTS, strategy="full") for talk in (TALK, other))
        assert not np.allclose(one.logits, two.logits, equal_nan=True)
        assert one.truncated > 0.2
        earlier = [{"role": "user", "content": "moon " * 60}, *TALK[1:]]
        assert ranker.rank(earlier, TEXTS, strategy="full").scores == one.scores

    def test_right_loses_it(self, load):
        ranker = load(truncation="right")
        other = [*TALK[:-1], {"role": "user", "content": "What is the sun?"}]
        one, two = (ranker.rank(talk, TEXTS, strategy="full") for talk in (TALK, other))
        np.testing.assert_array_equal(one.logits, two.logits)


class TestBroken:
    def test_weights_that_are_cut_off(self, published, backbone):
        path = published() / "model.safetensors"
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
            PairRanker.from_pretrained(path.parent, backbone=backbone)

    def test_pickled_weights_that_are_cut_off(self, published, backbone):
        path = published("pair-ranker") / "pytorch_model.bin"
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
            PairRanker.from_pretrained(path.parent, backbone=backbone)

    def test_pickled_code_is_not_run(self, published, backbone):
        import torch

        class Harm:
            def __reduce__(self):
                return Path.touch, (folder / "harmed",)

        folder = published("pair-ranker")
        torch.save({"head_layer.1.weight": Harm()}, folder / "pytorch_model.bin")
        with pytest.raises(CheckpointError, match="it holds more than tensors, or is truncated"):
            PairRanker.from_pretrained(folder, backbone=backbone)
        assert not (folder / "harmed").exists()

    @pytest.mark.parametrize("content", [{"a": 1}, [1, 2], None])
    def test_pickled_things_that_are_no_weights(self, published, backbone, content):
        import torch

        folder = published("pair-ranker")
        torch.save(content or {"state_dict": {"a": torch.zeros(1)}}, folder / "pytorch_model.bin")
        with pytest.raises(CheckpointError, match=r"pytorch_model\.bin|are not those"):
            PairRanker.from_pretrained(folder, backbone=backbone)

    @pytest.mark.parametrize("extra", [["some", "words"], ["w"]])
    def test_a_tokenizer_with_more_tokens(self, published, backbone, extra):
        folder = published()
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.add_tokens([f"{word}-{i}" for i, word in enumerate(extra)])
        tokenizer.save(str(folder / "tokenizer.json"))
        with pytest.raises(CheckpointError, match=r"do not match its config\.json and tokenizer\.json"):
            PairRanker.from_pretrained(folder, backbone=backbone)

    def test_a_tokenizer_without_markers(self, published, backbone, tiny_encoder):
        folder = published()
        (folder / "tokenizer.json").write_text((tiny_encoder / "tokenizer.json").read_text())
        with pytest.raises(CheckpointError, match=r"do not match its config\.json|has no token <\|source\|>"):
            PairRanker.from_pretrained(folder, backbone=backbone)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"ranker_type": "summareranker"}, "is a summareranker, not a PairRanker: .*load_ranker loads either"),
            ({"source_maxlength": None}, "source_maxlength must be a number of tokens above 3, not None"),
            ({"candidate_maxlength": "long"}, "candidate_maxlength must be a number of tokens above 3, not 'long'"),
            ({"n_tasks": 3}, "do not match its config.json"),
            ({"n_tasks": "many"}, "n_tasks"),
            ({"drop_out": "much"}, "drop_out"),
        ],
    )
    def test_config_that_cannot_be(self, published, backbone, values, message):
        with pytest.raises(CheckpointError, match=message):
            PairRanker.from_pretrained(change(published(), **values), backbone=backbone)

    @pytest.mark.parametrize("values", [{}, {"model_type": "llama"}, {"architectures": ["BertModel"]}])
    def test_an_unknown_layout(self, published, backbone, values):
        folder = published()
        (folder / "config.json").write_text(json.dumps(values))
        with pytest.raises(CheckpointError, match=r"an unknown layout .*known are this package's and those of"):
            PairRanker.from_pretrained(folder, backbone=backbone)

    @pytest.mark.parametrize("wrong", [{}, {"hidden_size": 8}, {"model_type": "no-such"}])
    def test_another_encoder(self, published, wrong):
        with pytest.raises(CheckpointError, match=r"has no model_type|do not match its config\.json"):
            PairRanker.from_pretrained(published(), backbone=wrong)


@pytest.mark.parametrize(
    ("instructions", "candidates", "message"),
    [
        (["a"], [], "1 instructions need as many lists of candidates, not 0"),
        (["a"], [["x", None]], "Candidate 1 of instruction 0 must be a text, not NoneType"),
        (["a"], [["x", 3.5]], "Candidate 1 of instruction 0 must be a text, not float"),
        ([None], [["x"]], "Instruction 0 must be a text or a list of messages, not NoneType"),
        (["a"], ["text"], "must be a list of texts"),
        (["a"], [[]], "has no candidates: give at least one"),
    ],
)
def test_what_cannot_be_ranked(load, instructions, candidates, message):
    with pytest.raises(InputError, match=message):
        load().rank_many(instructions, candidates)
