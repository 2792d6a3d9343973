"""Make data sets: import rows from public formats, or build them from instructions and LLMs."""

from __future__ import annotations

from llm_blender.datasets.build import BuildObserver, build_data
from llm_blender.datasets.candidates import Estimate
from llm_blender.datasets.card import Built
from llm_blender.datasets.formats import FORMATS, Format, ImportPlan
from llm_blender.datasets.importing import Imported, Written, import_rows, parse_split
from llm_blender.datasets.judging import Consistency
from llm_blender.datasets.plan import BuildPlan
from llm_blender.datasets.scoring import WrittenRows

__all__ = [
    "FORMATS",
    "BuildObserver",
    "BuildPlan",
    "Built",
    "Consistency",
    "Estimate",
    "Format",
    "ImportPlan",
    "Imported",
    "Written",
    "WrittenRows",
    "build_data",
    "import_rows",
    "parse_split",
]
