"""``blend bench fuse``: fused answers against references."""

from __future__ import annotations

from typing import Annotated

import typer

from llm_blender.cli._metric_options import metric_settings
from llm_blender.cli._options import JsonOption
from llm_blender.cli._output import note, print_json, print_table
from llm_blender.cli._progress import progress
from llm_blender.errors import InputError

__all__ = ["fuse"]


def fuse(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Rows from `blend fuse`; - is standard input.")],
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="NAME[=MODEL]",
            help="bleu, rouge1, rouge2, rougeL, rougeLsum, bertscore, bartscore or bleurt; the last three load a "
            "model, a folder or Hub repository, the paper's own unless one is named. May be given several times.",
            show_default="bleu, rougeL",
        ),
    ] = None,
    candidates: Annotated[
        bool, typer.Option("--candidates", help="Measure all candidates too: random, longest, each LLM, oracle.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the bootstrap.")] = 0,
    device: Annotated[str | None, typer.Option("--device", help="Of the metrics' models: cpu, cuda, mps, ….")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure fused answers against references.

    The rows are those with a `fusion` and a reference (`output`). Beside the answer that was given back stands the
    candidate that the ranker put first, and with --candidates what could have been chosen: random (what is expected
    of a draw), longest, each LLM with an answer in every row, and oracle, the best candidate of each row by that very
    metric. Methods are compared with the best candidate in paired intervals, bootstrapped over instructions. A metric
    whose model cannot be had is named, and the others are measured. BLEU is the mean over the rows.

    JSON: [{metric, method, rows, mean, ci95, versus: {method, mean, ci95}}], and {metric, unavailable} for a metric
    that could not be computed.
    """
    from llm_blender.bench import fused_rows, fusion_table, measure_fusions
    from llm_blender.data import read_rows

    if as_json and markdown:
        raise InputError("Choose one of --json and --markdown.")
    wanted = metric_settings(metrics or ["bleu", "rougeL"], device)
    rows, left_out = fused_rows(file, read_rows(file))
    if left_out:
        note(f"{file}: {left_out:,} of {left_out + len(rows):,} rows have no fused answer or no reference")
    with progress("measuring", "texts") as report:
        results = measure_fusions(rows, wanted, candidates=candidates, seed=seed, progress=report)
    for metric, reason in results.unavailable.items():
        note(f"{metric} is unavailable: {reason}")
    if as_json:
        lost = [{"metric": metric, "unavailable": reason} for metric, reason in results.unavailable.items()]
        print_json([*(measure.to_dict() for measure in results.measures), *lost])
    elif markdown:
        typer.echo(fusion_table(results).markdown())
    else:
        table = fusion_table(results)
        print_table(table.columns, table.rows)
    if not results.measures:
        raise typer.Exit(1)
