"""``blend bench fuse``: whether fused answers are better than the candidates they were made of."""

from llm_blender.bench.fused.effort import FusionEffort, FusionWins, fusion_effort, judge_fusions
from llm_blender.bench.fused.measures import FusionMeasure, FusionMeasures, MeasureDifference, measure_fusions
from llm_blender.bench.fused.rows import FusedRow, fused_rows

__all__ = [
    "FusedRow",
    "FusionEffort",
    "FusionMeasure",
    "FusionMeasures",
    "FusionWins",
    "MeasureDifference",
    "fused_rows",
    "fusion_effort",
    "judge_fusions",
    "measure_fusions",
]
