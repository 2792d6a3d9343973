"""A data set in MixInstruct's format from nothing: instructions, candidates, metrics, judgements, rows, a card."""

from llm_blender.batch.building.build import BuildObserver, build_data
from llm_blender.batch.building.built import Built
from llm_blender.batch.building.consistency import Consistency
from llm_blender.batch.building.estimates import Estimate
from llm_blender.batch.building.plan import BuildPlan
from llm_blender.batch.building.writing import WrittenRows

__all__ = ["BuildObserver", "BuildPlan", "Built", "Consistency", "Estimate", "WrittenRows", "build_data"]
