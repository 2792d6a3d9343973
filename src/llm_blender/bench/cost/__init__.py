"""Does it pay? Quality beside dollars and seconds: one LLM, best-of-n, routing, picking, fusing, on the same rows."""

from __future__ import annotations

from llm_blender.bench.cost.methods import (
    NearestRouter,
    Picker,
    Played,
    best_of_n,
    bounds,
    fused_answers,
    picks,
    routed,
    singles,
    training_order,
)
from llm_blender.bench.cost.report import Payoff, payoff_table, payoffs, plot_payoffs
from llm_blender.bench.cost.rows import LLMPrice, PaidFusion, PaidRow, PaidRows, PriceList, RankerPrice, paid_rows

__all__ = [
    "LLMPrice",
    "NearestRouter",
    "PaidFusion",
    "PaidRow",
    "PaidRows",
    "Payoff",
    "Picker",
    "Played",
    "PriceList",
    "RankerPrice",
    "best_of_n",
    "bounds",
    "fused_answers",
    "paid_rows",
    "payoff_table",
    "payoffs",
    "picks",
    "plot_payoffs",
    "routed",
    "singles",
    "training_order",
]
