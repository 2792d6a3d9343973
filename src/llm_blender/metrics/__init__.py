"""Metrics: scores of texts against references, GPT-Rank, and correlations between rankings."""

from llm_blender._cmp_results import OUTCOMES, read_cmp_results
from llm_blender.metrics.bart_score import Direction, bartscore
from llm_blender.metrics.bert_score import bertscore
from llm_blender.metrics.bleurt_score import bleurt
from llm_blender.metrics.correlations import (
    CORRELATIONS,
    column_correlations,
    pearson,
    set_based,
    spearman,
    spearman_footrule,
)
from llm_blender.metrics.evaluation import METRICS, Evaluation, EvaluationRow, Metric, evaluate, unload_models
from llm_blender.metrics.gpt_rank import (
    TIES_AS_HALF,
    TIES_AS_WINS,
    GPTRanking,
    Outcome,
    Reading,
    Selected,
    Versus,
    gpt_ranking,
    selected_ranks,
    versus,
)
from llm_blender.metrics.overlap import ROUGE, Sentences, bleu, rouge
from llm_blender.metrics.scores import References, Scores

__all__ = [
    "CORRELATIONS",
    "METRICS",
    "OUTCOMES",
    "ROUGE",
    "TIES_AS_HALF",
    "TIES_AS_WINS",
    "Direction",
    "Evaluation",
    "EvaluationRow",
    "GPTRanking",
    "Metric",
    "Outcome",
    "Reading",
    "References",
    "Scores",
    "Selected",
    "Sentences",
    "Versus",
    "bartscore",
    "bertscore",
    "bleu",
    "bleurt",
    "column_correlations",
    "evaluate",
    "gpt_ranking",
    "pearson",
    "read_cmp_results",
    "rouge",
    "selected_ranks",
    "set_based",
    "spearman",
    "spearman_footrule",
    "unload_models",
    "versus",
]
