"""Rows out of what other projects publish: results, preferences, labelled pairs, scored answers."""

from llm_blender.data.importing.formats import FORMATS, Format
from llm_blender.data.importing.imported import Imported, Written
from llm_blender.data.importing.importing import import_rows
from llm_blender.data.importing.plan import ImportPlan
from llm_blender.data.importing.splits import parse_split

__all__ = ["FORMATS", "Format", "ImportPlan", "Imported", "Written", "import_rows", "parse_split"]
