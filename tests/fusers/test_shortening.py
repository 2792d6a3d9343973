from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_blender.fusers.texts import even_cap


@pytest.mark.parametrize(
    ("lengths", "budget", "cap"),
    [
        ([10, 200, 40], 120, 70),
        ([5, 5], 100, 5),
        ([5, 5], 3, 1),
        ([7], 0, 0),
        ([7], -3, 0),
        ([], 10, 0),
        ([0, 0], 10, 0),
    ],
)
def test_the_longest_are_shortened_first(lengths: list[int], budget: int, cap: int) -> None:
    assert even_cap(lengths, budget) == cap


@given(st.lists(st.integers(0, 60), min_size=1, max_size=6), st.integers(0, 200))
def test_it_is_the_greatest_length_that_fits(lengths: list[int], budget: int) -> None:
    cap = even_cap(lengths, budget)
    assert sum(min(length, cap) for length in lengths) <= budget
    if cap < max(lengths):
        assert sum(min(length, cap + 1) for length in lengths) > budget
