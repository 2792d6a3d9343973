from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llm_blender.cli import app
from llm_blender.errors import ConfigError, NotFoundError
from llm_blender.rankers import load_ranker
from llm_blender.training.recipes import Recipe

NAMES = ["sky", "sea", "sun", "moon", "tree", "bird"]
RECIPES = Path(__file__).parents[3] / "recipes"


@pytest.fixture
def blend(good_and_bad, tmp_path, monkeypatch):
    """Runs ``blend train ranker`` in a folder of rows and recipes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.toml").write_text(
        "max_length = 64\nsource_max_length = 16\nbatch_tokens = 80\nalone = 0\n"
        '[[sources]]\nfile = "train.jsonl"\nname = "Good and bad"\n[[dev_sources]]\nfile = "dev.jsonl"\n'
    )
    (tmp_path / "other.toml").write_text('base = "pairs.toml"\nranker = "simcls"\nlearning_rate = 1e-3\n')
    return lambda *args: CliRunner().invoke(app, ["train", "ranker", *map(str, args)])


@pytest.mark.parametrize("kind", ["summa_reranker", "simcls", "reward_model", "mlm_scoring"])
def test_the_same_command_trains_each(blend, tiny_encoder, kind, tmp_path):
    args = ("--ranker", kind, "--recipe", "pairs.toml", "-o", "made", "--backbone", tiny_encoder, "--json")
    result = blend(*args)
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert (summary["output"], summary["pairs"], summary["int8"]) == ("made", 6, {})
    assert set(summary["dev"]) == {"pairs", "agreement", "longest", "ece", "brier"}
    assert (summary["dev"]["pairs"], summary["dev"]["longest"]) == (2, 1)

    name = f"mlm:{tmp_path / 'made'}" if kind == "mlm_scoring" else tmp_path / "made"
    ranking = load_ranker(name).rank("why is the sky", ["the sky is good", "the sky is bad"])
    assert sorted(ranking.ranks) == [1, 2]
    if kind in ("summa_reranker", "simcls"):
        assert load_ranker(name).temperature == summary["temperature"]
    card = (tmp_path / "made" / "README.md").read_text()
    assert ('load_ranker("mlm:made")' if kind == "mlm_scoring" else 'load_ranker("made")') in card
    assert f"| ranker | {kind} |" in card
    assert "| Good and bad | unknown | 6 | 0 | 6 | 6 | `" in card
    assert "alone_layers" not in card
    assert f"| {kind} | {summary['steps']} | " in card

    if kind == "reward_model":
        weights = (tmp_path / "made" / "model.safetensors").read_bytes()
        again = blend(*args)
        assert json.loads(again.stdout)["dev"] == summary["dev"]
        assert (tmp_path / "made" / "model.safetensors").read_bytes() == weights
        other = blend("--ranker", "simcls", *args[2:])
        assert other.exit_code == 2
        assert "belongs to a run with another recipe" in other.stderr


def test_a_summa_reranker_has_the_scores_for_tasks(blend, tiny_encoder, tmp_path):
    (tmp_path / "summa.toml").write_text('base = "pairs.toml"\nranker = "summa_reranker"\ndev_sources = []\n')
    result = blend("--recipe", "summa.toml", "-o", "made", "--backbone", tiny_encoder, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads((tmp_path / "made" / "config.json").read_text())["tasks"] == ["preference", "judge"]
    assert json.loads(result.stdout)["dev"] == {}
    assert "There were no development pairs." in (tmp_path / "made" / "README.md").read_text()


def test_a_ranker_that_is_not_known(blend):
    result = blend("--ranker", "simclr", "--recipe", "pairs.toml")
    assert result.exit_code == 2
    assert "did you mean 'simcls'" in result.stderr


class TestBase:
    def test_values_are_those_of_the_base_but_for_its_own(self, blend, tmp_path):
        base, other = (Recipe.load(tmp_path / f"{name}.toml") for name in ("pairs", "other"))
        assert other == base.model_copy(update={"ranker": "simcls", "learning_rate": 1e-3})

    def test_one_that_is_not_there(self, tmp_path):
        (tmp_path / "a.toml").write_text('base = "none.toml"\n')
        with pytest.raises(NotFoundError, match=r"no recipe .*none\.toml"):
            Recipe.load(tmp_path / "a.toml")

    def test_a_base_has_none_itself(self, tmp_path):
        (tmp_path / "a.toml").write_text('base = "a.toml"\n')
        with pytest.raises(ConfigError, match="base: Extra inputs are not permitted"):
            Recipe.load(tmp_path / "a.toml")

    @pytest.mark.parametrize("name", ["summa_reranker", "simcls", "reward_model", "mlm_head"])
    def test_the_baselines_learn_from_what_the_pair_ranker_learns_from(self, name):
        late, baseline = (Recipe.load(RECIPES / f"{file}.toml") for file in ("late", name))
        assert baseline.ranker == ("mlm_scoring" if name == "mlm_head" else name)
        assert baseline.dev_sources == late.dev_sources
        assert {source.file for source in baseline.sources} <= {source.file for source in late.sources}
        if name != "mlm_head":
            assert baseline.sources == late.sources
