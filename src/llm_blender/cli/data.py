"""``blend data``: build, import and check data sets, and make preferences of rows."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from llm_blender.cli._options import (
    BackendOptions,
    ConfigOption,
    JsonOption,
    OutputOptions,
    RankerOption,
    StrategyOptions,
    with_options,
)
from llm_blender.cli._output import counted, note, print_json, print_table
from llm_blender.cli._progress import progress
from llm_blender.cli._rows import RankSummary, RowOptions, keep_input, rank_rows, ranking_by, remark
from llm_blender.cli.data_build import build
from llm_blender.cli.data_import import import_data
from llm_blender.errors import InputError

if TYPE_CHECKING:
    from llm_blender.data import Preferences, RowsReport
    from llm_blender.errors import RowError
    from llm_blender.stages import RankableRow
    from llm_blender.types import OnProgress, Ranking

_SHOWN = 10


def check(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="Rows, prompts or preferences; or a data set on the Hub: llm-blender/mix-instruct."
        ),
    ],
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Read this split of a data set on the Hub: train, val or test.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check all rows of a file: report malformed rows, count what the others hold, and for which commands they serve.

    A row holds candidates in MixInstruct's format, a prompt alone (for `run`), or a preference (chosen and rejected,
    for `data import`). `cmp_results` may be an object or a JSON text. Rows without a candidate of some LLM, without a
    reference or without judgements are counted, and so are repeated prompts. Memory does not grow with the texts. The
    exit status is 2 if a row is malformed, or there is none.

    JSON: {rows, bad, first_bad, duplicates, models: {llm: candidates}, incomplete, without_reference, judged, pairs,
    outcomes, scores: {metric: candidates}, candidates, serves: {commands: rows}}.
    """
    from llm_blender.data import read_any_rows, report_rows

    bad: list[RowError] = []
    report = report_rows(read_any_rows(file, split, on_bad=bad.append), bad)
    for error in bad[:_SHOWN]:
        note(str(error))
    if len(bad) > _SHOWN:
        note(f"and {len(bad) - _SHOWN:,} more malformed rows")
    if not report.rows and not bad:
        raise InputError(f"{file} holds no row.")
    if as_json:
        print_json(report.to_dict())
    else:
        _print(report)
    if bad:
        raise InputError(f"{len(bad):,} of {len(bad) + report.rows:,} rows of {file} are malformed.")


def _print(report: RowsReport) -> None:
    counts = {
        "rows": report.rows,
        "repeating an earlier prompt": report.duplicates,
        "lacking an LLM's candidate": report.incomplete,
        "without a reference": report.without_reference,
        "judged": report.judged,
        "judged ordered pairs": report.pairs,
        **report.outcomes,
        "candidates": report.candidates,
        **{f"candidates by {model or 'an unnamed LLM'}": count for model, count in report.models.items()},
        **{f"candidates with {score}": count for score, count in report.scores.items()},
        **{f"rows for {commands}": count for commands, count in report.serves.items()},
    }
    print_table(("what", "count"), [(what, f"{count:,}") for what, count in counts.items()])


app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Build, import and check data; make preferences.")
app.command()(build)
app.command("import")(import_data)
app.command()(check)


@dataclass
class PreferenceSummary(RankSummary):
    """Counts of a file made into preferences.

    Attributes:
        records: preferences written.
        dropped: pairs without a record, by reason.
        cut_off: preferences whose chosen answer was cut off at its maximum of tokens.
    """

    records: int = 0
    cut_off: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    def count(self, made: Preferences) -> None:
        """Count the preferences of a row."""
        self.records += len(made.records)
        self.cut_off += made.cut_off
        for reason in made.dropped:
            self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def headline(self) -> str:
        """Summarise records, rows and work in one line."""
        without = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.dropped.items()))
        return (
            f"{counted(self.records, 'preferences')} from {counted(self.rows, 'rows')} with "
            f"{counted(self.comparisons, 'comparisons')} in "
            f"{self.seconds:.1f} s" + (f"; none: {without}" if without else "")
        )


@app.command()
@with_options
def preferences(
    *,
    source: RowOptions,
    pairs: Annotated[
        Literal["best_worst", "best_second", "best_random", "all"],
        typer.Option(help="Choose which candidates are chosen and rejected."),
    ] = "best_worst",
    min_confidence: Annotated[
        float, typer.Option(min=0.5, max=1, metavar="P", help="Require this probability that the chosen one is better.")
    ] = 0.5,
    format: Annotated[
        Literal["conversational", "standard"],
        typer.Option(help="Write messages, for a chat template; or plain texts, concatenated in training."),
    ] = "conversational",
    whole: Annotated[
        bool, typer.Option("--whole", help="Leave out pairs whose chosen answer was cut off at max_tokens.")
    ] = False,
    use_ranking: Annotated[
        bool, typer.Option("--use-ranking", help="Compare nothing: take the `ranking` that the rows hold.")
    ] = False,
    ranker: RankerOption = None,
    config: ConfigOption = None,
    backend: BackendOptions,
    options: StrategyOptions,
    output: OutputOptions,
) -> None:
    """Make preference data (prompt, chosen, rejected) for DPO and reward models from the rows of FILE.

    Rows are those of `blend rank`. The candidates are ranked, the ranks choose the pair, and it is compared directly in
    both orders unless the strategy has done so. A record is {prompt, chosen, rejected, margin, probability,
    chosen_model, rejected_model, id}: margin is the logit of the direct comparison, probability that the chosen one
    is better. With --pairs all, the strategy auto is full. With --use-ranking, margin is the difference of the scores
    in the row, and probability null.

    No record is made where a row has a `single` candidate or `equal` ones, where the pair is a `tie`, where its direct
    comparison `contradicted` the ranks or left the ranker `unsure` (below --min-confidence), or with --whole where the
    chosen answer was `cut_off` (its `finish_reason` in the row); these are counted. The whole file is checked before
    the work begins; OUT is written whole or not at all.

    JSON, unless the records go to standard output: {rows, skipped, comparisons, seconds, truncated, records, cut_off,
    dropped: {reason: count}}.
    """
    from llm_blender.config import load_config
    from llm_blender.data import RowWriter, choose_pairs, compare_chosen, make_preferences, stored_ranking

    if use_ranking and min_confidence > 0.5:
        raise InputError("--min-confidence needs comparisons, which --use-ranking leaves out: choose one of them.")
    if use_ranking and source.models:
        raise InputError("A stored ranking is one of all candidates: leave out --models, or --use-ranking.")
    if use_ranking and (ranker or options.strategy or options.budget):
        raise InputError("--use-ranking compares nothing: leave out --ranker, --strategy and --budget.")
    if use_ranking and backend.given:
        raise InputError(f"--use-ranking compares nothing: leave out {' and '.join(backend.given)}.")
    keep_input([source.file], output.out)
    configured = load_config(config).ranker
    settings = options.settings(configured)
    if pairs == "all" and settings["strategy"] == "auto":
        settings["strategy"] = "full"  # all pairs are compared anyway
    summary, started = PreferenceSummary(), time.monotonic()
    with source.open(stored_ranking if use_ranking else None) as rows:
        summary.skipped = len(rows.bad)
        model = None if use_ranking else backend.load(ranker or configured.name, configured)
        rank = _stored if model is None else ranking_by(model, settings)
        with RowWriter(output.out) as writer, progress("ranking", "rows", show=output.show_progress) as report:
            for chunk, rankings in rank_rows(rows, rank, report):
                texts = [row.texts for row in chunk]
                chosen = [choose_pairs(*given, pairs, seed=options.seed) for given in zip(texts, rankings, strict=True)]
                if model is not None:
                    rankings = compare_chosen(model, [row.prompt for row in chunk], texts, rankings, chosen)
                for row, ranking, its in zip(chunk, rankings, chosen, strict=True):
                    made = make_preferences(
                        row.example, ranking, its, min_confidence=min_confidence, format=format, whole=whole
                    )
                    for record in made.records:
                        writer.write(record.to_dict())
                    summary.count(made)
                summary.add(rankings)
        summary.seconds = round(time.monotonic() - started, 3)
    remark(summary, rows.bad)
    if summary.cut_off:
        note(f"{counted(summary.cut_off, 'chosen answers')} cut off at max_tokens; --whole leaves them out")
    output.print_summary(asdict(summary))


def _stored(rows: list[RankableRow], progress: OnProgress) -> list[Ranking]:
    from llm_blender.data import stored_ranking

    return [stored_ranking(row.example) for row in rows]
