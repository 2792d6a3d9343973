from __future__ import annotations

import asyncio
import gzip
import json

import pytest
import zstandard

from llm_blender.config import Config
from llm_blender.errors import InputError, LLMError, NotFoundError
from llm_blender.llms import ReplayLLM, load_llm
from llm_blender.store import call_key
from llm_blender.types import Sampling, Usage, to_messages

ROWS = [
    {"instruction": "Why?", "candidates": [{"model": "a", "text": "Because."}, {"model": "b", "text": "So."}]},
    {"instruction": "Translate.", "input": "Hallo", "candidates": [{"model": "a", "text": "Hello"}]},
    {
        "instruction": "Again?",
        "candidates": [
            {"model": "a", "text": "one", "usage": {"prompt_tokens": 3, "completion_tokens": 1}},
            {"model": "a", "text": "two"},
        ],
    },
]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n\n" for row in ROWS))
    return path


def ask(llm, prompt, sample=0):
    return asyncio.run(llm.generate(to_messages(prompt), Sampling(temperature=1.0, sample=sample)))


def test_it_gives_back_what_the_model_said(path):
    llm = ReplayLLM("again", path, "a")
    assert ask(llm, "Why?").text == "Because."
    assert ask(llm, " Translate.\nHallo\n").text == "Hello"
    assert [ask(llm, "Again?", sample).text for sample in (0, 1)] == ["one", "two"]
    answer = ask(llm, "Again?")
    assert (answer.model, answer.cost, answer.usage) == ("again", 0.0, Usage(3, 1))
    assert ask(ReplayLLM("all", path), "Why?", 1).text == "So."


def test_streamed(path):
    pieces = []
    asyncio.run(ReplayLLM("again", path, "b").generate(to_messages("Why?"), on_text=pieces.append))
    assert pieces == ["So."]


def test_what_is_not_recorded_is_said(path):
    llm = ReplayLLM("again", path, "b")
    with pytest.raises(LLMError, match="holds no answer by b to this prompt") as error:
        ask(llm, "When?")
    assert error.value.reason == "not_found"
    with pytest.raises(LLMError, match="holds 1 answers by b to this prompt; sample 1"):
        ask(llm, "Why?", 1)


def test_compressed(path, tmp_path):
    (tmp_path / "r.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    (tmp_path / "r.jsonl.zst").write_bytes(zstandard.compress(path.read_bytes()))
    for name in ("r.jsonl.gz", "r.jsonl.zst"):
        assert ask(ReplayLLM("again", tmp_path / name, "a"), "Why?").text == "Because."


def test_wrong_files(path, tmp_path):
    with pytest.raises(NotFoundError, match=r"no file .*none\.jsonl of recorded answers"):
        ReplayLLM("again", tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="holds no answer by 'c'; its models: a, b"):
        ask(ReplayLLM("again", path, "c"), "Why?")
    for text in ("not json", '{"candidates": []}', '{"instruction": "x", "candidates": [{"model": "a", "text": 1}]}'):
        (tmp_path / "bad.jsonl").write_text(json.dumps(ROWS[0]) + "\n" + text + "\n")
        with pytest.raises(InputError, match=r"bad\.jsonl, line 2: this is no row of recorded answers"):
            ask(ReplayLLM("again", tmp_path / "bad.jsonl", "a"), "Why?")


def test_another_file_is_another_call(path, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text(path.read_text().replace("Because", "Since"))
    messages = to_messages("Why?")
    keys = {
        call_key(ReplayLLM(name, file, model).identity, messages, Sampling())
        for name, file, model in (("x", path, "a"), ("y", path, "a"), ("x", other, "a"), ("x", path, "b"))
    }
    assert len(keys) == 3


def test_in_the_configuration_its_file_is_seen_from_there(path, tmp_path, monkeypatch):
    file = tmp_path / "blend.toml"
    entry = Config.from_toml('[[llm]]\nprovider = "replay"\nname = "x"\nmodel = "b"\nrows = "rows.jsonl"\n', file)
    monkeypatch.chdir("/")
    llm = load_llm(entry.llm[0], entry.folder)
    assert ask(llm, "Why?").text == "So."
