"""The paper's table (arXiv 2306.02561, table 2), its correlations and its pictures, from judged rows."""

from llm_blender.bench.table.census import Census
from llm_blender.bench.table.columns import Column
from llm_blender.bench.table.correlating import Correlation, Estimate
from llm_blender.bench.table.measuring import RecordedMetrics, measure_pool
from llm_blender.bench.table.methods import Ranked, rank_pool
from llm_blender.bench.table.paper import Cell, Line, PaperTable, paper_table, with_tradeoff
from llm_blender.bench.table.pictures import plot_table, svg_pictures
from llm_blender.bench.table.pool import FusedAnswer, TablePool, TableRow, read_pool
from llm_blender.bench.table.report import report_page, write_report
from llm_blender.bench.table.standings import BestShare, LengthBias, PairRate
from llm_blender.bench.table.text import correlation_table, method_table
from llm_blender.bench.table.tradeoff import TradeoffPoint

__all__ = [
    "BestShare",
    "Cell",
    "Census",
    "Column",
    "Correlation",
    "Estimate",
    "FusedAnswer",
    "LengthBias",
    "Line",
    "PairRate",
    "PaperTable",
    "Ranked",
    "RecordedMetrics",
    "TablePool",
    "TableRow",
    "TradeoffPoint",
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
    "write_report",
]
