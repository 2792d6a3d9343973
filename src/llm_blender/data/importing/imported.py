"""What an import came to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_blender.data.importing.plan import ImportPlan

__all__ = ["Imported", "Written"]


@dataclass(frozen=True)
class Written:
    """A file that was written.

    Attributes:
        path: of it.
        split: its name; empty where nothing was divided.
        rows: in it.
        candidates: answers in them.
        pairs: judged pairs in them.
        ties: of these, how many are ties.
        sha256: of the file; empty where it is none, such as standard output.
        card: path of its card; empty where it is none, such as standard output.
    """

    path: str
    split: str
    rows: int
    candidates: int
    pairs: int
    ties: int
    sha256: str = ""
    card: str = ""

    @property
    def file_name(self) -> str:
        """Its name alone."""
        return Path(self.path).name


@dataclass(frozen=True)
class Imported:
    """What an import came to. Records are those skipped and those in rows; rows are those left out and those written.

    Attributes:
        plan: what was asked for.
        format: of the files.
        inputs: name and sha256 of each file that was read.
        excluded: likewise, of the files whose prompts were left out.
        records: read.
        skipped: records that became part of no row, by reason.
        bad: what is wrong with the first bad row that was left out; empty where there is none.
        rows: made of the other records.
        left_out: rows that were not written, by reason.
        written: the files.
        remarks: what else a user should know.
    """

    plan: ImportPlan
    format: str
    inputs: dict[str, str]
    excluded: dict[str, str]
    records: int
    skipped: dict[str, int]
    bad: str
    rows: int
    left_out: dict[str, int]
    written: tuple[Written, ...]
    remarks: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "format": self.format,
            "files": len(self.inputs),
            "records": self.records,
            "skipped": self.skipped,
            "first_bad": self.bad or None,
            "rows": self.rows,
            "left_out": self.left_out,
            "written": [dict(vars(file)) for file in self.written],
            "remarks": list(self.remarks),
        }
