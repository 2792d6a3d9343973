"""Quality against dollars and seconds: one LLM, best-of-n, routing, picking, fusing, on the same rows."""

from __future__ import annotations

from llm_blender.bench.cost.methods import (
    MethodCosts,
    NearestRouter,
    Picker,
    best_of_n,
    bounds,
    fused_answers,
    picks,
    routed,
    singles,
)
from llm_blender.bench.cost.report import cost_quality, cost_table, plot_costs
from llm_blender.bench.cost.rows import LLMPrice, PricedRows, PriceList, RankerPrice, priced_rows

__all__ = [
    "LLMPrice",
    "MethodCosts",
    "NearestRouter",
    "Picker",
    "PriceList",
    "PricedRows",
    "RankerPrice",
    "best_of_n",
    "bounds",
    "cost_quality",
    "cost_table",
    "fused_answers",
    "picks",
    "plot_costs",
    "priced_rows",
    "routed",
    "singles",
]
