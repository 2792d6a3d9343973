"""The paper's table (arXiv 2306.02561, table 2), its correlations and its plots, from judged rows."""

from llm_blender.bench.table.columns import measure_pool, rank_pool
from llm_blender.bench.table.paper import PaperTable, paper_table, with_tradeoff
from llm_blender.bench.table.plots import plot_table, svg_pictures
from llm_blender.bench.table.pool import read_pool
from llm_blender.bench.table.report import correlation_table, method_table, report_page

__all__ = [
    "PaperTable",
    "correlation_table",
    "measure_pool",
    "method_table",
    "paper_table",
    "plot_table",
    "rank_pool",
    "read_pool",
    "report_page",
    "svg_pictures",
    "with_tradeoff",
]
