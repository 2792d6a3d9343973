import pytest

from llm_blender.bench.rows import REST, subset_names
from llm_blender.errors import InputError

ROWS = [
    {"source": "web", "meta": {"subset": "hard", "year": 2023}},
    {"source": "book", "meta": {"subset": None}},
    {"meta": {"subset": ""}},
]


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("source", ["web", "book", REST]),
        ("meta.subset", ["hard", REST, REST]),
        ("subset", ["hard", REST, REST]),
        ("year", ["2023", REST, REST]),
    ],
)
def test_names(key, names):
    assert subset_names(ROWS, key) == names


def test_a_key_of_the_row_comes_before_one_inside_an_object():
    assert subset_names([{"part": "outer", "meta": {"part": "inner"}}], "part") == ["outer"]


@pytest.mark.parametrize(
    ("rows", "key", "message"),
    [
        (ROWS, "sorce", "did you mean 'source'"),
        ([{}], "source", "there is none at all"),
        ([{"a": {"part": 1}, "b": {"part": 2}}], "part", r"say which of a\.part, b\.part"),
        ([{"tags": ["x"]}], "tags", "not list"),
    ],
)
def test_what_names_no_subset_is_refused(rows, key, message):
    with pytest.raises(InputError, match=message):
        subset_names(rows, key)
