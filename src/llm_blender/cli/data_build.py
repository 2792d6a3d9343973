"""``blend data build``: a data set in MixInstruct's format, from instructions and LLMs."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from llm_blender.cli._options import JsonOption
from llm_blender.cli._output import DEGRADED, note, print_json
from llm_blender.cli._progress import MaxCostOption, RestartOption, UnknownPricesOption, dollars, job_progress, stopping
from llm_blender.cli._rows import split_names
from llm_blender.cli.config import ConfigOption
from llm_blender.errors import InputError

if TYPE_CHECKING:
    from llm_blender.datasets import BuildObserver, Built

__all__ = ["build", "note_consistency"]

_RANGE = re.compile(r"(\d*)-(\d*)")


def build(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE…",
            help="Instructions: .jsonl, .json, .parquet (.gz, .zst), .txt with one a line, or a data set on the Hub as "
            "owner/name or owner/name:split.",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Where the rows go, in the format of its name; beside it FILE.job."
        ),
    ],
    config: ConfigOption = None,
    n: Annotated[
        int | None, typer.Option("-n", min=1, help="Instructions to draw.", show_default="all that pass")
    ] = None,
    prompt_tokens: Annotated[
        str, typer.Option(metavar="MIN-MAX", help="Only prompts of so many tokens; 5-127 in the paper.")
    ] = "",
    reference_tokens: Annotated[
        str, typer.Option(metavar="MIN-MAX", help="Only references of so many tokens; 11-127 in the paper.")
    ] = "",
    paper_lengths: Annotated[
        bool, typer.Option("--paper-lengths", help="Both as in the paper, unless they are given.")
    ] = False,
    tokenizer: Annotated[
        str, typer.Option(metavar="FILE", help="What counts tokens: the bundled ranker's, or a tokenizer.json.")
    ] = "bundled",
    exclude: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Leave out what asks the same as a row of this file. Repeatable."),
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            metavar="NAME=SHARE,…", help="Write several files, such as train=0.8,val=0.1,test=0.1; FILE holds {split}."
        ),
    ] = "",
    max_tokens: Annotated[
        int, typer.Option(min=1, help="Of an answer, where the configuration does not say it.")
    ] = 512,
    metrics: Annotated[
        str, typer.Option(metavar="A,B,…", help="Metrics of each candidate; none for none.")
    ] = "bleu,rouge1,rouge2,rougeL,rougeLsum,bertscore,bartscore,bleurt",
    judge: Annotated[
        str | None, typer.Option(metavar="NAME", help="The LLM of the configuration that compares all pairs.")
    ] = None,
    orders: Annotated[
        Literal["both", "one"], typer.Option(help="Of each pair: both, or the one that the seed draws.")
    ] = "both",
    check: Annotated[
        int, typer.Option(min=0, help="Pairs asked once more, to see whether the judge agrees with itself.")
    ] = 40,
    criteria: Annotated[str, typer.Option(metavar="TEXT", help="What makes an answer better, for the judge.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Of the draws, the splits and the LLMs.")] = 0,
    max_cost: MaxCostOption = None,
    allow_unpriced: UnknownPricesOption = False,
    drop_incomplete: Annotated[
        bool, typer.Option("--drop-incomplete", help="Leave out rows that lack an LLM's answer.")
    ] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out and count instructions that cannot be read.")
    ] = False,
    name: Annotated[str, typer.Option(metavar="TEXT", help="Of the data set, for the card.", show_default="FILE")] = "",
    licence: Annotated[
        str, typer.Option(metavar="TEXT", help="Of instructions whose rows do not say it, for the card.")
    ] = "",
    restart: RestartOption = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 3 if an answer, a metric or a judgement is missing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Ask every LLM of the configuration every instruction, measure and judge the answers, and write the rows.

    SOURCE holds instruction (or prompt, question, messages), and perhaps input, a reference (reference, output,
    response, answer), id and licence. What asks the same stands in the data once. An LLM with `samples = 0` writes
    nothing and may judge. A row is {id, instruction, input, output, candidates: [{decoding_method, model, text, scores,
    usage, seconds, cost}], cmp_results: {"A,B": outcome}, pairs}: with both orders, cmp_results holds "A,B" and "B,A".
    Beside each FILE comes its card FILE.md.

    What it will cost is said before anybody is asked; more than --max-cost is not begun. A price that is not known is
    an error, and never taken for zero. The work can be stopped at any moment and goes on with the same command:
    FILE.job holds what was done, and no answer is paid for twice. What failed is tried again then.

    JSON: {read, left_out: {reason: count}, instructions, missing: {llm: {answers, reason}}, dropped, metrics,
    unavailable: {metric: reason}, judge: {pairs, outcomes, unreadable, flip_rate, first_wins, rerun_rate, in_pool, …},
    unjudged, written: [{path, split, rows, candidates, judged, sha256, card}], cost, unpriced_calls, complete}.
    """
    from llm_blender.config import load_config
    from llm_blender.data import NO_LENGTHS, PAPER_LENGTHS, Lengths
    from llm_blender.datasets import BuildPlan, build_data, parse_split
    from llm_blender.rankers.llm_judge import CRITERIA

    base = PAPER_LENGTHS if paper_lengths else NO_LENGTHS
    plan = BuildPlan(
        sources=tuple(sources),
        out=out,
        n=n,
        lengths=Lengths(
            _range("--prompt-tokens", prompt_tokens) or base.prompt,
            _range("--reference-tokens", reference_tokens) or base.reference,
        ),
        tokenizer=tokenizer,
        exclude=tuple(exclude or ()),
        split=parse_split(split) if split else {},
        max_tokens=max_tokens,
        metrics=() if metrics == "none" else tuple(split_names(metrics)),
        judge=judge,
        orders=orders,
        criteria=criteria or CRITERIA,
        check=check,
        seed=seed,
        max_cost=max_cost,
        allow_unpriced=allow_unpriced,
        drop_incomplete=drop_incomplete,
        skip_bad=skip_bad,
        name=name,
        licence=licence,
    )
    with contextlib.ExitStack() as stack:
        built = build_data(plan, load_config(config), restart=restart, observer=_observer(stack))
    _remark(built)
    if as_json:
        print_json(built.to_dict())
    if strict and not built.complete:
        raise typer.Exit(DEGRADED)


def _range(option: str, value: str) -> tuple[int | None, int | None] | None:
    if not value:
        return None
    match = _RANGE.fullmatch(value.strip())
    if match is None or not (match[1] or match[2]):
        raise InputError(f"{option} is a range of tokens such as 5-127, 5- or -127, not {value!r}.")
    low, high = (int(end) if end else None for end in match.groups())
    if low is not None and high is not None and low > high:
        raise InputError(f"{option} ends below its start: {value}.")
    return low, high


def _observer(stack: contextlib.ExitStack) -> BuildObserver:
    from llm_blender.data import Chosen
    from llm_blender.datasets import BuildObserver, Estimate
    from llm_blender.jobs import OnRows

    class Observer(BuildObserver):
        """Says it on standard error; each kind of work has its own bar."""

        def chose(self, chosen: Chosen) -> None:
            left = ", ".join(f"{count:,} {reason}" for reason, count in chosen.left_out.items())
            note(f"{len(chosen.rows):,} instructions of {chosen.read:,}" + (f"; left out: {left}" if left else ""))
            if chosen.first_bad:
                note(f"the first bad one: {chosen.first_bad}")

        def estimated(self, estimates: Sequence[Estimate], spent: float) -> None:
            for estimate in estimates:
                if not estimate.calls and not estimate.recalled:
                    note(f"{estimate.what}: all are there")
                    continue
                recalled = f", {estimate.recalled:,} found in the store" if estimate.recalled else ""
                priced = f"about {dollars(estimate.cost, estimate.unpriced)}, at most ${estimate.most:.4f}"
                note(f"{estimate.what}: {estimate.calls:,} calls{recalled}, {estimate.tokens:,} tokens, {priced}")
            if spent:
                note(f"paid by earlier runs: ${spent:.4f}")

        def judges_itself(self, judge: str, names: Sequence[str]) -> None:
            note(f"warning: the judge {judge} is itself in the pool ({', '.join(names)}) and judges its own answers")

        def begins(self, what: str) -> OnRows | None:
            stack.close()  # the bar of what came before
            return stack.enter_context(job_progress(what, "rows" if what not in _CALLS else "calls"))

        def stopping(self, rows: int) -> None:
            stopping(rows)

    return Observer()


_CALLS = ("candidates", "judgements")


def _remark(built: Built) -> None:
    for name, (count, reason) in built.missing.items():
        note(f"{name}: {count:,} answers are missing, the first: {reason}; the same command tries them again")
    if built.dropped:
        note(f"{built.dropped:,} rows left out that lack an answer")
    for metric, reason in built.measured.unavailable.items():
        note(f"{metric} was not measured: {reason}")
    if built.consistency is not None:
        note_consistency(built)
    if built.unjudged:
        note(f"{built.unjudged:,} judgements failed; the same command tries them again")
    for file in built.written:
        note(f"{file.rows:,} rows with {file.candidates:,} candidates in {file.path}, and its card {file.card}")
    note(f"paid: {dollars(built.cost, built.unpriced)}")


def note_consistency(built: Built) -> None:
    """Say on standard error what the judge said, and how far it agrees with itself."""
    said = built.consistency
    if said is None:
        return
    outcomes = ", ".join(f"{outcome} {count:,}" for outcome, count in said.outcomes.items())
    note(f"judge {built.plan.judge}: {said.pairs:,} pairs, {said.replies:,} replies; {outcomes}")
    if said.flip_rate is not None:
        first = "" if said.first_wins is None else f"; the answer read first wins {said.first_wins:.1%} of the decided"
        note(
            f"the judgement changes with the order in {said.flip_rate:.1%} of {said.both_orders:,} pairs "
            f"({said.contradicted:,} contradictions){first}"
        )
    if said.rerun_rate is not None:
        note(f"the outcome changes when asked again in {said.rerun_rate:.1%} of {said.reruns:,} pairs")
    if said.unreadable:
        example = " ".join(said.example.split())[:80]
        note(f"{said.unreadable:,} replies held no outcome and are left out, such as {example!r}")
    if said.in_pool:
        note(f"the judge is itself in the pool: {', '.join(said.in_pool)}")
