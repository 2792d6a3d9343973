from __future__ import annotations

from collections import Counter

import pytest

from llm_blender.datasets import parse_split
from llm_blender.datasets.importing import split_of
from llm_blender.errors import InputError

SHARES = {"train": 0.8, "dev": 0.1, "test": 0.1}


def test_shares_by_name():
    assert parse_split(" train=0.8, dev=0.1,test=.1") == SHARES
    assert parse_split("all=1") == {"all": 1.0}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("train", "is no split: write it like"),
        ("train=", "is no split"),
        ("train=most,test=0.1", "is no split"),
        ("train=0.5,train=0.5", "each name once"),
        ("a/b=1", "is no split"),
        ("train=1.2,test=-0.2", "is no split"),
        ("train=0,test=1", "is no split"),
        ("train=nan,test=0.5", "is no split"),
        ("train=0.8,test=0.1", "add up to 0.9, not to 1"),
    ],
)
def test_a_wrong_split_is_said(value, message):
    with pytest.raises(InputError, match=message):
        parse_split(value)


def test_the_shares_are_met_on_average():
    counts = Counter(split_of(f"question {n}", SHARES, 0) for n in range(10_000))
    for name, share in SHARES.items():
        assert abs(counts[name] - 10_000 * share) < 4 * (10_000 * share * (1 - share)) ** 0.5


def test_the_seed_changes_the_split_and_nothing_else_does():
    keys = [f"question {n}" for n in range(200)]
    splits = [split_of(key, SHARES, 0) for key in keys]
    assert splits == [split_of(key, SHARES, 0) for key in reversed(keys)][::-1]
    assert splits != [split_of(key, SHARES, 1) for key in keys]


def test_the_split_is_the_same_on_every_machine():
    # printf '0\0split\0a' | sha256sum begins with 282a: 0.157 of the way; b 78ce, c 117b, d 6ad9, e 6237, f d6e2
    shares = {"train": 0.4, "dev": 0.2, "test": 0.4}
    assert [split_of(key, shares, 0) for key in "abcdef"] == ["train", "dev", "train", "dev", "train", "test"]
