"""``blend bench table``: make the paper's table, its correlations and its plots."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm_blender.cli._options import HtmlOption, MetricOption, PlotOption, metric_settings, with_options
from llm_blender.cli._output import note, print_json, print_table
from llm_blender.cli._progress import progress
from llm_blender.cli._rankers import BenchOptions, load_rankers, model_names, note_judges

if TYPE_CHECKING:
    from llm_blender.bench.table import PaperTable

__all__ = ["table"]

_ON_A_TERMINAL = (("metric",), ("rank", "top"), ("versus",))


@with_options
def table(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Rows; - is standard input.")],
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
    from llm_blender.bench import require_matplotlib
    from llm_blender.bench.cache import CachedMetrics
    from llm_blender.bench.table import measure_pool, paper_table, rank_pool, read_pool, with_tradeoff
    from llm_blender.data import read_rows

    drawn = plot is not None or html is not None
    if drawn:
        require_matplotlib()
    wanted = metric_settings(metrics or [], options.device)
    pool = read_pool(
        file,
        read_rows(file),
        model_names(options),
        score=score,
        complete=options.complete,
        measuring=bool(wanted),
    )
    loaded = load_rankers(options)
    with progress("measuring", "texts") as report:
        computed, unavailable = measure_pool(pool, wanted, CachedMetrics(options.comparisons), progress=report)
    ranked = []
    for name, ranker in loaded.rankers.items():
        with progress(name, "comparisons") as report:
            ranked.append(rank_pool(pool, ranker, name, seed=options.seed, progress=report))
    note_judges(loaded.judges)
    found = paper_table(pool, ranked, computed=computed, unavailable=unavailable, seed=options.seed)
    if drawn:
        with progress("strategies", "strategies") as report:
            found = with_tradeoff(found, pool, ranked, seed=options.seed, progress=report)
    for remark in found.coverage.remarks():
        note(remark)
    _draw(found, plot, html)
    _print(found, options)


def _draw(found: PaperTable, plot: Path | None, html: Path | None) -> None:
    from llm_blender.bench.table import plot_table, write_report

    paths = plot_table(found, plot) if plot is not None else []
    if html is not None:
        paths.append(write_report(found, html))
    for path in paths:
        note(f"{path} drawn")


def _print(found: PaperTable, options: BenchOptions) -> None:
    from llm_blender.bench.table import correlation_table, method_table

    if options.as_json:
        print_json(found.to_dict())
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
