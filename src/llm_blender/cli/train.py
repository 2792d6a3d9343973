"""``blend train``: train rankers and fusers on rows, and calibrate rankers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_blender.cli._options import (
    BackendOptions,
    ComparisonsOption,
    JsonOption,
    ModelsOption,
    SeedOption,
    TrainingOptions,
    cached_ranker,
    split_names,
    with_options,
)
from llm_blender.cli._output import note, print_json, print_table
from llm_blender.cli._progress import progress
from llm_blender.cli.train_fuser import check_sources, fuser
from llm_blender.errors import InputError, MissingExtraError, NotFoundError, unknown_name

if TYPE_CHECKING:
    from llm_blender.training.recipes import Recipe


@dataclasses.dataclass(frozen=True)
class VotesOptions:
    """Options of training on votes."""

    votes: Annotated[
        Path | None,
        typer.Option(
            "--votes",
            metavar="FILE|DB",
            help="Train on votes: rows with labelled pairs, or the store of `blend serve`. A fifth of the instructions "
            "is held out, to compare the new ranker with the current one.",
        ),
    ] = None
    replace: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="With --votes: replace the current ranker in this folder if the new one is better.",
        ),
    ] = None
    blind_only: Annotated[
        bool, typer.Option("--blind-only", help="With --votes: leave out votes of people who saw names or ranks.")
    ] = False


def train_on(
    options: VotesOptions,
    output: Path,
    refused: Sequence[str],
    *,
    init: str | None,
    exclude: Sequence[Path],
    epochs: int | None,
    seed: int,
    as_json: bool,
) -> None:
    """Train a ranker on votes, compare it with the current one, and replace that one if the new one is better.

    Args:
        options: votes and current ranker.
        output: folder of the checkpoint.
        refused: names of given options that have no meaning with votes.
        init: ranker to start from; None for the bundled one.
        exclude: test files; votes on their instructions are not learnt from.
        epochs: passes over the votes; None for a default that suits few votes.
        seed: of everything drawn.
        as_json: print JSON.
    """
    from llm_blender.rankers.checkpoints import BUNDLED
    from llm_blender.training.votes import (
        count_votes,
        evaluate_on_votes,
        evaluation_section,
        read_votes,
        replace_ranker,
        replaceable,
        split_votes,
        train_on_votes,
    )

    if options.votes is None:
        if options.blind_only:
            raise InputError("--blind-only needs --votes: give the votes.")
        raise InputError("--replace needs --votes: give the votes.")
    if refused:
        raise InputError(f"--votes names the data, and --init the first weights: leave out {', '.join(refused)}.")
    init = init or BUNDLED
    folder = None if options.replace is None else replaceable(options.replace, output)
    votes = split_votes(read_votes(options.votes, blind_only=options.blind_only), seed)
    learnt = count_votes(votes.learnt)
    fitted = count_votes(votes.fitted)
    note("Learning from {votes:,} votes on {instructions:,} instructions.".format(**learnt))
    if votes.fitted:
        note("Temperature and evidence are fitted to {votes:,} others, on {instructions:,}.".format(**fitted))
    with progress("training", "steps") as report:
        train_on_votes(votes, output, init=init, epochs=epochs, seed=seed, exclude=exclude, progress=report, note=note)
    note(f"The checkpoint is in {output}.")
    with progress("comparing", "comparisons") as report:
        evaluation = evaluate_on_votes(votes.held_out, output, folder or init, seed=seed, progress=report)
    with (output / "README.md").open("a", encoding="utf-8") as card:
        card.write(f"\n{evaluation_section(evaluation)}")
    kept = replace_ranker(output, folder) if folder is not None and evaluation.better else None
    note(evaluation.reason)
    if kept is not None:
        note(f"It replaces {options.replace}, for a service from its next start; the former ranker is in {kept}.")
    elif folder is not None:
        note(f"{options.replace} stays as it is.")
    if as_json:
        result: dict[str, Any] = {
            "output": str(output),
            "init": init,
            "current": options.replace or init,
            "learnt": learnt,
            "fitted": fitted,
            "held_out": evaluation.to_dict(),
            "better": evaluation.better,
            "reason": evaluation.reason,
            "replaced": None if kept is None else options.replace,
            "former": None if kept is None else str(kept),
        }
        print_json(result)
        return
    typer.echo(f"on {evaluation.votes:,} votes that were held out, on {evaluation.instructions:,} instructions (95 %)")
    new, current = evaluation.new, evaluation.current
    typer.echo(f"agreement {new.agreement}, before {current.agreement}; difference {evaluation.agreement_gain}")
    typer.echo(f"log loss {new.log_loss}, before {current.log_loss}; difference {evaluation.log_loss_change}")


@with_options
def calibrate(
    checkpoint: Annotated[Path, typer.Argument(metavar="DIR", help="PairRanker's folder; its config.json is changed.")],
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="Judged rows that it was not trained on.")],
    *,
    score: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Take all pairs of a row that differ in this score; in a file without it, the labelled pairs.",
        ),
    ] = None,
    models: ModelsOption = "",
    comparisons: ComparisonsOption = None,
    seed: SeedOption = 0,
    backend: BackendOptions,
    as_json: JsonOption = False,
) -> None:
    """Fit a PairRanker's temperature and the weights of its evidence, and write them to its config.json.

    P(a is better) = sigmoid(evidence / temperature), with the weights that make the judges' preferences likeliest, for
    prompts with two candidates, with several, and with several that agree on final answers; a kind of prompt that no
    FILE has keeps its weights. All instructions of a FILE and score have the same weight, at most fifty of them.
    Use rows like those that will be ranked, with as many candidates. The table shows what each part of the evidence
    is worth: how much the log loss rises without it, in thousandths of a nat.

    JSON: {temperature, weights: {two, several, agreeing: {model, consensus, agreement, form, length}}, situations: {…:
    {pairs, log_loss, without, ci95}}}.
    """
    from llm_blender.bench import evidence_table, implied_pairs, labelled_pairs, ranker_predictions, scored_rows
    from llm_blender.data import read_rows
    from llm_blender.rankers.checkpoints import read_config
    from llm_blender.rankers.pair_ranker import PairRanker, PairRankerConfig
    from llm_blender.rankers.published import is_published
    from llm_blender.training.calibration import calibrate as fit_calibration

    if not checkpoint.is_dir():
        raise NotFoundError(f"There is no folder {checkpoint}; `blend train ranker` makes one, a ranker of your own.")
    if is_published(read_config(checkpoint)):
        raise InputError(f"{checkpoint} has llm-blender 0.0.2's layout: convert it with `blend export` first.")
    names = split_names(models)
    if names and not score:
        raise InputError("--models chooses among scores: name one with --score.")
    judged, unseen = [], set(names)
    for file in files:
        rows = list(read_rows(file))
        candidates = [candidate for row in rows for candidate in row.candidates]
        scored = {name for candidate in candidates for name in candidate.scores}
        here = [name for name in names if name in {candidate.model for candidate in candidates}]
        unseen -= set(here)
        if not score or (not scored & set(score) and any(row.pairs for row in rows)):
            judged.append(labelled_pairs(file, rows))
        elif here or not names:
            judged += [implied_pairs(file, scored_rows(rows, name, here)) for name in score if name in scored]
    if unseen:
        raise InputError(f"No file holds candidates of {', '.join(sorted(unseen))}: look at the spelling.")
    if not judged:
        raise InputError(f"No file holds a score named {' or '.join(score or [])}.")
    loaded = PairRanker.from_pretrained(checkpoint, evidence=False, **dataclasses.asdict(backend))
    ranker = cached_ranker(loaded, str(checkpoint), comparisons)
    evidence = []
    for part in judged:
        with progress(part.file, "comparisons") as report:
            evidence.append(part.features(ranker_predictions(part, ranker, str(checkpoint), progress=report).logits))
    config, fit = fit_calibration(PairRankerConfig.load(checkpoint), evidence, seed=seed)
    config.save(checkpoint)
    if as_json:
        print_json(fit.to_dict())
        return
    typer.echo(f"temperature {fit.temperature:.3f}")
    table = evidence_table(fit)
    print_table(table.columns, table.rows)
    note(f"the numbers are in {checkpoint / 'config.json'}")


app = typer.Typer(name="train", no_args_is_help=True, help="Train rankers and fusers.", rich_markup_mode=None)
app.command()(calibrate)
app.command()(fuser)


@app.callback()
def _train() -> None:
    """Train rankers and fusers."""


@app.command()
@with_options
def ranker(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE…]", help="Rows to train on, without a --recipe.")
    ] = None,
    *,
    output: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Write the checkpoint to this folder.")
    ] = Path("ranker"),
    kind: Annotated[
        str | None,
        typer.Option(
            "--ranker",
            metavar="NAME",
            help="Train a pair_ranker, or a baseline: summa_reranker, simcls, reward_model, mlm_scoring "
            "[default: the recipe's, or pair_ranker].",
        ),
    ] = None,
    score: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Derive pairs of FILE from this score [default: all].")
    ] = None,
    pairs: Annotated[
        str, typer.Option(help="Take pairs of FILE: implied (by scores), labelled, or auto (by what it holds).")
    ] = "auto",
    max_groups: Annotated[
        int | None, typer.Option(min=1, help="Draw N groups of candidates from each FILE [default: 2000].")
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            metavar="RANKER",
            help="Train on from this PairRanker, with its own structure: bundled, a folder, a Hub name [default: "
            "bundled, unless there is a --backbone or a --recipe].",
        ),
    ] = None,
    hold_out: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=0.9,
            help="Measure on this share of FILE's instructions, and do not learn from them, without --dev "
            "[default: 0.2].",
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(min=0, help="Set the peak learning rate [default: the recipe's; 2e-5 with --init]."),
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(min=32, help="Set the tokens of a sequence, a third of them at most for the instruction."),
    ] = None,
    options: TrainingOptions,
    votes: VotesOptions,
    as_json: JsonOption = False,
) -> None:
    """Train a PairRanker, or a baseline; an interrupted run with the same output resumes.

    With --votes, the new ranker is compared with the current one (that of --replace, else that of --init) on held-out
    votes. It is better if its log loss is lower, with the whole 95 % interval of the difference below zero, and it
    agrees with no fewer votes; only then it replaces the folder, and the former one is kept as DIR.1, DIR.2, …

    FILE holds rows {prompt, chosen, rejected}, rows with candidates and labelled pairs, or rows whose candidates have
    scores. Without a recipe, a PairRanker is trained on from the bundled one; some hundred pairs take minutes on two
    cores. A fifth of the instructions is held out to measure before and after, and the better of the two is kept.

    JSON: {output, pairs, steps, seconds, temperature, dev: {pairs, agreement, agreement_low, agreement_high, longest,
    flip_rate, ece, brier, log_loss}, before: {… the same, gain, gain_low, gain_high}, kept_first, int8, remarks,
    pushed}; a baseline has no flip_rate, and int8 and before are empty. With --votes: {output, init, current, learnt:
    {instructions, votes}, fitted: {instructions, votes}, held_out: {instructions, votes, current: {agreement: {value,
    ci95}, log_loss: {value, ci95}}, new: {…}, agreement_gain: {value, ci95}, log_loss_change: {value, ci95}}, better,
    reason, replaced, former}.
    """
    try:
        from llm_blender.training.processes import is_main_process
        from llm_blender.training.recipes import RANKERS
        from llm_blender.training.run import train_ranker
    except ModuleNotFoundError as error:
        raise MissingExtraError("Training", "train") from error
    from transformers.utils import logging

    exclude, epochs, seed = options.exclude or [], options.epochs, options.seed
    if votes != VotesOptions():
        others: dict[str, Any] = {
            "FILE": files,
            "--ranker": kind,
            "--recipe": options.recipe,
            "--data": options.data != Path(),
            "--dev": options.dev,
        }
        others |= {"--score": score, "--max-groups": max_groups, "--backbone": options.backbone}
        others |= {"--accumulate": options.accumulate, "--hold-out": hold_out, "--learning-rate": learning_rate}
        others |= {"--max-length": max_length, "--licence": options.licence, "--push-to-hub": options.push_to_hub}
        refused = [name for name, value in others.items() if value]
        train_on(votes, output, refused, init=init, exclude=exclude, epochs=epochs, seed=seed or 0, as_json=as_json)
        return
    if kind is not None and kind not in RANKERS:
        raise unknown_name("ranker", kind, RANKERS)
    changes: dict[str, Any] = {"epochs": epochs, "accumulate": options.accumulate, "seed": seed, "ranker": kind}
    changes |= {"init": init, "hold_out": hold_out, "learning_rate": learning_rate, "max_length": max_length}
    if max_length is not None:
        changes["source_max_length"] = max(8, min(128, max_length // 3))
    plan = _plan(files or [], options, score or [], pairs, max_groups, changes)
    options.check_push()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # loading weights takes a moment
    with progress("training", "steps", show=is_main_process()) as report:
        run = train_ranker(
            plan,
            options.data,
            options.dev_folder,
            output,
            exclude=exclude,
            backbone=options.backbone,
            progress=report,
            note=note,
        )
    if not is_main_process():
        return
    note(f"The checkpoint is in {output}, its model card in {output / 'README.md'}.")
    for remark in run.remarks:
        note(f"remark: {remark}")
    quality = run.quality
    result: dict[str, Any] = {
        "output": str(output),
        "pairs": sum(count.pairs for count in run.sources),
        "steps": run.steps,
        "seconds": round(run.seconds, 1),
        "temperature": quality.temperature,
        "dev": quality.dev,
        "before": quality.before,
        "kept_first": quality.kept_first,
        "int8": quality.int8,
        "remarks": run.remarks,
        "pushed": options.push(output),
    }
    if as_json:
        print_json(result)
    elif dev := quality.dev:
        interval = f"95 %: {dev['agreement_low']:.3f} to {dev['agreement_high']:.3f}"
        before = f"; before training {quality.before['agreement']:.3f}" if quality.before else ""
        agreement = f"agreement on pairs held out {dev['agreement']:.3f} ({interval})"
        typer.echo(f"{agreement}{before}; longest answer {dev['longest']:.3f}")


def _plan(
    files: list[Path],
    options: TrainingOptions,
    scores: list[str],
    pairs: str,
    max_groups: int | None,
    changes: dict[str, Any],
) -> Recipe:
    from llm_blender.rankers.checkpoints import BUNDLED
    from llm_blender.training.fitting import recipe_for
    from llm_blender.training.recipes import Recipe, Source

    if changes["init"] and (options.backbone or (changes["ranker"] or "pair_ranker") != "pair_ranker"):
        raise InputError(
            "--init trains a PairRanker on; --backbone, or another --ranker, begins with an encoder: give one of them."
        )
    check_sources(files, options, bool(scores) or max_groups is not None, "--score, --max-groups")
    if options.recipe is not None:
        recipe = Recipe.load(options.recipe)
        given = {name: value for name, value in changes.items() if value is not None}
        return Recipe.parse(recipe.model_dump(exclude_unset=True) | given, str(options.recipe))
    if pairs not in ("auto", "implied", "labelled"):
        raise InputError(f"--pairs is auto, implied or labelled, not {pairs!r}.")
    settings: dict[str, Any] = {"pairs": pairs, "scores": tuple(scores), "licence": options.licence}
    if max_groups is not None:
        settings["max_groups"] = max_groups
    paths = [*files, *([options.dev_file] if options.dev_file else [])]
    sources = tuple(Source(file=str(path.absolute()), **settings) for path in paths)
    if not options.backbone and changes["ranker"] in (None, "pair_ranker"):
        changes = changes | {"init": changes["init"] or BUNDLED}
    return recipe_for(sources[: len(files)], sources[len(files) :], changes)
