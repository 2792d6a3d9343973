from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_blender.errors import ConfigError, NotFoundError, RowError
from llm_blender.training.groups import excluded_keys, load_groups
from llm_blender.training.recipes import FuserRecipe, Recipe, Source

RECIPES = Path(__file__).parents[2] / "recipes"


def test_a_recipe_is_toml(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('orders = "one"\n[[sources]]\nfile = "a.jsonl"\npairs = "labelled"\nexclude_models = ["x"]\n')
    recipe = Recipe.load(path)
    assert recipe.orders == "one"
    assert recipe.sources == (Source(file="a.jsonl", pairs="labelled", exclude_models=("x",)),)
    assert recipe.epochs == Recipe().epochs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat = 1", 'unknown key "learning_rat"; did you mean "learning_rate"'),
        ("[[sources]]\nfile = 'a'\ngap = 1", r'\[\[sources\]\] #1: unknown key "gap"; (known|did you mean)'),
        ("[[sources]]\npairs = 'implied'", r'\[\[sources\]\] #1: "file" is missing\.$'),
        ("[[sources]]\nfile = 'a'\npairs = 'guessed'", r'\[\[sources\]\] #1: "pairs" should be'),
        ("alone = 1.5", '"alone" should be at most 1'),
        ("epochs = 0", '"epochs" should be at least 1'),
        ("max_length = 128\nsource_max_length = 128", "leave at least 32 tokens"),
        ("max_length = ", "is not TOML"),
        (b"seed = 1 # \xff", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, message):
    path = tmp_path / "recipe.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=message) as error:
        Recipe.load(path)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = 1\nlearning_rat = 1", ', line 2: unknown key "learning_rat"; did you mean "learning_rate"?'),
        ("[[sources]]\nfile = 'a'\n\n[[sources]]\npairs = 'labelled'", ', line 4: [[sources]] #2: "file" is missing.'),
        (
            "[[sources]]\nfil = 'a'",
            ', line 2: [[sources]] #1: unknown key "fil"; did you mean "file"?',  # and not that "file" is missing
        ),
        ("[[dev]]\nfile = 'a'", ', line 1: unknown key "dev"; did you mean "dev_sources"?'),
        ("[sources]\nfile = 'a'", ", line 1: write it as [[sources]], with two brackets and a table for each."),
        ("[[sources]]\nfile = 'a'\nscores = 'judge'", ', line 3: [[sources]] #1: "scores" should be a list.'),
        ("bf16 = 'maybe'", ', line 1: "bf16" should be a valid boolean.'),
        ('loss = "logistik"', ", line 1: \"loss\" should be 'logistic', 'soft_logistic', 'bce',"),
        (
            "epochs = 0\nbackbon = 'x'\n[[sources]]\nfile = 3\n",
            ': 3 problems: (1) PATH, line 2: unknown key "backbon"; did you mean "backbone"? (2) PATH, line 1: '
            '"epochs" should be at least 1. (3) PATH, line 4: [[sources]] #1: "file" should be a valid string.',
        ),
    ],
)
@pytest.mark.parametrize("kind", [Recipe, FuserRecipe])
def test_all_that_is_wrong_is_named_with_its_line(tmp_path, text, message, kind):
    if kind is FuserRecipe:
        text, message = (
            part.replace("scores", "models").replace("pairs = 'labelled'", "score = 'x'") for part in (text, message)
        )
        if "loss" in text:
            pytest.skip("a fuser has one loss")
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        kind.load(path)
    found = str(error.value)
    assert found.replace(str(path), "PATH").startswith("PATH" + message)
    assert not any(word in found for word in ("Input", "Extra", "valid tuple", "Field", "pydantic"))


def test_what_is_wrong_in_a_base_is_named_there(tmp_path):
    (tmp_path / "base.toml").write_text("epochs = 1\nwarmup = 2\n")
    (tmp_path / "own.toml").write_text('base = "base.toml"\nepochs = 0\n')
    with pytest.raises(ConfigError) as error:
        Recipe.load(tmp_path / "own.toml")
    assert f'{tmp_path / "base.toml"}, line 2: "warmup" should be less than 1.' in str(error.value)
    assert f'{tmp_path / "own.toml"}, line 2: "epochs" should be at least 1.' in str(error.value)


def test_the_losses_of_a_recipe_are_those_there_are():
    from typing import get_args

    from llm_blender.training.losses import LOSSES
    from llm_blender.training.recipes import LossName

    assert set(get_args(LossName)) == set(LOSSES)


def test_a_recipe_that_is_not_there(tmp_path):
    with pytest.raises(NotFoundError, match="no recipe"):
        Recipe.load(tmp_path / "none.toml")


class TestBase:
    def test_values_are_those_of_the_base_but_for_its_own(self, tmp_path):
        (tmp_path / "pairs.toml").write_text('max_length = 64\nsource_max_length = 16\n[[sources]]\nfile = "a"\n')
        (tmp_path / "other.toml").write_text('base = "pairs.toml"\nranker = "simcls"\nlearning_rate = 1e-3\n')
        base, other = (Recipe.load(tmp_path / f"{name}.toml") for name in ("pairs", "other"))
        assert other == base.model_copy(update={"ranker": "simcls", "learning_rate": 1e-3})

    def test_one_that_is_not_there(self, tmp_path):
        (tmp_path / "a.toml").write_text('base = "none.toml"\n')
        with pytest.raises(NotFoundError, match=r"no recipe .*none\.toml"):
            Recipe.load(tmp_path / "a.toml")

    def test_a_base_has_none_itself(self, tmp_path):
        (tmp_path / "a.toml").write_text('base = "a.toml"\n')
        with pytest.raises(ConfigError, match="a base of its own"):
            Recipe.load(tmp_path / "a.toml")

    @pytest.mark.parametrize("name", ["summa_reranker", "simcls", "reward_model", "mlm_head"])
    def test_the_baselines_learn_from_what_the_pair_ranker_learns_from(self, name):
        late, baseline = (Recipe.load(RECIPES / f"{file}.toml") for file in ("late", name))
        assert baseline.ranker == ("mlm_scoring" if name == "mlm_head" else name)
        assert baseline.dev_sources == late.dev_sources
        assert {source.file for source in baseline.sources} <= {source.file for source in late.sources}
        if name != "mlm_head":
            assert baseline.sources == late.sources


class TestSources:
    @pytest.fixture
    def folder(self, tmp_path):
        for name, count in (("a", 6), ("b", 4)):
            candidates = [{"text": text, "scores": {"judge": len(text)}} for text in ("x", "yy")]
            rows = ({"instruction": f"{name} Question {i}", "candidates": candidates} for i in range(count))
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path

    def test_all_are_mixed_and_counted(self, folder):
        sources = [Source(file="a.jsonl", max_groups=5), Source(file="b.jsonl")]
        groups, counts = load_groups(sources, folder, frozenset(), 0)
        assert [(count.rows, count.excluded, count.groups, count.pairs) for count in counts] == [
            (6, 0, 5, 5),
            (4, 0, 4, 4),
        ]
        assert [count.path for count in counts] == [folder / "a.jsonl", folder / "b.jsonl"]
        names = "".join(group.prompt[0] for group in groups)
        assert sorted(names) == list("aaaaabbbb")
        assert names not in ("aaaaabbbb", "bbbbaaaaa")
        assert (
            load_groups(sources, folder, frozenset(), 0)[0] == groups != load_groups(sources, folder, frozenset(), 1)[0]
        )

    def test_what_a_test_file_asks_is_left_out(self, folder):
        test = folder / "test.jsonl"
        test.write_text(
            json.dumps({"instruction": " A  question", "input": "2", "candidates": []})
            + "\n"
            + json.dumps({"instruction": "A QUESTION 4", "candidates": []})
        )
        groups, (count,) = load_groups([Source(file="a.jsonl")], folder, excluded_keys([test]), 0)
        # An input follows after a newline, which is white space like any other.
        assert {group.prompt for group in groups} == {f"a Question {i}" for i in (0, 1, 3, 5)}
        assert (count.rows, count.excluded, count.groups) == (6, 2, 4)

    def test_a_file_that_is_not_there(self, folder):
        with pytest.raises(NotFoundError, match=r"no file .*none\.jsonl"):
            load_groups([Source(file="none.jsonl")], folder, frozenset(), 0)

    def test_a_bad_row(self, folder):
        (folder / "a.jsonl").write_text("{")
        with pytest.raises(RowError, match=r"a\.jsonl, line 1"):
            load_groups([Source(file="a.jsonl")], folder, frozenset(), 0)
