"""``blend bench fuse``: measure fused answers against references."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_blender.cli._options import (
    ConfigOption,
    DeviceOption,
    HtmlOption,
    JsonOption,
    LimitOption,
    MarkdownOption,
    MetricOption,
    SeedOption,
    metric_settings,
)
from llm_blender.cli._output import note, print_json, print_table
from llm_blender.cli._progress import progress

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llm_blender.bench import FusionWins
    from llm_blender.bench.report import Result


def fuse(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE…", help="Rows from `blend fuse`, a file each; - is standard input.")
    ],
    metrics: MetricOption = None,
    candidates: Annotated[
        bool, typer.Option("--candidates", help="Measure the candidates too: random, longest, each LLM, oracle.")
    ] = False,
    judge: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Compare in both orders with this LLM of the configuration."),
    ] = None,
    limit: LimitOption = None,
    config: ConfigOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = None,
    html: HtmlOption = None,
    examples: Annotated[int, typer.Option(min=0, help="Show N rows of each file on that page.")] = 20,
    markdown: MarkdownOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure fused answers against references.

    The rows are those with a `fusion` and a reference (`output`). answer is the answer returned, let through the same
    on the rows in which it is a fused text, fused the text of the fuser, returned or not, auto the answer of --mode
    auto with the configured thresholds, and best candidate the one that the ranker put first. --candidates adds random
    (the expectation of a draw), longest, each LLM with an answer in every row, and oracle, the best candidate of each
    row by that very metric. Methods are compared with the best candidate in paired intervals, bootstrapped over
    instructions. A metric whose model cannot be loaded is reported, and the others are measured. BLEU is the mean over
    the rows.

    A second table shows the effort of fusing: tokens and seconds are means of the rows that were fused. A judge
    compares the fused texts that were returned with the best candidates; ties are half a win.

    The page of --html marks the sentences of a fused text by the candidate that holds them.

    JSON: {measures: [{file, metric, method, rows, mean, ci95, versus: {method, mean, ci95}}], unavailable: [{file,
    metric, reason}], effort: [{file, rows, asked, let_through, reasons, prompt_tokens, completion_tokens, seconds,
    cost, truncated}], judge: [{file, judge, rows, wins, ties, share, ci95}]}.
    """
    from llm_blender import bench
    from llm_blender.cli._rankers import JUDGE, check_format, first_rows, limited, load_judges, note_judges
    from llm_blender.config import load_config
    from llm_blender.fusers import FusionRule

    check_format(as_json=as_json, markdown=markdown)
    wanted = metric_settings(metrics or ["bleu", "rougeL"], device)
    settings = load_config(config).fuser
    rule = FusionRule(**settings.thresholds)
    rows = {}
    for file in dict.fromkeys(files):
        rows[file], left_out = bench.fused_rows(file, first_rows(file, limit))
        if left_out:
            note(f"{file}: {left_out:,} of {left_out + len(rows[file]):,} rows have no fused answer or no reference")
    judges = load_judges([] if judge is None else [JUDGE + judge], config)
    results = {}
    wins: dict[str, FusionWins] = {}
    for file, of_file in rows.items():
        with progress(f"measuring {file}", "texts") as report:
            results[file] = bench.measure_fusions(
                of_file, wanted, candidates=candidates, rule=rule, seed=seed, progress=report
            )
        for name, ranker in judges.items():
            with progress(f"judging {file}", "comparisons") as report:
                won = bench.judge_fusions(of_file, ranker, name.removeprefix(JUDGE), seed=seed, progress=report)
            wins |= {} if won is None else {file: won}
    note_judges(judges)
    efforts = {file: bench.fusion_effort(of_file) for file, of_file in rows.items()}
    lost = [
        {"file": file, "metric": metric, "reason": reason}
        for file, of_file in results.items()
        for metric, reason in of_file.unavailable.items()
    ]
    for entry in lost:
        note(f"{entry['metric']} is unavailable: {entry['reason']}")
    tables = (bench.fusion_table(results), bench.fusion_effort_table(efforts, wins))
    if html is not None:
        page = bench.fusion_page(rows, tables, examples=examples, seed=seed)
        note(f"{bench.write_page(page, html)} written")
    if as_json:
        measures = [(file, measure) for file, one in results.items() for measure in one.measures]
        effort, judged = _by_file(efforts.items()), _by_file(wins.items())
        found = {"measures": _by_file(measures), "unavailable": lost, "effort": effort, "judge": judged}
        print_json({**found, **limited(limit)})
    elif markdown:
        typer.echo("\n\n".join(table.markdown() for table in tables))
    else:
        for table in tables:
            print_table(table.columns, table.rows)
            typer.echo("")
    if not any(of_file.measures for of_file in results.values()):
        raise typer.Exit(1)


def _by_file(found: Iterable[tuple[str, Result]]) -> list[dict[str, Any]]:
    return [{"file": file, **result.to_dict()} for file, result in found]
