"""``blend ask``: answer one prompt with several LLMs; and the ensemble that other commands load the same way."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_blender.cli._markdown import print_text, text_stream
from llm_blender.cli._options import (
    AskOptions,
    EnsembleOptions,
    JsonOption,
    LLMOptions,
    PlainOption,
    PriorsOption,
    StrategyOptions,
    StrictOption,
    with_options,
)
from llm_blender.cli._output import DEGRADED, note, print_json
from llm_blender.cli._prompts import code_block, read_prompt, require_schema
from llm_blender.cli._show import remark_on, show_answer
from llm_blender.cli.logs import ContinueOption, NoLogOption, keep_answer, last_conversation
from llm_blender.errors import InputError, NotFoundError

if TYPE_CHECKING:
    from llm_blender.cli._markdown import Stream
    from llm_blender.config import Config, EmbeddedConfig, LLMConfig
    from llm_blender.ensemble import Ensemble
    from llm_blender.record import Learned
    from llm_blender.types import Answer, Instruction, Message, Ranker


@with_options
def ask(
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", help="A text, @FILE, or - for standard input.", show_default=False),
    ] = None,
    *,
    options: AskOptions,
    pairs: StrategyOptions,
    priors: PriorsOption = None,
    files: Annotated[
        list[Path] | None,
        typer.Option("--file", "-f", metavar="FILE", help="Append this text file to the prompt. Repeatable."),
    ] = None,
    schema: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|JSON", help="Require JSON of this schema; only LLMs behind an API answer then (mode pick)."
        ),
    ] = None,
    extract: Annotated[
        bool, typer.Option("--extract", "-x", help="Print only the first fenced code block of the answer.")
    ] = False,
    go_on: ContinueOption = False,
    no_log: NoLogOption = False,
    plain: PlainOption = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print all candidates, with ranks, probabilities and what each took.")
    ] = False,
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """Query several LLMs, rank their answers in pairs, and print the best one or a fusion of the best ones.

    Piped text follows the prompt: `cat notes.txt | blend ask "Summarise this."`. Without a blend.toml, a small embedded
    model is sampled several times (best of n). Answers are stored, so repeating a prompt with the same seed costs
    nothing. A fused answer is printed only if the ranker prefers it to the best candidate. With --strict, the exit
    status is 3 if an LLM or the fuser failed.

    JSON: {text, mode, degraded, candidates: [{model, text, rank, score}], ranking: {best, ranks, scores, strategy,
    comparisons, lead, truncated?}, failures, usage, cost, seconds}, and, unless the mode is pick,
    fusion: {asked, returned, reason, answer, probability?, text?, fuser?, used?, …}; where `[ranker] priors` is "auto",
    priors: {used, rankings, missing}.
    """
    if extract and (as_json or show):
        raise InputError(f"-x prints code alone: leave out -x or {'--json' if as_json else '--show'}.")
    text = read_prompt(prompt, files or [])
    earlier, options = continued(options) if go_on else ([], options)
    messages: list[Message] = [*earlier, {"role": "user", "content": text}]
    from llm_blender.cli._rankers import judge_failures, note_failed_judge

    loaded, ensemble, learned = prepare(options, pairs, priors)
    form, members = (None, None) if schema is None else require_schema(ensemble, schema)
    stream = is_alone(ensemble) and ensemble.settings.mode == "pick" and not (as_json or show or extract or form)
    receiver = text_stream(plain=plain) if stream else None
    answer, stored = answer_prompt(
        ensemble, messages if earlier else text, seed=pairs.seed, form=form, members=members, stream=receiver
    )
    if not no_log:
        keep_answer(ensemble.store, messages, answer, options.system_text)
    remark_on(answer, sum(stored.values()), len(messages))
    note_failed_judge(judge_failures([answer.ranking]))
    if pairs.strategy is not None and not _compares_pairs(ensemble.ranker):
        note(f"--strategy {pairs.strategy} does nothing: the ranker {loaded.ranker.name} scores each answer alone")
    if as_json:
        print_json({**answer.to_dict(), **({} if learned is None else {"priors": learned.to_dict()})})
    elif show:
        show_answer(answer, stored, members or ensemble.members, plain=plain)
        if learned is not None and learned.missing:
            note(learned.message)
    elif extract:
        typer.echo(code_block(answer.text), nl=False)
    elif not stream:
        print_text(answer.text, plain=plain)
    if strict and answer.degraded:
        raise typer.Exit(DEGRADED)


def prepare(
    options: AskOptions, pairs: StrategyOptions, priors: Path | None
) -> tuple[Config, Ensemble, Learned | None]:
    """Load the configuration and its ensemble, learn its priors, and print what is to know of them and of the judge.

    Raises:
        InputError: an option has no effect.
    """
    from llm_blender.cli._rankers import note_judge, note_other_ranker, note_unknown
    from llm_blender.ranking import Priors

    loaded = _with_pairs(options.load_config(), pairs, priors)
    ensemble = load_ensemble(loaded, options)
    _check_effect(ensemble, options, pairs, priors)
    learned = learned_priors(ensemble)
    names = [member.llm.name for member in ensemble.members]
    if isinstance(ensemble.settings.priors, Priors):
        note_unknown(ensemble.settings.priors, names)
        note_other_ranker(ensemble.settings.priors, loaded.ranker.name)
    note_judge(ensemble.judge, names)
    return loaded, ensemble, learned


def continued(options: AskOptions) -> tuple[list[Message], AskOptions]:
    """Return the last conversation, and the options with its system message unless they have one.

    Raises:
        InputError: there is no conversation.
    """
    messages, system = last_conversation()
    if options.system is not None or system is None:
        return messages, options
    return messages, replace(options, system=f"@{system}" if system.startswith("@") else system)


def answer_prompt(
    ensemble: Ensemble, prompt: Instruction, *, stream: Stream | None = None, **options: Any
) -> tuple[Answer, dict[int, bool]]:
    """Answer a prompt, and show meanwhile how far it is, or the text itself.

    Args:
        ensemble: the ensemble.
        prompt: a text or a conversation.
        stream: receives the text of a lone LLM as it comes; None shows who has answered.
        options: of `Ensemble.ask`.

    Returns:
        The answer, and its calls with an answer: whether it comes from the store.
    """
    from llm_blender.cli._watch import Streamed, Watcher, watched

    observer: Watcher
    if stream is None:
        with watched() as observer:
            answer = ensemble.ask(prompt, observer=observer, **options)
    else:
        observer = streamed = Streamed(stream)
        try:
            answer = ensemble.ask(prompt, observer=observer, **options)
            streamed.finish(answer.text)
        finally:
            streamed.close()
    return answer, observer.stored


def _with_pairs(config: Config, pairs: StrategyOptions, priors: Path | None) -> Config:
    """Return the configuration with the options of a ranking in place of its values."""
    settings = pairs.settings(config.ranker)
    changes = {key: settings[key] for key in ("strategy", "budget")}
    if priors is not None:  # relative to this folder, not to the configuration's
        changes["priors"] = str(priors.absolute())
    return config.model_copy(update={"ranker": config.ranker.model_copy(update=changes)})


def _check_effect(ensemble: Ensemble, options: AskOptions, pairs: StrategyOptions, priors: Path | None) -> None:
    """Refuse options of a ranking where a single answer leaves nothing to rank, and a budget that limits nothing."""
    given = {"--ranker": options.ranker, "--strategy": pairs.strategy, "--budget": pairs.budget, "--priors": priors}
    names = [name for name, value in given.items() if value is not None]
    if names and is_alone(ensemble):
        raise InputError(
            f"{' and '.join(names)} {'do' if len(names) > 1 else 'does'} nothing with one answer: add another LLM, or "
            "-n 2 for two answers of this one."
        )
    if pairs.budget is not None and ensemble.settings.strategy not in ("auto", "active"):
        raise InputError(f"--budget does nothing with the strategy {ensemble.settings.strategy}: only auto and active.")


def is_alone(ensemble: Ensemble) -> bool:
    """Return whether one LLM gives one answer, which needs no ranking."""
    return sum(member.samples for member in ensemble.members) == 1


def _compares_pairs(ranker: Ranker) -> bool:
    from llm_blender.ranking import PairwiseRanker

    return isinstance(ranker, PairwiseRanker)


def learned_priors(ensemble: Ensemble) -> Learned | None:
    """Learn the priors ``auto`` of an ensemble, and print a line if they count; None if it has other priors."""
    from llm_blender.config import AUTO

    if ensemble.settings.priors != AUTO:
        return None
    learned = ensemble.learn()
    if learned.usable is not None:
        note(learned.message)
    return learned


def load_ensemble(config: Config, options: LLMOptions | None = None, *, max_cost: float | None = None) -> Ensemble:
    """Load the ensemble of a configuration, and download the embedded models that it lacks.

    The options choose LLMs, configured or embedded, and samples of each. Without any LLM, the embedded default answers.
    With a limit of the cost, of each prompt or of a job (`max_cost`), LLMs that may be free only by default are named.
    """
    from llm_blender.config import EmbeddedConfig
    from llm_blender.ensemble import DEFAULT_SAMPLES, Ensemble, fuser_name
    from llm_blender.fusers import base_model

    options = options or LLMOptions()
    if isinstance(options, EnsembleOptions) and options.fuser is not None and config.ensemble.mode == "pick":
        raise InputError(f"--fuser {options.fuser} does nothing in the mode pick: add --mode fuse or --mode auto.")
    names = options.llm or []
    configured = {entry.name: entry for entry in config.llm}
    chosen = choose_llms(config, names)
    if not chosen and not config.llm:
        from llm_blender.llms.models import DEFAULT_MODEL

        chosen = [EmbeddedConfig(name=DEFAULT_MODEL, model=DEFAULT_MODEL, provider="embedded", samples=DEFAULT_SAMPLES)]
        _explain(DEFAULT_MODEL)
    entries = chosen or list(config.llm)
    entries = [options.apply(entry) for entry in entries]
    fuser = fuser_name(config.model_copy(update={"llm": tuple(entries)}))
    chat, _, fusing = fuser.partition(":")
    if chat == "chat" and fusing in configured and fusing not in names and names:
        entries.append(configured[fusing].model_copy(update={"samples": 0}))  # it fuses, and writes no candidate
    judge = (config.ranker.judge or "").removeprefix("judge:")
    if judge in configured and judge not in [entry.name for entry in entries]:
        entries.append(configured[judge].model_copy(update={"samples": 0}))
    if max_cost is not None or config.limits.max_cost is not None:
        note_free(entries)
    models = [entry.model for entry in entries if isinstance(entry, EmbeddedConfig)]
    if (base := base_model(fuser)) is not None:
        models.append(base)
    for model in dict.fromkeys(models):
        fetch_model(model)
    return Ensemble.from_config(config.model_copy(update={"llm": tuple(entries)}))


def note_free(entries: Iterable[LLMConfig]) -> None:
    """Print the names of LLMs that count as free and may not be."""
    from llm_blender.llms.providers import may_be_billed

    for entry in filter(may_be_billed, entries):
        note(f"{entry.name} counts as free, as it is on this machine: if it is a proxy to a cloud, give it a `price`")


def choose_llms(config: Config, names: Sequence[str]) -> list[LLMConfig]:
    """Return the LLMs of these names: of the configuration, ``PROVIDER:MODEL``, a URL with a model, or embedded.

    Raises:
        NotFoundError: there is none of that name.
        InputError: the provider is unknown.
    """
    from llm_blender.llms.providers import llm_by_name

    configured = {entry.name: entry for entry in config.llm}
    return [configured.get(name) or llm_by_name(name) or _embedded(name, configured) for name in names]


def _embedded(name: str, configured: Collection[str]) -> EmbeddedConfig:
    from llm_blender.config import CONFIG_NAME, EmbeddedConfig
    from llm_blender.errors import unknown_name
    from llm_blender.llms.models import CATALOGUE, resolve
    from llm_blender.llms.providers import unknown_provider

    try:
        resolve(name)
    except NotFoundError as error:
        if (wrong := unknown_provider(name)) is not None:
            raise wrong from None
        known = [*configured, *(model.name for model in CATALOGUE)]
        unknown = unknown_name("LLM", name, known) if configured else error
        raise NotFoundError(
            f"{unknown} An LLM behind an API is an [[llm]] with `base_url` in {CONFIG_NAME}, or PROVIDER:MODEL, such "
            f"as ollama:llama3.2."
        ) from None
    return EmbeddedConfig(name=name, model=name, provider="embedded")


def fetch_model(model: str) -> Path:
    """Return the file of an embedded model, downloaded if missing."""
    from llm_blender.cli._progress import progress
    from llm_blender.llms.models import pull, resolve

    if (path := resolve(model)) is not None:
        return path
    with progress(f"downloading {model}", "bytes") as report:
        return pull(model, report)


def _explain(model: str) -> None:
    """Print that the embedded model answers, and how better ones become the members."""
    import asyncio

    from llm_blender._hub import offline
    from llm_blender.llms.local_servers import find_local_servers

    servers = [] if offline() else asyncio.run(find_local_servers())
    better = "run Ollama or llama.cpp, or export an API key, then"
    if servers:
        better = f"{servers[0].kind} runs here and knows {', '.join(servers[0].models[:5])}:"
    note(
        f"No LLM is configured: {model} answers, a demonstration model, too small to calculate, translate or write"
        f" verse. For better answers {better} blend init"
    )
