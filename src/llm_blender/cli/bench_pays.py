"""``blend bench pays``: measure quality, dollars and seconds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm_blender.cli._options import PlotOption, PriorsOption, StrategyOption, with_options
from llm_blender.cli._output import note
from llm_blender.cli._progress import progress
from llm_blender.cli._rankers import (
    BenchOptions,
    FileArgument,
    QualityOption,
    compared_models,
    load_rankers,
    note_drawn,
    note_limit,
    print_results,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_blender.bench.cost import Picker, PricedRows, PriceList
    from llm_blender.ranking import Priors


@with_options
def pays(
    file: FileArgument,
    score: QualityOption,
    choose_on: Annotated[
        str,
        typer.Option("--choose-on", metavar="TRAIN", help="Choose the best LLM, and train routing, on these rows."),
    ],
    prices: Annotated[
        Path | None,
        typer.Option(
            "--prices",
            metavar="FILE",
            help="Read prices from this TOML: [[llm]] name, price = { input, output } in dollars per million tokens, "
            "and seconds or tokens_per_second; [[ranker]] name, and seconds and dollars of a comparison.",
            show_default="[[llm]] price of blend.toml",
        ),
    ] = None,
    nearest: Annotated[
        int, typer.Option("--nearest", metavar="K", min=1, help="Route by the K nearest known instructions.")
    ] = 20,
    strategy: StrategyOption = "auto",
    priors: PriorsOption = None,
    plot: PlotOption = None,
    *,
    options: BenchOptions,
) -> None:
    """Measure the quality of methods per dollar and per second.

    On the same rows: each LLM alone, first the one that did best on --choose-on; the ranker's pick of several samples
    of that one (best-of-n), where rows hold them; routing, which calls only the LLM that did best on the nearest known
    instructions (TF-IDF); the ranker's pick among the best 2, 3, … and all LLMs, with --priors a second time; fused
    answers, where a `fusion` has the score; random and the oracle. Methods are compared with the best single LLM in
    paired intervals, bootstrapped over instructions. Calls run side by side: an answer takes as long as the slowest,
    and then the ranker. Tokens are those of the candidates' `usage`, else characters / 4. A missing price or time is
    unknown, never zero. Tables show scores from 0 to 1 in percent.

    JSON: [{method, kind, rows, calls, comparisons, quality, gain, dollars, seconds, extra_dollars, gain_per_dollar}],
    the last six as {value, ci95} or null; dollars are those of 1,000 answers, `gain` and `extra_dollars` are against
    the best single LLM, and `gain_per_dollar` is `gain` over `extra_dollars`, null where a method costs no more.
    """
    from llm_blender.bench import cost, require_matplotlib
    from llm_blender.bench.methods import order_models
    from llm_blender.cli._rankers import load_priors, note_unknown
    from llm_blender.config import load_config
    from llm_blender.ranking import comparison_count

    if plot is not None:
        require_matplotlib()
    comparison_count(strategy, 2)  # refuses a wrong name before anything is read
    names = compared_models(options)
    listed = cost.PriceList.load(prices) if prices else cost.PriceList.from_config(load_config(options.config))
    found, known = (
        cost.priced_rows(part, listed, score, names, complete=options.complete, limit=limit)
        for part, limit in ((file, options.limit), (choose_on, None))
    )
    note_limit(file, options.limit)
    order = order_models(found.rows, known.rows)
    strengths = load_priors(priors)
    note_unknown(strengths, found.models)
    _note_rows(file, found, known)
    costs = cost.singles(found, order)
    sampled, picked = [], []
    for picker in _pickers(options, listed, strategy, strengths):
        with progress(picker.name, "comparisons") as report:
            sampled += cost.best_of_n(found, picker, order[0], report)
            picked += cost.picks(found, picker, order, report)
    if not sampled:
        note(f"{file}: no row holds several answers of {order[0]}, so there is no line for best-of-n")
    everyone = next((line for line in picked if line.method.endswith(f"all {len(found.models)}")), None)
    routing = cost.routed(found, known.rows, order, nearest)
    costs += [*sampled, routing, *picked, *cost.fused_answers(found, everyone), *cost.bounds(found)]
    results = cost.cost_quality(found.rows, costs, seed=options.seed)
    percent = all(0 <= quality <= 1 for row in found.rows for quality in row.qualities)
    if plot is not None:
        note_drawn(cost.plot_costs(results, plot, percent=percent))
    print_results(results, cost.cost_table(results, percent=percent), options)


def _pickers(options: BenchOptions, prices: PriceList, strategy: str, priors: Priors | None) -> Sequence[Picker]:
    from llm_blender.bench.cost import Picker
    from llm_blender.cli._rankers import note_other_ranker

    loaded = load_rankers(options)
    pickers = []
    for name, ranker in loaded.rankers.items():
        note_other_ranker(priors, name)
        price, timed, paid = prices.of_ranker(name), options.comparisons is None, name in loaded.judges
        if price.seconds is None and not timed:
            note(f"{name}: cached comparisons have no time: name its seconds in --prices")
        if price.dollars is None and paid:
            note(f"{name}: the cost of a comparison is unknown: name its dollars in --prices")
        pickers.append(Picker(ranker, name, price, strategy, options.seed, priors, timed, paid))
    return pickers


def _note_rows(file: str, found: PricedRows, known: PricedRows) -> None:
    """Note missing scores, prices and times, estimates, and instructions that are in both files."""
    ragged = sum(len(set(row.models)) < len(found.models) for row in found.rows)
    if ragged:
        note(
            f"{file}: in {ragged:,} of {len(found.rows):,} rows not all of the {len(found.models)} LLMs have the score"
        )
    seen = {row.prompt for row in known.rows}
    if shared := sum(row.prompt in seen for row in found.rows):
        note(f"{file}: {shared:,} of {len(found.rows):,} instructions are in --choose-on too, which flatters routing")
    if found.estimated:
        note(
            f"{file}: {found.estimated:,} of {found.answers:,} answers have no `usage`: their tokens are estimated as "
            "characters / 4"
        )
    if found.unscored_fusions:
        note(f"{file}: {found.unscored_fusions:,} fused answers lack the score and are left out")
    for what, word in (("dollars", "price"), ("seconds", "seconds")):
        if lost := found.unknown(what):
            note(f"no {word} known for {', '.join(lost)}: lines that call them are unknown; --prices gives them")
