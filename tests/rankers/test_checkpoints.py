from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from llm_blender.errors import CheckpointError
from llm_blender.rankers.checkpoints import load_tokenizer, ranker_identity

WORDS = ["[UNK]", "a", "special", "false", '"', ":", ",", "{", "}", "[", "]", "<", ">", "|", "mark", "plain", "\\"]
TEXTS = [
    'a [UNK] <|mark|> a<|plain|>special, "special": false',
    '{"special": false}',
    "<|mark|><|mark|> |plain|> <| plain |>",
    'a "special":false mark [UNK] \\"special\\": false',
]


@pytest.fixture
def folder(tmp_path):
    """A vocabulary that holds what looks like the key of an added token, special tokens, and an added plain one."""
    vocabulary = {word: number for number, word in enumerate([*WORDS, '"special": false', "special: false"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[UNK]"])
    tokenizer.add_tokens([AddedToken("<|mark|>", normalized=False), AddedToken("<|plain|>", lstrip=True)])
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


@pytest.mark.parametrize("indent", [None, 2])
def test_each_added_token_is_special_and_nothing_else_changes(folder, indent):
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values, indent=indent))
    expected = {**values, "truncation": None, "padding": None}
    expected["added_tokens"] = [{**token, "special": True} for token in values["added_tokens"]]
    assert [token["special"] for token in values["added_tokens"]] == [True, False, False]

    loaded, rebuilt = load_tokenizer(folder), Tokenizer.from_str(json.dumps(expected))
    assert json.loads(loaded.to_str()) == json.loads(rebuilt.to_str())
    for plain in (False, True):
        loaded.encode_special_tokens = rebuilt.encode_special_tokens = plain
        ids = [[encoding.ids for encoding in each.encode_batch(TEXTS)] for each in (loaded, rebuilt)]
        assert ids[0] == ids[1]
        marks = {values["added_tokens"][1]["id"], values["added_tokens"][2]["id"]}
        assert bool(marks & set(ids[0][0])) is not plain


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"special": false}', "\udcff"])
def test_a_damaged_file_is_an_error_with_its_name(folder, text):
    path = folder / "tokenizer.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is not a tokenizer"):
        load_tokenizer(folder)


def test_a_ranker_that_was_trained_again_is_another_one(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    draw = random.Random(0)
    (tmp_path / "model.safetensors").write_bytes(draw.randbytes(1_000_000))
    first = ranker_identity(str(tmp_path))
    assert ranker_identity(str(tmp_path)) == first
    (tmp_path / "model.safetensors").write_bytes(draw.randbytes(1_000_000))  # of the same size
    assert ranker_identity(str(tmp_path)) != first
