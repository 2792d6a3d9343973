"""Long work, row by row: resumable, each row once, nothing paid twice."""

from llm_blender.batch.budget import Budget
from llm_blender.batch.engine import Item, OnRows, Result, Rows, work_through, work_through_batches
from llm_blender.batch.job import Job, settings_digest
from llm_blender.batch.journal import Entry, Journal, Status

__all__ = [
    "Budget",
    "Entry",
    "Item",
    "Job",
    "Journal",
    "OnRows",
    "Result",
    "Rows",
    "Status",
    "settings_digest",
    "work_through",
    "work_through_batches",
]
