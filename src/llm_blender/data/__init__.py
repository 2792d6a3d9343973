"""Rows in MixInstruct's format: read and write them, and make preference data of them."""

from llm_blender.data.checking import RowsReport, report_rows
from llm_blender.data.files import STDIO, RowWriter, read_records
from llm_blender.data.instructions import (
    NO_LENGTHS,
    PAPER_LENGTHS,
    Chosen,
    Lengths,
    choose_instructions,
    read_instructions,
    source_files,
)
from llm_blender.data.mix_instruct import MIX_INSTRUCT, parse_mix_instruct_row, read_mix_instruct
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
from llm_blender.data.votes import VOTE_FORMATS, VoteFormat, vote_records

__all__ = [
    "MIX_INSTRUCT",
    "NO_LENGTHS",
    "PAIR_CHOICES",
    "PAPER_LENGTHS",
    "PREFERENCE_FORMATS",
    "STDIO",
    "VOTE_FORMATS",
    "Chosen",
    "ChosenPairs",
    "Lengths",
    "PairChoice",
    "Preference",
    "PreferenceFormat",
    "Preferences",
    "RowWriter",
    "RowsReport",
    "VoteFormat",
    "choose_instructions",
    "choose_pairs",
    "compare_chosen",
    "keep_candidates",
    "make_preferences",
    "normalized_key",
    "parse_mix_instruct_row",
    "parse_row",
    "parse_rows",
    "read_instructions",
    "read_mix_instruct",
    "read_records",
    "read_rows",
    "report_rows",
    "source_files",
    "stored_ranking",
    "vote_records",
]
