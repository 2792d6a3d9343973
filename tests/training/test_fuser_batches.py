"""Examples that a fuser reads in training, and their losses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from llm_blender.fusers.gen_fuser import CausalFormat, Seq2SeqFormat
from llm_blender.training.fuser_rows import FuserRow, Reader, Tokens

from .conftest import make_recipe

if TYPE_CHECKING:
    import torch

    from llm_blender.fusers.gen_fuser.loading import Loaded
    from llm_blender.training.fuser_batches import FuserBatches
TEXTS = ("Air scatters blue light most.", "The sea mirrors the sky.", "Go to bed early.")
ROWS = [FuserRow(f"Why {i}?", "", TEXTS, "the sky is good") for i in range(9)]
EXAMPLES = [Tokens([5, 6, 7, 8, 9], [10, 11, 2]), Tokens([5, 6, 12], [13, 2])]


@pytest.fixture(scope="module", params=["t5", "llama"])
def loaded(request: pytest.FixtureRequest) -> Loaded:
    from llm_blender.fusers.gen_fuser.loading import load

    folder: Path = request.getfixturevalue(f"tiny_{request.param}")
    return load(folder, dtype="float32", device="cpu")


def batches(loaded: Loaded, *, fixed: bool = False, **changes: Any) -> FuserBatches:
    from llm_blender.training.fuser_batches import FuserBatches

    recipe = make_recipe(**changes)
    reader = Reader(loaded.tokenizer, loaded.seq2seq, recipe)
    return FuserBatches(ROWS, [200] * len(ROWS), reader, seq2seq=loaded.seq2seq, pad_id=0, recipe=recipe, fixed=fixed)


def read_texts(loaded: Loaded, made: FuserBatches) -> list[tuple[str, tuple[int, ...]]]:
    """List the instruction of each example and the numbers of its candidates, in order."""
    found = []
    for index in range(len(made)):
        for ids in made[index]["input_ids"]:
            text = loaded.tokenizer.decode(ids)
            places = sorted((text.find(words), i) for i, words in enumerate(TEXTS) if words in text)
            found.append((text.split("Why")[1].split("?")[0].strip(), tuple(i for _, i in places)))
    return found


class TestReader:
    def test_the_prompt_is_the_fusers_and_the_answer_ends(self, loaded):
        reader = Reader(loaded.tokenizer, loaded.seq2seq, make_recipe(candidate_max_length=128))
        form = (Seq2SeqFormat if loaded.seq2seq else CausalFormat)(
            loaded.tokenizer, max_length=320, candidate_max_length=128
        )
        prompt, answer = reader.read(ROWS[0], TEXTS[1:])
        expected = form.prompt("Why 0?", "", TEXTS[1:])
        assert expected is not None
        assert prompt == expected.ids
        assert loaded.tokenizer.decode(answer[:-1]).strip() == "the sky is good"
        assert answer[-1] == loaded.tokenizer.eos_token_id

    def test_prompt_and_answer_fit_and_the_cue_stays(self, loaded):
        reader = Reader(loaded.tokenizer, loaded.seq2seq, make_recipe(max_length=280, candidate_max_length=128))
        row = FuserRow("Why?", "", tuple(text * 20 for text in TEXTS), "the sky is good")
        tokens, whole = reader.read(row, row.candidates), reader.read(ROWS[0], TEXTS)
        assert len(tokens.prompt) + len(tokens.answer) <= 280
        assert tokens.prompt[-4:] == whole.prompt[-4:]

    def test_a_cut_answer_does_not_end(self, loaded):
        reader = Reader(loaded.tokenizer, loaded.seq2seq, make_recipe(answer_max_length=5))
        answer = reader.read(FuserRow("Why?", "", TEXTS, "the sky is good " * 9), TEXTS).answer
        assert len(answer) == 5
        assert loaded.tokenizer.eos_token_id not in answer

    def test_an_answer_that_spells_the_end_does_not_end(self, loaded):
        reader = Reader(loaded.tokenizer, loaded.seq2seq, make_recipe(answer_max_length=60))
        answer = reader.read(FuserRow("Why?", "", TEXTS, f"a {loaded.tokenizer.eos_token} b"), TEXTS).answer
        assert answer.count(loaded.tokenizer.eos_token_id) == 1

    def test_a_merge_holds_what_is_read_and_begins_with_the_best_one(self, loaded):
        texts = ("the sky is good. the sea is bad.", "well: it is fair.", "the sky is good. it is fair.")
        row = FuserRow("Why?", "", texts[:2], texts[2])
        lengths = {"candidate_max_length": 64, "answer_max_length": 64}
        reader = Reader(loaded.tokenizer, loaded.seq2seq, make_recipe(target="merge", **lengths))

        def answer(*candidates):
            return loaded.tokenizer.decode(reader.read(row, candidates).answer[:-1]).strip()

        assert answer(*texts[:2]) == answer(*texts[1::-1]) != texts[0]
        assert answer(*texts[:2]).startswith("the sky is good.")
        assert "fair" in answer(*texts[:2])
        assert answer(texts[0]) == "the sky is good."
        reader = Reader(loaded.tokenizer, loaded.seq2seq, make_recipe(target="merge", candidate_max_length=4))
        assert answer(texts[0]) in "the sky is"

    def test_what_does_not_fit(self, loaded):
        reader = Reader(loaded.tokenizer, loaded.seq2seq, make_recipe(max_length=64, answer_max_length=12))
        assert reader.fits(ROWS[0]) is None


class TestDraws:
    def test_k_and_order_vary_and_the_best_are_kept(self):
        from llm_blender.training.fuser_batches import draw_candidates

        drawn = [tuple(draw_candidates(TEXTS, 0.5, np.random.default_rng(seed))) for seed in range(200)]
        assert len({texts for texts in drawn if len(texts) == 3}) == 6
        shares = {k: sum(len(texts) == k for texts in drawn) / 200 for k in (1, 2, 3)}
        assert shares[3] == pytest.approx(0.5, abs=0.1)
        assert shares[1] == pytest.approx(0.25, abs=0.1)
        assert {texts for texts in drawn if len(texts) == 1} == {(TEXTS[0],)}
        assert {frozenset(texts) for texts in drawn if len(texts) == 2} == {frozenset(TEXTS[:2])}

    def test_best_first(self, loaded):
        from llm_blender.training.fuser_batches import draw_candidates

        drawn = {tuple(draw_candidates(TEXTS, 0.5, np.random.default_rng(i), shuffled=False)) for i in range(99)}
        assert drawn == {TEXTS[:1], TEXTS[:2], TEXTS}
        made = read_texts(loaded, batches(loaded, order="best_first", fewer=0.5))
        assert {places for _, places in made} == {(0,), (0, 1), (0, 1, 2)}

    def test_one_candidate_stays(self):
        from llm_blender.training.fuser_batches import draw_candidates

        assert draw_candidates(["a"], 1.0, np.random.default_rng(0)) == ["a"]

    def test_by_seed_pass_and_row(self, loaded):
        made = read_texts(loaded, batches(loaded, epochs=2, fewer=0.5, batch_tokens=400))
        assert len(made) == 18
        first, second = dict(made[:9]), dict(made[9:])
        assert set(first) == set(second) == {str(i) for i in range(9)}
        assert [name for name, _ in made[:9]] != [name for name, _ in made[9:]]
        assert sum(first[name] != second[name] for name in first) > 3
        assert made == read_texts(loaded, batches(loaded, epochs=2, fewer=0.5, batch_tokens=400))
        assert made != read_texts(loaded, batches(loaded, epochs=2, fewer=0.5, batch_tokens=400, seed=1))

    def test_development_rows_are_read_whole_best_first(self, loaded):
        made = read_texts(loaded, batches(loaded, fixed=True, epochs=5, fewer=1.0))
        assert made == [(str(i), (0, 1, 2)) for i in range(9)]

    @pytest.mark.parametrize(("changes", "count"), [
        ({"epochs": 2}, 10),
        ({"steps": 3}, 3),
        ({"steps": 3, "accumulate": 4}, 12),
        ({"steps": 40, "epochs": 1}, 40),
    ])  # fmt: skip
    def test_as_many_batches_as_wanted(self, loaded, changes, count):
        assert len(batches(loaded, batch_tokens=400, **changes)) == count


class TestLosses:
    @pytest.mark.parametrize("kind", ["causal", "seq2seq"])
    def test_a_prompt_has_no_labels(self, kind: str):
        from llm_blender.training.fuser_batches import IGNORED, causal_batch, seq2seq_batch

        labels = (causal_batch if kind == "causal" else seq2seq_batch)(EXAMPLES, 0)["labels"]
        assert [row[row != IGNORED].tolist() for row in labels] == [[10, 11, 2], [13, 2]]

    def test_causal_answers_end_together(self):
        from llm_blender.training.fuser_batches import causal_batch

        batch = causal_batch(EXAMPLES, 0)
        assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 10, 11, 2], [0, 0, 0, 5, 6, 12, 13, 2]]
        assert batch["attention_mask"].tolist() == [[1] * 8, [0, 0, 0, 1, 1, 1, 1, 1]]
        assert batch["position_ids"].tolist() == [list(range(8)), [0, 0, 0, 0, 1, 2, 3, 4]]
        assert batch["labels"].tolist() == [[-100, 10, 11, 2], [-100, -100, 13, 2]]

    def test_they_are_those_of_the_answers_tokens_by_hand(self, loaded):
        import torch
        from torch.nn.functional import log_softmax

        from llm_blender.training.fuser import answer_losses
        from llm_blender.training.fuser_batches import causal_batch, seq2seq_batch

        batch = (seq2seq_batch if loaded.seq2seq else causal_batch)(EXAMPLES, 0)
        with torch.inference_mode():
            losses = answer_losses(loaded.model, batch, loaded.seq2seq)
            for found, (prompt, answer) in zip(losses, EXAMPLES, strict=True):
                if loaded.seq2seq:
                    written = torch.tensor([[0, *answer[:-1]]])
                    logits = loaded.model(torch.tensor([prompt]), decoder_input_ids=written).logits[0]
                else:
                    logits = loaded.model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
                expected = -log_softmax(logits, -1)[range(len(answer)), answer]
                torch.testing.assert_close(found[found != 0], expected, atol=1e-4, rtol=1e-4)

    def test_logits_are_computed_for_the_answer_alone(self, tiny_llama):
        from llm_blender.fusers.gen_fuser.loading import load
        from llm_blender.training.fuser import answer_losses
        from llm_blender.training.fuser_batches import causal_batch

        model = load(tiny_llama, dtype="float32", device="cpu").model
        shapes: list[tuple[int, ...]] = []
        model.lm_head.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape)))
        answer_losses(model, causal_batch(EXAMPLES, 0), seq2seq=False)
        assert [shape[:2] for shape in shapes] == [(2, 4)]

    def test_padding_sends_back_nothing_wrong(self, loaded):
        """Check that a padded batch has the sum of the gradients of its examples."""
        import torch

        from llm_blender.training.fuser import answer_losses
        from llm_blender.training.fuser_batches import causal_batch, seq2seq_batch

        make = seq2seq_batch if loaded.seq2seq else causal_batch

        def gradients(*examples: Tokens) -> dict[str, torch.Tensor]:
            loaded.model.zero_grad()
            answer_losses(loaded.model, make(examples, 0), loaded.seq2seq).sum().backward()
            return {n: w.grad.clone() for n, w in loaded.model.named_parameters() if w.grad is not None}

        together, one, other = gradients(*EXAMPLES), gradients(EXAMPLES[0]), gradients(EXAMPLES[1])
        assert together
        for name, gradient in together.items():
            scale = float(gradient.abs().max()) + 1e-3
            torch.testing.assert_close(gradient / scale, (one[name] + other[name]) / scale, atol=2e-3, rtol=0)
