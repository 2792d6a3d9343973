"""Methods measured on rows: whose preferences agree with the judges, and how good is what is selected.

And what rows teach about the LLMs that wrote the answers.
"""

from llm_blender.bench.agreement import (
    Agreement,
    Difference,
    Evidence,
    ReliabilityBin,
    agreements,
    baseline_evidence,
    ranker_evidence,
)
from llm_blender.bench.cache import RecordedRanker
from llm_blender.bench.fusion import (
    FusedRow,
    FusionEffort,
    FusionMeasure,
    FusionMeasures,
    FusionWins,
    MeasureDifference,
    fused_rows,
    fusion_effort,
    judge_fusions,
    measure_fusions,
)
from llm_blender.bench.fusion_page import fusion_page
from llm_blender.bench.judged_pairs import JudgedPairs, implied_pairs, labelled_pairs
from llm_blender.bench.learn_priors import (
    NamedRow,
    named_rows,
    priors_from_judgements,
    priors_from_ranker,
    weigh_priors,
)
from llm_blender.bench.plots import plot_agreements, require_matplotlib
from llm_blender.bench.report import (
    Table,
    agreement_table,
    fusion_effort_table,
    fusion_table,
    selection_table,
    write_page,
)
from llm_blender.bench.rows import ScoredRow, scored_rows
from llm_blender.bench.selection import Selection, baseline_selections, ranker_selections

__all__ = [
    "Agreement",
    "Difference",
    "Evidence",
    "FusedRow",
    "FusionEffort",
    "FusionMeasure",
    "FusionMeasures",
    "FusionWins",
    "JudgedPairs",
    "MeasureDifference",
    "NamedRow",
    "RecordedRanker",
    "ReliabilityBin",
    "ScoredRow",
    "Selection",
    "Table",
    "agreement_table",
    "agreements",
    "baseline_evidence",
    "baseline_selections",
    "fused_rows",
    "fusion_effort",
    "fusion_effort_table",
    "fusion_page",
    "fusion_table",
    "implied_pairs",
    "judge_fusions",
    "labelled_pairs",
    "measure_fusions",
    "named_rows",
    "plot_agreements",
    "priors_from_judgements",
    "priors_from_ranker",
    "ranker_evidence",
    "ranker_selections",
    "require_matplotlib",
    "scored_rows",
    "selection_table",
    "weigh_priors",
    "write_page",
]
