"""GenFuser: its checkpoints, its batches, its streams."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from llm_blender.errors import CheckpointError, InputError, MissingExtraError, NotFoundError, WorkError
from llm_blender.fusers import load_fuser
from llm_blender.fusers.gen_fuser import GenFuser
from llm_blender.types import Fuser

ROWS = ["Why is the sky blue?", "Give three tips for sleeping better!", "Say a word."]
CANDIDATES = [
    ["Air scatters blue light most.", "The sea mirrors the sky."],
    ["Go to bed early. " * 9, "Read a book.", "Drink no coffee."],
    ["a", "b"],
]


def load(folder: Path, **options: Any) -> GenFuser:
    return GenFuser.from_pretrained(folder, device="cpu", **{"max_new_tokens": 10, **options})


@pytest.fixture(scope="module")
def t5(tiny_t5: Path) -> GenFuser:
    return load(tiny_t5)


@pytest.fixture(scope="module")
def llama(tiny_llama: Path) -> GenFuser:
    return load(tiny_llama)


@pytest.fixture(scope="module", params=["t5", "llama"])
def fuser(request: pytest.FixtureRequest) -> GenFuser:
    made: GenFuser = request.getfixturevalue(request.param)
    return made


def test_the_defaults_are_the_published_ones(tiny_t5: Path, tiny_llama: Path) -> None:
    published = GenFuser.from_pretrained(tiny_t5, device="cpu")
    assert published.options == {"max_new_tokens": 128, "num_beams": 4, "do_sample": False}
    assert (published.prompts.max_length, published.prompts.candidate_max_length) == (1024, 128)
    short = GenFuser.from_pretrained(tiny_llama, device="cpu")  # whose context is 512
    assert short.options == {"max_new_tokens": 256, "num_beams": 1, "do_sample": False}
    assert short.prompts.max_length == 256


def test_it_writes_what_the_model_generates(t5: GenFuser, tiny_t5: Path) -> None:
    import torch
    from transformers import AutoModelForSeq2SeqLM

    prompt = t5.prompts.prompt(ROWS[0], "", CANDIDATES[0])
    assert prompt is not None
    model = AutoModelForSeq2SeqLM.from_pretrained(str(tiny_t5), dtype=torch.float32)
    (ids,) = model.generate(torch.tensor([prompt.ids]), max_new_tokens=10, num_beams=4)
    fusion = t5.fuse(ROWS[0], CANDIDATES[0])
    assert fusion.text == t5._tokenizer.decode(ids, skip_special_tokens=True).strip()
    assert fusion.text
    assert (fusion.fuser, fusion.used) == (str(tiny_t5), (0, 1))
    assert fusion.usage.prompt_tokens == len(prompt.ids)
    assert 0 < fusion.usage.completion_tokens <= 10
    assert fusion.seconds > 0


def test_batches_write_what_each_row_alone_does(fuser: GenFuser) -> None:
    alone = [fuser.fuse(*row) for row in zip(ROWS, CANDIDATES, strict=True)]
    assert len({fusion.text for fusion in alone}) == 3  # a model that heeds its prompt
    for size in (2, 8):
        together = fuser.fuse_many(ROWS, CANDIDATES, batch_size=size)
        assert [fusion.text for fusion in together] == [fusion.text for fusion in alone]
        assert [fusion.usage for fusion in together] == [fusion.usage for fusion in alone]


def test_batches_are_sorted_by_length(t5: GenFuser, monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[list[int]] = []
    original = t5._writers.write

    def noted(prompts: Any, *args: Any, **options: Any) -> Any:
        widths.append([len(prompt) for prompt in prompts])
        return original(prompts, *args, **options)

    monkeypatch.setattr(t5._writers, "write", noted)
    calls: list[tuple[int, int]] = []
    t5.fuse_many(ROWS, CANDIDATES, batch_size=2, progress=lambda *count: calls.append(count))
    in_order = [width for batch in widths for width in batch]
    assert sorted(in_order, reverse=True) == in_order
    assert [len(batch) for batch in widths] == [2, 1]
    assert calls == [(2, 3), (3, 3)]


def test_inputs_are_read(fuser: GenFuser) -> None:
    one, other = (
        fuser.fuse_many(["Say why."], [CANDIDATES[0]], inputs=[text])[0] for text in (ROWS[0], "Something else.")
    )
    assert one.usage.prompt_tokens != other.usage.prompt_tokens
    with pytest.raises(InputError, match="1 instructions need as many inputs, not 2"):
        fuser.fuse_many(["a"], [["b"]], inputs=["c", "d"])


def test_a_stream_put_together_is_the_whole(llama: GenFuser) -> None:
    for instruction, candidates in zip(ROWS, CANDIDATES, strict=True):
        pieces = list(llama.stream(instruction, candidates))
        assert "".join(pieces) == llama.fuse(instruction, candidates).text
        assert len(pieces) > 3
        assert all(pieces)


def test_a_search_by_beams_streams_in_one_piece(t5: GenFuser) -> None:
    assert list(t5.stream(ROWS[0], CANDIDATES[0])) == [t5.fuse(ROWS[0], CANDIDATES[0]).text]


def test_a_stream_that_is_closed_ends_the_writing(llama: GenFuser) -> None:
    stream = llama.stream(ROWS[1], CANDIDATES[1], max_new_tokens=100_000)
    assert next(stream)
    started = time.perf_counter()
    stream.close()
    assert time.perf_counter() - started < 5
    assert not [thread for thread in threading.enumerate() if thread.name == "gen-fuser"]


def test_errors_come_out_of_a_stream(llama: GenFuser) -> None:
    with pytest.raises(InputError, match=r"The fuser cannot write so: .*planted"):
        list(llama.stream(ROWS[0], CANDIDATES[0], planted=1))


def test_asynchronously(fuser: GenFuser) -> None:
    pieces: list[str] = []

    async def fuse() -> tuple[Any, bool]:
        here = threading.get_ident()
        same: list[bool] = []

        def tell(piece: str) -> None:
            pieces.append(piece)
            same.append(threading.get_ident() == here)

        fusion = await fuser.afuse(ROWS[0], CANDIDATES[0], on_text=tell)
        await asyncio.sleep(0)
        return fusion, all(same)

    fusion, in_the_loop = asyncio.run(fuse())
    assert fusion.text == fuser.fuse(ROWS[0], CANDIDATES[0]).text == "".join(pieces)
    assert in_the_loop


def test_cancelling_ends_the_writing(tiny_llama: Path) -> None:
    endless = load(tiny_llama)
    endless.options["max_new_tokens"] = 1_000_000
    endless.options["min_new_tokens"] = 1_000_000

    async def cancel() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await endless.afuse(ROWS[0], CANDIDATES[0])

    started = time.perf_counter()
    asyncio.run(cancel())  # waits for its threads
    assert time.perf_counter() - started < 10


def test_a_lora_adapter_changes_its_base(llama: GenFuser, tiny_adapter: Path, tiny_llama: Path, tmp_path: Path) -> None:
    adapted = load(tiny_adapter)
    assert adapted.fuse(ROWS[0], CANDIDATES[0]).text != llama.fuse(ROWS[0], CANDIDATES[0]).text
    moved = tmp_path / "adapter"
    shutil.copytree(tiny_adapter, moved)
    values = json.loads((moved / "adapter_config.json").read_text())
    (moved / "adapter_config.json").write_text(json.dumps({**values, "base_model_name_or_path": "gone/away"}))
    with pytest.raises(NotFoundError, match="No base model 'gone/away'"):
        load(moved)
    again = load(moved, base=tiny_llama)
    assert again.fuse(ROWS[0], CANDIDATES[0]).text == adapted.fuse(ROWS[0], CANDIDATES[0]).text


def test_what_an_adapter_may_lack(tiny_adapter: Path, tiny_llama: Path, tmp_path: Path, monkeypatch: Any) -> None:
    copy = tmp_path / "adapter"
    shutil.copytree(tiny_adapter, copy)
    (copy / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="is not one of this model"):
        load(copy)
    (copy / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"does not name the model that it adapts: give it as `base`"):
        load(copy)
    with pytest.raises(InputError, match="is no adapter, so it takes no base"):
        load(tiny_llama, base="other")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'llm-blender\[lora\]'"):
        load(tiny_adapter)


def test_pickled_weights_of_tensors_alone(tiny_t5: Path, t5: GenFuser, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    shutil.copytree(tiny_t5, tmp_path / "bin")
    torch.save(load_file(tmp_path / "bin" / "model.safetensors"), tmp_path / "bin" / "pytorch_model.bin")
    (tmp_path / "bin" / "model.safetensors").unlink()
    assert load(tmp_path / "bin").fuse(ROWS[0], CANDIDATES[0]).text == t5.fuse(ROWS[0], CANDIDATES[0]).text


@pytest.mark.parametrize("kind", ["cut", "missing", "no tokenizer", "other tokenizer", "no config", "classifier"])
def test_what_is_no_fuser(kind: str, tiny_t5: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(tiny_encoder if kind == "classifier" else tiny_t5, folder)
    if kind == "cut":
        data = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[:-100])
    elif kind == "missing":
        from safetensors.torch import load_file, save_file

        state = load_file(folder / "model.safetensors")
        save_file({k: v for k, v in state.items() if "decoder.block.1" not in k}, folder / "model.safetensors")
    elif kind == "no tokenizer":
        (folder / "tokenizer.json").write_text("{}")
    elif kind == "other tokenizer":
        values = json.loads((folder / "tokenizer.json").read_text())
        values["model"]["vocab"] += [[f"more{i}", -9.0] for i in range(9)]
        (folder / "tokenizer.json").write_text(json.dumps(values))
    elif kind == "no config":
        (folder / "config.json").unlink()
    else:
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**values, "model_type": "vit"}))
    expected = {
        "cut": "cannot be read",
        "missing": "are not whole: decoder.block.1",
        "no tokenizer": "The tokenizer of .* cannot be read",
        "other tokenizer": "has 175 tokens and the model knows 166: it is not this model's",
        "no config": "is no fuser: it holds neither config.json nor adapter_config.json",
        "classifier": "is a vit, which writes no text",
    }
    with pytest.raises(CheckpointError, match=expected[kind]):
        load(folder)


def test_what_is_refused(tiny_t5: Path, t5: GenFuser) -> None:
    with pytest.raises(NotFoundError, match="No fuser 'nowhere'"):
        GenFuser.from_pretrained("nowhere")
    with pytest.raises(InputError, match="Unknown dtype 'float8'"):
        load(tiny_t5, dtype="float8")
    with pytest.raises(InputError, match="Unknown device 'nonsense'"):
        GenFuser.from_pretrained(tiny_t5, device="nonsense")
    with pytest.raises(InputError, match=r"^beams must be above zero, not 0"):
        load(tiny_t5, beams=0)
    with pytest.raises(InputError, match="4 or 8 bits, not 3"):
        load(tiny_t5, bits=3)
    with pytest.raises(InputError, match="pip install bitsandbytes"):
        load(tiny_t5, bits=4)
    with pytest.raises(InputError, match="Instruction 0 has no candidates"):
        t5.fuse("a", [])
    with pytest.raises(InputError, match="Candidate 0 of instruction 0 must be a text"):
        t5.fuse("a", [None])  # type: ignore[list-item]


def test_without_torch(monkeypatch: pytest.MonkeyPatch, tiny_t5: Path) -> None:
    monkeypatch.setitem(sys.modules, "llm_blender.fusers.gen_fuser.loading", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'llm-blender\[torch\]'"):
        load(tiny_t5)


def test_precision_and_several_devices(tiny_t5: Path, t5: GenFuser) -> None:
    import torch

    half = load(tiny_t5, dtype="bfloat16")
    assert half._writers._models[0].dtype == torch.bfloat16
    two = GenFuser.from_pretrained(tiny_t5, device=["cpu", "cpu"], max_new_tokens=10)
    assert two._writers.parallel == 2
    texts = [fusion.text for fusion in two.fuse_many(ROWS * 3, CANDIDATES * 3, batch_size=1)]
    assert texts == [fusion.text for fusion in t5.fuse_many(ROWS, CANDIDATES)] * 3


def test_sampling_follows_the_seed_and_leaves_torch_alone(llama: GenFuser) -> None:
    import torch

    before = torch.random.get_rng_state()
    sampled = [llama.fuse(ROWS[0], CANDIDATES[0], seed=seed, do_sample=True).text for seed in (1, 1, 2)]
    assert sampled[0] == sampled[1] != sampled[2]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_samples_are_the_same_on_any_number_of_devices(tiny_t5: Path) -> None:
    sampling = {"do_sample": True, "num_beams": 1, "max_new_tokens": 30}
    expected, shared = (
        [fusion.text for fusion in fuser.fuse_many(ROWS * 4, CANDIDATES * 4, batch_size=1, **sampling)]
        for fuser in (GenFuser.from_pretrained(tiny_t5, device=place) for place in ("cpu", ["cpu"] * 3))
    )
    assert shared == expected


def test_what_does_not_fit_is_said(tiny_t5: Path) -> None:
    small = load(tiny_t5, max_length=44)
    long, short = small.fuse_many(["Why?", "Why?"], [CANDIDATES[1][:1] * 2, ["a", "b"]])
    assert (long.text, long.flaw, long.truncated) == ("", "too_small", 1.0)
    assert long.error == "the prompt holds at most 44 tokens, which leaves no room for two candidates; raise max_length"
    assert short.text
    with pytest.raises(InputError, match="Nothing is fused: the prompt holds at most 44 tokens"):
        list(small.stream("Why?", CANDIDATES[1][:1] * 2))


def test_thoughts_are_no_part_of_the_answer(llama: GenFuser, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = llama._tokenizer

    def write(text: str) -> tuple[str, list[str]]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]

        def planted(prompts: Any, options: Any, *, streamer: Any = None, **more: Any) -> list[list[int]]:
            import torch

            if streamer is not None:
                for token in (prompts[0], *ids):
                    streamer.put(torch.tensor([token]))
            return [list(ids)]

        monkeypatch.setattr(llama._writers, "write", planted)
        return llama.fuse(ROWS[0], CANDIDATES[0]).text, list(llama.stream(ROWS[0], CANDIDATES[0]))

    text, pieces = write("<think>\nLet me see.\n</think>\n\nBlue light scatters.\n")
    assert (text, "".join(pieces)) == ("Blue light scatters.", text)
    assert len(pieces) > 3
    assert write("<think> and no end") == ("", [])
    assert write("It is <think> blue")[0] == "It is <think> blue"
    # A template may open the thoughts itself.
    opened = tokenizer.chat_template.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    monkeypatch.setattr(tokenizer, "chat_template", opened)
    text, pieces = write("Let me see. </think> Blue.")
    assert (text, "".join(pieces)) == ("Blue.", text)


def test_a_loop_is_noticed(tiny_t5: Path) -> None:
    assert load(tiny_t5, max_new_tokens=128).fuse(ROWS[2], CANDIDATES[2]).flaw == "repeats"


def test_a_text_that_was_cut_off_is_noticed(llama: GenFuser, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = llama._tokenizer("Blue light scatters.", add_special_tokens=False)["input_ids"]
    monkeypatch.setattr(llama._writers, "write", lambda *args, **options: [list(ids)])
    for more, flaw in ((0, "cut_off"), (1, None)):
        monkeypatch.setitem(llama.options, "max_new_tokens", len(ids) + more)
        assert llama.fuse(ROWS[0], CANDIDATES[0]).flaw == flaw
        (fusion,) = llama.fuse_many(ROWS[:1], CANDIDATES[:1], max_new_tokens=len(ids))
        assert fusion.flaw == "cut_off"


def test_too_little_memory_is_a_failure_with_a_remedy(t5: GenFuser, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def full(*args: Any, **options: Any) -> Any:
        raise torch.OutOfMemoryError("planted")

    with monkeypatch.context() as patch:
        patch.setattr("transformers.T5ForConditionalGeneration.generate", full)
        with pytest.raises(WorkError, match="more memory than cpu has: lower batch_size or max_length"):
            t5.fuse(ROWS[0], CANDIDATES[0])
    assert t5.fuse(ROWS[0], CANDIDATES[0]).text  # the model is still there


def test_by_name(tiny_t5: Path) -> None:
    fuser = load_fuser(tiny_t5, device="cpu")
    assert isinstance(fuser, GenFuser)
    assert isinstance(fuser, Fuser)
