"""SimCLS: its sequences, its vectors, its checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from llm_blender.errors import CheckpointError

if TYPE_CHECKING:
    from llm_blender.rankers.simcls import SimCLS

PROMPT, TEXTS = "Why is the sky blue?", ["Because.", "Blue light scatters in the air."]


@pytest.fixture(scope="module")
def ranker(tiny_pointwise) -> SimCLS:
    from llm_blender.rankers.simcls import SimCLS

    return SimCLS.from_pretrained(tiny_pointwise("simcls"))


def test_a_score_is_a_cosine(ranker, tiny_pointwise):
    import torch
    from safetensors.torch import load_file

    from llm_blender.rankers.encoder_ranker import PointwiseConfig
    from llm_blender.rankers.simcls import SimCLSModel

    folder = tiny_pointwise("simcls")
    model = SimCLSModel(PointwiseConfig.load(folder, "simcls")).eval()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    readings = [*ranker.input_format.read_sources([PROMPT], [False]), *ranker.input_format.read_candidates(TEXTS)]
    with torch.inference_mode():
        states = [
            model.source_encoder(torch.tensor([reading.ids])).last_hidden_state[0, 0].double() for reading in readings
        ]
    expected = [float(torch.cosine_similarity(states[0], state, dim=0)) for state in states[1:]]
    np.testing.assert_allclose(ranker.scores([PROMPT], [TEXTS])[0], expected, atol=1e-5)


def test_vectors_have_length_one_and_gradients(tiny_pointwise):
    import torch

    from llm_blender.rankers.encoder_ranker import PointwiseConfig
    from llm_blender.rankers.simcls import SimCLSModel

    model = SimCLSModel(PointwiseConfig.load(tiny_pointwise("simcls"), "simcls")).train()
    ids = torch.randint(5, 60, (4, 9))
    vectors = model(ids, torch.ones_like(ids))
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(4))
    (vectors[0] @ vectors[1]).backward()
    assert all(weight.grad is not None for name, weight in model.named_parameters())


class TestInput:
    def test_markers_are_tokens(self, ranker):
        (source,) = ranker.input_format.read_sources(["why"], [False])
        (candidate,) = ranker.input_format.read_candidates(["why"])
        tokens = [
            [ranker.input_format._tokenizer.id_to_token(i) for i in reading.ids] for reading in (source, candidate)
        ]
        assert tokens == [["[CLS]", "<source>", "why", "[SEP]"], ["[CLS]", "<candidate>", "why", "[SEP]"]]

    def test_what_is_too_long(self, ranker):
        head, tail = ranker.input_format.read_sources(["sun " * 50 + "moon"] * 2, [False, True])
        moon = ranker.input_format._tokenizer.token_to_id("moon")
        assert (len(head.ids), len(tail.ids)) == (40, 40)
        assert (moon in head.ids, moon in tail.ids) == (False, True)
        assert (head.read, head.whole) == (37, 51)

    def test_a_conversation_keeps_its_last_turn(self, ranker):
        last = {"role": "user", "content": "why is the sky blue"}
        one, other = (
            [{"role": "user", "content": "sun " * 50}, {"role": "assistant", "content": "a"}, turn]
            for turn in (last, {**last, "content": "why is water green"})
        )
        assert ranker.rank(one, TEXTS).scores != ranker.rank(other, TEXTS).scores


class TestCheckpoints:
    def published(self, folder: Path, target: Path, *names: str) -> Path:
        """As llm-blender 0.0.2 writes it: the one encoder under one name or two."""
        from safetensors.torch import load_file, save_file

        target.mkdir()
        (target / "tokenizer.json").write_text((folder / "tokenizer.json").read_text())
        state = load_file(folder / "model.safetensors")
        both = {key.replace("source_encoder", name): tensor.clone() for name in names for key, tensor in state.items()}
        save_file(both, target / "model.safetensors")
        values = {"ranker_type": "dual", "model_name": "some/encoder", "source_maxlength": 40}
        (target / "config.json").write_text(json.dumps({**values, "candidate_maxlength": 32}))
        return target

    @pytest.mark.parametrize(
        "names", [("source_encoder",), ("candidate_encoder",), ("source_encoder", "candidate_encoder")]
    )
    def test_the_layout_of_the_original(self, ranker, tmp_path, names):
        from llm_blender.rankers.simcls import SimCLS

        folder = self.published(ranker.folder, tmp_path / "old", *names)
        old = SimCLS.from_pretrained(folder, backbone=dict(ranker.config.backbone))
        assert old.rank(PROMPT, TEXTS).scores == ranker.rank(PROMPT, TEXTS).scores
        old.save_pretrained(tmp_path / "new")
        assert SimCLS.from_pretrained(tmp_path / "new").rank(PROMPT, TEXTS).scores == old.rank(PROMPT, TEXTS).scores

    def test_two_different_encoders(self, ranker, tmp_path):
        from safetensors.torch import load_file, save_file

        from llm_blender.rankers.simcls import SimCLS

        folder = self.published(ranker.folder, tmp_path / "old", "source_encoder", "candidate_encoder")
        state = load_file(folder / "model.safetensors")
        state["candidate_encoder.embeddings.word_embeddings.weight"][7] += 1
        save_file(state, folder / "model.safetensors")
        with pytest.raises(CheckpointError, match="source_encoder and candidate_encoder differ in embeddings"):
            SimCLS.from_pretrained(folder, backbone=dict(ranker.config.backbone))

    def test_a_tokenizer_without_markers(self, tiny_encoder, ranker, broken):
        from llm_blender.rankers.simcls import SimCLS

        folder = broken(ranker.folder)
        (folder / "tokenizer.json").write_text((tiny_encoder / "tokenizer.json").read_text())
        with pytest.raises(CheckpointError, match="The tokenizer has no token <source>: it is not this model's"):
            SimCLS.from_pretrained(folder)
