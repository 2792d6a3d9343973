"""``blend bench table``: make the paper's table, its correlations and its plots."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from llm_blender.cli._options import HtmlOption, MetricOption, PlotOption, metric_settings, split_names, with_options
from llm_blender.cli._output import note, print_json, print_table
from llm_blender.cli._progress import progress
from llm_blender.cli._rankers import (
    BenchOptions,
    FileArgument,
    first_rows,
    limited,
    load_rankers,
    note_drawn,
    note_judges,
)

if TYPE_CHECKING:
    from llm_blender.bench.table import PaperTable

_ON_A_TERMINAL = (("metric",), ("rank", "top"), ("versus",))


@with_options
def table(
    file: FileArgument,
    score: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Take the judge's pairs from this score of the candidates, not from `cmp_results`."
        ),
    ] = None,
    metrics: MetricOption = None,
    plot: PlotOption = None,
    html: HtmlOption = None,
    *,
    options: BenchOptions,
) -> None:
    """Measure LLMs, oracles, rankers and fused answers as table 2 of the paper does.

    The rows hold the judge's pairwise outcomes (`cmp_results`, as in MixInstruct), or --score names a score of the
    candidates whose implied pairs take their place. Columns are all scores that the rows hold, GPT-Rank, how often an
    answer is at least as good as that of each of the two best LLMs (ties as wins, and as half), and how often its
    GPT-Rank is at most 1, 2, 3. Rankers compare all pairs in both orders. Rows with a `fusion` add a line for the fused
    answers. A second table holds the correlations of rankers and metrics with GPT-Rank. Intervals are bootstrapped over
    instructions. Standard error counts the rows, candidates and scores that are left out.

    JSON: {caption, bases, columns: [{key, title, kind, better, base}], lines: [{method, kind, comparisons, cells: {key:
    {value, ci95, rows}}}], correlations: [{method, rows, measures: {name: {value, ci95}}}], best: [{model, share, ci95,
    top}], pairs: [{model, other, rate, ci95, rows}], lengths: [{method, rate, ci95, pairs}], tradeoff: [{ranker,
    strategy, aggregation, comparisons, quality, ci95}], quality, census: {file, found, rows, counts, …}}, shares and
    rates from 0 to 1; `tradeoff` is filled with --plot or --html.
    """
    from llm_blender.bench import require_matplotlib, write_page
    from llm_blender.bench import table as paper
    from llm_blender.bench.cache import CachedMetrics

    drawn = plot is not None or html is not None
    if drawn:
        require_matplotlib()
    wanted = metric_settings(metrics or [], options.device)
    rows, models = first_rows(file, options.limit), split_names(options.models)
    pool = paper.read_pool(file, rows, models, score=score, complete=options.complete, measuring=bool(wanted))
    loaded = load_rankers(options)
    with progress("measuring", "texts") as report:
        computed, unavailable = paper.measure_pool(pool, wanted, CachedMetrics(options.comparisons), progress=report)
    ranked = []
    for name, ranker in loaded.rankers.items():
        with progress(name, "comparisons") as report:
            ranked.append(paper.rank_pool(pool, ranker, name, seed=options.seed, progress=report))
    note_judges(loaded.judges)
    found = paper.paper_table(pool, ranked, computed=computed, unavailable=unavailable, seed=options.seed)
    if drawn:
        with progress("strategies", "strategies") as report:
            found = paper.with_tradeoff(found, pool, ranked, seed=options.seed, progress=report)
    for remark in found.coverage.remarks():
        note(remark)
    if plot is not None:
        note_drawn(paper.plot_table(found, plot))
    if html is not None:
        note_drawn([write_page(paper.report_page(found), html)])
    _print(found, options)


def _print(found: PaperTable, options: BenchOptions) -> None:
    from llm_blender.bench.table import correlation_table, method_table

    if options.as_json:
        print_json(found.to_dict() | limited(options.limit))
        return
    correlations = correlation_table(found)
    if options.markdown:
        tables = [method_table(found), correlations]
        typer.echo("\n\n".join([found.caption, *(part.markdown() for part in tables if part.rows)]))
        return
    note(found.caption)
    wide = not sys.stdout.isatty()  # a terminal has no room for all columns side by side
    parts = [method_table(found)] if wide else [method_table(found, kinds) for kinds in _ON_A_TERMINAL]
    for part in (*parts, correlations):
        if part.rows and len(part.columns) > 1:
            print_table(part.columns, part.rows)
