"""Measurement of rankers, fusers and LLMs on rows, and the strengths of LLMs that rows teach."""

from llm_blender.bench.agreement import (
    Agreement,
    agreement_table,
    agreements,
    baseline_predictions,
    evidence_table,
    ranker_predictions,
)
from llm_blender.bench.cache import CachedRanker
from llm_blender.bench.fusion import (
    FusedRow,
    FusionWins,
    fused_rows,
    fusion_effort,
    fusion_effort_table,
    fusion_table,
    judge_fusions,
    measure_fusions,
)
from llm_blender.bench.fusion_page import fusion_page
from llm_blender.bench.judged_pairs import JudgedPairs, implied_pairs, labelled_pairs
from llm_blender.bench.learn_priors import (
    named_rows,
    priors_from_judgements,
    priors_from_ranker,
    voted_rows,
    weigh_priors,
)
from llm_blender.bench.plots import plot_agreements, require_matplotlib
from llm_blender.bench.report import Table, write_page
from llm_blender.bench.resampling import Difference
from llm_blender.bench.rows import BenchRow, draw_candidates, scored_rows
from llm_blender.bench.selection import (
    Selection,
    baseline_selections,
    folded_selections,
    ranker_selections,
    selection_table,
)

__all__ = [
    "Agreement",
    "BenchRow",
    "CachedRanker",
    "Difference",
    "FusedRow",
    "FusionWins",
    "JudgedPairs",
    "Selection",
    "Table",
    "agreement_table",
    "agreements",
    "baseline_predictions",
    "baseline_selections",
    "draw_candidates",
    "evidence_table",
    "folded_selections",
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
    "ranker_predictions",
    "ranker_selections",
    "require_matplotlib",
    "scored_rows",
    "selection_table",
    "voted_rows",
    "weigh_priors",
    "write_page",
]
