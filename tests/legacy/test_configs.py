from __future__ import annotations

import json

import pytest

from llm_blender import BlenderConfig, GenFuserConfig, RankerConfig
from llm_blender.errors import InputError


@pytest.mark.parametrize("kind", [BlenderConfig, GenFuserConfig, RankerConfig])
def test_to_and_fro(kind):
    config = kind(device="cuda:1")
    assert kind.from_dict(config.to_dict()) == config
    assert kind.from_json(config.to_json(indent=2)) == config
    assert json.loads(config.to_json()) == config.to_dict()


def test_unknown_keys_are_left_out_and_missing_ones_get_their_default():
    assert RankerConfig.from_dict({"n_tasks": 3, "vocab_size": 1}) == RankerConfig(n_tasks=3)


def test_both_spellings_of_the_lengths():
    config = RankerConfig.from_dict({"source_max_length": 128, "candidate_maxlength": 64, "candidate_max_length": None})
    assert (config.source_maxlength, config.candidate_maxlength) == (128, 64)


@pytest.mark.parametrize(("text", "message"), [("{", "the text is not JSON"), ("[]", "a JSON object, not from list")])
def test_what_is_no_configuration(text, message):
    with pytest.raises(InputError, match=message):
        BlenderConfig.from_json(text)


def test_they_can_be_changed():
    config = BlenderConfig()
    config.use_tqdm = False
    assert config.to_dict() == {"device": None, "use_tqdm": False}
