"""The settings of an ensemble: where they come from, and how one prompt has other ones."""

from __future__ import annotations

import asyncio
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from llm_blender.config import Config
from llm_blender.ensemble import Ensemble, EnsembleSettings, Limits, Member
from llm_blender.ensemble.run import run_settings
from llm_blender.errors import InputError
from llm_blender.fusers import FusionRule
from llm_blender.fusers.chat_fuser import ChatFuser
from llm_blender.ranking import Priors
from llm_blender.store import Store
from llm_blender.testing import FakeLLM, FakeRanker

PROMPT = "Say something."
TOML = """
[ensemble]
mode = "fuse"
[ranker]
strategy = "knockout"
budget = 7
priors = "priors.json"
[fuser]
top_k = 2
guard = false
prefer = 0.75
[limits]
deadline = 9.0
quorum = 1
"""


def ensemble(**options: Any) -> Ensemble:
    llms = [FakeLLM("a", "Short."), FakeLLM("b", "A longer answer.")]
    return Ensemble([Member(llm) for llm in llms], FakeRanker(), **options)


def test_a_configuration_has_all_settings(tmp_path: Path) -> None:
    path = tmp_path / "blend.toml"
    Priors({"a": 1.0, "b": -1.0}).save(tmp_path / "priors.json")
    settings = EnsembleSettings.from_config(Config.from_toml(TOML, path))
    assert (settings.strategy, settings.budget, settings.mode) == ("knockout", 7, "fuse")
    assert (settings.top_k, settings.guard, settings.rule) == (2, False, FusionRule(prefer=0.75))
    assert settings.limits == Limits(deadline=9.0, quorum=1)
    assert settings.priors is not None
    assert settings.priors.strengths["a"] > 0
    assert EnsembleSettings.from_config(Config()) == EnsembleSettings()


@pytest.mark.parametrize("change", [{"strategy": "knockotu"}, {"mode": "merge"}, {"top_k": 1}])
def test_wrong_settings_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        replace(EnsembleSettings(), **change)
    with pytest.raises(InputError):
        ensemble(**change)


def test_the_constructor_takes_settings_and_changes_of_them() -> None:
    settings = EnsembleSettings(strategy="knockout", budget=5)
    assert ensemble(settings=settings, budget=6).settings == replace(settings, budget=6)
    with pytest.raises(TypeError, match="stratgy"):
        ensemble(stratgy="full")


def test_a_prompt_with_other_settings_leaves_the_ensemble_as_it_is() -> None:
    blender = ensemble()
    other = replace(blender.settings, strategy="knockout", priors=Priors({"a": 20.0, "b": -20.0}))

    async def ask() -> tuple[str, str]:
        answers = await asyncio.gather(blender.aask(PROMPT, settings=other), blender.aask(PROMPT))
        return answers[0].text, answers[1].text

    assert asyncio.run(ask()) == ("Short.", "A longer answer.")
    assert blender.settings == EnsembleSettings()
    with pytest.raises(InputError, match="needs a fuser"):
        blender.ask(PROMPT, settings=replace(other, mode="fuse"))


def test_a_prompt_with_other_members_and_without_the_store(tmp_path: Path) -> None:
    with Store(tmp_path / "blend.db") as store:
        blender = ensemble(store=store)
        answer = blender.ask(PROMPT, members=[Member(FakeLLM("c", "Another."), 2)], cache=False)
        assert ([candidate.model for candidate in answer.candidates], len(store)) == (["c", "c"], 0)
        assert (len(blender.ask(PROMPT).candidates), len(store)) == (2, 2)


def test_ranked_texts_are_fused_within_the_limits_of_the_settings() -> None:
    fuser = FakeLLM("f", "An answer that is made of both of them.", cost=0.5)
    blender = ensemble(fuser=ChatFuser(fuser), mode="fuse", limits=Limits(max_cost=0.4))
    texts = ["Short.", "A longer answer."]

    async def fuse(settings: EnsembleSettings) -> str:
        ranking = await blender.arank(PROMPT, texts, settings=settings)
        return (await blender.afuse(PROMPT, texts, ranking, settings=settings)).reason

    assert asyncio.run(fuse(blender.settings)) == "failed"
    assert asyncio.run(fuse(replace(blender.settings, limits=Limits()))) == "better"
    with pytest.raises(InputError, match="mode pick"):
        asyncio.run(fuse(replace(blender.settings, mode="pick")))


def test_a_job_that_began_before_finds_its_settings_again() -> None:
    found = run_settings(ensemble(limits=Limits(quorum=1)), [], ranker="longest", fuser="chat", seed=3)
    assert list(found) == [
        "prompts", "prompts_sha256", "seed", "llms", "ranker", "priors", "mode", "fuser", "quorum",
    ]  # fmt: skip
    assert found["ranker"] == {"name": "longest", "strategy": "auto", "budget": 40}
    assert (found["priors"], found["mode"], found["fuser"], found["quorum"]) == (False, "pick", None, 1)
    fusing = ensemble(fuser=ChatFuser(FakeLLM()), mode="auto")
    rule = {each.name: getattr(FusionRule(), each.name) for each in fields(FusionRule)}
    assert run_settings(fusing, [], ranker="longest", fuser="chat", seed=3)["fuser"] == {
        "name": "chat", "top_k": 3, "guard": True, "rule": rule,
    }  # fmt: skip
