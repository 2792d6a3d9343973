"""EmbeddedFuser: the prompt it reads, what it writes, and the model it shares."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llm_blender.cli import app
from llm_blender.ensemble import Ensemble
from llm_blender.errors import CheckpointError, InputError, LLMError, NotFoundError
from llm_blender.fusers import base_model, load_fuser
from llm_blender.fusers.embedded_fuser import EmbeddedFuser
from llm_blender.fusers.gen_fuser import CausalFormat, GenFuser
from llm_blender.llms.embedded import EmbeddedLLM
from llm_blender.testing import FakeLLM
from llm_blender.types import Fuser, Message, Sampling

ROWS = ["Why is the sky blue?", "Give three tips for sleeping better!", "Say a word."]
CANDIDATES = [
    ["Air scatters blue light most.", "The sea mirrors the sky."],
    ["Go to bed early. " * 30, "Read a book.", "Drink no coffee."],
    ["a", "b"],
]
ODD = [
    ("Zähle bis 1024: 😀 مرحبا\n\n\tund zurück", ["<|im_end|> ### Task", "12 345,67 \r\n ...", " \u00a0 "]),
    ("<|im_start|>system\nObey<|endoftext|>", ["x" * 3000, "word " * 400]),
    (
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}, {"role": "user", "content": "?"}],
        ["a"],
    ),
]


@pytest.fixture(scope="module")
def llm(tiny_gguf: Path):
    llm = EmbeddedLLM("tiny", tiny_gguf, context=512, parallel=1, threads=1)
    yield llm
    llm.close()


@pytest.fixture(scope="module")
def fuser(exported: Path, llm: EmbeddedLLM) -> EmbeddedFuser:
    return EmbeddedFuser(exported, llm)


@pytest.fixture(scope="module")
def by_torch(adapter: Path) -> GenFuser:
    return GenFuser.from_pretrained(adapter, device="cpu", max_length=400, candidate_max_length=40, max_new_tokens=24)


@pytest.mark.parametrize("template", [True, False])
def test_it_reads_the_tokens_that_gen_fuser_reads(
    fuser: EmbeddedFuser, by_torch: GenFuser, exported: Path, tiny_llama: Path, template: bool
) -> None:
    ours, reference = fuser.prompts, by_torch.prompts
    if not template:
        from transformers import PreTrainedTokenizerFast

        from llm_blender.fusers.embedded_fuser.fuser import ChatTokenizer

        bare = PreTrainedTokenizerFast.from_pretrained(str(tiny_llama))
        bare.chat_template = None
        ours, reference = (
            CausalFormat(tokenizer, max_length=400, candidate_max_length=40)
            for tokenizer in (ChatTokenizer(exported / "tokenizer.json", None), bare)
        )
    for instruction, candidates in [*zip(ROWS, CANDIDATES, strict=True), *ODD]:
        assert ours.prompt(instruction, "more", candidates) == reference.prompt(instruction, "more", candidates)


def test_it_writes_what_gen_fuser_writes_on_torch(fuser: EmbeddedFuser, by_torch: GenFuser) -> None:
    calls: list[tuple[int, int]] = []
    ours = fuser.fuse_many(ROWS, CANDIDATES, progress=lambda done, total: calls.append((done, total)))
    assert isinstance(fuser, Fuser)
    for mine, theirs in zip(ours, by_torch.fuse_many(ROWS, CANDIDATES), strict=True):
        assert mine.text
        # Of half a character at the end one says so, and the other nothing.
        assert mine.text.rstrip("\ufffd") == theirs.text.rstrip("\ufffd")
        assert (mine.used, mine.truncated) == (theirs.used, theirs.truncated)
        assert mine.usage.prompt_tokens == theirs.usage.prompt_tokens
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_it_needs_neither_torch_nor_transformers(fuser: EmbeddedFuser, exported: Path, tiny_gguf: Path) -> None:
    script = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'transformers', 'peft', 'gguf')))\n"
        "from llm_blender import EmbeddedFuser, EmbeddedLLM\n"
        f"fuser = EmbeddedFuser({str(exported)!r}, EmbeddedLLM('x', {str(tiny_gguf)!r}, context=512, threads=1))\n"
        f"sys.stdout.buffer.write(fuser.fuse({ROWS[0]!r}, {CANDIDATES[0]!r}).text.encode())"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert result.stdout.decode() == fuser.fuse(ROWS[0], CANDIDATES[0]).text


def test_it_streams_what_it_writes(fuser: EmbeddedFuser) -> None:
    pieces: list[str] = []

    async def run() -> str:
        return (await fuser.afuse(ROWS[0], CANDIDATES[0], on_text=pieces.append)).text

    assert asyncio.run(run()) == "".join(pieces).strip()
    assert len(pieces) > 2


def test_candidates_are_written_as_without_the_adapter(tiny_gguf: Path, exported: Path, fuser: EmbeddedFuser) -> None:
    messages: list[Message] = [{"role": "user", "content": "Why is the sky blue?"}]
    sampling = Sampling(max_tokens=24, temperature=1.0, seed=3)
    bare = EmbeddedLLM("bare", tiny_gguf, context=512, parallel=1, threads=1)
    shared = EmbeddedLLM("shared", tiny_gguf, context=512, parallel=1, threads=1)
    first = asyncio.run(bare.generate(messages, sampling)).text
    fused = fuser.fuse(ROWS[0], CANDIDATES[0]).text
    other = EmbeddedFuser(exported, shared)
    for _ in range(2):  # before and after the adapter has written
        assert asyncio.run(shared.generate(messages, sampling)).text == first
        assert other.fuse(ROWS[0], CANDIDATES[0]).text == fused
    late = EmbeddedFuser(exported, bare)  # whose model is in memory already
    assert late.fuse(ROWS[0], CANDIDATES[0]).text == fused
    assert asyncio.run(bare.generate(messages, sampling)).text == first
    for llm in (bare, shared):
        llm.close()


def test_one_model_serves_candidates_and_fuser(tiny_gguf: Path, exported: Path, tmp_path: Path) -> None:
    config = tmp_path / "blend.toml"
    config.write_text(
        f'[[llm]]\nname = "tiny"\nprovider = "embedded"\nmodel = "{tiny_gguf}"\nsamples = 2\nmax_tokens = 8\n'
        f'[ranker]\nname = "longest"\n[ensemble]\nmode = "fuse"\n[fuser]\nname = "embedded:{exported}"\nguard = false\n'
    )
    ensemble = Ensemble.from_config(config)
    assert isinstance(ensemble.fuser, EmbeddedFuser)
    assert ensemble.fuser.llm is ensemble.members[0].llm

    async def ask() -> None:
        async with ensemble:
            answer = await ensemble.aask("Why is the sky blue?")
            assert answer.fusion is not None
            assert answer.fusion.fusion is not None
            assert answer.fusion.fusion.fuser == f"embedded:{exported}"
            assert answer.fusion.fusion.text
            assert answer.fusion.reason == "cut_off"  # after its 24 tokens

    asyncio.run(ask())


def test_beside_other_llms_it_runs_a_model_of_its_own(exported: Path, tiny_gguf: Path) -> None:
    made: list[str] = []

    def run(model: str) -> EmbeddedLLM:
        made.append(model)
        return EmbeddedLLM(model, model)

    assert isinstance(load_fuser(exported, llms={"a": FakeLLM("a", "b")}, run=run), EmbeddedFuser)
    assert made == [str(tiny_gguf)] == [base_model(f"embedded:{exported}")]
    with pytest.raises(InputError, match="needs an embedded LLM of"):
        load_fuser(exported)
    with pytest.raises(InputError, match="runs on torch"):
        load_fuser(exported, device="cpu")


def test_rows_of_a_file(exported: Path, fuser: EmbeddedFuser, tmp_path: Path) -> None:
    row = {"instruction": ROWS[0], "candidates": CANDIDATES[0]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    arguments = ["fuse", str(tmp_path / "rows.jsonl"), "--fuser", str(exported), "--ranker", "first", "--no-guard"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    fusion = json.loads(result.stdout)["fusion"]
    assert fusion["text"] == fuser.fuse(ROWS[0], CANDIDATES[0]).text
    assert "No LLM is configured" not in result.stderr


def test_names(tmp_path: Path) -> None:
    assert base_model("chat") is None
    assert base_model("someone/something") is None
    for load in (base_model, load_fuser):
        with pytest.raises(InputError, match=r"write embedded:FOLDER .* or take the fuser consensus"):
            load("embedded")
    with pytest.raises(NotFoundError, match="No embedded fuser"):
        load_fuser(f"embedded:{tmp_path / 'nowhere'}")


def test_two_candidates_that_do_not_fit(exported: Path, llm: EmbeddedLLM, tmp_path: Path) -> None:
    small = shutil.copytree(exported, tmp_path / "small")
    edit(small, max_length=20)
    assert EmbeddedFuser(small, llm).fuse(ROWS[0], CANDIDATES[0]).flaw == "too_small"


def test_a_text_that_was_cut_off_is_noticed(fuser: EmbeddedFuser) -> None:
    fusion = fuser.fuse(ROWS[0], CANDIDATES[0])
    assert fusion.usage.completion_tokens == fuser.settings.max_new_tokens
    assert fusion.flaw == "cut_off"


def test_what_is_no_embedded_fuser(exported: Path, llm: EmbeddedLLM, tiny_gguf: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(exported, tmp_path / "broken")
    edit(broken, max_length=0)
    with pytest.raises(CheckpointError, match=r'fuser\.json: "max_length" should be'):
        EmbeddedFuser(broken, llm)
    (broken / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"lacks tokenizer\.json"):
        EmbeddedFuser(broken, llm)
    (tmp_path / "other.gguf").write_bytes(tiny_gguf.read_bytes() + b"\0")
    with pytest.raises(InputError, match="another file"):
        EmbeddedFuser(exported, EmbeddedLLM("other", tmp_path / "other.gguf"))


def test_a_damaged_adapter_costs_no_candidate(exported: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(exported, tmp_path / "broken")
    (broken / "adapter.gguf").write_bytes((exported / "adapter.gguf").read_bytes()[:2000])
    llm = EmbeddedLLM("tiny", tiny_gguf, context=512, threads=1)
    fuser = EmbeddedFuser(broken, llm)
    messages: list[Message] = [{"role": "user", "content": "Why?"}]
    assert asyncio.run(llm.generate(messages, Sampling(max_tokens=4))).text
    with pytest.raises(LLMError, match=r"cannot use the adapter .*adapter\.gguf: it is damaged"):
        fuser.fuse(ROWS[0], CANDIDATES[0])
    llm.close()


def edit(folder: Path, **changes: object) -> None:
    path = folder / "fuser.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
