"""The judge and the reward function; TRL's trainers are slow tests, run where TRL is installed."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest

from llm_blender import InputError, PairRanker
from llm_blender.integrations.trl import PairwiseJudge, WinProbabilityReward
from llm_blender.testing import FakeRanker

WHY = "Why is the sky blue?"
NOT_INSTALLED = "TRL is not installed: .ci/integrations runs this"


@pytest.fixture(scope="module")
def bundled() -> PairRanker:
    return PairRanker.from_pretrained(threads=1)


def said(text, role="assistant"):
    return [{"role": role, "content": text}]


class TestJudge:
    def test_the_index_of_the_better_one(self):
        judge = PairwiseJudge(FakeRanker())
        assert judge.judge([WHY, WHY, WHY], [["a", "bb"], ["bb", "a"], ("same", "same")]) == [1, 0, 0]

    def test_the_bundled_ranker_prefers_an_answer(self, bundled):
        prompts = [WHY, "What is the capital of France?"]
        pairs = [
            ["Air scatters blue light more than red.", "Because."],
            ["I do not know.", "The capital of France is Paris."],
        ]
        assert PairwiseJudge(bundled).judge(prompts, pairs) == [0, 1]

    def test_probabilities_are_the_rankers_own(self, bundled):
        pairs = [["Air scatters blue light more than red.", "Because."], ["Because.", "Light."], ["Hm.", "Hm."]]
        chances = PairwiseJudge(bundled).judge([WHY] * 3, pairs, return_scores=True)
        assert chances == [bundled.compare(WHY, *pair).probability for pair in pairs]
        assert chances[2] == 0.5

    @pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
    def test_a_temperature_gives_the_former_judges_numbers(self, temperature):
        ranker = FakeRanker(noise=1, order_bias=0.7, temperature=3)
        pairs = [["a", "bb"], ["cccc", "bb"]]
        chances = PairwiseJudge(ranker).judge([WHY] * 2, pairs, return_scores=True, temperature=temperature)
        for chance, (a, b) in zip(chances, pairs, strict=True):
            # The scores of two candidates, from their matrix M: s_i = 1/N Σ_j (M_ij − M_ji).
            score = (ranker.logit(WHY, a, b) - ranker.logit(WHY, b, a)) / 2
            former = np.exp(np.array([score, -score]) / temperature)
            assert chance == pytest.approx(former[0] / former.sum(), abs=1e-4)

    @pytest.mark.parametrize("bias", [-50, 50])
    @pytest.mark.parametrize("shuffle_order", [True, False])
    def test_a_preference_for_a_place_changes_nothing(self, bias, shuffle_order):
        judge = PairwiseJudge(FakeRanker(order_bias=bias))
        pairs = [["a", "bb"], ["bb", "a"]]
        assert judge.judge([WHY] * 2, pairs, shuffle_order) == [1, 0]
        first, second = judge.judge([WHY] * 2, pairs, shuffle_order, return_scores=True)
        assert first == pytest.approx(1 - second)

    def test_conversations_read_as_the_ranker_reads_them(self):
        ranker = FakeRanker()
        prompt = [*said("Be brief.", "system"), *said(WHY, "user")]
        assert PairwiseJudge(ranker).judge([prompt], [[said("a"), said("bb")]]) == [1]
        assert ranker.batches[0][0] == (f"System: Be brief.\n\nUser: {WHY}", "a", "bb")

    def test_the_bundled_ranker_reads_turns_of_tools(self, bundled):
        prompt = [*said("Q", "user"), {"role": "tool", "name": "f", "content": "42"}]
        assert PairwiseJudge(bundled).judge([prompt], [["A", "B"]])[0] in (0, 1)
        parts = [{"role": "user", "content": [{"type": "text", "text": WHY}]}]
        good = "Air scatters blue light more than red."
        assert PairwiseJudge(bundled).judge([parts], [["Because.", good]]) == [1]

    def test_completions_with_parts_calls_and_refusals(self):
        ranker = FakeRanker()
        called = [
            {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]},
            {"role": "tool", "name": "f", "content": "42"},
            {"role": "assistant", "content": [{"type": "text", "text": "It is "}, {"type": "text", "text": "42."}]},
        ]
        refused = [{"role": "assistant", "content": None, "refusal": "I cannot tell."}]
        assert PairwiseJudge(ranker).judge([WHY], [[called, refused]]) == [1]
        assert [text.strip() for text in ranker.batches[0][0][1:]] == ["It is 42.", "I cannot tell."]
        assert PairwiseJudge(ranker).judge([WHY], [[said(""), []]]) == [0]

    @pytest.mark.parametrize(
        ("prompt", "completion", "words"),
        [
            (WHY, None, "Completion 0 of prompt 1 must be a text or a list of messages, not NoneType"),
            (WHY, {"role": "assistant"}, "Completion 0 of prompt 1 must be a text or a list of messages, not dict"),
            (WHY, said("x", "wizard"), "Completion 0 of prompt 1: Message 0 of the instruction: unknown role 'wizard'"),
            (None, "a", "Instruction 1 must be a text or a list of messages, not NoneType"),
            (said("x", "wizard"), "a", "Instruction 1: Message 0 of the instruction: unknown role 'wizard'"),
            (
                said([{"type": "image"}], "user"),
                "a",
                "Instruction 1: Message 0 of the instruction: images are not read",
            ),
        ],
    )
    def test_the_row_that_cannot_be_read_is_named(self, prompt, completion, words):
        with pytest.raises(InputError, match=words):
            PairwiseJudge(FakeRanker()).judge([WHY, prompt], [["a", "b"], [completion, "A"]])
        with pytest.raises(InputError, match=words.replace("Completion 0 of prompt 1", "Completion 1")):
            WinProbabilityReward(FakeRanker())([WHY, prompt], ["a", completion])

    def test_wrong_input_is_named(self):
        judge = PairwiseJudge(FakeRanker())
        with pytest.raises(InputError, match="Prompt 1 has 3 completions: a pairwise judge compares two"):
            judge.judge([WHY, WHY], [["a", "b"], ["a", "b", "c"]])
        with pytest.raises(InputError, match="1 instructions need as many lists"):
            judge.judge([WHY], [["a", "b"], ["a", "b"]])
        with pytest.raises(InputError, match="temperature must be above zero"):
            judge.judge([WHY], [["a", "b"]], return_scores=True, temperature=0)
        assert judge.judge([], []) == []


class TestReward:
    def test_mean_probability_against_the_siblings(self):
        rewards = WinProbabilityReward(FakeRanker())([WHY] * 3, ["a", "ccc", "bb"])
        one, two = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-2))
        expected = [(1 - one + 1 - two) / 2, (one + two) / 2, 0.5]
        assert rewards == pytest.approx(expected)
        assert all(type(reward) is float for reward in rewards)

    def test_siblings_are_those_of_one_prompt_wherever_they_stand(self):
        ranker = FakeRanker()
        prompts = [WHY, "How?", WHY, "How?"]  # as OnlineDPOTrainer gives them
        rewards = WinProbabilityReward(ranker)(prompts, ["a", "x" * 9, "bb", "x" * 8])
        assert rewards[2] > 0.5 > rewards[0]
        assert rewards[1] > 0.5 > rewards[3]
        assert rewards[0] + rewards[2] == pytest.approx(1)
        compared = {(prompt, frozenset(pair)) for batch in ranker.batches for prompt, *pair in batch}
        assert compared == {(WHY, frozenset({"a", "bb"})), ("How?", frozenset({"x" * 9, "x" * 8}))}
        assert ranker.comparisons == 4

    def test_the_mean_over_siblings_is_one_half_and_equal_texts_are_rewarded_equally(self, bundled):
        texts = ["Because.", "Air scatters blue light more than red.", "Because.", "", "No idea."]
        rewards = WinProbabilityReward(bundled)([WHY] * 5, texts)
        assert np.mean(rewards) == pytest.approx(0.5)
        assert rewards[0] == rewards[2]
        assert max(rewards) == rewards[1]

    def test_a_completion_alone_gets_one_half(self):
        assert WinProbabilityReward(FakeRanker())([WHY, "How?"], ["a", "bb"]) == [0.5, 0.5]
        assert WinProbabilityReward(FakeRanker())([], []) == []

    def test_conversations_and_other_columns(self):
        ranker = FakeRanker()
        prompt = said(WHY, "user")
        called = [
            {"role": "assistant", "content": None, "tool_calls": [{"name": "search"}]},
            {"role": "tool", "name": "search", "content": "a very long result of a tool"},
            {"role": "assistant", "content": [{"type": "text", "text": "bb"}]},
        ]
        thought = said("<think>a very long thought</think>\n\na")
        rewards = WinProbabilityReward(ranker)(
            prompts=[prompt, prompt], completions=[called, thought], completion_ids=[[1], [2]], trainer_state=None
        )
        assert rewards[0] > 0.5
        assert ranker.batches[0][0][0] == WHY
        assert {text.strip() for text in ranker.batches[0][0][1:]} == {"a", "bb"}

    def test_half_the_work(self):
        ranker = FakeRanker()
        rewards = WinProbabilityReward(ranker, strategy="single")([WHY] * 4, ["a", "dddd", "bb", "ccc"])
        assert np.argsort(rewards).tolist() == [0, 2, 3, 1]
        assert ranker.comparisons == 6

    def test_wrong_input_is_named(self):
        with pytest.raises(InputError, match="full or single, not 'knockout'"):
            WinProbabilityReward(FakeRanker(), strategy="knockout")
        with pytest.raises(InputError, match="2 completions need as many prompts, not 1"):
            WinProbabilityReward(FakeRanker())([WHY], ["a", "b"])
        with pytest.raises(InputError, match="no-such-ranker"):
            WinProbabilityReward("no-such-ranker")
        with pytest.raises(InputError, match="A NoneType is no ranker"):
            WinProbabilityReward(None)


@pytest.fixture(scope="module")
def tokenizer():
    """Reads and writes bytes."""
    transformers = pytest.importorskip("transformers", reason=NOT_INSTALLED)
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate(["<pad>", "<end>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<end>",
        chat_template="{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}",
    )


@pytest.fixture
def model(tokenizer, llama_shape):
    """A Llama of 2 layers x 32 with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            **llama_shape,
        )
    )


@pytest.mark.slow
# The trainers' own, and those of what they import.
@pytest.mark.filterwarnings("ignore")
class TestTrainers:
    @pytest.mark.parametrize(("method", "conversational"), [("GRPO", False), ("GRPO", True), ("RLOO", True)])
    def test_groups_train_on_the_reward(self, method, conversational, bundled, model, tokenizer, tmp_path):
        trl = pytest.importorskip("trl", reason=NOT_INSTALLED)
        from datasets import Dataset

        seen = []
        reward = WinProbabilityReward(bundled)

        def recorded(prompts, completions, **columns):
            rewards = reward(prompts, completions, **columns)
            seen.append((prompts, completions, rewards))
            return rewards

        texts = [WHY, "What is the capital of France?", "Give a tip.", "Say hello."]
        prompts = [said(text, "user") for text in texts] if conversational else texts
        config = getattr(trl, f"{method}Config")(
            output_dir=str(tmp_path),
            num_generations=4,
            beta=0.0,  # no reference model, which RLOO would look for by name
            per_device_train_batch_size=8,
            max_completion_length=12,
            max_steps=2,
            learning_rate=1e-2,
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
        )
        before = [parameter.detach().clone() for parameter in model.parameters()]
        trainer = getattr(trl, f"{method}Trainer")(
            model,
            reward_funcs=[recorded, reward],
            args=config,
            train_dataset=Dataset.from_dict({"prompt": prompts}),
            processing_class=tokenizer,
        )
        trainer.train()
        assert len(seen) == 2
        for given, completions, rewards in seen:
            assert len(given) == len(completions) == len(rewards) == 8
            assert isinstance(completions[0], list) == conversational
            assert np.mean(rewards[:4]) == pytest.approx(0.5)
            assert len(set(rewards)) > 2
        steps = [entry for entry in trainer.state.log_history if "rewards/win_probability/mean" in entry]
        assert len(steps) == 2
        assert all(entry["rewards/win_probability/mean"] == pytest.approx(0.5, abs=1e-4) for entry in steps)
        assert all(entry["rewards/win_probability/std"] > 0 for entry in steps)
        changed = [not after.equal(old) for after, old in zip(model.parameters(), before, strict=True)]
        assert any(changed)

    def test_online_dpo_takes_the_reward_in_the_place_of_a_judge(self, bundled, model, tokenizer, tmp_path):
        online_dpo = pytest.importorskip("trl.experimental.online_dpo", reason=NOT_INSTALLED)
        history = self._online_dpo(online_dpo, model, tokenizer, tmp_path, reward_funcs=WinProbabilityReward(bundled))
        assert len(history) == 2

    def test_online_dpo_of_trl_1_0_takes_the_judge(self, bundled, model, tokenizer, tmp_path):
        judges = pytest.importorskip("trl.experimental.judges", reason="TRL has judges until 1.0: .ci/integrations")
        from trl.experimental import online_dpo

        ours = inspect.signature(PairwiseJudge.judge).parameters
        assert list(ours) == list(inspect.signature(judges.PairRMJudge.judge).parameters)
        asked = []

        class Recorded(PairwiseJudge):
            def judge(self, prompts, completions, *options, **named):
                winners = super().judge(prompts, completions, *options, **named)
                asked.append(winners)
                return winners

        history = self._online_dpo(online_dpo, model, tokenizer, tmp_path, judge=Recorded(bundled))
        assert len(history) == 2
        assert len(asked) == 2
        assert all(winner in (0, 1) for winners in asked for winner in winners)

    @staticmethod
    def _online_dpo(online_dpo, model, tokenizer, folder, **judgement):
        from datasets import Dataset

        config = online_dpo.OnlineDPOConfig(
            output_dir=str(folder),
            per_device_train_batch_size=2,
            **{"max_new_tokens": 12, "max_length": 64, "max_steps": 2},
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
        )
        trainer = online_dpo.OnlineDPOTrainer(
            model,
            args=config,
            train_dataset=Dataset.from_dict({"prompt": [said(WHY, "user"), said("Say hello.", "user")] * 2}),
            processing_class=tokenizer,
            **judgement,
        )
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    def test_the_pages_examples_run(self, run_examples, model, tokenizer, tmp_path):
        pytest.importorskip("trl", reason=NOT_INSTALLED)
        names = run_examples("trl")
        assert names["winners"] == [0, 1]
        assert names["chances"][0] > 0.5 > names["chances"][1]
        assert np.argmax(names["rewards"]) == 1
        options = {"max_steps": 1, "logging_steps": 1, "max_completion_length": 12, "report_to": [], "use_cpu": True}
        history = names["train"](model, tokenizer, [WHY, "Say hello."], output_dir=str(tmp_path), **options)
        assert any(entry.get("rewards/win_probability/std", 0) > 0 for entry in history)
