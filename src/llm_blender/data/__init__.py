"""Rows in MixInstruct's format: read and write them."""

from llm_blender.data.files import STDIO, RowWriter, read_records
from llm_blender.data.rows import keep_candidates, normalized_key, parse_row, parse_rows, read_rows

__all__ = [
    "STDIO",
    "RowWriter",
    "keep_candidates",
    "normalized_key",
    "parse_row",
    "parse_rows",
    "read_records",
    "read_rows",
]
