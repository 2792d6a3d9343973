"""Answer a prompt with several LLMs, under a deadline, a quorum and a budget."""

from llm_blender.ensemble.ensemble import DEFAULT_SAMPLES, Ensemble, Member, fuser_name
from llm_blender.ensemble.form import Form
from llm_blender.ensemble.gathering import Limits, Observer
from llm_blender.ensemble.judge import Judge, load_judge
from llm_blender.ensemble.settings import EnsembleSettings

__all__ = [
    "DEFAULT_SAMPLES",
    "Ensemble",
    "EnsembleSettings",
    "Form",
    "Judge",
    "Limits",
    "Member",
    "Observer",
    "fuser_name",
    "load_judge",
]
