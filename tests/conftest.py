"""Tiny encoders, rankers and fusers with random weights, for tests that need a model and not a good one."""

from __future__ import annotations

import contextlib
import os
import signal
import string
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_blender._hub import cache_dir

_WORDS = """
the a is are not why what how sky sea sun moon blue green red bright dark light answer question user assistant
good bad better worse best because scatter water air tree bird sing run sleep tip give three one two be it of
to
"""


_FUSER_TEXTS = [
    "Why is the sky blue? Air scatters blue light most, and the sea mirrors the sky.",
    "Instruction: Input: Candidate 0: Candidate 1: Candidate 2:",
    "Summarize candidates into a better one for the given instruction:",
    "user assistant system Task Answer Write one answer to the instruction that is better than each of the candidates.",
    "Go to bed early, read a book, and drink no coffee in the evening. Give three tips for sleeping better!",
]
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


_LLAMA = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
_COLLECTED = pytest.StashKey[frozenset[str]]()


_WORKER = os.environ.get("PYTEST_XDIST_WORKER")
_SLOW = ("tests/training", "tests/llms", "tests/fusers", "tests/cli", "tests/server")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Divide the whole suite between two processes, by file; `-n 0` keeps it in one, and so does a part of it."""
    whole = config.args == config.getini("testpaths") and not config.option.collectonly and not config.option.usepdb
    if whole and _WORKER is None and getattr(config.option, "numprocesses", 0) is None:
        config.option.numprocesses, config.option.dist, config.option.loadscopereorder = 2, "loadfile", False


def pytest_configure(config: pytest.Config) -> None:
    """Give each of two processes half of the cores: threads that wait for each other stop both on a core they share."""
    if _WORKER is not None and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[int(_WORKER.removeprefix("gw")) % 2 :: 2] or cores)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slow packages, so that both processes end together."""
    if _WORKER is not None:
        items.sort(key=lambda item: not item.nodeid.startswith(_SLOW))


def pytest_collection_finish(session: pytest.Session) -> None:
    session.config.stash[_COLLECTED] = frozenset(sys.modules)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give the tests a cache of their own, with the models of the user's."""
    folder, models = tmp_path_factory.mktemp("cache"), cache_dir() / "models"
    if models.is_dir():
        (folder / "models").symlink_to(models)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLM_BLENDER_CACHE", str(folder))
        yield


@pytest.fixture
def collected_modules(request: pytest.FixtureRequest) -> frozenset[str]:
    """The names of all modules that were imported when collection ended."""
    return request.config.stash[_COLLECTED]


@pytest.fixture
def one_process() -> None:
    """Skip a test that interrupts its own process where pytest-xdist could lose that process."""
    if _WORKER is not None:
        pytest.skip("interrupts its own process: pytest -n 0 runs it")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT interrupts this process and those it starts, even where a shell ignores it: nohup, a background job."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def serve_app() -> Callable[[contextlib.ExitStack, Any], str]:
    """Runs an ASGI app on a free port of loopback until a stack closes; the result is its URL."""

    def serve(stack: contextlib.ExitStack, app: Any) -> str:
        import asyncio
        import threading
        import time

        import uvicorn

        class Server(uvicorn.Server):  # uvicorn's own takes 0.15 s to stop when idle, which adds up over the tests
            async def main_loop(self) -> None:
                await self.on_tick(0)
                while not self.should_exit:
                    await asyncio.sleep(0.02)

            async def shutdown(self, sockets: Any = None) -> None:
                for listener in self.servers:
                    listener.close()
                for connection in list(self.server_state.connections):
                    connection.shutdown()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wait_tasks_to_complete(), timeout=2)
                for connection in list(self.server_state.connections):
                    connection.transport.abort()  # type: ignore[union-attr]
                await self.lifespan.shutdown()
                await asyncio.sleep(0)  # connections close at the loop's next turn

        server = Server(uvicorn.Config(app, port=0, log_level="error"))
        thread = threading.Thread(target=server.run)
        thread.start()

        def stop() -> None:
            server.should_exit = True
            thread.join()

        stack.callback(stop)
        end = time.monotonic() + 20
        while not server.started and time.monotonic() < end:
            time.sleep(0.005)
        return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    return serve


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 2 layers x 128 in transformers' layout; its WordPieces are `_WORDS`, letters and punctuation."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = string.ascii_lowercase + string.digits
    pieces = [*specials, *_WORDS.split(), *letters, *(f"##{letter}" for letter in letters), *string.punctuation]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **dict(zip(names, specials, strict=True))).save_pretrained(
        folder
    )
    torch.manual_seed(0)
    size = {**_LLAMA, "hidden_size": 128, "intermediate_size": 256}
    BertModel(BertConfig(vocab_size=len(vocabulary), max_position_embeddings=160, **size)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_ranker(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The checkpoint folder of an untrained PairRanker with the given pooling; not to be written to."""
    import torch

    from llm_blender.training.checkpoints import new_pair_ranker, write_checkpoint
    from llm_blender.training.recipes import Recipe

    made: dict[str, Path] = {}

    def make(pooling: str = "mean") -> Path:
        if pooling not in made:
            recipe = Recipe.model_validate({"pooling": pooling, "max_length": 96, "source_max_length": 32})
            model, input_format, tokenizer = new_pair_ranker(recipe, str(tiny_encoder))
            with torch.no_grad():
                model.head_layer[-1].weight *= 20  # logits of the size of a trained one's
            made[pooling] = tmp_path_factory.mktemp(pooling)
            write_checkpoint(model, input_format.config, tokenizer, made[pooling])
        return made[pooling]

    return make


def make_t5(folder: Path, *, seed: int = 3, **options: Any) -> Path:
    """A T5 of 2 layers x 32; its tokenizer, a unigram model as T5's, knows ``<extra_id_0>`` to ``<extra_id_9>``."""
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    sentinels = [f"<extra_id_{i}>" for i in range(10)]
    words = dict.fromkeys(word for text in _FUSER_TEXTS for word in text.split())
    pieces = [f"▁{word}" for word in words] + ["▁", *map(chr, range(33, 127))]
    scores = [(piece, -1.0 - i / 100) for i, piece in enumerate(dict.fromkeys(pieces))]
    special = [(token, 0.0) for token in ("<pad>", "</s>", "<unk>", *sentinels)]
    tokenizer = Tokenizer(models.Unigram([*special, *scores], unk_id=2))
    tokenizer.add_special_tokens([token for token, _ in special])
    # As the character map of the published tokenizer: white space of any kind is a space.
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=tokenizer.get_vocab_size(),
        decoder_start_token_id=0,
        initializer_factor=8.0,  # that it writes something else than one word again and again
        **{"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, **options},
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def make_llama(folder: Path, *, template: str | None = _CHAT_TEMPLATE, context: int = 512, seed: int = 0) -> Path:
    """A Llama of 2 layers x 32 with a byte-level tokenizer that has ``<|im_start|>`` and ``<|im_end|>``."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_FUSER_TEXTS * 5, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")
    fast.chat_template = template
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        num_key_value_heads=1,
        max_position_embeddings=context,
        initializer_range=0.5,
        **{"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0, **_LLAMA},
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def make_gguf(folder: Path, target: Path) -> Path:
    """Write a Llama in transformers' layout as a GGUF file, in float32 and in the layout of llama.cpp's converter."""
    import json

    import gguf
    import numpy as np
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(folder))
    config = model.config
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(config.hidden_size // heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    written = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = sorted(written["model"]["vocab"].items(), key=lambda item: item[1])
    special = {token["content"] for token in written["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([token for token, _ in vocabulary])
    kinds = (gguf.TokenType.CONTROL, gguf.TokenType.NORMAL)
    writer.add_token_types([kinds[token not in special] for token, _ in vocabulary])
    writer.add_token_merges([" ".join(merge) for merge in written["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for key, weight in model.state_dict().items():
        values = weight.float().numpy()
        for part, count in (("q_proj", heads), ("k_proj", kv_heads)):
            if part in key:  # the pairs that RoPE turns stand side by side there
                half = values.shape[0] // count // 2
                rows = [h * 2 * half + i + p * half for h in range(count) for i in range(half) for p in range(2)]
                values = values[rows]
        writer.add_tensor(names.get_name(key, try_suffixes=(".weight",)), np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


@pytest.fixture(scope="session")
def llama_shape() -> dict[str, int]:
    """The layers of a tiny Llama, as arguments of its configuration."""
    return dict(_LLAMA)


@pytest.fixture(scope="session")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a T5; not to be written to."""
    return make_t5(tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a chat model; not to be written to."""
    return make_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def tiny_gguf(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of `tiny_llama` for llama.cpp; skips where the extra `lora` is not installed."""
    pytest.importorskip("gguf")
    return make_gguf(tiny_llama, tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="session")
def tiny_adapter(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a LoRA adapter of `tiny_llama` that changes what it writes."""
    peft = pytest.importorskip("peft")
    import torch
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter")
    model = AutoModelForCausalLM.from_pretrained(str(tiny_llama))
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers for a name of before
        adapted = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 2.0)
    adapted.save_pretrained(str(folder))
    return folder
