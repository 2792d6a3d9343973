from __future__ import annotations

import hashlib
import json
import tracemalloc
from collections.abc import Iterator

import pytest

from llm_blender.ensemble.prompts import Prompts
from llm_blender.errors import WorkError
from llm_blender.types import Example

ROWS = [Example("Ä?", id="a"), Example("b", input="c", id="b"), Example("d", id="a"), Example("e"), Example("f")]
IDS = ["a", "b", "a-3", "", "-5"]


def of(rows: list[Example]) -> Prompts:
    return Prompts(lambda: rows)


def test_each_row_has_an_id_of_its_own() -> None:
    prompts = of(ROWS)
    assert (prompts.ids, len(prompts)) == (IDS, 5)
    assert [row.id for row in prompts] == IDS
    assert [row.prompt for row in prompts] == [row.prompt for row in ROWS]


def test_the_hash_is_that_of_one_list_of_ids_and_prompts() -> None:
    """Jobs that version 1.0 began have it in their settings."""
    texts = [[name, row.prompt] for name, row in zip(IDS, ROWS, strict=True)]
    for n in range(len(ROWS) + 1):
        expected = hashlib.sha256(json.dumps(texts[:n]).encode()).hexdigest()
        assert of(ROWS).sha256_of(n) == of(ROWS[:n]).sha256 == expected


def test_rows_that_change_are_noticed() -> None:
    for others in (ROWS[:4], [*ROWS, Example("g")], [*ROWS[:4], Example("g")]):
        rows = list(ROWS)
        prompts = of(rows)
        rows[:] = others
        with pytest.raises(WorkError, match="changed during the run"):
            list(prompts)


def test_memory_does_not_hold_the_prompts() -> None:
    def read() -> Iterator[Example]:
        return (Example(f"{i} ".ljust(4_000, "x"), id=f"p{i}") for i in range(2_000))

    tracemalloc.start()
    try:
        prompts = Prompts(read)
        held, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 200 * len(prompts)
    assert most < 500 * len(prompts)
