"""Rows in MixInstruct's format: read and write them."""

from llm_blender.data.files import RowWriter, read_records
from llm_blender.data.rows import normalized_key, parse_row, read_rows

__all__ = ["RowWriter", "normalized_key", "parse_row", "read_records", "read_rows"]
