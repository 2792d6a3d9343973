import pytest

from llm_blender.bench import scored_rows
from llm_blender.bench.rows import REST, group_ids, subset_names
from llm_blender.errors import InputError
from llm_blender.types import Candidate, Example


def row(prompt, **scores):
    """Make a row with a candidate per model; None has no score."""
    return Example(
        prompt, candidates=tuple(Candidate(f"by {m}", m, {} if s is None else {"win": s}) for m, s in scores.items())
    )


ROWS = [row("one", ann=1, bob=0, cy=0.5), row("two", ann=1, bob=None, cy=0), row("three", ann=1, bob=None, cy=None)]


def test_rows_with_at_least_two_scored_candidates():
    one, two = scored_rows(ROWS, "win")
    assert (one.prompt, one.texts, one.models, one.qualities) == (
        "one",
        ("by ann", "by bob", "by cy"),
        ("ann", "bob", "cy"),
        (1, 0, 0.5),
    )
    assert (two.prompt, two.models) == ("two", ("ann", "cy"))


def test_the_input_belongs_to_the_prompt():
    example = Example("Translate.", "Haus", candidates=row("", ann=1, bob=0).candidates)
    assert scored_rows([example], "win")[0].prompt == "Translate.\nHaus"


def test_only_these_models():
    (one,) = scored_rows(ROWS, "win", ["cy", "bob"])
    assert one.models == ("bob", "cy")


def test_complete_rows_have_the_scores_of_all_models():
    assert [r.prompt for r in scored_rows(ROWS, "win", ["ann", "bob", "cy"])] == ["one", "two"]
    assert [r.prompt for r in scored_rows(ROWS, "win", ["ann", "bob", "cy"], complete=True)] == ["one"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("wins",), "Unknown score 'wins': did you mean 'win'"),
        (("win", ["ann", "bop"]), "Unknown model 'bop': did you mean 'bob'"),
        (("win", ["ann"]), "no row in which at least two candidates"),
    ],
)
def test_what_leads_to_no_rows_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        scored_rows(ROWS, *arguments)


def test_no_complete_row():
    rows = [row("one", ann=1, bob=None, cy=1), row("two", ann=None, bob=1, cy=1)]
    with pytest.raises(InputError, match="no row in which all of the models"):
        scored_rows(rows, "win", ["ann", "bob"], complete=True)


def test_no_scores_at_all():
    with pytest.raises(InputError, match="Unknown score 'win': there is none"):
        scored_rows([Example("say", candidates=(Candidate("a"), Candidate("b")))], "win")


def test_rows_of_one_prompt_are_one_group_but_an_empty_prompt_is_not_known():
    assert len(set(group_ids(["a", "b", "a"]))) == 2
    assert group_ids(["a", "b", "a"])[::2] == [0, 0]
    assert len(set(group_ids(["", "", "a"]))) == 3


EXTRAS = [
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
    assert subset_names(EXTRAS, key) == names


def test_a_key_of_the_row_comes_before_one_inside_an_object():
    assert subset_names([{"part": "outer", "meta": {"part": "inner"}}], "part") == ["outer"]


@pytest.mark.parametrize(
    ("rows", "key", "message"),
    [
        (EXTRAS, "sorce", "did you mean 'source'"),
        ([{}], "source", "there is none at all"),
        ([{"a": {"part": 1}, "b": {"part": 2}}], "part", r"choose one of a\.part, b\.part"),
        ([{"tags": ["x"]}], "tags", "not list"),
    ],
)
def test_what_names_no_subset_is_refused(rows, key, message):
    with pytest.raises(InputError, match=message):
        subset_names(rows, key)
