"""``blend data build``: build a data set in MixInstruct's format from instructions and LLMs."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from llm_blender.cli._options import (
    ConfigOption,
    DatasetOptions,
    JobOptions,
    RequiredOutputOptions,
    StrictOption,
    split_names,
    with_options,
)
from llm_blender.cli._output import DEGRADED, counted, note, print_json
from llm_blender.cli._progress import dollars, job_progress, stopping
from llm_blender.cli._rows import keep_input
from llm_blender.errors import InputError

if TYPE_CHECKING:
    from llm_blender.datasets import BuildObserver, Built, Consistency

_RANGE = re.compile(r"(\d*)-(\d*)")


@dataclass(frozen=True)
class JudgeOptions:
    """The LLM that compares all pairs, and how."""

    judge: Annotated[
        str | None, typer.Option(metavar="NAME", help="Judge all pairs with this LLM of the configuration.")
    ] = None
    orders: Annotated[
        Literal["both", "one"], typer.Option(help="Judge each pair in both orders, or in one that the seed draws.")
    ] = "both"
    check: Annotated[
        int, typer.Option(min=0, help="Judge N pairs a second time, to measure whether the judge agrees with itself.")
    ] = 40
    criteria: Annotated[str, typer.Option(metavar="TEXT", help="Tell the judge what makes an answer better.")] = ""


@with_options
def build(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE…",
            help="Instructions: .jsonl, .json, .csv, .parquet, .txt with one a line, a folder or a pattern of files, "
            "or a data set on the Hub as owner/name or owner/name:split.",
        ),
    ],
    *,
    config: ConfigOption = None,
    n: Annotated[
        int | None, typer.Option("-n", metavar="N", min=1, help="Draw N instructions.", show_default="all that pass")
    ] = None,
    prompt_tokens: Annotated[
        str, typer.Option(metavar="MIN-MAX", help="Keep prompts of this length; 5-127 in the paper.")
    ] = "",
    reference_tokens: Annotated[
        str, typer.Option(metavar="MIN-MAX", help="Keep references of this length; 11-127 in the paper.")
    ] = "",
    paper_lengths: Annotated[
        bool, typer.Option("--paper-lengths", help="Take both lengths from the paper, unless given.")
    ] = False,
    tokenizer: Annotated[
        str, typer.Option(metavar="FILE", help="Count tokens with the bundled ranker's, or with a tokenizer.json.")
    ] = "bundled",
    max_tokens: Annotated[
        int, typer.Option(min=1, help="Limit an answer's tokens, where the configuration does not.")
    ] = 512,
    metrics: Annotated[
        str, typer.Option(metavar="A,B,…", help="Score each candidate with these metrics; none computes none.")
    ] = "bleu,rouge1,rouge2,rougeL,rougeLsum,bertscore,bartscore,bleurt",
    judge: JudgeOptions,
    options: DatasetOptions,
    limits: JobOptions,
    drop_incomplete: Annotated[
        bool, typer.Option("--drop-incomplete", help="Leave out rows that lack an LLM's answer.")
    ] = False,
    strict: StrictOption = False,
    output: RequiredOutputOptions,
) -> None:
    """Query every LLM of the configuration with every instruction, measure and judge the answers, and write the rows.

    SOURCE holds instruction (or prompt, question, messages), and optionally input, a reference (reference, output,
    response, answer), id and licence. Each prompt is used once. An LLM with `samples = 0` writes nothing and may judge.
    A row is {id, instruction, input, output, candidates: [{decoding_method, model, text, scores, usage, seconds,
    cost}], cmp_results: {"A,B": outcome}, pairs}: with both orders, cmp_results holds "A,B" and "B,A". Each FILE gets a
    card FILE.md.

    The cost is estimated before the first call; a run estimated above --max-cost does not start. An unknown price is an
    error, and never taken for zero. The work can be interrupted at any time, and the same command resumes it: FILE.job
    holds what was done, no answer is paid for twice, and failures are retried. With --strict, the exit status is 3 if
    an answer, a metric or a judgement is missing.

    JSON: {read, left_out: {reason: count}, instructions, missing: {llm: {answers, reason}}, dropped, metrics,
    unavailable: {metric: reason}, judge: {pairs, outcomes, unreadable, flip_rate, first_wins, rerun_rate, in_pool, …},
    unjudged, written: [{path, split, rows, candidates, judged, sha256, card}], cost, unpriced_calls, complete}.
    """
    from llm_blender.cli.ask import note_free
    from llm_blender.config import load_config
    from llm_blender.data import NO_LENGTHS, PAPER_LENGTHS, Lengths
    from llm_blender.datasets import BuildPlan, build_data
    from llm_blender.rankers.llm_judge import CRITERIA

    keep_input(sources, output.out)
    base = PAPER_LENGTHS if paper_lengths else NO_LENGTHS
    plan = BuildPlan(
        sources=tuple(sources),
        out=output.out,
        n=n,
        lengths=Lengths(
            _range("--prompt-tokens", prompt_tokens) or base.prompt,
            _range("--reference-tokens", reference_tokens) or base.reference,
        ),
        tokenizer=tokenizer,
        max_tokens=max_tokens,
        metrics=() if metrics == "none" else tuple(split_names(metrics)),
        **(asdict(judge) | {"criteria": judge.criteria or CRITERIA}),
        max_cost=limits.max_cost,
        allow_unpriced=limits.allow_unpriced,
        drop_incomplete=drop_incomplete,
        **options.settings(),
    )
    loaded = load_config(config)
    if limits.max_cost is not None:
        note_free(loaded.llm)
    with contextlib.ExitStack() as stack:
        built = build_data(plan, loaded, restart=limits.restart, observer=_observer(stack))
    _remark(built)
    if output.as_json:
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
        """Prints the progress of a build to standard error, with a bar for each kind of work."""

        def chose(self, chosen: Chosen) -> None:
            left = ", ".join(f"{count:,} {reason}" for reason, count in chosen.left_out.items())
            note(f"{len(chosen.rows):,} instructions of {chosen.read:,}" + (f"; left out: {left}" if left else ""))
            if chosen.first_bad:
                note(f"the first bad one: {chosen.first_bad}")

        def estimated(self, estimates: Sequence[Estimate], spent: float) -> None:
            for estimate in estimates:
                if not estimate.calls and not estimate.recalled:
                    note(f"{estimate.what}: all are done")
                    continue
                recalled = f", {estimate.recalled:,} found in the store" if estimate.recalled else ""
                priced = f"about {dollars(estimate.cost, estimate.unpriced)}, at most ${estimate.most:.4f}"
                calls, tokens = counted(estimate.calls, "calls"), counted(estimate.tokens, "tokens")
                note(f"{estimate.what}: {calls}{recalled}, {tokens}, {priced}")
            if spent:
                note(f"paid by earlier runs: ${spent:.4f}")

        def judges_itself(self, judge: str, names: Sequence[str]) -> None:
            note(f"warning: the judge {judge} is itself in the pool ({', '.join(names)}) and judges its own answers")

        def begins(self, what: str) -> OnRows | None:
            stack.close()  # close the bar of the previous work
            return stack.enter_context(job_progress(what, "calls" if what in ("candidates", "judgements") else "rows"))

        def stopping(self, rows: int) -> None:
            stopping(rows)

    return Observer()


def _remark(built: Built) -> None:
    for name, (count, reason) in built.missing.items():
        note(f"{name}: {counted(count, 'answers')} missing, the first: {reason}; the same command tries again")
    if built.dropped:
        note(f"{counted(built.dropped, 'rows')} without an LLM's answer left out")
    for metric, reason in built.measured.unavailable.items():
        note(f"{metric} was not measured: {reason}")
    if built.consistency is not None:
        _note_consistency(built.plan.judge or "", built.consistency)
    if built.unjudged:
        note(f"{counted(built.unjudged, 'judgements')} failed; the same command tries again")
    for file in built.written:
        candidates = counted(file.candidates, "candidates")
        note(f"{counted(file.rows, 'rows')} with {candidates} in {file.path}, and its card {file.card}")
    note(f"paid: {dollars(built.cost, built.unpriced)}")


def _note_consistency(judge: str, consistency: Consistency) -> None:
    """Print the judge's outcomes and its agreement with itself to standard error."""
    outcomes = ", ".join(f"{outcome} {count:,}" for outcome, count in consistency.outcomes.items()) or "no outcome"
    note(f"judge {judge}: {consistency.pairs:,} pairs, {consistency.replies:,} replies; {outcomes}")
    if consistency.flip_rate is not None:
        share = consistency.first_wins
        first = "" if share is None else f"; the first answer wins {share:.1%} of the decided ones"
        note(
            f"the judgement changes with the order in {consistency.flip_rate:.1%} of {consistency.both_orders:,} pairs "
            f"({consistency.contradicted:,} contradictions){first}"
        )
    if consistency.rerun_rate is not None:
        note(f"a second judgement differs in {consistency.rerun_rate:.1%} of {consistency.reruns:,} pairs")
    if consistency.unreadable:
        example = " ".join(consistency.example.split())[:80]
        note(f"{consistency.unreadable:,} replies held no outcome and are left out, such as {example!r}")
    if consistency.in_pool:
        note(f"the judge is itself in the pool: {', '.join(consistency.in_pool)}")
