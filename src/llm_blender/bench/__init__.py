"""Methods measured on rows: whose preferences agree with the judges, and how good is what is selected."""

from llm_blender.bench.evidence import Evidence, baseline_evidence, ranker_evidence
from llm_blender.bench.judged import JudgedPairs, implied_pairs, labelled_pairs
from llm_blender.bench.pairs import Agreement, Difference, ReliabilityBin, agreements
from llm_blender.bench.plots import plot_agreements, require_matplotlib
from llm_blender.bench.recorded import RecordedRanker
from llm_blender.bench.scored import ScoredRow, scored_rows
from llm_blender.bench.select import Selection, baseline_selections, ranker_selection
from llm_blender.bench.tables import Table, agreement_table, selection_table

__all__ = [
    "Agreement",
    "Difference",
    "Evidence",
    "JudgedPairs",
    "RecordedRanker",
    "ReliabilityBin",
    "ScoredRow",
    "Selection",
    "Table",
    "agreement_table",
    "agreements",
    "baseline_evidence",
    "baseline_selections",
    "implied_pairs",
    "labelled_pairs",
    "plot_agreements",
    "ranker_evidence",
    "ranker_selection",
    "require_matplotlib",
    "scored_rows",
    "selection_table",
]
