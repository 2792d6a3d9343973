from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from llm_blender.errors import CheckpointError, InputError, NotFoundError
from llm_blender.rankers import load_ranker
from llm_blender.training.groups import PREFERENCE, Preference, ScoredGroup, TrainingGroup
from llm_blender.training.recipes import Recipe

from .conftest import same

if TYPE_CHECKING:
    import torch

    from llm_blender.training.baselines import BaselineLearner


NAN = float("nan")
NAMES = ["sky", "sea", "sun", "moon", "tree", "bird"]
BASE = {
    "max_length": 64,
    "source_max_length": 16,
    "frozen_layers": -1,
    "learning_rate": 1e-3,
    "batch_tokens": 300,
    "save_every": 100,
}
KINDS = ("summa_reranker", "simcls", "reward_model", "mlm_scoring")
# To learn which word is good takes so long.
ENOUGH = {
    "summa_reranker": {"epochs": 3, "learning_rate": 3e-3},
    "simcls": {"epochs": 4, "learning_rate": 3e-3},
    "reward_model": {"epochs": 6, "learning_rate": 2e-3},
    "mlm_scoring": {"epochs": 60, "learning_rate": 1e-2, "frozen_layers": 2},
}
# So many tokens a step make several steps of a few groups; the first one is at a learning rate of 0.
SMALL = {kind: {"batch_tokens": 16 if kind == "mlm_scoring" else 100} for kind in KINDS}
every_kind = pytest.mark.parametrize("kind", KINDS)


def learner_type(kind: str) -> type[BaselineLearner]:
    match kind:
        case "summa_reranker":
            from llm_blender.training.baselines import SummaRerankerLearner as Kind
        case "simcls":
            from llm_blender.training.baselines import SimCLSLearner as Kind
        case "reward_model":
            from llm_blender.training.baselines import RewardModelLearner as Kind
        case _:
            from llm_blender.training.baselines import MLMHeadLearner as Kind
    return Kind


def make_learner(kind: str, *args: Any) -> BaselineLearner:

    return learner_type(kind)(*args, *([(PREFERENCE, "judge")] if kind == "summa_reranker" else []))


@pytest.fixture
def train(tiny_encoder, tmp_path):
    """Return a function that trains on groups and returns the learner and the log."""

    def run(kind, groups, dev=(), output="run", **changes):
        recipe = Recipe.model_validate(BASE | changes)
        learner = make_learner(kind, recipe, str(tiny_encoder), tmp_path / "reader")
        return learner, learner.train(groups, dev, tmp_path / output)

    return run


def groups_of(better: str, worse: str, others: list[str] = NAMES) -> list[ScoredGroup]:
    """Make groups of two answers to an instruction, which differ in one word."""

    return [
        ScoredGroup(
            TrainingGroup(
                f"why is the {one}", (f"the {other} is {worse}", f"the {other} is {better}"), (Preference(1, 0, 0.9),)
            ),
            {"judge": (0.0, 1.0)},
            f"the {other} is {better}",
        )
        for one, other in itertools.product(NAMES, others)
    ]


def weights(learner) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in learner.model.state_dict().items()}


class TestLearning:
    @every_kind
    def test_a_plain_rule_either_way_round(self, train, kind, tmp_path):

        for better, worse in (("good", "bad"), ("bad", "good")):
            groups = groups_of(better, worse)
            if kind == "mlm_scoring":  # it learns from texts, not from preferences
                groups = [ScoredGroup(TrainingGroup(s.group.prompt, s.group.texts[1:], ()), {}) for s in groups]
            learner, log = train(kind, groups, groups[:6], better, save_every=8, **ENOUGH[kind])
            last = [entry for entry in log if "eval_loss" in entry][-1]
            assert last.get("eval_agreement", 1) > 0.9
            learner.save(tmp_path / better / "made")
            name = tmp_path / better / "made"
            ranker = load_ranker(f"mlm:{name}" if kind == "mlm_scoring" else name)
            for subject in NAMES:
                texts = [f"the {subject} is bad", f"the {subject} is good"]
                assert ranker.rank(f"why is the {NAMES[0]}", texts).best == (better == "good")

    @every_kind
    def test_what_is_loaded_scores_as_what_was_trained(self, train, kind, tmp_path):
        import torch

        groups = groups_of("good", "bad", NAMES[:1])
        learner, log = train(kind, groups, groups)
        learner.save(tmp_path / "made")
        if kind == "mlm_scoring":
            assert set(log[-1]) >= {"stage", "step"}
            return
        batch = learner.batches(groups)[0]
        learner.model.eval()
        with torch.inference_mode():
            _, scores = learner.score(batch)
        ranker = load_ranker(tmp_path / "made")
        for scored, of_texts in zip(batch["groups"], scores, strict=True):
            (loaded,) = ranker.scores([scored.group.prompt], [scored.group.texts])
            wanted = of_texts.sigmoid() if kind == "summa_reranker" else of_texts
            np.testing.assert_allclose(loaded, wanted.numpy(), atol=1e-5)

    @every_kind
    def test_the_seed_decides(self, train, kind):
        groups = groups_of("good", "bad", NAMES[:2])
        one, two, other = (weights(train(kind, groups, (), o, seed=s)[0]) for o, s in (("a", 1), ("b", 1), ("c", 2)))
        assert same(one, two)
        assert not same(one, other)

    @every_kind
    def test_frozen_layers_stay_as_they_are(self, train, tiny_encoder, kind, tmp_path):
        import torch

        recipe = Recipe.model_validate(BASE)
        before = weights(make_learner(kind, recipe, str(tiny_encoder), tmp_path / "reader"))
        learner, _ = train(kind, groups_of("good", "bad", NAMES), frozen_layers=1, **SMALL[kind])
        after = weights(learner)
        moved = [name for name in before if not torch.equal(before[name], after[name])]
        assert [name for name in moved if ".layer.1." in name]
        assert not [name for name in moved if ".embeddings." in name or ".layer.0." in name]

    @every_kind
    def test_in_bfloat16(self, train, kind):
        import torch

        groups = groups_of("good", "bad", NAMES[:1])
        learner, log = train(kind, groups, groups, bf16=True)
        assert np.isfinite(log[-1]["train_loss"])
        assert {weight.dtype for weight in learner.model.parameters()} == {torch.float32}

    @every_kind
    def test_no_groups(self, train, kind):
        with pytest.raises(InputError, match="No training pairs"):
            train(kind, [])


class TestResuming:
    @every_kind
    def test_ends_at_the_same_weights(self, train, kind, monkeypatch):

        groups, changes = groups_of("good", "bad", NAMES[:3]), {"save_every": 1, "epochs": 2, **SMALL[kind]}
        whole = weights(train(kind, groups, (), "whole", **changes)[0])
        learner = learner_type(kind)
        real, steps = learner.step, []

        def fall(self, *args):
            steps.append(1)
            if len(steps) == 3:
                raise KeyboardInterrupt
            return real(self, *args)

        monkeypatch.setattr(learner, "step", fall)
        with pytest.raises(KeyboardInterrupt):
            train(kind, groups, (), "cut", **changes)
        monkeypatch.setattr(learner, "step", real)
        resumed, log = train(kind, groups, (), "cut", **changes)
        assert same(whole, weights(resumed))
        assert log[-1]["step"] > 3


class TestBackbones:
    @every_kind
    def test_none(self, kind, tmp_path):
        with pytest.raises(NotFoundError, match="No encoder"):
            make_learner(kind, Recipe(), str(tmp_path), tmp_path / "reader")

    @every_kind
    def test_one_that_reads_fewer_tokens(self, kind, tiny_encoder, tmp_path):
        with pytest.raises(InputError, match="reads 160 tokens: max_length cannot be 384"):
            make_learner(kind, Recipe(), str(tiny_encoder), tmp_path / "reader")

    def test_a_decoder_with_a_chat_template_becomes_a_reward_model(self, tiny_llama, tmp_path):
        import torch

        from llm_blender.training.baselines import RewardModelLearner

        recipe = Recipe.model_validate(BASE | {"max_length": 96, "frozen_layers": 1})
        groups = groups_of("good", "bad", NAMES[:1])
        learner = RewardModelLearner(recipe, str(tiny_llama), tmp_path / "reader")
        learner.train(groups, groups, tmp_path / "run")
        learner.save(tmp_path / "made")
        ranker = load_ranker(tmp_path / "made")
        assert ranker.config.chat
        learner.model.eval()
        with torch.inference_mode():
            _, (scores, *_) = learner.score(learner.batches(groups[:1])[0])
        (loaded,) = ranker.scores([groups[0].group.prompt], [groups[0].group.texts])
        np.testing.assert_allclose(loaded, scores.numpy(), atol=1e-4)

    def test_a_decoder_has_no_head_for_masks(self, tiny_llama, tmp_path):
        from llm_blender.training.baselines import MLMHeadLearner

        with pytest.raises(NotFoundError):
            MLMHeadLearner(Recipe.model_validate(BASE), str(tiny_llama), tmp_path / "reader")

    def test_a_tokenizer_without_markers(self, tiny_llama, tmp_path):
        from llm_blender.training.baselines import SummaRerankerLearner

        with pytest.raises(CheckpointError, match="no token"):
            SummaRerankerLearner(Recipe.model_validate(BASE), str(tiny_llama), tmp_path / "reader", (PREFERENCE,))


class TestSummaReranker:
    def test_labels(self):
        from llm_blender.training.baselines import labels

        targets = np.array([[0.2, 1, NAN, 3], [0.8, 1, 5, NAN], [0.8, 1, 4, NAN]])
        np.testing.assert_equal(labels(targets), [[0, NAN, NAN, NAN], [1, NAN, 1, NAN], [1, NAN, 0, NAN]])

    def test_where_all_is_known_the_loss_is_that_of_the_paper(self, tiny_encoder, tmp_path):
        import torch

        from llm_blender.training.losses import best_per_metric

        learner = make_learner("summa_reranker", Recipe.model_validate(BASE), str(tiny_encoder), tmp_path / "reader")
        scored = groups_of("good", "bad")[:1]
        batch = learner.batches(scored)[0]
        learner.model.eval()
        logits, balance = learner.model.logits(batch["input_ids"], batch["attention_mask"])
        targets = torch.from_numpy(scored[0].targets((PREFERENCE, "judge")))
        best = best_per_metric(targets[None])[0]
        wanted = torch.nn.functional.binary_cross_entropy_with_logits(logits, best.to(logits)) + balance
        torch.testing.assert_close(learner.score(batch)[0], wanted)


class TestSimCLS:
    def test_the_loss_is_that_of_the_paper(self, tiny_encoder, tmp_path):
        import torch

        from llm_blender.training.baselines import SimCLSLearner
        from llm_blender.training.losses import rank_margins, reference_margins

        learner = SimCLSLearner(Recipe.model_validate(BASE), str(tiny_encoder), tmp_path / "reader")
        learner.model.eval()
        texts = ("sky", "the sea", "the sun is dark", "moon")
        preferences = tuple(Preference(a, b, 1.0) for a, b in ((0, 1), (0, 2), (1, 2), (2, 3), (1, 3), (0, 3)))
        scored = ScoredGroup(TrainingGroup("why", texts, preferences), {}, "because air")
        loss, (similarities,) = learner.score(learner.batches([scored])[0])
        source, reference = (learner.batches([scored])[0]["input_ids"][row] for row in (0, -1))
        vectors = learner.model(torch.stack([source, reference]), (torch.stack([source, reference]) > 0).long())
        wanted = reference_margins(similarities[None], (vectors[0] @ vectors[1])[None])
        wanted += rank_margins(similarities[None], torch.tensor([[3.0, 2.0, 1.0, 0.0]]))
        torch.testing.assert_close(loss, wanted)

    def test_between_equals_there_is_no_margin(self, tiny_encoder, tmp_path):
        from llm_blender.training.baselines import SimCLSLearner

        learner = SimCLSLearner(Recipe.model_validate(BASE), str(tiny_encoder), tmp_path / "reader")
        tie = TrainingGroup("why", ("sky", "sea", "sun"), (Preference(0, 1, 0.5),))  # the sun is in no preference
        loss, _ = learner.score(learner.batches([ScoredGroup(tie, {})])[0])
        assert loss == 0


class TestMasks:
    @pytest.fixture
    def form(self, tiny_encoder, tmp_path):
        from llm_blender.training.baselines import MLMHeadLearner

        return MLMHeadLearner(Recipe.model_validate(BASE), str(tiny_encoder), tmp_path / "reader")._format

    def batches(self, form, passes=1, **changes):
        from llm_blender.training.baselines import MaskedTexts

        texts = [f"the {name} is good because the air is light and the sun is not" for name in NAMES]
        return list(MaskedTexts(texts, form, Recipe.model_validate(BASE | {"batch_tokens": 48} | changes), passes))

    def test_behind_each_mask_is_the_token_that_was_there(self, form):
        seen = []
        for batch in self.batches(form):
            ids = batch["input_ids"].flatten().clone()
            assert (ids[batch["places"]] == form.mask).all()
            assert (ids == form.mask).sum() == len(batch["places"])
            ids[batch["places"]] = batch["targets"]
            rows = ids.view_as(batch["input_ids"])
            seen += [row[mask > 0].tolist()[1:-1] for row, mask in zip(rows, batch["attention_mask"], strict=True)]
        whole = form.tokenize([f"the {n} is good because the air is light and the sun is not" for n in NAMES], 64)
        assert sorted(seen) == sorted(list(text.ids) for text in whole)

    def test_about_one_token_in_seven_and_never_none(self, form):
        from llm_blender.training.baselines import MaskedTexts

        (batch,) = MaskedTexts(["sky", "", "the " * 40], form, Recipe.model_validate(BASE), 1)
        assert batch["input_ids"].shape[0] == 2
        assert len(batch["places"]) == 1 + 6

    def test_the_seed_and_the_pass_decide(self, form):
        import torch

        one, two = self.batches(form, 2), self.batches(form, 2)
        half = len(one) // 2
        assert all(torch.equal(a["places"], b["places"]) for a, b in zip(one, two, strict=True))
        assert any(not torch.equal(a["places"], b["places"]) for a, b in zip(one[:half], one[half:], strict=True))
        other = self.batches(form, 2, seed=1)
        assert any(not torch.equal(a["places"], b["places"]) for a, b in zip(one, other, strict=True))

    def test_with_the_encoder_frozen_the_head_alone_moves(self, train, tiny_encoder, tmp_path):
        import torch

        from llm_blender.training.baselines import MLMHeadLearner

        before = weights(MLMHeadLearner(Recipe.model_validate(BASE), str(tiny_encoder), tmp_path / "reader"))
        learner, _ = train("mlm_scoring", groups_of("good", "bad", NAMES), frozen_layers=2, batch_tokens=16)
        moved = {name for name, tensor in weights(learner).items() if not torch.equal(before[name], tensor)}
        assert moved
        assert all(name.startswith("cls.predictions.") and "decoder.weight" not in name for name in moved)
