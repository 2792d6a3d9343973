"""Measures of answers and of judges: GPT-Rank, and the correlations between rankings."""

from llm_blender.metrics.correlations import (
    CORRELATIONS,
    column_correlations,
    find_correlation,
    pearson,
    set_based,
    spearman,
    spearman_footrule,
)
from llm_blender.metrics.gpt_rank import (
    TIES_AS_HALF,
    TIES_AS_WINS,
    GPTRankSummary,
    Outcome,
    Reading,
    Selected,
    Versus,
    mean_gpt_rank,
    selected_ranks,
    versus,
)
from llm_blender.metrics.judgements import OUTCOMES, GPTRanking, gpt_ranking, read_cmp_results

__all__ = [
    "CORRELATIONS",
    "OUTCOMES",
    "TIES_AS_HALF",
    "TIES_AS_WINS",
    "GPTRankSummary",
    "GPTRanking",
    "Outcome",
    "Reading",
    "Selected",
    "Versus",
    "column_correlations",
    "find_correlation",
    "gpt_ranking",
    "mean_gpt_rank",
    "pearson",
    "read_cmp_results",
    "selected_ranks",
    "set_based",
    "spearman",
    "spearman_footrule",
    "versus",
]
