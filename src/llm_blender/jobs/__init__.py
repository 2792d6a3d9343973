"""Resumable work on many rows: each row once, no call paid for twice."""

from __future__ import annotations

from llm_blender.calls import Budget
from llm_blender.jobs.backends import Backend, LocalBackend, RayBackend, Stage
from llm_blender.jobs.chunks import FileWork, Part, Parts, Tally, parts_digest, work_through_files
from llm_blender.jobs.engine import Item, OnRows, Result, Rows, work_through, work_through_batches
from llm_blender.jobs.job import Job, Outputs, settings_digest
from llm_blender.jobs.journal import Entry, Journal, Status

__all__ = [
    "Backend",
    "Budget",
    "Entry",
    "FileWork",
    "Item",
    "Job",
    "Journal",
    "LocalBackend",
    "OnRows",
    "Outputs",
    "Part",
    "Parts",
    "RayBackend",
    "Result",
    "Rows",
    "Stage",
    "Status",
    "Tally",
    "parts_digest",
    "settings_digest",
    "work_through",
    "work_through_batches",
    "work_through_files",
]
