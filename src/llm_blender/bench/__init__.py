"""Methods measured on rows: whose preferences agree with the judges, and how good is what is selected."""

from llm_blender.bench.pairs import (
    Agreement,
    JudgedPairs,
    baseline_agreements,
    implied_pairs,
    labelled_pairs,
    ranker_agreement,
)
from llm_blender.bench.recorded import RecordedRanker
from llm_blender.bench.scored import ScoredRow, scored_rows
from llm_blender.bench.select import Selection, baseline_selections, ranker_selection
from llm_blender.bench.tables import Table, agreement_table, selection_table

__all__ = [
    "Agreement",
    "JudgedPairs",
    "RecordedRanker",
    "ScoredRow",
    "Selection",
    "Table",
    "agreement_table",
    "baseline_agreements",
    "baseline_selections",
    "implied_pairs",
    "labelled_pairs",
    "ranker_agreement",
    "ranker_selection",
    "scored_rows",
    "selection_table",
]
