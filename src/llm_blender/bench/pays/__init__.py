"""Does it pay? Quality beside dollars and seconds: one LLM, best-of-n, routing, picking, fusing, on the same rows."""

from llm_blender.bench.pays.lines import Payoff, payoffs
from llm_blender.bench.pays.methods import (
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
from llm_blender.bench.pays.pictures import plot_payoffs
from llm_blender.bench.pays.prices import LLMPrice, PriceList, RankerPrice
from llm_blender.bench.pays.routing import NearestRouter
from llm_blender.bench.pays.rows import PaidFusion, PaidRow, PaidRows, paid_rows
from llm_blender.bench.pays.text import payoff_table

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
