"""`n_generate` and `best_of_n_generate`, with a tiny model of transformers and with a stand-in for vLLM."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from llm_blender import Blender
from llm_blender.errors import InputError

PROMPTS = ["hello", "how are you", "bye"]


class Tokenizer:
    """Numbers words; notes the prompts."""

    model_max_length = 12
    pad_token_id = 0

    def __init__(self):
        self.prompts, self.sides = [], []

    def __call__(self, prompts, *, return_tensors, padding, truncation, padding_side="right"):
        import torch

        self.prompts.append(prompts)
        self.sides.append(padding_side)
        length = max(len(prompt.split()) for prompt in prompts)
        ids = torch.ones(len(prompts), length, dtype=torch.long)
        return {"input_ids": ids, "attention_mask": ids}

    def batch_decode(self, rows, skip_special_tokens):
        return [" ".join(map(str, row.tolist())) for row in rows]


class Model:
    """Writes 7 and the number of the answer; notes the options."""

    device = "cpu"

    def __init__(self, *, alone=False):
        self.config = SimpleNamespace(is_encoder_decoder=alone)
        self.options = []

    def generate(self, input_ids, attention_mask, **options):
        import torch

        self.options.append(options)
        n = options["num_return_sequences"]
        prompts = input_ids.repeat_interleave(n, 0)
        answers = torch.stack([torch.tensor([7, number]) for number in range(n)] * len(input_ids))
        return answers if self.config.is_encoder_decoder else torch.cat([prompts, answers], 1)


@pytest.mark.parametrize("alone", [False, True])
def test_answers_without_prompts(alone):
    model, tokenizer = Model(alone=alone), Tokenizer()
    texts = Blender().n_generate(model, tokenizer, PROMPTS, n=3, batch_size=2)
    assert texts == [["7 0", "7 1", "7 2"]] * 3
    assert tokenizer.prompts == [PROMPTS[:2], PROMPTS[2:]]
    assert set(tokenizer.sides) == {"right" if alone else "left"}


def test_instructions_stand_on_a_line_of_their_own():
    tokenizer = Tokenizer()
    Blender().n_generate(Model(), tokenizer, PROMPTS[:2], ["Be kind.", ""], n=1)
    assert tokenizer.prompts == [["Be kind.\nhello", "\nhow are you"]]


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({}, {"do_sample": True, "top_p": 1.0, "temperature": 0.7, "max_length": 12}),
        ({"sampling_mode": "top_k_sampling"}, {"do_sample": True, "top_k": 50, "temperature": 0.7, "max_length": 12}),
        ({"sampling_mode": None, "max_new_tokens": 3}, {"max_new_tokens": 3}),
        ({"do_sample": False, "top_p": 0.5}, {"do_sample": False, "top_p": 0.5, "temperature": 0.7, "max_length": 12}),
    ],
)
def test_options(keywords, expected):
    model = Model()
    Blender().n_generate(model, Tokenizer(), PROMPTS, n=2, **keywords)
    assert model.options == [{**expected, "num_return_sequences": 2}]


@pytest.mark.parametrize(
    ("change", "keywords", "message"),
    [
        ({}, {"sampling_mode": "top_p"}, "did you mean 'top_p_sampling'"),
        ({}, {"n": 0}, "n and batch_size must be above zero, not 0 and 4"),
        ({"pad_token_id": None}, {}, "no padding token: set tokenizer.pad_token"),
        ({"model_max_length": 10**30}, {}, "has no maximum length: give max_new_tokens"),
        ({}, {"instructions": ["a"]}, "3 inputs need as many instructions, not 1"),
    ],
)
def test_bad_input(change, keywords, message):
    tokenizer = Tokenizer()
    for name, value in change.items():
        setattr(tokenizer, name, value)
    with pytest.raises(InputError) as raised:
        Blender().n_generate(Model(), tokenizer, PROMPTS, **keywords)
    assert message in str(raised.value)


def test_best_of_them(blender):
    (best,) = blender.best_of_n_generate(Model(), Tokenizer(), ["hello"], n=4)
    (everything,) = blender.best_of_n_generate(Model(), Tokenizer(), ["hello"], n=4, return_all=True)
    assert everything[0] == best
    assert sorted(everything) == ["7 0", "7 1", "7 2", "7 3"]
    (full,) = blender.best_of_n_generate(Model(), Tokenizer(), ["hello"], n=4, pairrm_cmp_type="full")
    assert full == blender.get_best_of_n(["hello"], [everything], pairrm_cmp_type="full")[0]


def test_vllm(monkeypatch):
    seen = []

    class SamplingParams:
        def __init__(self, n=1, temperature=1.0, top_p=1.0, top_k=-1, max_tokens=16):
            self.n, self.temperature, self.top_p, self.top_k, self.max_tokens = n, temperature, top_p, top_k, max_tokens

    class LLM:
        __module__ = "vllm.entrypoints.llm"

        def generate(self, prompts, parameters):
            seen.append(vars(parameters))
            return [
                SimpleNamespace(outputs=[SimpleNamespace(text=f"{prompt} {i}") for i in range(parameters.n)])
                for prompt in prompts
            ]

    module = ModuleType("vllm")
    module.SamplingParams = SamplingParams
    monkeypatch.setitem(sys.modules, "vllm", module)
    texts = Blender().n_generate(LLM(), None, PROMPTS[:1], n=2, top_k=5, max_new_tokens=9)
    assert texts == [["hello 0", "hello 1"]]
    assert seen == [{"n": 2, "temperature": 0.7, "top_p": 1.0, "top_k": 5, "max_tokens": 9}]


def test_a_model_of_transformers(tiny_encoder):
    """The real thing: a GPT-2 of two layers on the tokenizer of `tiny_encoder`."""
    transformers = pytest.importorskip("transformers")
    import torch

    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(tiny_encoder)
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_positions=32, n_embd=16, n_layer=2, n_head=2, bos_token_id=2, eos_token_id=3
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    texts = Blender().n_generate(model, tokenizer, ["why is the sky blue", "sing"], n=2, max_new_tokens=4)
    assert [len(row) for row in texts] == [2, 2]
    assert not any("sky" in text and text.startswith("why") for row in texts for text in row)
