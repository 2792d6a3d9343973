"""Rows in MixInstruct's format: read and write them, and make preference data of them."""

from llm_blender.data.files import STDIO, RowWriter, read_records
from llm_blender.data.pair_choice import PAIR_CHOICES, ChosenPairs, PairChoice, choose_pairs, compare_chosen
from llm_blender.data.preferences import (
    PREFERENCE_FORMATS,
    Preference,
    PreferenceFormat,
    Preferences,
    make_preferences,
)
from llm_blender.data.rows import keep_candidates, normalized_key, parse_row, parse_rows, read_rows
from llm_blender.data.stored_rankings import stored_ranking

__all__ = [
    "PAIR_CHOICES",
    "PREFERENCE_FORMATS",
    "STDIO",
    "ChosenPairs",
    "PairChoice",
    "Preference",
    "PreferenceFormat",
    "Preferences",
    "RowWriter",
    "choose_pairs",
    "compare_chosen",
    "keep_candidates",
    "make_preferences",
    "normalized_key",
    "parse_row",
    "parse_rows",
    "read_records",
    "read_rows",
    "stored_ranking",
]
