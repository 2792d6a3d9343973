"""``blend train calibrate``: how much a ranker's evidence and the candidates' consensus count."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llm_blender.cli._options import BackendOption, DeviceOption, JsonOption, PrecisionOption
from llm_blender.cli._output import note, print_json
from llm_blender.cli._progress import progress
from llm_blender.errors import InputError

__all__ = ["calibrate"]


def calibrate(
    checkpoint: Annotated[Path, typer.Argument(metavar="DIR", help="A PairRanker's folder, whose config is changed.")],
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="Judged rows that it was not trained on.")],
    score: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Take all pairs of a row that differ in this score; of a file without it, the labelled pairs.",
        ),
    ] = None,
    models: Annotated[str, typer.Option(metavar="A,B,…", help="Only these LLMs' candidates.")] = "",
    comparisons: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep the comparisons in this file and make none twice.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    backend: BackendOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = "int8",
    as_json: JsonOption = False,
) -> None:
    """Fit a PairRanker's temperature and what the candidates' consensus counts, and write them to its config.json.

    P(a is better) = sigmoid((model * logit + consensus * difference of consensus) / temperature), with the numbers that
    make the judges' preferences likeliest: the temperature as if there were no other candidates, then the two weights;
    every FILE and score counts alike. Use rows like those that will be ranked, with as many candidates.

    JSON: {temperature, weights: {consensus, model}, ci95, pairs, log_loss, log_loss_without}; `ci95` is the interval of
    the consensus' weight.
    """
    import dataclasses

    import numpy as np

    from llm_blender.bench import RecordedRanker, implied_pairs, labelled_pairs, ranker_evidence, scored_rows
    from llm_blender.data import read_rows
    from llm_blender.rankers.checkpoints import read_config
    from llm_blender.rankers.pair_ranker import PairRanker, PairRankerConfig
    from llm_blender.rankers.published import is_published
    from llm_blender.ranking import EvidenceWeights, fit_evidence
    from llm_blender.types import Ranker

    if is_published(read_config(checkpoint)):
        raise InputError(f"{checkpoint} has llm-blender 0.0.2's layout: make it one of ours with `blend export` first.")
    names = [name for name in (part.strip() for part in models.split(",")) if name]
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
    loaded = PairRanker.from_pretrained(checkpoint, backend=backend, device=device, precision=precision, consensus=0)
    ranker: Ranker = loaded if comparisons is None else RecordedRanker(loaded, comparisons, str(checkpoint))
    evidence = []
    for part in judged:
        with progress(part.file, "comparisons") as report:
            evidence.append(ranker_evidence(part, ranker, str(checkpoint), progress=report).logits)
    fit = fit_evidence(
        evidence,
        [np.array(part.consensus) for part in judged],
        [np.array(part.a_wins, np.float64) for part in judged],
        [np.array(part.groups) for part in judged],
        seed=seed,
    )
    config = PairRankerConfig.load(checkpoint)
    weights = EvidenceWeights(round(fit.weights.consensus, 4), round(fit.weights.model, 4))
    dataclasses.replace(config, temperature=round(fit.temperature, 4), evidence_weights=weights).save(checkpoint)
    if as_json:
        print_json(dataclasses.asdict(fit))
        return
    low, high = fit.ci95
    typer.echo(
        f"temperature {fit.temperature:.3f}; beside a consensus of weight {weights.consensus:.2f} ({low:.2f} to "
        f"{high:.2f}) the model counts {weights.model:.2f}"
    )
    note(
        f"{fit.pairs:,} pairs; log loss {fit.log_loss:.4f}, without consensus {fit.log_loss_without:.4f}; "
        f"the numbers are in {checkpoint / 'config.json'}"
    )
